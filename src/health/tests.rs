//! The monitor over a farm that does as each test says.

use core::time::Duration;
use std::sync::Arc;

use super::*;
use crate::affinity::{Keys, Secret};
use crate::balance::Board;
use crate::config::Config;
use crate::limits::{EJECTION_MAX, EJECTION_MIN, HEALTH_TICK};
use crate::metrics::HealthMetrics;
use crate::net::{PoolIndex, ServerIndex};
use crate::route::{Health, OperatorState, Plan, ServerRegistry, Standing, server_id};
use crate::time::Instant;

const SETTINGS: &str = "interval = 1.0\ntimeout = 0.5\nrise = 2\nfall = 3";

/// A farm, its monitor, and servers that answer probes or not.
struct Lab {
    config: Config,
    keys: Arc<Keys>,
    registry: ServerRegistry,
    standing: Standing,
    plan: Plan,
    board: Board,
    metrics: Arc<HealthMetrics>,
    monitor: Monitor,
    now: Instant,
    /// What each server answers probes with; `None` = nothing.
    answers: Vec<Option<u16>>,
    log: Vec<Change>,
}

impl Lab {
    fn new(servers: u16, settings: &str) -> Self {
        Self::with(&text(servers, settings), servers)
    }

    fn with(text: &str, servers: u16) -> Self {
        let config = Config::parse(text).unwrap();
        let secret = Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap();
        let keys = Arc::new(Keys::new(&secret));
        let mut registry = ServerRegistry::new();
        let plan = Plan::build(&config, &mut registry, &keys).unwrap();
        let metrics = Arc::new(HealthMetrics::new());
        Self {
            config,
            keys,
            registry,
            standing: Standing::new(),
            plan,
            board: Board::new(),
            monitor: Monitor::new(metrics.clone()),
            metrics,
            now: Instant::ZERO + Duration::from_secs(1000),
            answers: vec![Some(200); servers.into()],
            log: Vec::new(),
        }
    }

    /// As the process does it at each change and at a reload.
    fn publish(&mut self) {
        let (config, keys) = (&self.config, &self.keys);
        self.plan = Plan::build_standing(config, &mut self.registry, keys, &self.standing).unwrap();
    }

    fn reload(&mut self, text: &str) {
        self.config = Config::parse(text).unwrap();
        self.standing.settle(&self.config);
        self.publish();
    }

    fn tick(&mut self) {
        self.now += HEALTH_TICK;
        let changes = self.monitor.tick(self.now, &self.board, &self.plan);
        for change in &changes {
            change.apply(&mut self.standing);
        }
        self.log.extend(&changes);
        if !changes.is_empty() {
            self.publish();
            let again = self.monitor.tick(self.now, &self.board, &self.plan);
            assert_eq!(again, [], "the plan has what was asked for");
        }
        self.check_share();
    }

    /// Never more servers are out for their traffic than the pool allows.
    fn check_share(&self) {
        for (pool, index) in self.plan.pools().iter().zip(0..) {
            let Some(health) = &pool.health else { continue };
            let members = || {
                let servers = self.plan.servers().iter();
                servers.filter(move |of| of.pool == Some(PoolIndex(index)) && of.is_enabled())
            };
            let ejected = members().filter(|server| server.ejected).count();
            let share = health.max_ejected_percent as usize;
            assert!(ejected * 100 <= members().count() * share, "{ejected}");
        }
    }

    /// Sends a probe to every server and has it answered.
    fn probe(&mut self) {
        for (server, answer) in self.answers.iter().enumerate() {
            let server = slot(server);
            let serial = self.board.probe(server).sent + 1;
            self.board.probe_sent(server, serial, self.now);
            if let Some(status) = answer {
                self.board.probe_answered(server, serial, *status, self.now);
            }
        }
    }

    /// So many seconds with a probe in each.
    fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.probe();
            for _ in 0..10 {
                self.tick();
            }
        }
    }

    /// So many ticks without probes.
    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.tick();
        }
    }

    fn answered(&self, server: usize, status: u16, count: usize) {
        for _ in 0..count {
            self.board.note_answer(slot(server), status, self.now);
        }
    }

    fn health(&self, server: usize) -> Health {
        self.plan.server(slot(server)).unwrap().health
    }

    fn causes(&mut self, server: usize) -> Vec<(Health, Cause)> {
        let of = |change: &Change| change.server == slot(server);
        let log = std::mem::take(&mut self.log);
        log.iter()
            .filter(|change| of(change))
            .map(|change| (change.to, change.cause))
            .collect()
    }
}

