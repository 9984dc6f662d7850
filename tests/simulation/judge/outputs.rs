//! Each message that the balancer sends: may it?

use std::net::SocketAddr;

use viaduct::time::{Instant, T1_64, TIMER_C};

use super::{Asked, Branch, Judge, Meaning, SLACK, TICK, TIMER_C_MIN, Violation};
use crate::message::{Method, View, digest};
use crate::tally::Tally;

impl Judge {
    pub(crate) fn output(
        &mut self,
        view: &View<'_>,
        to: SocketAddr,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        self.step.outputs += 1;
        let Some(call) = view.call.filter(|call| *call < self.calls.len()) else {
            // A question of the balancer's own is of no call.
            return if view.method == Method::Options {
                Ok(())
            } else {
                self.fail(0, "a message of no call")
            };
        };
        if !view.is_request() {
            return self.on_response_out(call, view, to, now);
        }
        let Some(server) = Self::server(to) else {
            // To a caller: only what a server has asked for.
            return if view.method == Method::Bye {
                Ok(())
            } else {
                self.fail(call, format!("{} to a caller", view.what()))
            };
        };
        match view.method {
            Method::Invite => self.on_invite_out(call, server, view, now, tally),
            Method::Cancel => self.on_cancel_out(call, server, view, now, tally),
            Method::Ack => self.on_ack_out(call, server, view),
            _ => Ok(()),
        }
    }

    fn on_invite_out(
        &mut self,
        call: usize,
        server: usize,
        view: &View<'_>,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        self.step.invites += 1;
        let position = |invite: &super::Invite| invite.cseq == view.cseq;
        let Some(at) = self.calls[call].invites.iter().position(position) else {
            return self.fail(call, "an INVITE that nobody sent");
        };
        let (id, bytes) = (digest(view.branch), digest(view.bytes));
        let forgotten = self.calls[call].invites[at].forgotten;
        let known = self.calls[call].invites[at]
            .branches
            .iter()
            .position(|branch| branch.id == id);
        if let Some(known) = known {
            let branch = self.branch((call, at), known);
            branch.sends += 1;
            let Branch {
                bytes: first,
                server: before,
                ..
            } = *branch;
            let answered = branch.provisional.is_some() || !branch.is_live();
            branch.server = server;
            if before != server && !forgotten {
                return self.fail(call, format!("an INVITE of s{before} again, to s{server}"));
            }
            // RFC 3261 §16.11 for the stateless, §17.1.1.2 for the others.
            if first != bytes && !forgotten {
                return self.fail(call, "a retransmission differs from the INVITE");
            }
            if self.rules.stateful && answered && !forgotten {
                return self.fail(
                    call,
                    "an INVITE again that has its response, or was abandoned",
                );
            }
            return Ok(());
        }
        self.step.new_branches += 1;
        if !forgotten {
            self.check_server(call, at, server, view, now)?;
            self.check_branch(call, at, server, now, tally)?;
        }
        let notes = &mut self.calls[call];
        if !notes.invites[at].in_dialog && !notes.servers.contains(&server) {
            notes.servers.push(server);
        }
        notes.invites[at].branches.push(Branch {
            id,
            server,
            bytes,
            first_sent: now,
            sends: 1,
            provisional: None,
            ringing: None,
            refused: None,
            accepted: None,
            cancelled: None,
            unreachable: None,
            abandoned: None,
            lapsed: false,
        });
        Ok(())
    }

    /// Is it the right server?
    fn check_server(
        &self,
        call: usize,
        at: usize,
        server: usize,
        view: &View<'_>,
        now: Instant,
    ) -> Result<(), Violation> {
        let notes = &self.calls[call];
        let invite = &notes.invites[at];
        if invite.in_dialog {
            let tag = digest(view.to_tag);
            let of = notes.dialogs.iter().find(|(of, _)| *of == tag);
            return match of {
                Some((_, of)) if *of != server => self.fail(
                    call,
                    format!("an INVITE in the dialog of s{of}, to s{server}"),
                ),
                _ => Ok(()),
            };
        }
        // A server accepts the answer to its own challenge only.
        if let Some((asked, when)) = notes.challenged
            && invite.branches.is_empty()
            && now.since(when) < T1_64 / 2
            && asked != server
            && !self.rules.is_down(asked)
        {
            return self.fail(
                call,
                format!("s{asked} asked for a password, s{server} gets it"),
            );
        }
        // Who is not there has not got it.
        let has = |other: &&usize| {
            let gone = |branch: &Branch| branch.server == **other && branch.unreachable.is_some();
            let mut branches = notes.invites.iter().flat_map(|invite| &invite.branches);
            **other != server && !self.rules.is_down(**other) && !branches.any(gone)
        };
        if !self.rules.hunting
            && let Some(other) = notes.servers.iter().find(has)
        {
            return self.fail(
                call,
                format!("hunting is off, and s{other} and s{server} have the call"),
            );
        }
        Ok(())
    }

