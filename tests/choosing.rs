//! What the policies do to the set-up time of calls, in a queueing simulation: a virtual clock, one
//! seed, no timing.
//!
//! Three servers of speed 1 : 2 : 4, each with one queue, at 80 % of what they can do together.
//! Calls arrive as a Poisson process. An INVITE is 1.75 units of work for its server, as Jiang et
//! al. (2012) measured, then rings; the call stands for a minute, and its BYE, which goes to the
//! same server without the balancer's choice or sight, is one unit. Set-up time: from the INVITE to
//! the 180.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot run its simulation fails"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times of a simulation"
)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use viaduct::affinity::CallIdHash;
use viaduct::balance::{AffinityKey, Board, CallLeases, Choice, Chooser, Member, Seat, Work};
use viaduct::config::Policy;
use viaduct::net::{PoolIndex, ServerId, ServerIndex};
use viaduct::time::{Duration, Instant};

/// Nanoseconds of one unit of work on the slowest server.
const UNIT: f64 = 10_000_000.0;
const INVITE: f64 = 1.75;
const BYE: f64 = 1.0;
const SPEEDS: [f64; 3] = [1.0, 2.0, 4.0];
const LOAD: f64 = 0.8;
const SECOND: u64 = 1_000_000_000;
const WARM_UP: u64 = 60 * SECOND;
const END: u64 = 360 * SECOND;
const POOL: PoolIndex = PoolIndex(0);

/// `SplitMix64`: the same numbers in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Exponentially distributed, in nanoseconds.
    fn exponential(&mut self, mean: f64) -> u64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        (-(1.0 - uniform).ln() * mean) as u64
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Served(usize),
    Answer(usize),
    Bye(usize),
}

/// A message in the queue of a server: of which call, and whether it is its INVITE.
type Job = (usize, bool);

struct Call {
    server: usize,
    arrived: u64,
}

struct Farm {
    numbers: Numbers,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    queues: [VecDeque<Job>; 3],
    calls: Vec<Call>,
    board: Arc<Board>,
    leases: CallLeases,
    chooser: Chooser,
    setup: Vec<u64>,
    chosen: [u32; 3],
    lost_byes: u64,
}

/// What a run came to.
struct Outcome {
    p50: f64,
    p95: f64,
    shares: [f64; 3],
    calls_left: u32,
}

