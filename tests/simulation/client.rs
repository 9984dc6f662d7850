//! A caller: the UAC of RFC 3261 over UDP, one INVITE, what follows from it, nothing more.

use std::net::SocketAddr;
use std::time::Duration;

use viaduct::time::{T1, T1_64, T2};

use crate::message::{Method, Request, View, respond};
use crate::network::{Arm, ClientTimer, Event, Network};
use crate::scenario::{CallPlan, VIP, client_address};

/// Where the INVITE transaction stands, RFC 3261 §17.1.1.2 with RFC 6026 §8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Calling,
    Proceeding,
    /// A final response, or none and its own timer said so.
    Ended(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    Refused(u16),
    /// Timer B.
    TimedOut,
    /// 64·T1 after its CANCEL, RFC 3261 §9.1.
    GaveUp,
}

#[derive(Debug)]
struct Dialog {
    tag: Vec<u8>,
    /// Rows of the route set and the remote target.
    routes: Vec<u8>,
    target: Vec<u8>,
    /// By CSeq.
    acks: Vec<(u32, Vec<u8>)>,
    bye: Option<Vec<u8>>,
    bye_interval: Duration,
    bye_until: Duration,
    over: bool,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) call: usize,
    pub(crate) phase: Phase,
    pub(crate) address: SocketAddr,
    call_id: String,
    plan: CallPlan,
    cseq: u32,
    branches: u32,
    branch: Vec<u8>,
    invite: Vec<u8>,
    /// Counts INVITE transactions: timers of an older one do nothing.
    epoch: u32,
    interval: Duration,
    wants_cancel: bool,
    cancel: Option<Vec<u8>>,
    cancel_interval: Duration,
    cancel_tries: u32,
    cancel_answered: bool,
    authorized: bool,
    /// ACKs of refusals by branch, for their retransmissions.
    acks: Vec<(Vec<u8>, Vec<u8>)>,
    dialogs: Vec<Dialog>,
    /// The CSeq of the re-INVITE and its dialog, while it lasts.
    reinvite: bool,
    hang_ups: u32,
}

fn vip() -> SocketAddr {
    SocketAddr::from(([198, 18, 0, 1], 5060))
}

impl Client {
    pub(crate) fn new(call: usize, seed: u64, plan: CallPlan) -> Self {
        debug_assert_eq!(vip().to_string(), VIP);
        Self {
            call,
            phase: Phase::Idle,
            address: client_address(call),
            call_id: format!("{call}-{seed}@client.example"),
            plan,
            cseq: 0,
            branches: 0,
            branch: Vec::new(),
            invite: Vec::new(),
            epoch: 0,
            interval: T1,
            wants_cancel: false,
            cancel: None,
            cancel_interval: T1,
            cancel_tries: 0,
            cancel_answered: false,
            authorized: false,
            acks: Vec::new(),
            dialogs: Vec::new(),
            reinvite: false,
            hang_ups: 0,
        }
    }

