//! What must hold at all times, told from the datagrams that cross the balancer and from nothing
//! else: the judge knows the RFC and the scenario, not the code.

mod duties;
mod outputs;

use std::net::SocketAddr;
use std::time::Duration;

use viaduct::time::{Instant, T1_64};

use crate::message::{Method, View, digest};
use crate::scenario::{Farm, server_at};
use crate::tally::Tally;

/// How long after a deadline something may still happen: timers are coarse.
pub(crate) const SLACK: Duration = Duration::from_millis(1500);
/// RFC 3261 §16.6 step 11: "larger than 3 minutes".
pub(crate) const TIMER_C_MIN: Duration = Duration::from_secs(180);

/// Timers may fire this much early: records count whole milliseconds.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// A rule that was broken, and the call it was broken for.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) call: usize,
    pub(crate) text: String,
}

/// One INVITE of the balancer: a client transaction of RFC 3261 §17.1.1.
#[derive(Debug)]
struct Branch {
    id: u64,
    server: usize,
    bytes: u64,
    first_sent: Instant,
    sends: u32,
    /// The first 1xx, 100 included.
    provisional: Option<Instant>,
    /// The last of 101 to 199: what Timer C runs from.
    ringing: Option<Instant>,
    refused: Option<(u16, Instant)>,
    accepted: Option<Instant>,
    cancelled: Option<Instant>,
    unreachable: Option<Instant>,
    /// Another one was begun in its place.
    abandoned: Option<Instant>,
    /// A response came when nobody waited for one any more.
    lapsed: bool,
}

impl Branch {
    fn is_live(&self) -> bool {
        self.refused.is_none() && self.accepted.is_none() && self.abandoned.is_none()
    }

    /// Whether its transaction must still be there: a response that comes now is not a stray.
    fn is_awaited(&self, now: Instant) -> bool {
        // RFC 3261 §17.1.4: a transport error ends a transaction.
        if self.lapsed || self.unreachable.is_some() {
            return false;
        }
        let margin = T1_64.saturating_sub(SLACK);
        match (self.accepted, self.refused, self.abandoned, self.cancelled) {
            (Some(at), ..) | (_, Some((_, at)), ..) | (_, _, _, Some(at)) => now.since(at) < margin,
            // Timer B of the branch; what hunting gave up may be given up by then.
            (_, _, Some(_), _) => now.since(self.first_sent) < margin,
            // Without a word Timer B ends it, with one Timer C.
            (None, None, None, None) => match self.provisional {
                Some(_) => now.since(self.ringing.unwrap_or(self.first_sent)) < TIMER_C_MIN,
                None => now.since(self.first_sent) < margin,
            },
        }
    }
}

/// One INVITE of a caller: a server transaction of RFC 3261 §17.2.1.
#[derive(Debug)]
struct Invite {
    cseq: u32,
    branch: u64,
    in_dialog: bool,
    /// Handled copies.
    copies: u32,
    first_seen: Instant,
    cancelled: Option<Instant>,
    branches: Vec<Branch>,
    trying: u32,
    responses: u32,
    /// Status, digest and copies of the refusal, and when it was first sent.
    refused: Option<(u16, u64, u32, Instant)>,
    accepted: Option<Instant>,
    acknowledged: bool,
    /// Refused without a transaction.
    turned_away: bool,
    /// What was known of it is lost.
    forgotten: bool,
    /// It has come again since.
    reborn: bool,
}

impl Invite {
    fn rang(&self) -> bool {
        let rings = |branch: &Branch| branch.ringing.is_some() && branch.abandoned.is_none();
        self.branches.iter().any(rings)
    }

    fn is_answered(&self) -> bool {
        self.refused.is_some() || self.accepted.is_some()
    }
}

/// A request that an endpoint has sent and the balancer has handled.
#[derive(Debug)]
struct Asked {
    branch: u64,
    method: Method,
    from: SocketAddr,
}

#[derive(Debug, Default)]
struct Call {
    asked: Vec<Asked>,
    invites: Vec<Invite>,
    /// Who asked for a password, and when.
    challenged: Option<(usize, Instant)>,
    /// Servers that had an INVITE outside of a dialog.
    servers: Vec<usize>,
    /// Tags of dialogs and their servers.
    dialogs: Vec<(u64, usize)>,
}

/// What a worker was given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause<'a> {
    Message(View<'a>, SocketAddr),
    Unreachable(View<'a>),
    Timer,
}

/// What the message of this step means, so far as a duty follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Nothing,
    Invite {
        first: bool,
    },
    Cancel,
    AckOfRefusal,
    /// Status, and whether it was awaited.
    Provisional(u16, bool),
    Acceptance {
        awaited: bool,
        stray: bool,
    },
    Refusal {
        awaited: bool,
    },
}