impl Farm {
    fn new(policy: Policy, weights: [u32; 3], lost_byes: u64) -> Self {
        let seats: Vec<Seat> = (0_u16..)
            .zip(weights)
            .map(|(slot, weight)| Seat {
                member: Member {
                    server: ServerIndex(slot),
                    id: ServerId(1000 + u32::from(slot)),
                    weight,
                },
                priority: 0,
                max_calls: 0,
                max_calls_per_second: 0,
                returned_at: None,
            })
            .collect();
        let board = Arc::new(Board::new());
        Self {
            numbers: Numbers(42),
            events: BinaryHeap::new(),
            sequence: 0,
            queues: Default::default(),
            calls: Vec::new(),
            leases: CallLeases::new(100_000, Arc::clone(&board)),
            board,
            chooser: Chooser::new(&[7; 16], policy, POOL, &seats).unwrap(),
            setup: Vec::new(),
            chosen: [0; 3],
            lost_byes,
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    /// A message arrives at a server.
    fn enqueue(&mut self, now: u64, server: usize, job: Job) {
        self.queues[server].push_back(job);
        if self.queues[server].len() == 1 {
            self.serve(now, server);
        }
    }

    /// The server begins with the first of its queue.
    fn serve(&mut self, now: u64, server: usize) {
        if let Some((_, is_invite)) = self.queues[server].front() {
            let work = if *is_invite { INVITE } else { BYE };
            let time = self.numbers.exponential(work * UNIT / SPEEDS[server]);
            self.at(now + time, Event::Served(server));
        }
    }

    fn run(mut self) -> Outcome {
        let capacity: f64 = SPEEDS.iter().sum::<f64>() / UNIT;
        let between = (INVITE + BYE) / (capacity * LOAD);
        self.at(0, Event::Arrival);
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            let time = Instant::from_nanos(now);
            self.leases.expire(time);
            match event {
                Event::Arrival => {
                    self.arrival(now, time);
                    let next = now + self.numbers.exponential(between);
                    if next < END {
                        self.at(next, Event::Arrival);
                    }
                }
                Event::Served(server) => {
                    let (call, is_invite) = self.queues[server].pop_front().unwrap();
                    self.serve(now, server);
                    if is_invite {
                        self.rings(now, call);
                    }
                }
                Event::Answer(call) => {
                    let server = slot(self.calls[call].server);
                    self.board.transaction_closed(server, Work::Ringing);
                    let id = CallIdHash(call as u64);
                    self.leases
                        .opened(id, server, time, Some(90), Duration::from_secs(14_400));
                    let talk = self.numbers.exponential(60e9);
                    self.at(now + talk, Event::Bye(call));
                }
                Event::Bye(call) => {
                    if self.lost_byes == 0 || self.numbers.next() % 100 >= self.lost_byes {
                        self.leases.ended(CallIdHash(call as u64));
                    }
                    self.enqueue(now, self.calls[call].server, (call, false));
                }
            }
        }
        self.outcome()
    }

    fn arrival(&mut self, now: u64, time: Instant) {
        let choice = Choice {
            board: &self.board,
            key: AffinityKey(self.numbers.next()),
            tried: &[],
            now: time,
        };
        let server = self.chooser.choose(&choice).unwrap();
        self.board.transaction_opened(server, Work::Invite);
        let server = usize::from(server.0);
        self.chosen[server] += 1;
        let call = self.calls.len();
        self.calls.push(Call {
            server,
            arrived: now,
        });
        self.enqueue(now, server, (call, true));
    }

    fn rings(&mut self, now: u64, call: usize) {
        let Call { server, arrived } = self.calls[call];
        let elapsed = now - arrived;
        let server = slot(server);
        self.board
            .transaction_changed(server, Work::Invite, Work::Ringing);
        let time = Duration::from_nanos(elapsed);
        self.board.note_response_time(POOL, Work::Invite, time);
        if (WARM_UP..END).contains(&arrived) {
            self.setup.push(elapsed);
        }
        let rings = self.numbers.exponential(5e9);
        self.at(now + rings, Event::Answer(call));
    }

    fn outcome(mut self) -> Outcome {
        let last = Instant::from_nanos(100_000 * SECOND);
        while !self.leases.is_empty() {
            self.leases.expire(last);
        }
        self.setup.sort_unstable();
        let percentile = |of: usize| self.setup[self.setup.len() * of / 100] as f64 / 1e6;
        let all: u32 = self.chosen.iter().sum();
        let loads = (0..3).map(|server| self.board.load(ServerIndex(server)));
        Outcome {
            p50: percentile(50),
            p95: percentile(95),
            shares: self.chosen.map(|count| f64::from(count) / f64::from(all)),
            calls_left: loads.map(|load| load.committed() + load.others).sum(),
        }
    }
}

fn slot(server: usize) -> ServerIndex {
    ServerIndex(u16::try_from(server).unwrap())
}

fn run(name: &str, policy: Policy, weights: [u32; 3], lost_byes: u64) -> Outcome {
    let outcome = Farm::new(policy, weights, lost_byes).run();
    let Outcome {
        p50, p95, shares, ..
    } = outcome;
    println!("{name:<34} p50 {p50:>10.1} ms  p95 {p95:>10.1} ms  shares {shares:.2?}");
    assert_eq!(outcome.calls_left, 0, "{name}: counts return to zero");
    outcome
}

/// Nobody has told the balancer that the servers differ: all have weight 1. Round robin then asks
/// the slowest for 1.9 times what it can do, and its queue grows without end.
#[test]
fn tlwl_halves_the_set_up_time_of_round_robin_where_speeds_are_unknown() {
    let equal = [1, 1, 1];
    let round_robin = run("round-robin, equal weights", Policy::RoundRobin, equal, 0);
    let least = run("least-loaded, equal weights", Policy::LeastLoaded, equal, 0);
    let tlwl = run("tlwl, equal weights", Policy::Tlwl, equal, 0);
    assert!(tlwl.p95 * 2.0 <= round_robin.p95);
    // Least-loaded gives every server as many calls: for speeds it needs weights.
    assert!(tlwl.p95 * 2.0 <= least.p95 && least.p95 < round_robin.p95);
    assert!(tlwl.shares[0] < tlwl.shares[1] && tlwl.shares[1] < tlwl.shares[2]);
}

/// Round robin that knows the speeds loads all servers alike and does not see who has a queue. TLWL
/// takes a third off its time, not half; and TLWL without the speeds is still better than round robin with them.
#[test]
fn tlwl_is_faster_than_round_robin_that_knows_the_speeds() {
    let speeds = [1, 2, 4];
    let _ = run("maglev, weights = speeds", Policy::Maglev, speeds, 0);
    let round_robin = run(
        "round-robin, weights = speeds",
        Policy::RoundRobin,
        speeds,
        0,
    );
    let _ = run(
        "least-loaded, weights = speeds",
        Policy::LeastLoaded,
        speeds,
        0,
    );
    let tlwl = run("tlwl, weights = speeds", Policy::Tlwl, speeds, 0);
    let unknowing = run("tlwl, equal weights", Policy::Tlwl, [1, 1, 1], 0);
    assert!(tlwl.p95 <= round_robin.p95 * 0.67);
    assert!(unknowing.p95 < round_robin.p95);
}

/// Of ten calls one never shows its BYE: its lease ends, and the shares stay what they were.
#[test]
fn with_lost_byes_the_choice_stays_right_and_counts_return_to_zero() {
    let speeds = [1, 2, 4];
    let all = run(
        "least-loaded, all BYEs seen",
        Policy::LeastLoaded,
        speeds,
        0,
    );
    let lost = run(
        "least-loaded, 10 % of BYEs lost",
        Policy::LeastLoaded,
        speeds,
        10,
    );
    for (one, other) in all.shares.iter().zip(lost.shares) {
        assert!(
            (one - other).abs() < 0.02,
            "{:?} {:?}",
            all.shares,
            lost.shares
        );
    }
}
