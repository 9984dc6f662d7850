//! What a seed means: farm, faults, changes, callers and called.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::network::Faults;
use crate::rng::Rng;

/// Calls of a seed.
pub(crate) const CALLS: usize = 50;
/// How long a seed's faults and changes last.
pub(crate) const LENGTH: Duration = Duration::from_secs(300);
/// Servers there can be.
pub(crate) const SERVERS: usize = 5;

pub(crate) const VIP: &str = "198.18.0.1:5060";
pub(crate) const FARM_SIDE: &str = "198.18.1.1:5060";

pub(crate) fn server_address(server: usize) -> SocketAddr {
    SocketAddr::from(([198, 18, 1, 11 + server as u8], 5060))
}

pub(crate) fn server_at(address: SocketAddr) -> Option<usize> {
    (0..SERVERS).find(|server| server_address(*server) == address)
}

pub(crate) fn client_address(call: usize) -> SocketAddr {
    SocketAddr::from((
        [198, 18, 200, 1 + (call % 200) as u8],
        5060 + (call / 200) as u16,
    ))
}

/// Weight of each server; `None`: not in the configuration.
pub(crate) type Weights = [Option<u8>; SERVERS];

/// What the balancer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Farm {
    pub(crate) weights: Weights,
    pub(crate) stateful: bool,
    pub(crate) hunting: bool,
    /// Key `reach` of the pool.
    pub(crate) reach: &'static str,
    /// Servers that do not answer, as the health checks say: a bit each.
    pub(crate) down: u8,
    /// Servers on another address of ours than clients.
    pub(crate) two_armed: bool,
}

impl Farm {
    pub(crate) fn config(&self) -> String {
        let mut text = String::from("[sip]\nanswers_per_second = 0\nanswers_per_source = 0\n");
        let stateful = if self.stateful { "[\"INVITE\"]" } else { "[]" };
        let mut listener = |name: &str, address: &str, side: &str| {
            let _ = writeln!(
                text,
                "[[listeners]]\nname = \"{name}\"\naddress = \"{address}\"\nside = \"{side}\"\n\
                 stateful = {stateful}"
            );
        };
        listener("clients", VIP, "outside");
        if self.two_armed {
            listener("servers", FARM_SIDE, "farm");
        }
        let reach = self.reach;
        let hunting = match self.hunting {
            true => "hunt_on = [503]\nretry_budget = 100",
            false => "hunt_on = []\nretry_budget = 0",
        };
        let _ = writeln!(
            text,
            "[[pools]]\nname = \"farm\"\nnetworks = [\"198.18.1.8/29\"]\nreach = \"{reach}\"\n\
             {hunting}\nservers = ["
        );
        for (server, weight) in self.weights.iter().enumerate() {
            if let Some(weight) = weight {
                let address = server_address(server);
                let _ = writeln!(
                    text,
                    "{{ name = \"s{server}\", address = \"{address}\", weight = {weight} }},"
                );
            }
        }
        text + "]\n"
    }
}

/// What becomes of a server for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Illness {
    /// Hears and says nothing.
    Dead,
    /// Nobody at the port: its host answers with ICMP.
    Refusing,
    /// 503 to every new call.
    Overloaded,
    /// Everything it does takes this long, and then some.
    Slow(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Reload(Farm),
    Falls(usize, Illness),
    Recovers(usize),
    /// The health checks have found it out.
    Down(usize),
    Up(usize),
    /// The balancer's process dies and is started again.
    Restart,
}

/// How a called server treats an INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// 100 or not, 180 after a while or not, then 200.
    Answers,
    /// A final response from 300 on.
    Refuses(u16),
    /// Asks for a password first, then answers.
    Challenges(u16),
    /// Rings until somebody else ends it, a 180 each minute; 480 after all.
    Rings,
    /// No word.
    Silent,
    /// 100 and no further word.
    OnlyTrying,
    /// 180 and no further word, whatever comes.
    RingsThenDead,
    /// The first word comes when a hunting balancer has gone on: 180, then what is asked.
    LateRinging,
    /// The first word comes late and is a 200.
    LateAnswer,
    /// Answers the call when it is told to cancel.
    Glares,
    /// Answers, and says so again when nobody wants to know any more.
    Strays,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CallPlan {
    pub(crate) start: Duration,
    /// When the caller hangs up if nobody answers.
    pub(crate) patience: Option<Duration>,
    pub(crate) hold: Duration,
    pub(crate) server_hangs_up: bool,
    pub(crate) reinvites: bool,
    /// What each server would do.
    pub(crate) manners: [Manner; SERVERS],
    pub(crate) trying: bool,
    pub(crate) rings_after: Option<Duration>,
    pub(crate) answers_after: Duration,
    /// How long it rings where nobody answers.
    pub(crate) rings_for: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) workers: u8,
    pub(crate) farm: Farm,
    pub(crate) clients: Faults,
    pub(crate) servers: Faults,
    /// Per mille of handed-over messages that find the ring full.
    pub(crate) rings_full: u32,
    pub(crate) changes: Vec<(Duration, Change)>,
    pub(crate) calls: Vec<CallPlan>,
}