    /// May there be another branch?
    fn check_branch(
        &mut self,
        call: usize,
        at: usize,
        server: usize,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let (rules, invite) = (self.rules, &mut self.calls[call].invites[at]);
        if invite.branches.is_empty() {
            return Ok(());
        }
        let stays = |of: &Branch| of.unreachable.is_none() && !rules.is_down(of.server);
        let mut wrong = None;
        if invite.is_answered() {
            wrong = Some("another branch after the final response");
        } else if invite.cancelled.is_some() {
            wrong = Some("another branch after the caller's CANCEL");
        } else if invite.in_dialog || !rules.hunting && invite.branches.iter().any(stays) {
            wrong = Some("another branch without hunting");
        } else if invite.rang() {
            wrong = Some("another branch after a provisional response");
        } else if invite.branches.iter().any(|branch| branch.server == server) {
            wrong = Some("another branch to the same server");
        }
        for branch in &mut invite.branches {
            if branch.accepted.is_some() {
                wrong = wrong.or(Some("another branch after a 2xx"));
            }
            // Who is given up may say what it likes.
            match branch.refused.filter(|_| branch.abandoned.is_none()) {
                Some((503, _)) => continue,
                Some(_) => {
                    wrong = wrong.or(Some("another branch after a response that is no reason"))
                }
                None => {}
            }
            if !branch.is_live() {
                continue;
            }
            let silent = branch.provisional.is_none()
                && now.since(branch.first_sent) + TICK >= rules.attempt;
            let down = rules.is_down(branch.server) && branch.ringing.is_none();
            if !silent && branch.unreachable.is_none() && !down {
                wrong = wrong.or(Some("two live branches"));
            }
            branch.abandoned = Some(now);
        }
        tally.hunts += 1;
        match wrong {
            Some(text) => self.fail(call, text),
            None => Ok(()),
        }
    }

    fn on_cancel_out(
        &mut self,
        call: usize,
        server: usize,
        view: &View<'_>,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        self.step.cancels += 1;
        let id = digest(view.branch);
        let invites = &mut self.calls[call].invites;
        let invite = invites.iter_mut().find(|invite| invite.cseq == view.cseq);
        let Some(invite) = invite else {
            return self.fail(call, "a CANCEL of no INVITE");
        };
        let asked = invite.cancelled.is_some();
        let answered = invite.is_answered();
        let sibling = invite
            .branches
            .iter()
            .any(|branch| branch.accepted.is_some() || matches!(branch.refused, Some((600.., _))));
        let forgotten = invite.forgotten;
        let Some(branch) = invite.branches.iter_mut().find(|branch| branch.id == id) else {
            return if forgotten {
                Ok(())
            } else {
                self.fail(call, "a CANCEL with a branch of no INVITE")
            };
        };
        let since = now.since(branch.ringing.unwrap_or(branch.first_sent));
        let timer_c = since >= TIMER_C_MIN;
        // Without a transaction a pin is all there is, and Timer C ends it.
        let unpinned = forgotten || !self.rules.stateful && timer_c;
        if branch.server != server && !unpinned {
            let of = branch.server;
            return self.fail(call, format!("the CANCEL for s{of} goes to s{server}"));
        }
        if forgotten || !self.rules.stateful {
            branch.cancelled.get_or_insert(now);
            return Ok(());
        }
        // RFC 3261 §9.1: the client "MUST wait for the arrival of a provisional response".
        // RFC 3261 §16.10: one whose INVITE is over is forwarded without a transaction.
        let over = answered && self.step.meaning == Meaning::Cancel;
        if branch.provisional.is_none() && !over {
            return self.fail(call, "a CANCEL before a provisional response");
        }
        let first = branch.cancelled.is_none();
        let down = self.rules.is_down(server);
        if first && !asked && !sibling && branch.abandoned.is_none() && !down && !answered {
            if !timer_c {
                return self.fail(
                    call,
                    format!("a CANCEL that nothing asked for, after {since:?}"),
                );
            }
            tally.timer_c += 1;
        }
        if first && branch.abandoned.is_some() {
            tally.abandoned_cancelled += 1;
        }
        branch.cancelled.get_or_insert(now);
        Ok(())
    }

    fn on_ack_out(&mut self, call: usize, server: usize, view: &View<'_>) -> Result<(), Violation> {
        let id = digest(view.branch);
        let known = self.calls[call]
            .invites
            .iter()
            .filter(|invite| !invite.forgotten);
        let mut branches = known.flat_map(|invite| &invite.branches);
        let Some(branch) = branches.find(|branch| branch.id == id) else {
            // Of a 2xx: it has a branch of its own.
            return Ok(());
        };
        // Without a transaction a Call-ID has one pin, and who is down loses it to the next INVITE.
        let unpinned = !self.rules.stateful && self.rules.is_down(branch.server);
        if branch.server != server && !unpinned {
            return self.fail(
                call,
                format!("the ACK for s{} goes to s{server}", branch.server),
            );
        }
        if branch.refused.is_none() {
            return self.fail(call, "an ACK for no refusal");
        }
        self.step.acks += 1;
        Ok(())
    }

