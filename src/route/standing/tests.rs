//! Standings by themselves and the plans that are built with them.

use std::sync::Arc;

use super::*;
use crate::affinity::{Keys, Secret};
use crate::balance::{AffinityKey, Moves};
use crate::net::{PoolIndex, ServerIndex};
use crate::route::{Plan, ServerRegistry, ServerState};

const FARM: &str = r#"
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    [[pools]]
    name = "farm"
    servers = [
        { name = "s1", address = "198.18.1.11:5060" },
        { name = "s2", address = "198.18.1.12:5060", weight = 3 },
        { name = "s3", address = "198.18.1.13:5060" },
        { name = "spare", address = "198.18.1.14:5060", priority = 1 },
    ]
"#;

type Change = fn(&mut ServerStanding);

const DOWN: Change = |of| of.health = Health::Down;
const PROBING: Change = |of| of.health = Health::Probing;
const DRAINING: Change = |of| of.operator = OperatorState::Draining;
const DISABLED: Change = |of| of.operator = OperatorState::Disabled;

fn standing(changes: &[(&str, Change)]) -> Standing {
    let mut standing = Standing::new();
    for (name, change) in changes {
        standing.update(server_id(name), change);
    }
    standing
}

fn build(text: &str, registry: &mut ServerRegistry, standing: &Standing) -> Plan {
    let config = Config::parse(text).unwrap();
    let keys = Arc::new(Keys::new(
        &Secret::from_bytes(*b"0123456789abcdefghijklmnopqrstuv").unwrap(),
    ));
    Plan::build_standing(&config, registry, &keys, standing).unwrap()
}

fn build_new(standing: &Standing) -> Plan {
    build(FARM, &mut ServerRegistry::new(), standing)
}

fn state_of(plan: &Plan, name: &str) -> (ServerState, bool, bool) {
    let server = plan.server_by_id(server_id(name)).unwrap();
    (server.state, server.takes_calls(), server.is_down())
}

fn names(standing: &Standing, config: &Config) -> Vec<String> {
    let members = standing.members(&config.pools[0]);
    members.map(|server| server.name.clone()).collect()
}

/// A server that is not in the file.
fn another(name: &str) -> config::Server {
    let text = FARM.replace("s3", name).replace(".13:", ".19:");
    Config::parse(&text).unwrap().pools[0].servers[2].clone()
}

#[test]
fn what_is_as_usual_takes_no_place() {
    let mut standing = standing(&[("s1", DOWN)]);
    let id = server_id("s1");
    assert_eq!(standing.of(id).health, Health::Down);
    assert_eq!(standing.of(server_id("s2")), ServerStanding::default());
    standing.update(id, |server| server.health = Health::Active);
    assert_eq!(standing, Standing::new());
}

#[test]
fn added_and_removed_servers_last_until_the_file_says_the_same() {
    let config = Config::parse(FARM).unwrap();
    let mut standing = Standing::new();
    standing.add("farm", another("s4"));
    standing.remove("s2");
    standing.settle(&config);
    assert_eq!(names(&standing, &config), ["s1", "s3", "spare", "s4"]);
    // The file now has s4, and s2 no more.
    let agreed = Config::parse(&FARM.replace("s2", "s4")).unwrap();
    standing.settle(&agreed);
    assert_eq!(standing, Standing::new());
    assert_eq!(names(&standing, &agreed), ["s1", "s4", "s3", "spare"]);
}

#[test]
fn a_pool_that_is_gone_takes_its_added_servers_along() {
    let mut standing = standing(&[("s4", DOWN)]);
    standing.add("farm", another("s4"));
    standing.settle(&Config::parse(&FARM.replace("farm", "other")).unwrap());
    assert_eq!(standing, Standing::new());
}

#[test]
fn a_file_read_again_changes_nothing_that_was_learned() {
    let mut standing = standing(&[("s1", DOWN), ("s2", DRAINING)]);
    standing.add("farm", another("s4"));
    standing.update(server_id("s4"), DISABLED);
    let before = standing.clone();
    standing.settle(&Config::parse(FARM).unwrap());
    assert_eq!(standing, before);
}

#[test]
fn health_and_operator_say_what_may_be_sent() {
    let light: Change = |of| of.weight = Some(0);
    let with = |changes: &[Change]| {
        let changes: Vec<_> = changes.iter().map(|change| ("s1", *change)).collect();
        let plan = build_new(&standing(&changes));
        assert_eq!(state_of(&plan, "s3"), (ServerState::Active, true, false));
        state_of(&plan, "s1")
    };
    assert_eq!(with(&[]), (ServerState::Active, true, false));
    assert_eq!(with(&[light]), (ServerState::Draining, false, false));
    assert_eq!(with(&[DRAINING]), (ServerState::Draining, false, false));
    assert_eq!(with(&[PROBING]), (ServerState::Probing, false, true));
    assert_eq!(with(&[DOWN]), (ServerState::Down, false, true));
    assert_eq!(with(&[DRAINING, DOWN]), (ServerState::Down, false, true));
    assert_eq!(with(&[DISABLED]), (ServerState::Disabled, false, true));
    assert_eq!(
        with(&[DISABLED, DOWN]),
        (ServerState::Disabled, false, true)
    );
}