fn slot(server: usize) -> ServerIndex {
    ServerIndex(server.try_into().unwrap())
}

fn text(servers: u16, settings: &str) -> String {
    let servers: String = (0..servers)
        .map(|n| {
            let (third, last) = (n / 200, n % 200 + 1);
            format!("{{ name = \"s{n}\", address = \"198.18.{third}.{last}:5060\" }},\n")
        })
        .collect();
    format!(
        "[[listeners]]\nname = \"clients\"\naddress = \"198.18.250.1:5060\"\n\
         [[pools]]\nname = \"farm\"\nservers = [{servers}]\n[pools.health]\n{settings}\n"
    )
}

#[test]
fn the_third_silent_probe_takes_a_server_out_and_the_second_answer_brings_it_back() {
    let mut lab = Lab::new(3, SETTINGS);
    lab.seconds(5);
    assert!(lab.log.is_empty());
    lab.answers[1] = None;
    lab.seconds(2);
    assert_eq!(lab.health(1), Health::Active);
    lab.probe();
    // The timeout is half a second: five ticks.
    lab.ticks(4);
    assert_eq!(lab.health(1), Health::Active);
    lab.ticks(1);
    assert_eq!(lab.causes(1), [(Health::Down, Cause::ProbesFailed)]);
    lab.ticks(5);
    lab.answers[1] = Some(200);
    lab.seconds(1);
    assert_eq!(lab.causes(1), [(Health::Probing, Cause::ProbesAnswered)]);
    assert!(!lab.plan.server(slot(1)).unwrap().takes_calls());
    lab.seconds(1);
    assert_eq!(lab.causes(1), [(Health::Active, Cause::ProbesAnswered)]);
    let returned = lab.plan.server(slot(1)).unwrap().returned_at.unwrap();
    assert!(lab.now.since(returned) < Duration::from_secs(1));
    assert_eq!(lab.plan.server(slot(0)).unwrap().returned_at, None);
    let metrics = lab.metrics.server(slot(1));
    assert_eq!(metrics.probes_failed.value(), 3);
    assert_eq!(
        metrics.transitions.each_ref().map(|of| of.value()),
        [1, 1, 1]
    );
}

#[test]
fn a_success_between_failures_starts_the_count_again() {
    let mut lab = Lab::new(3, SETTINGS);
    for _ in 0..5 {
        lab.answers[0] = None;
        lab.seconds(2);
        lab.answers[0] = Some(200);
        lab.seconds(1);
    }
    assert!(lab.log.is_empty());
    // And a failure between successes sends it back.
    lab.answers[0] = None;
    lab.seconds(3);
    lab.answers[0] = Some(200);
    lab.seconds(1);
    lab.answers[0] = None;
    lab.seconds(1);
    lab.answers[0] = Some(200);
    lab.seconds(1);
    let probing = (Health::Probing, Cause::ProbesAnswered);
    let down = (Health::Down, Cause::ProbesFailed);
    assert_eq!(lab.causes(0), [down, probing, down, probing]);
}

#[test]
fn answers_are_accepted_as_configured() {
    let mut any = Lab::new(2, SETTINGS);
    any.answers = vec![Some(405), Some(503)];
    any.seconds(4);
    assert_eq!(
        [any.health(0), any.health(1)],
        [Health::Active, Health::Down]
    );
    let mut listed = Lab::new(2, &format!("{SETTINGS}\ncodes = [200, 503]"));
    listed.answers = vec![Some(405), Some(503)];
    listed.seconds(4);
    assert_eq!(
        [listed.health(0), listed.health(1)],
        [Health::Down, Health::Active]
    );
}