    pub(crate) fn has_cancelled(&self) -> bool {
        self.cancel.is_some()
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Calling | Phase::Proceeding)
    }

    fn send(&self, net: &mut Network, bytes: &[u8]) {
        let (from, to) = (self.address, vip());
        net.note(bytes, "client → balancer");
        net.carry(Arm::Clients, bytes, |bytes| Event::AtBalancer {
            from,
            to,
            bytes,
        });
    }

    fn set(&self, net: &mut Network, after: Duration, timer: ClientTimer) {
        let (call, epoch) = (self.call, self.epoch);
        net.after(after, Event::ClientTimer { call, timer, epoch });
    }

    fn next_branch(&mut self) -> Vec<u8> {
        self.branches += 1;
        format!("z9hG4bK{}u{}", self.call, self.branches).into_bytes()
    }

    fn from(&self) -> Vec<u8> {
        format!("<sip:caller@client.example>;tag=f{}", self.call).into_bytes()
    }

    fn write(
        &self,
        method: Method,
        branch: &[u8],
        cseq: u32,
        dialog: Option<&Dialog>,
        more: &[u8],
    ) -> Vec<u8> {
        let mut to = b"<sip:callee@sip.lab.example>".to_vec();
        let mut rows = more.to_vec();
        let mut uri = &b"sip:callee@sip.lab.example"[..];
        if let Some(dialog) = dialog {
            to.extend_from_slice(b";tag=");
            to.extend_from_slice(&dialog.tag);
            rows.extend_from_slice(&dialog.routes);
            uri = &dialog.target;
        }
        let mut out = Vec::with_capacity(768);
        Request {
            method,
            uri,
            source: self.address,
            branch,
            call_id: &self.call_id,
            cseq,
            from: &self.from(),
            to: &to,
            rows: &rows,
        }
        .write(&mut out);
        out
    }

    fn call(&mut self, net: &mut Network, more: &[u8]) {
        self.cseq += 1;
        self.epoch += 1;
        self.branch = self.next_branch();
        self.invite = self.write(Method::Invite, &self.branch, self.cseq, None, more);
        self.begin(net);
    }

    /// Sends `self.invite` for the first time.
    fn begin(&mut self, net: &mut Network) {
        self.phase = Phase::Calling;
        self.interval = T1;
        self.send(net, &self.invite);
        self.set(net, T1, ClientTimer::A);
        self.set(net, T1_64, ClientTimer::B);
    }

    pub(crate) fn on_timer(&mut self, net: &mut Network, timer: ClientTimer, epoch: u32) {
        let current = epoch == self.epoch;
        match timer {
            ClientTimer::Start => {
                self.call(net, b"");
                net.tally.calls += 1;
                if let Some(patience) = self.plan.patience {
                    self.set(net, patience, ClientTimer::Patience);
                }
            }
            ClientTimer::A if current && self.phase == Phase::Calling => {
                self.send(net, &self.invite);
                self.interval *= 2;
                self.set(net, self.interval, ClientTimer::A);
            }
            ClientTimer::B if current && self.phase == Phase::Calling => {
                self.phase = Phase::Ended(End::TimedOut);
                net.tally.timed_out += 1;
            }
            // A challenge may have begun another transaction: the caller's patience is of the call.
            ClientTimer::Patience if !self.reinvite && self.is_open() => {
                self.wants_cancel = true;
                self.cancel(net);
            }
            ClientTimer::CancelE if current => {
                let over = matches!(self.phase, Phase::Ended(_)) && self.cancel_tries > 6;
                if let Some(cancel) = &self.cancel
                    && !self.cancel_answered
                    && !over
                    && self.cancel_tries < 11
                {
                    self.send(net, cancel);
                    self.cancel_tries += 1;
                    self.cancel_interval = (self.cancel_interval * 2).min(T2);
                    self.set(net, self.cancel_interval, ClientTimer::CancelE);
                }
            }
            ClientTimer::CancelEnd if current && self.phase == Phase::Proceeding => {
                self.phase = Phase::Ended(End::GaveUp);
                net.tally.gave_up_cancelled += 1;
            }
            ClientTimer::Reinvite => self.reinvite(net),
            ClientTimer::HangUp => self.hang_up(net, 0),
            ClientTimer::ByeE(dialog) => self.bye_again(net, dialog),
            _ => {}
        }
    }

    /// RFC 3261 §9.1: no CANCEL before a provisional response.
    fn cancel(&mut self, net: &mut Network) {
        if self.phase != Phase::Proceeding || !self.wants_cancel || self.cancel.is_some() {
            return;
        }
        let cancel = self.write(Method::Cancel, &self.branch, self.cseq, None, b"");
        self.send(net, &cancel);
        self.cancel = Some(cancel);
        self.cancel_interval = T1;
        self.set(net, T1, ClientTimer::CancelE);
        self.set(net, T1_64, ClientTimer::CancelEnd);
    }

    pub(crate) fn on_message(&mut self, net: &mut Network, view: &View<'_>) -> Result<(), String> {
        if view.is_request() {
            return self.on_request(net, view);
        }
        if view.vias != 1 {
            return Err(format!("a response with {} Vias", view.vias));
        }
        match view.method {
            Method::Invite => self.on_invite_response(net, view),
            Method::Cancel if self.cancel.is_some() => {
                self.cancel_answered |= view.status >= 200;
                Ok(())
            }
            Method::Bye => self.on_bye_response(net, view),
            _ => Err(format!("{} that nothing asked for", view.what())),
        }
    }

    fn on_invite_response(&mut self, net: &mut Network, view: &View<'_>) -> Result<(), String> {
        if let Some((_, ack)) = self.acks.iter().find(|(branch, _)| branch == view.branch) {
            if view.status >= 300 {
                let ack = ack.clone();
                self.send(net, &ack);
            }
            if view.status < 300 || view.branch != self.branch {
                return Ok(());
            }
        }
        if view.branch != self.branch {
            // The first INVITE of a dialog has its 200 again while the second is on its way.
            if view.is_acceptance() {
                self.on_acceptance(net, view);
                return Ok(());
            }
            return if self.cseq > view.cseq {
                Ok(())
            } else {
                Err("a branch of nobody".to_owned())
            };
        }
        let open = self.is_open();
        match view.status {
            100..200 => {
                if self.phase == Phase::Calling {
                    self.phase = Phase::Proceeding;
                }
                self.cancel(net);
            }
            200..300 => {
                if open {
                    self.phase = Phase::Ended(End::Answered);
                    net.tally.answered += 1;
                }
                self.on_acceptance(net, view);
            }
            status if open => {
                self.phase = Phase::Ended(End::Refused(status));
                let ack = self.ack_refusal(view);
                self.send(net, &ack);
                self.acks.push((self.branch.clone(), ack));
                let challenge = matches!(status, 401 | 407);
                if challenge && !self.authorized && !self.has_cancelled() && !self.reinvite {
                    net.tally.challenged += 1;
                    self.authorized = true;
                    let nonce = view.values("www-authenticate").next().unwrap_or_default();
                    let row = [b"Authorization: ", nonce, b"\r\n"].concat();
                    self.call(net, &row);
                } else if status == 487 {
                    net.tally.cancelled += 1;
                } else {
                    net.tally.refused += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 3261 §17.1.1.3: the branch of the INVITE, the To of the response.
    fn ack_refusal(&self, view: &View<'_>) -> Vec<u8> {
        let dialog = self.reinvite.then(|| &self.dialogs[0]);
        let mut ack = self.write(Method::Ack, &self.branch, self.cseq, dialog, b"");
        if dialog.is_none() && !view.to_tag.is_empty() {
            let to = b"To: <sip:callee@sip.lab.example>";
            if let Some(at) = memchr::memmem::find(&ack, to) {
                let tag = [b";tag=", view.to_tag].concat();
                ack.splice(at + to.len()..at + to.len(), tag);
            }
        }
        ack
    }

    /// RFC 3261 §13.2.2.4: every 2xx is acknowledged; a dialog that nobody wants is ended.
    fn on_acceptance(&mut self, net: &mut Network, view: &View<'_>) {
        if let Some(at) = self.dialogs.iter().position(|of| of.tag == view.to_tag) {
            let acks = &self.dialogs[at].acks;
            if !acks.iter().any(|(cseq, _)| *cseq == view.cseq) {
                let branch = self.next_branch();
                let ack = self.write(
                    Method::Ack,
                    &branch,
                    view.cseq,
                    Some(&self.dialogs[at]),
                    b"",
                );
                self.dialogs[at].acks.push((view.cseq, ack));
            }
            if let Some((_, ack)) = self.dialogs[at]
                .acks
                .iter()
                .find(|(cseq, _)| *cseq == view.cseq)
            {
                self.send(net, ack);
            }
            return;
        }
        let mut routes = Vec::new();
        let values: Vec<&[u8]> = view.values("record-route").collect();
        for value in values.iter().rev() {
            routes.extend_from_slice(b"Route: ");
            routes.extend_from_slice(value);
            routes.extend_from_slice(b"\r\n");
        }
        let mut dialog = Dialog {
            tag: view.to_tag.to_vec(),
            routes,
            target: view.contact().to_vec(),
            acks: Vec::new(),
            bye: None,
            bye_interval: T1,
            bye_until: Duration::ZERO,
            over: false,
        };
        let branch = self.next_branch();
        let ack = self.write(Method::Ack, &branch, view.cseq, Some(&dialog), b"");
        self.send(net, &ack);
        dialog.acks.push((view.cseq, ack));
        self.dialogs.push(dialog);
        let number = self.dialogs.len() - 1;
        if number > 0 || self.wants_cancel {
            if self.has_cancelled() {
                net.tally.glares += 1;
            }
            self.hang_up(net, number);
        } else {
            if self.plan.reinvites {
                self.set(net, self.plan.hold / 2, ClientTimer::Reinvite);
            }
            if !self.plan.server_hangs_up {
                self.set(net, self.plan.hold, ClientTimer::HangUp);
            }
        }
    }

    fn reinvite(&mut self, net: &mut Network) {
        if self.dialogs[0].over || self.dialogs[0].bye.is_some() {
            return;
        }
        net.tally.reinvites += 1;
        self.reinvite = true;
        self.cseq += 1;
        self.epoch += 1;
        self.branch = self.next_branch();
        self.invite = self.write(
            Method::Invite,
            &self.branch,
            self.cseq,
            Some(&self.dialogs[0]),
            b"",
        );
        self.begin(net);
    }

    fn hang_up(&mut self, net: &mut Network, number: usize) {
        self.hang_ups += 1;
        // The second INVITE first; but not for ever, its answer may be lost with the balancer.
        if self.reinvite && self.is_open() && self.hang_ups < 20 {
            self.set(net, Duration::from_secs(5), ClientTimer::HangUp);
            return;
        }
        if self.dialogs[number].over || self.dialogs[number].bye.is_some() {
            return;
        }
        let branch = self.next_branch();
        let cseq = self.cseq + 1 + number as u32;
        let bye = self.write(Method::Bye, &branch, cseq, Some(&self.dialogs[number]), b"");
        self.send(net, &bye);
        self.dialogs[number].bye = Some(bye);
        self.dialogs[number].bye_until = net.now.since(viaduct::time::Instant::ZERO) + T1_64;
        self.set(net, T1, ClientTimer::ByeE(number));
    }

    fn bye_again(&mut self, net: &mut Network, number: usize) {
        let dialog = &mut self.dialogs[number];
        if dialog.over {
            return;
        }
        if net.now.since(viaduct::time::Instant::ZERO) >= dialog.bye_until {
            dialog.over = true;
            net.tally.byes_unanswered += 1;
            return;
        }
        dialog.bye_interval = (dialog.bye_interval * 2).min(T2);
        let interval = dialog.bye_interval;
        if let Some(bye) = self.dialogs[number].bye.clone() {
            self.send(net, &bye);
        }
        self.set(net, interval, ClientTimer::ByeE(number));
    }

    fn on_bye_response(&mut self, net: &mut Network, view: &View<'_>) -> Result<(), String> {
        let of = |dialog: &&mut Dialog| dialog.bye.is_some() && dialog.tag == view.to_tag;
        let Some(dialog) = self.dialogs.iter_mut().find(of) else {
            return Err(format!("{} that nothing asked for", view.what()));
        };
        if view.status >= 200 && !dialog.over {
            dialog.over = true;
            net.tally.byes_answered += 1;
        }
        Ok(())
    }

    fn on_request(&mut self, net: &mut Network, view: &View<'_>) -> Result<(), String> {
        if view.method != Method::Bye {
            return Err(format!("{} to a caller", view.what()));
        }
        let known = self.dialogs.iter_mut().find(|of| of.tag == view.from_tag);
        let status = match known {
            Some(dialog) => {
                dialog.over = true;
                200
            }
            None => 481,
        };
        let mut answer = net.take();
        respond(&mut answer, view.bytes, status, b"", self.address, "");
        self.send(net, &answer);
        net.give(answer);
        Ok(())
    }
}