    fn on_response_out(
        &mut self,
        call: usize,
        view: &View<'_>,
        to: SocketAddr,
        now: Instant,
    ) -> Result<(), Violation> {
        let id = digest(view.branch);
        let asked = |of: &&Asked| of.branch == id && of.method == view.method;
        match self.calls[call].asked.iter().find(asked) {
            None => return self.fail(call, format!("{} without a request", view.what())),
            Some(of) if of.from != to => {
                let text = format!("{} to {to}, the request came from {}", view.what(), of.from);
                return self.fail(call, text);
            }
            Some(_) => {}
        }
        if view.method == Method::Cancel {
            self.step.cancel_answers += 1;
        }
        if view.method != Method::Invite || !self.rules.stateful {
            return Ok(());
        }
        let of = |invite: &super::Invite| invite.branch == id;
        let Some(at) = self.calls[call].invites.iter().position(of) else {
            return self.fail(call, "a response to no INVITE");
        };
        let invite = &mut self.calls[call].invites[at];
        invite.responses += u32::from(!invite.branches.is_empty() || view.status == 100);
        let mut wrong = None;
        match view.status {
            100 => {
                self.step.trying += 1;
                invite.trying += 1;
                if invite.trying > invite.copies {
                    wrong = Some("more 100s than INVITEs".to_owned());
                }
                if matches!(self.step.meaning, Meaning::Provisional(100, _)) {
                    wrong = Some("the 100 of a server".to_owned());
                }
                if invite.is_answered() && !invite.forgotten {
                    wrong = Some("a 100 after the final response".to_owned());
                }
            }
            101..200 => {
                self.step.provisionals += 1;
                if invite.is_answered() && !invite.forgotten {
                    wrong = Some("a provisional response after the final one".to_owned());
                }
            }
            200..300 => {
                self.step.acceptances += 1;
                invite.accepted.get_or_insert(now);
                // RFC 3261 §13.3.1.4: the server retransmits its 2xx, nobody else.
                match self.step.meaning {
                    Meaning::Acceptance { stray: false, .. } => {}
                    // RFC 6026 §7.3.
                    Meaning::Acceptance { .. } => wrong = Some("a stray 2xx".to_owned()),
                    _ => wrong = Some("a 2xx that no server sent".to_owned()),
                }
            }
            // Nothing was begun, so nothing is remembered.
            _ if invite.branches.is_empty() && !invite.is_answered() => {
                self.step.refusals += 1;
                invite.turned_away = true;
                return Ok(());
            }
            status => {
                self.step.refusals += 1;
                let bytes = digest(view.bytes);
                let last = invite
                    .branches
                    .iter()
                    .filter_map(|branch| branch.ringing)
                    .max();
                let (status_before, bytes_before, copies, first) =
                    invite.refused.unwrap_or((status, bytes, 0, now));
                invite.refused = Some((status_before, bytes_before, copies + 1, first));
                let late = now.since(last.unwrap_or(invite.first_seen).max(invite.first_seen));
                let down = self.rules;
                let waits = |branch: &&Branch| {
                    let cancelled = branch
                        .cancelled
                        .is_some_and(|at| now.since(at) + SLACK >= T1_64);
                    let down = down.is_down(branch.server);
                    branch.is_live() && branch.provisional.is_some() && !cancelled && !down
                };
                if invite.forgotten {
                    return Ok(());
                }
                if bytes_before != bytes {
                    wrong = Some(format!(
                        "{status_before} and then another final response, {status}"
                    ));
                } else if invite.accepted.is_some() && copies == 0 {
                    wrong = Some(format!("{status} after a 2xx"));
                } else if copies == 0 && late > TIMER_C + T1_64 + SLACK * 2 {
                    wrong = Some(format!("{status} after {late:?}"));
                } else if copies == 0
                    && let Some(branch) = invite.branches.iter().find(waits)
                {
                    let server = branch.server;
                    wrong = Some(format!(
                        "{status} while s{server} has the call and has spoken"
                    ));
                } else if status == 503 && !invite.branches.is_empty() {
                    // RFC 3261 §16.7 step 6.
                    wrong = Some("503 of a server is forwarded".to_owned());
                }
            }
        }
        let first = invite.refused.is_some_and(|(_, _, copies, _)| copies == 1);
        if matches!(view.status, 401 | 407) && wrong.is_none() && first {
            // Of several that asked, the one that the caller hears of.
            let of_step = self
                .step
                .branch
                .filter(|_| self.step.at == Some((call, at)));
            let of_step = of_step.map(|branch| &invite.branches[branch]);
            let asks = |branch: &&Branch| branch.refused.is_some_and(|(of, _)| of == view.status);
            let from = of_step
                .filter(asks)
                .or_else(|| invite.branches.iter().find(asks));
            let from = from.map(|branch| (branch.server, now));
            self.calls[call].challenged = from;
        }
        match wrong {
            Some(text) => self.fail(call, text),
            None => Ok(()),
        }
    }
}