#[test]
fn an_answer_after_its_time_and_probes_that_were_overtaken_count_as_failed() {
    let mut lab = Lab::new(1, SETTINGS);
    let s0 = slot(0);
    lab.tick();
    for serial in 1..=3 {
        lab.board.probe_sent(s0, serial, lab.now);
        lab.ticks(6);
        lab.board.probe_answered(s0, serial, 200, lab.now);
        lab.tick();
    }
    assert_eq!(lab.causes(0), [(Health::Down, Cause::ProbesFailed)]);
    let mut lab = Lab::new(1, SETTINGS);
    lab.tick();
    // The monitor was kept from looking for a while.
    lab.board.probe_sent(s0, 4, lab.now);
    lab.tick();
    assert_eq!(lab.causes(0), [(Health::Down, Cause::ProbesFailed)]);
}

#[test]
fn all_servers_that_probes_call_down_leave_no_server() {
    let mut lab = Lab::new(3, SETTINGS);
    lab.answers = vec![None; 3];
    lab.seconds(4);
    let pool = lab.plan.pool(PoolIndex(0)).unwrap();
    assert!(!pool.is_up() && !pool.in_panic);
    lab.answers[2] = Some(200);
    lab.seconds(2);
    assert!(lab.plan.pool(PoolIndex(0)).unwrap().is_up());
}

#[test]
fn one_unreachable_message_is_enough_but_not_after_an_answer() {
    let mut lab = Lab::new(3, SETTINGS);
    lab.tick();
    lab.board.note_unreachable(slot(0));
    lab.answered(0, 200, 1);
    lab.tick();
    assert!(lab.log.is_empty());
    lab.board.note_unreachable(slot(0));
    lab.tick();
    assert_eq!(lab.causes(0), [(Health::Down, Cause::Unreachable)]);
    assert!(lab.plan.server(slot(0)).unwrap().is_down());
    let metrics = lab.metrics.server(slot(0));
    assert_eq!(
        metrics.ejections.each_ref().map(|of| of.value()),
        [1, 0, 0, 0]
    );
}

#[test]
fn silence_takes_a_server_out_at_the_fifth_and_is_forgiven_at_its_return() {
    let mut lab = Lab::new(3, "interval = 0");
    lab.tick();
    for _ in 0..4 {
        lab.board.note_timeout(slot(2));
    }
    lab.tick();
    assert!(lab.log.is_empty());
    lab.board.note_timeout(slot(2));
    lab.tick();
    assert_eq!(lab.causes(2), [(Health::Down, Cause::Silent)]);
    // Without probes its time brings it back, and no answer has come since.
    lab.ticks(99);
    assert_eq!(lab.health(2), Health::Down);
    lab.ticks(1);
    assert_eq!(lab.causes(2), [(Health::Active, Cause::TimeOver)]);
    lab.ticks(100);
    for _ in 0..4 {
        lab.board.note_timeout(slot(2));
    }
    lab.tick();
    assert_eq!(lab.health(2), Health::Active);
    lab.board.note_timeout(slot(2));
    lab.tick();
    assert_eq!(lab.health(2), Health::Down);
}

#[test]
fn a_server_that_fails_more_than_others_goes_and_not_on_a_few_calls() {
    let mut lab = Lab::new(3, SETTINGS);
    lab.tick();
    lab.answered(0, 200, 100);
    lab.answered(1, 200, 100);
    lab.answered(2, 500, 19);
    lab.tick();
    assert!(lab.log.is_empty());
    lab.answered(2, 503, 1);
    lab.tick();
    assert_eq!(lab.causes(2), [(Health::Down, Cause::Errors)]);
}

/// A carrier's 503 relayed by every server: the farm is not at fault and stays whole.
#[test]
fn a_carriers_503_relayed_by_every_server_does_not_empty_the_farm() {
    let mut lab = Lab::new(4, SETTINGS);
    for second in 0..120 {
        for server in 0..4 {
            // 70 % on the whole, never the same at all servers.
            lab.answered(server, 503, 70 + (second + server * 3) % 9);
            lab.answered(server, 200, 30);
        }
        lab.seconds(1);
    }
    assert!(lab.log.is_empty(), "{:?}", lab.log);
    // With a Retry-After in it, which asks in the name of all servers.
    for server in 0..4 {
        let until = lab.now + Duration::from_secs(3600);
        lab.board.note_retry_after(slot(server), until);
    }
    lab.seconds(5);
    assert!(lab.log.is_empty(), "{:?}", lab.log);
}