fn faults(rng: &mut Rng, worst: u32) -> Faults {
    Faults {
        loss: rng.pick(&[0, 0, 10, 50, worst]),
        duplication: rng.pick(&[0, 0, 10, 100]),
        reordering: rng.pick(&[0, 0, 20, 100]),
        delay_ms: rng.pick(&[1, 5, 20, 60]),
        late_ms: rng.pick(&[20, 200, 1500]),
    }
}

fn manner(rng: &mut Rng) -> Manner {
    match rng.below(100) {
        0..44 => Manner::Answers,
        44..60 => Manner::Refuses(rng.pick(&[486, 486, 302, 404, 503, 503, 503, 600, 603])),
        60..68 => Manner::Challenges(rng.pick(&[401, 407])),
        68..74 => Manner::Rings,
        74..79 => Manner::Silent,
        79..82 => Manner::OnlyTrying,
        82..84 => Manner::RingsThenDead,
        84..88 => Manner::LateRinging,
        88..92 => Manner::LateAnswer,
        92..96 => Manner::Glares,
        _ => Manner::Strays,
    }
}

fn call(rng: &mut Rng, number: usize) -> CallPlan {
    // Half of the calls' servers agree in their manner: what the call is decides it.
    let same = manner(rng);
    let agree = rng.chance(500);
    let manners = core::array::from_fn(|_| if agree { same } else { manner(rng) });
    let spread = LENGTH.as_millis() as u64 - 60_000;
    // Long calls begin early enough to meet changes.
    let start = Duration::from_millis(spread * number as u64 / CALLS as u64) + rng.millis(0, 4000);
    let patience = match rng.below(100) {
        0..48 => None,
        48..62 => Some(rng.millis(0, 1500)),
        62..84 => Some(rng.millis(1500, 9000)),
        84..95 => Some(rng.millis(9000, 60_000)),
        _ => Some(rng.millis(190_000, 400_000)),
    };
    CallPlan {
        start,
        patience,
        hold: rng.millis(200, 30_000),
        server_hangs_up: rng.chance(400),
        reinvites: rng.chance(150),
        manners,
        trying: rng.chance(700),
        rings_after: rng.chance(800).then(|| rng.millis(5, 1200)),
        answers_after: match rng.below(10) {
            0..6 => rng.millis(20, 4000),
            6..9 => rng.millis(4000, 20_000),
            _ => rng.millis(20_000, 60_000),
        },
        rings_for: Duration::from_secs(400),
    }
}

fn illness(rng: &mut Rng) -> Illness {
    match rng.below(4) {
        0 => Illness::Dead,
        1 => Illness::Refusing,
        2 => Illness::Overloaded,
        _ => Illness::Slow(rng.millis(100, 4000)),
    }
}

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = 2 + rng.index(SERVERS - 2);
        let mut weights = [None; SERVERS];
        weights[..count].fill(Some(1));
        let farm = Farm {
            weights,
            stateful: !rng.chance(100),
            hunting: rng.chance(600),
            reach: rng.pick(&["destination", "destination", "route", "request-uri"]),
            down: 0,
            two_armed: rng.chance(300),
        };
        let mut changes = Vec::new();
        let mut now = farm;
        for _ in 0..rng.index(5) {
            let at = rng.millis(5000, LENGTH.as_millis() as u64 - 20_000);
            changes.push((at, rng.index(count)));
        }
        changes.sort_unstable();
        let mut changes: Vec<(Duration, Change)> = changes
            .into_iter()
            .map(|(at, server)| {
                // At least one server takes calls: the rest comes and goes.
                let others = |weights: &Weights| {
                    let takes = |(other, weight): (usize, &Option<u8>)| {
                        other != server && weight.is_some_and(|weight| weight > 0)
                    };
                    weights.iter().enumerate().any(takes)
                };
                now.weights = match rng.below(4) {
                    0 if others(&now.weights) => with(now.weights, server, Some(0)),
                    1 if others(&now.weights) => with(now.weights, server, None),
                    2 => with(now.weights, count, Some(1)),
                    _ => weights,
                };
                (at, Change::Reload(now))
            })
            .collect();
        for _ in 0..rng.index(4) {
            let at = rng.millis(1000, LENGTH.as_millis() as u64 - 60_000);
            let (server, for_ms) = (rng.index(count), rng.millis(3000, 60_000));
            changes.push((at, Change::Falls(server, illness(&mut rng))));
            changes.push((at + for_ms, Change::Recovers(server)));
            if rng.chance(500) {
                changes.push((at + rng.millis(500, 6000), Change::Down(server)));
                changes.push((at + for_ms + rng.millis(500, 6000), Change::Up(server)));
            }
        }
        if rng.chance(80) {
            let at = rng.millis(20_000, LENGTH.as_millis() as u64 - 60_000);
            changes.push((at, Change::Restart));
        }
        Self {
            seed,
            workers: rng.pick(&[1, 2, 3, 4]),
            farm,
            clients: faults(&mut rng, 200),
            servers: faults(&mut rng, 100),
            rings_full: rng.pick(&[0, 0, 0, 5, 50]),
            changes,
            calls: (0..CALLS).map(|number| call(&mut rng, number)).collect(),
        }
    }
}

fn with(mut weights: Weights, server: usize, weight: Option<u8>) -> Weights {
    weights[server] = weight;
    weights
}