/// One step: one message or timer, and what was sent on it.
#[derive(Clone, Copy, Debug)]
struct Step {
    meaning: Meaning,
    /// Call, invite, branch.
    at: Option<(usize, usize)>,
    branch: Option<usize>,
    outputs: u32,
    invites: u32,
    new_branches: u32,
    acks: u32,
    cancels: u32,
    cancel_answers: u32,
    trying: u32,
    provisionals: u32,
    acceptances: u32,
    refusals: u32,
}

impl Step {
    const NONE: Self = Self {
        meaning: Meaning::Nothing,
        at: None,
        branch: None,
        outputs: 0,
        invites: 0,
        new_branches: 0,
        acks: 0,
        cancels: 0,
        cancel_answers: 0,
        trying: 0,
        provisionals: 0,
        acceptances: 0,
        refusals: 0,
    };
}

/// What hunting may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) stateful: bool,
    pub(crate) hunting: bool,
    pub(crate) attempt: Duration,
    /// Servers known to be down, a bit each.
    pub(crate) down: u8,
}

impl Rules {
    fn is_down(self, server: usize) -> bool {
        self.down & 1 << server != 0
    }
}

#[derive(Debug)]
pub(crate) struct Judge {
    rules: Rules,
    calls: Vec<Call>,
    step: Step,
}

impl Judge {
    pub(crate) fn new(farm: &Farm, calls: usize) -> Self {
        Self {
            rules: Rules {
                stateful: farm.stateful,
                hunting: farm.hunting,
                attempt: Duration::from_secs(2),
                down: 0,
            },
            calls: (0..calls).map(|_| Call::default()).collect(),
            step: Step::NONE,
        }
    }

    pub(crate) fn reloaded(&mut self, farm: &Farm) {
        self.rules.down = farm.down;
    }

    /// The process is a new one: what was open is open for nobody.
    pub(crate) fn restarted(&mut self) {
        for call in &mut self.calls {
            call.challenged = None;
            call.servers.clear();
            for invite in &mut call.invites {
                invite.forgotten = true;
            }
        }
    }

    fn fail<T>(&self, call: usize, text: impl Into<String>) -> Result<T, Violation> {
        let text = text.into();
        Err(Violation { call, text })
    }

    /// A worker has handled something. Its outputs follow.
    pub(crate) fn begin(&mut self, cause: &Cause<'_>, now: Instant, tally: &mut Tally) {
        self.step = Step::NONE;
        match cause {
            Cause::Timer => {}
            Cause::Unreachable(view) => {
                let Some((at, branch)) = self.find_quoted(view) else {
                    return;
                };
                self.step.at = Some(at);
                self.step.branch = Some(branch);
                self.branch(at, branch).unreachable.get_or_insert(now);
            }
            Cause::Message(view, from) if view.is_request() => self.on_request(view, *from, now),
            Cause::Message(view, _) => self.on_response(view, now, tally),
        }
    }

    fn branch(&mut self, (call, invite): (usize, usize), branch: usize) -> &mut Branch {
        &mut self.calls[call].invites[invite].branches[branch]
    }

    /// The INVITE and the branch of ours that a response or a quoted request belongs to.
    fn find_branch(&self, view: &View<'_>) -> Option<((usize, usize), usize)> {
        let call = view.call?;
        let invites = &self.calls.get(call)?.invites;
        let invite = invites.iter().position(|invite| invite.cseq == view.cseq)?;
        let id = digest(view.branch);
        let branch = invites[invite]
            .branches
            .iter()
            .position(|branch| branch.id == id)?;
        Some(((call, invite), branch))
    }

    /// The same for a quoted request, which may end before its Call-ID.
    fn find_quoted(&self, view: &View<'_>) -> Option<((usize, usize), usize)> {
        let id = digest(view.branch);
        let calls = self.calls.iter().enumerate();
        let mut branches = calls.flat_map(|(call, notes)| {
            let invites = notes.invites.iter().enumerate();
            invites.flat_map(move |(invite, of)| {
                let branches = of.branches.iter().enumerate();
                branches.map(move |(number, branch)| (((call, invite), number), branch.id))
            })
        });
        branches.find(|(_, of)| *of == id).map(|(found, _)| found)
    }