/// The same where the servers are asked one after the other: each asks while others do not yet.
#[test]
fn a_retry_after_that_goes_round_takes_half_the_farm_at_most() {
    let mut lab = Lab::new(4, SETTINGS);
    lab.tick();
    for server in 0..4 {
        let until = lab.now + Duration::from_secs(3600);
        lab.board.note_retry_after(slot(server), until);
        lab.tick();
    }
    let down = (0..4).filter(|server| lab.health(*server) == Health::Down);
    assert_eq!(down.collect::<Vec<_>>(), [0, 1]);
    assert!(lab.plan.pool(PoolIndex(0)).unwrap().is_up());
    // No longer than is believed, whatever it says.
    lab.seconds(EJECTION_MAX.as_secs() + 1);
    assert_eq!(
        lab.causes(0).last(),
        Some(&(Health::Active, Cause::ProbesAnswered))
    );
}

#[test]
fn a_server_is_left_alone_for_as_long_as_it_asks() {
    let mut lab = Lab::new(3, SETTINGS);
    lab.tick();
    let until = lab.now + Duration::from_secs(30);
    lab.board.note_retry_after(slot(1), until);
    lab.seconds(29);
    assert_eq!(lab.causes(1), [(Health::Down, Cause::RetryAfter)]);
    lab.seconds(2);
    assert_eq!(lab.health(1), Health::Active);
    lab.seconds(60);
    assert_eq!(lab.causes(1), [(Health::Active, Cause::ProbesAnswered)]);
}

#[test]
fn no_more_than_the_share_goes_and_an_only_server_never() {
    for (servers, share, most) in [(1, 50, 0), (2, 50, 1), (3, 50, 1), (4, 50, 2), (10, 33, 3)] {
        let settings = format!("{SETTINGS}\nmax_ejected_percent = {share}\npanic_percent = 0");
        let mut lab = Lab::new(servers, &settings);
        lab.tick();
        for server in 0..servers {
            lab.board.note_unreachable(slot(server.into()));
        }
        lab.tick();
        let down = (0..servers).filter(|server| lab.health((*server).into()) == Health::Down);
        assert_eq!(down.count(), most, "{servers} servers");
    }
}

#[test]
fn a_pool_that_shrinks_takes_back_what_is_too_much() {
    let mut lab = Lab::new(4, SETTINGS);
    lab.tick();
    for server in [0, 1] {
        lab.board.note_unreachable(slot(server));
        lab.tick();
    }
    lab.log.clear();
    lab.standing.update(server_id("s3"), |server| {
        server.operator = OperatorState::Draining;
    });
    lab.publish();
    // Three are left, of which one may be out: the one that went first comes back.
    lab.now += HEALTH_TICK;
    for change in lab.monitor.tick(lab.now, &lab.board, &lab.plan) {
        change.apply(&mut lab.standing);
        lab.log.push(change);
    }
    lab.publish();
    lab.check_share();
    assert_eq!(lab.causes(0), [(Health::Active, Cause::TooMany)]);
    assert_eq!(lab.health(1), Health::Down);
}

#[test]
fn too_few_left_and_those_out_for_their_traffic_count_as_up() {
    let mut lab = Lab::new(4, SETTINGS);
    lab.answers[0] = None;
    lab.seconds(4);
    assert_eq!(lab.health(0), Health::Down);
    lab.board.note_unreachable(slot(1));
    lab.tick();
    // Two of four are half of them: no panic yet.
    assert!(!lab.plan.pool(PoolIndex(0)).unwrap().in_panic);
    assert!(!lab.plan.server(slot(1)).unwrap().takes_calls());
    lab.board.note_unreachable(slot(2));
    lab.tick();
    assert!(lab.plan.pool(PoolIndex(0)).unwrap().in_panic);
    let takes_calls = |server| lab.plan.server(slot(server)).unwrap().takes_calls();
    assert_eq!([0, 1, 2, 3].map(takes_calls), [false, true, true, true]);
    assert!(!lab.plan.server(slot(1)).unwrap().is_down());
    assert_eq!(lab.health(1), Health::Down);
}