#[test]
fn only_the_calls_of_a_server_that_goes_down_move() {
    let mut registry = ServerRegistry::new();
    let all = build(FARM, &mut registry, &Standing::new());
    let rest = build(FARM, &mut registry, &standing(&[("s2", DOWN)]));
    let tables = [&all, &rest].map(|plan| plan.pool(PoolIndex(0)).unwrap().table());
    let moves = Moves::between(tables[0], tables[1]);
    let s2 = ServerIndex(1);
    for (from, to, share) in moves.ways() {
        assert_ne!(to, Some(s2));
        // What moves between the others is Maglev's own disturbance: about a percent.
        let stays = from == to || from == Some(s2);
        assert!(stays || share < 0.02, "{from:?} {to:?} {share}");
    }
    assert!((moves.of(s2).0 - 0.6).abs() < 0.02);
    // And it is the table of the others, as if the lost one had never been configured.
    let without = FARM.lines().filter(|line| !line.contains("\"s2\""));
    let without = without.collect::<Vec<_>>().join("\n");
    let configured = build(&without, &mut registry, &Standing::new());
    let configured = configured.pool(PoolIndex(0)).unwrap().table();
    assert!(Moves::between(configured, tables[1]).share() < 1e-9);
}

#[test]
fn the_spare_group_gets_the_calls_when_no_server_of_the_first_takes_any() {
    let without = |names: &[&'static str]| {
        let changes: Vec<_> = names.iter().map(|name| (*name, DRAINING)).collect();
        let plan = build_new(&standing(&changes));
        let chosen = plan.pool(PoolIndex(0)).unwrap().select(AffinityKey(77));
        chosen.map(|chosen| plan.server(chosen).unwrap().name.to_string())
    };
    assert_eq!(without(&["s1", "s2"]).as_deref(), Some("s3"));
    assert_eq!(without(&["s1", "s2", "s3"]).as_deref(), Some("spare"));
    assert_eq!(without(&["s1", "s2", "s3", "spare"]), None);
}

#[test]
fn added_and_removed_servers_and_weights_are_as_if_configured() {
    let mut changed = standing(&[("s1", |of| of.weight = Some(3))]);
    changed.add("farm", another("s4"));
    changed.remove("s2");
    let plan = build_new(&changed);
    assert!(plan.server_by_id(server_id("s2")).is_none());
    let s4 = plan.server_at("198.18.1.19:5060".parse().unwrap()).unwrap();
    assert_eq!((&*s4.name, s4.pool), ("s4", Some(PoolIndex(0))));
    let table = plan.pool(PoolIndex(0)).unwrap().table();
    let shares = Moves::between(table, table);
    let share = |name: &str| {
        let server = plan.server_by_id(server_id(name)).unwrap();
        shares.of(server.index).0
    };
    assert!((share("s1") - 0.6).abs() < 0.02);
    assert!((share("s4") - 0.2).abs() < 0.02);
}

#[test]
fn a_changed_file_has_the_last_word_about_what_it_changed() {
    let old = Config::parse(FARM).unwrap();
    let mut standing = standing(&[("s1", DRAINING), ("s2", |of| of.weight = Some(9))]);
    standing.remove("s3");
    standing.add("farm", another("s4"));
    let before = standing.clone();
    assert!(standing.yield_to(&old, &old).is_empty());
    assert_eq!(standing, before);

    // Another weight for s1, whose drain the file cannot speak of, and another address for s2,
    // whose weight it leaves.
    let text = FARM
        .replace(".11:5060\"", ".11:5060\", weight = 2")
        .replace(".12:", ".92:");
    let new = Config::parse(&text).unwrap();
    assert!(standing.yield_to(&old, &new).is_empty());
    assert_eq!(standing, before);

    let text = FARM
        .replace("weight = 3", "weight = 4")
        .replace(".13:5060\"", ".13:5060\", weight = 2")
        .replace("spare", "s4");
    let new = Config::parse(&text).unwrap();
    let said = standing.yield_to(&old, &new);
    assert_eq!(said.len(), 3, "{said:?}");
    standing.settle(&new);
    assert_eq!(standing.of(server_id("s2")).weight, None);
    assert_eq!(
        standing.of(server_id("s1")).operator,
        OperatorState::Draining
    );
    assert_eq!(names(&standing, &new), ["s1", "s2", "s3", "s4"]);
    assert!(!standing.is_added("s4") && !standing.is_removed(server_id("s3")));
}