    fn on_request(&mut self, view: &View<'_>, from: SocketAddr, now: Instant) {
        let Some(call) = view.call.filter(|call| *call < self.calls.len()) else {
            return;
        };
        let id = digest(view.branch);
        let notes = &mut self.calls[call];
        let known = |of: &Asked| of.branch == id && of.method == view.method;
        if !notes.asked.iter().any(known) {
            let (branch, method) = (id, view.method);
            notes.asked.push(Asked {
                branch,
                method,
                from,
            });
        }
        let invite = notes.invites.iter().position(|invite| invite.branch == id);
        match (view.method, invite) {
            (Method::Invite, None) => {
                notes.invites.push(Invite {
                    cseq: view.cseq,
                    branch: id,
                    in_dialog: !view.to_tag.is_empty(),
                    copies: 1,
                    first_seen: now,
                    cancelled: None,
                    branches: Vec::new(),
                    trying: 0,
                    responses: 0,
                    refused: None,
                    accepted: None,
                    acknowledged: false,
                    turned_away: false,
                    forgotten: false,
                    reborn: false,
                });
                self.step.meaning = Meaning::Invite { first: true };
                self.step.at = Some((call, notes.invites.len() - 1));
            }
            (Method::Invite, Some(invite)) => {
                notes.invites[invite].copies += 1;
                notes.invites[invite].reborn = notes.invites[invite].forgotten;
                self.step.meaning = Meaning::Invite { first: false };
                self.step.at = Some((call, invite));
            }
            (Method::Cancel, Some(invite)) => {
                notes.invites[invite].cancelled.get_or_insert(now);
                self.step.meaning = Meaning::Cancel;
                self.step.at = Some((call, invite));
            }
            (Method::Ack, Some(invite)) => {
                notes.invites[invite].acknowledged = true;
                self.step.meaning = Meaning::AckOfRefusal;
                self.step.at = Some((call, invite));
            }
            _ => {}
        }
    }

    fn on_response(&mut self, view: &View<'_>, now: Instant, tally: &mut Tally) {
        if view.method != Method::Invite {
            return;
        }
        let Some((at, number)) = self.find_branch(view) else {
            return;
        };
        let Invite {
            forgotten, reborn, ..
        } = self.calls[at.0].invites[at.1];
        let branch = self.branch(at, number);
        let awaited = branch.is_awaited(now) && !forgotten;
        branch.lapsed = !awaited;
        let server = branch.server;
        let meaning = match view.status {
            100..200 => {
                branch.provisional.get_or_insert(now);
                if view.status > 100 {
                    branch.ringing = Some(now);
                }
                Meaning::Provisional(view.status, awaited)
            }
            200..300 => {
                if branch.abandoned.is_some() {
                    tally.abandoned_answered += 1;
                }
                let first = *branch.accepted.get_or_insert(now);
                let stray = forgotten && !reborn || !forgotten && now.since(first) > T1_64 + SLACK;
                let tag = digest(view.to_tag);
                let dialogs = &mut self.calls[at.0].dialogs;
                if !dialogs.iter().any(|(of, _)| *of == tag) {
                    dialogs.push((tag, server));
                }
                Meaning::Acceptance { awaited, stray }
            }
            status => {
                branch.refused.get_or_insert((status, now));
                Meaning::Refusal { awaited }
            }
        };
        self.step.meaning = meaning;
        self.step.at = Some(at);
        self.step.branch = Some(number);
    }

    /// Nothing moves any more: every INVITE has come to its end.
    pub(crate) fn finish(&self) -> Result<(), Violation> {
        if !self.rules.stateful {
            return Ok(());
        }
        for (number, call) in self.calls.iter().enumerate() {
            for invite in call.invites.iter().filter(|invite| !invite.forgotten) {
                let turned_away = invite.turned_away && invite.branches.is_empty();
                if !invite.is_answered() && !turned_away {
                    let text = format!("INVITE {} never got a final response", invite.cseq);
                    return self.fail(number, text);
                }
                // Timer G: at 0.5, 1.5, 3.5, 7.5, … 31.5 s.
                if let Some((status, _, copies, _)) = invite.refused
                    && !invite.acknowledged
                    && invite.accepted.is_none()
                    && !invite.branches.is_empty()
                    && copies < 8
                {
                    let text =
                        format!("no ACK came for {status}, and it was sent {copies} times only");
                    return self.fail(number, text);
                }
                let silent = |branch: &&Branch| {
                    branch.provisional.is_none()
                        && branch.refused.is_none()
                        && branch.accepted.is_none()
                        && branch.unreachable.is_none()
                        && branch.abandoned.is_none_or(|at| {
                            at.since(branch.first_sent) >= self.rules.attempt + TICK
                        })
                };
                if let Some(branch) = invite.branches.iter().find(silent)
                    && branch.sends < 3
                {
                    let text =
                        format!("a silent server had the INVITE {} times only", branch.sends);
                    return self.fail(number, text);
                }
            }
        }
        Ok(())
    }

    /// Whether this caller's INVITE has an answer that only the network kept from it, or nobody
    /// can answer it any more.
    pub(crate) fn is_excused(&self, call: usize) -> bool {
        let invite = self.calls[call].invites.last();
        !self.rules.stateful
            || invite
                .is_none_or(|invite| invite.forgotten || invite.turned_away || invite.is_answered())
    }

    /// Whether servers may meet what they did not ask for: the balancer kept nothing of the call.
    pub(crate) fn is_lenient(&self, call: usize) -> bool {
        let forgotten = |call: &Call| call.invites.iter().any(|invite| invite.forgotten);
        !self.rules.stateful || self.calls.get(call).is_none_or(forgotten)
    }

    fn server(address: SocketAddr) -> Option<usize> {
        server_at(address)
    }
}