#[test]
fn probes_that_fail_while_it_is_out_make_it_down_in_earnest() {
    let mut lab = Lab::new(2, SETTINGS);
    lab.seconds(1);
    lab.board.note_unreachable(slot(0));
    lab.answers[0] = None;
    lab.tick();
    assert!(lab.plan.server(slot(0)).unwrap().ejected);
    lab.seconds(3);
    let server = lab.plan.server(slot(0)).unwrap();
    assert_eq!((server.health, server.ejected), (Health::Down, false));
    // Which leaves room for the other to go, and no panic for the first.
    lab.board.note_unreachable(slot(1));
    lab.tick();
    let takes_calls = |server| lab.plan.server(slot(server)).unwrap().takes_calls();
    assert_eq!([0, 1].map(takes_calls), [false, true]);
    assert_eq!(lab.health(1), Health::Down);
}

#[test]
fn a_server_that_flaps_stays_out_for_longer_each_time() {
    let mut lab = Lab::new(3, SETTINGS);
    lab.seconds(1);
    let mut out = Vec::new();
    for _ in 0..8 {
        lab.board.note_unreachable(slot(0));
        lab.tick();
        let since = lab.now;
        while lab.health(0) != Health::Active {
            lab.seconds(1);
        }
        out.push(lab.now.since(since).as_secs());
        lab.answered(0, 200, 1);
        lab.seconds(5);
    }
    assert_eq!(out, [10, 20, 40, 80, 160, 300, 300, 300]);
    // A long time of good service, and it is all forgotten.
    lab.seconds(600);
    lab.board.note_unreachable(slot(0));
    lab.tick();
    let since = lab.now;
    while lab.health(0) != Health::Active {
        lab.seconds(1);
    }
    assert_eq!(lab.now.since(since), EJECTION_MIN);
}

#[test]
fn probes_bring_a_flapping_server_back_later_each_time() {
    let mut lab = Lab::new(3, SETTINGS);
    let mut out = Vec::new();
    for _ in 0..4 {
        lab.answers[0] = None;
        while lab.health(0) == Health::Active {
            lab.seconds(1);
        }
        let since = lab.now;
        lab.answers[0] = Some(200);
        while lab.health(0) != Health::Active {
            lab.seconds(1);
        }
        out.push(lab.now.since(since).as_secs());
        lab.seconds(5);
    }
    assert_eq!(out, [2, 10, 20, 40]);
}

#[test]
fn what_is_known_survives_a_reload_and_a_removed_server_is_forgotten() {
    let mut lab = Lab::new(3, SETTINGS);
    lab.answers[1] = None;
    lab.seconds(4);
    lab.board.note_unreachable(slot(2));
    lab.tick();
    lab.log.clear();
    lab.reload(&text(4, SETTINGS));
    let now = |lab: &Lab| [0, 1, 2, 3].map(|server| lab.health(server));
    let (active, down) = (Health::Active, Health::Down);
    assert_eq!(now(&lab), [active, down, down, active]);
    lab.answers.push(Some(200));
    lab.seconds(1);
    assert_eq!(now(&lab), [active, down, down, active]);
    assert!(lab.log.is_empty());
    // Removed and there again: a new server for all that is known.
    lab.reload(&text(1, SETTINGS));
    lab.seconds(1);
    lab.reload(&text(3, SETTINGS));
    lab.answers.truncate(3);
    lab.tick();
    assert_eq!([lab.health(1), lab.health(2)], [active, active]);
}

#[test]
fn without_the_table_nobody_looks_and_all_are_up() {
    let mut lab = Lab::new(2, SETTINGS);
    lab.answers[0] = None;
    lab.seconds(4);
    assert_eq!(lab.health(0), Health::Down);
    let without = text(2, "").replace("[pools.health]", "");
    lab.reload(&without);
    lab.tick();
    assert_eq!(
        lab.causes(0).last(),
        Some(&(Health::Active, Cause::Unwatched))
    );
    lab.board.note_unreachable(slot(0));
    lab.seconds(10);
    assert_eq!(lab.health(0), Health::Active);
}

#[test]
fn a_disabled_server_is_not_looked_at() {
    let mut lab = Lab::new(3, SETTINGS);
    lab.seconds(1);
    let set = |lab: &mut Lab, state| {
        lab.standing
            .update(server_id("s1"), |of| of.operator = state);
        lab.publish();
    };
    set(&mut lab, OperatorState::Disabled);
    lab.answers[1] = None;
    lab.board.note_unreachable(slot(1));
    lab.seconds(10);
    assert!(lab.log.is_empty());
    set(&mut lab, OperatorState::Enabled);
    lab.answers[1] = Some(200);
    lab.seconds(3);
    assert!(lab.log.is_empty(), "what happened meanwhile does not count");
    assert!(lab.plan.server(slot(1)).unwrap().takes_calls());
    // A draining one is looked at.
    set(&mut lab, OperatorState::Draining);
    lab.answers[1] = None;
    lab.seconds(3);
    assert_eq!(lab.causes(1), [(Health::Down, Cause::ProbesFailed)]);
}

mod anything {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Event {
        Unreachable(u16),
        Timeouts(u16, u32),
        Answers(u16, u16, usize),
        RetryAfter(u16, u64),
        Probes(u16, Option<u16>),
        Operator(u16, u8),
        Seconds(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        let server = || 0..8_u16;
        prop_oneof![
            server().prop_map(Event::Unreachable),
            (server(), 1..8_u32).prop_map(|(server, count)| Event::Timeouts(server, count)),
            (
                server(),
                prop_oneof![Just(200), Just(500), Just(503)],
                1..60_usize
            )
                .prop_map(|(server, status, count)| Event::Answers(server, status, count)),
            (server(), 1..400_u64).prop_map(|(server, after)| Event::RetryAfter(server, after)),
            (
                server(),
                prop_oneof![Just(None), Just(Some(200)), Just(Some(503))]
            )
                .prop_map(|(server, answer)| Event::Probes(server, answer)),
            (server(), 0..3_u8).prop_map(|(server, state)| Event::Operator(server, state)),
            (1..20_u64).prop_map(Event::Seconds),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever happens: never more servers out for their traffic than the pool allows (which
        /// each tick checks), an enabled server that is active takes calls, and when all is well
        /// again all come back.
        #[test]
        fn the_share_is_kept_and_all_come_back(
            servers in 1..9_u16,
            share in 0..101_u32,
            events in prop::collection::vec(event(), 1..60),
        ) {
            let settings = format!("{SETTINGS}\nmax_ejected_percent = {share}");
            let mut lab = Lab::new(servers, &settings);
            lab.seconds(1);
            for event in events {
                match event {
                    Event::Unreachable(of) => lab.board.note_unreachable(ServerIndex(of % servers)),
                    Event::Timeouts(of, count) => {
                        for _ in 0..count {
                            lab.board.note_timeout(ServerIndex(of % servers));
                        }
                    }
                    Event::Answers(of, status, count) => {
                        lab.answered((of % servers).into(), status, count);
                    }
                    Event::RetryAfter(of, after) => {
                        let until = lab.now + Duration::from_secs(after);
                        lab.board.note_retry_after(ServerIndex(of % servers), until);
                    }
                    Event::Probes(of, answer) => lab.answers[usize::from(of % servers)] = answer,
                    Event::Operator(of, state) => {
                        let state = [
                            OperatorState::Enabled,
                            OperatorState::Draining,
                            OperatorState::Disabled,
                        ][usize::from(state)];
                        let id = server_id(&format!("s{}", of % servers));
                        lab.standing.update(id, |server| server.operator = state);
                        lab.now += HEALTH_TICK;
                        lab.publish();
                        for change in lab.monitor.tick(lab.now, &lab.board, &lab.plan) {
                            change.apply(&mut lab.standing);
                        }
                        lab.publish();
                    }
                    Event::Seconds(seconds) => lab.seconds(seconds),
                }
                lab.tick();
                for server in lab.plan.servers() {
                    let up = server.health == Health::Active;
                    prop_assert!(!(up && server.is_enabled()) || server.takes_calls());
                }
            }
            for server in 0..servers {
                lab.standing.update(server_id(&format!("s{server}")), |server| {
                    server.operator = OperatorState::Enabled;
                });
                lab.answers[usize::from(server)] = Some(200);
                lab.answered(server.into(), 200, 1);
            }
            lab.publish();
            // The longest Retry-After, and the longest time out after it.
            lab.seconds(400 + 2 * EJECTION_MAX.as_secs());
            for server in lab.plan.servers() {
                prop_assert_eq!(server.health, Health::Active);
            }
        }
    }
}
