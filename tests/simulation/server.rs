//! A called server: the UAS of RFC 3261 over UDP, with the manners that a scenario gives it.

use std::net::SocketAddr;
use std::time::Duration;

use viaduct::time::{Instant, T1, T1_64, T2};

use crate::message::{Method, Request, View, respond};
use crate::network::{Arm, Event, Network, ServerTimer};
use crate::scenario::{CallPlan, Illness, Manner, server_address};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Proceeding,
    /// A refusal waits for its ACK.
    Completed,
    /// A 2xx waits for its ACK.
    Accepted,
    Acknowledged,
}

/// An INVITE transaction and the dialog that came of it.
#[derive(Debug)]
struct Uas {
    call: usize,
    cseq: u32,
    branch: Vec<u8>,
    manner: Manner,
    plan: CallPlan,
    tag: Vec<u8>,
    request: Vec<u8>,
    /// Who sent it, and so who gets the responses.
    from: SocketAddr,
    last: Vec<u8>,
    phase: Phase,
    interval: Duration,
    final_at: Instant,
    bye: Option<Vec<u8>>,
    bye_at: Instant,
    over: bool,
}

#[derive(Debug)]
pub(crate) struct Server {
    index: usize,
    address: SocketAddr,
    pub(crate) illness: Option<Illness>,
    plans: Vec<CallPlan>,
    calls: Vec<Uas>,
    tags: u32,
}

impl Server {
    pub(crate) fn new(index: usize, plans: &[CallPlan]) -> Self {
        Self {
            index,
            address: server_address(index),
            illness: None,
            plans: plans.to_vec(),
            calls: Vec::new(),
            tags: 0,
        }
    }

    fn send(&self, net: &mut Network, to: SocketAddr, bytes: &[u8]) {
        if matches!(self.illness, Some(Illness::Dead | Illness::Refusing)) {
            return;
        }
        let from = self.address;
        net.note(bytes, &format!("s{} → balancer", self.index));
        net.carry(Arm::Servers, bytes, |bytes| Event::AtBalancer {
            from,
            to,
            bytes,
        });
    }

    fn set(&self, net: &mut Network, after: Duration, uas: usize, timer: ServerTimer) {
        let slow = match (self.illness, timer) {
            (Some(Illness::Slow(by)), ServerTimer::Send(_)) => by,
            _ => Duration::ZERO,
        };
        let server = self.index;
        net.after(after + slow, Event::ServerTimer { server, uas, timer });
    }

    /// A response outside of any INVITE transaction.
    fn reply(&self, net: &mut Network, view: &View<'_>, to: SocketAddr, status: u16, tag: &[u8]) {
        let mut answer = net.take();
        respond(&mut answer, view.bytes, status, tag, self.address, "");
        self.send(net, to, &answer);
        net.give(answer);
    }

    pub(crate) fn on_message(
        &mut self,
        net: &mut Network,
        from: SocketAddr,
        view: &View<'_>,
    ) -> Result<(), String> {
        if !view.is_request() {
            return self.on_response(view);
        }
        let by_branch = |of: &Uas| of.branch == view.branch;
        let by_dialog =
            |of: &Uas| of.call == view.call.unwrap_or(usize::MAX) && of.tag == view.to_tag;
        match view.method {
            Method::Invite => self.on_invite(net, from, view),
            Method::Ack => {
                if let Some(uas) = self.calls.iter_mut().find(|of| by_branch(of)) {
                    if uas.phase == Phase::Completed {
                        uas.phase = Phase::Acknowledged;
                    }
                } else if let Some(at) = self
                    .calls
                    .iter()
                    .position(|of| by_dialog(of) && of.cseq == view.cseq)
                {
                    self.on_ack(net, at);
                }
                Ok(())
            }
            Method::Cancel => {
                let Some(at) = self.calls.iter().position(by_branch) else {
                    self.reply(net, view, from, 481, b"x");
                    return Err("CANCEL of an INVITE that this server never saw".to_owned());
                };
                self.on_cancel(net, from, view, at);
                Ok(())
            }
            Method::Bye => {
                let Some(at) = self.calls.iter().position(by_dialog) else {
                    self.reply(net, view, from, 481, b"x");
                    return Err("BYE of a dialog that this server does not have".to_owned());
                };
                self.calls[at].over = true;
                self.on_ack(net, at);
                self.reply(net, view, from, 200, b"");
                Ok(())
            }
            Method::Options => {
                let status = if self.illness == Some(Illness::Overloaded) {
                    503
                } else {
                    200
                };
                self.reply(net, view, from, status, b"o");
                Ok(())
            }
            Method::Other => Err("a method that nobody sends".to_owned()),
        }
    }

    fn on_invite(
        &mut self,
        net: &mut Network,
        from: SocketAddr,
        view: &View<'_>,
    ) -> Result<(), String> {
        if let Some(uas) = self.calls.iter().find(|of| of.branch == view.branch) {
            // RFC 3261 §17.2.1: the latest response again; RFC 6026 §7.1: nothing once accepted.
            if !uas.last.is_empty() && matches!(uas.phase, Phase::Proceeding | Phase::Completed) {
                let last = net.copy(&uas.last);
                self.send(net, from, &last);
                net.give(last);
            }
            return Ok(());
        }
        let call = view.call.filter(|call| *call < self.plans.len());
        let call = call.ok_or("an INVITE of no call")?;
        let plan = self.plans[call];
        let in_dialog = !view.to_tag.is_empty();
        let authorized = view.values("authorization").next().map(<[u8]>::to_vec);
        let manner = match plan.manners[self.index] {
            _ if self.illness == Some(Illness::Overloaded) && !in_dialog => Manner::Refuses(503),
            _ if in_dialog => Manner::Answers,
            Manner::Challenges(_) if authorized.as_deref() == Some(self.nonce().as_bytes()) => {
                Manner::Answers
            }
            manner => manner,
        };
        if in_dialog
            && !self
                .calls
                .iter()
                .any(|of| of.call == call && of.tag == view.to_tag)
        {
            self.reply(net, view, from, 481, b"x");
            return Err("an INVITE in a dialog that this server does not have".to_owned());
        }
        self.tags += 1;
        let tag = if in_dialog {
            view.to_tag.to_vec()
        } else {
            format!("t{}x{}", self.index, self.tags).into_bytes()
        };
        let at = self.calls.len();
        self.calls.push(Uas {
            call,
            cseq: view.cseq,
            branch: view.branch.to_vec(),
            manner,
            plan,
            tag,
            request: view.bytes.to_vec(),
            from,
            last: Vec::new(),
            phase: Phase::Proceeding,
            interval: T1,
            final_at: net.now,
            bye: None,
            bye_at: net.now,
            over: in_dialog,
        });
        self.begin(net, at, in_dialog);
        Ok(())
    }

    fn nonce(&self) -> String {
        format!("Digest realm=\"lab\", nonce=\"s{}\"", self.index)
    }

    fn begin(&mut self, net: &mut Network, at: usize, in_dialog: bool) {
        let Uas { plan, manner, .. } = self.calls[at];
        let send = |net: &mut Network, after: Duration, status: u16| {
            self.set(net, after, at, ServerTimer::Send(status));
        };
        let ms = Duration::from_millis;
        if in_dialog {
            return send(net, ms(30), 200);
        }
        let late = matches!(
            manner,
            Manner::Silent | Manner::LateRinging | Manner::LateAnswer
        );
        if !late && (plan.trying || manner == Manner::OnlyTrying) {
            send(net, Duration::ZERO, 100);
        }
        let ringing = plan.rings_after.unwrap_or(ms(1));
        match manner {
            Manner::Answers | Manner::Glares | Manner::Strays => {
                if let Some(after) = plan.rings_after {
                    send(net, after, 180);
                }
                send(net, ringing + plan.answers_after, 200);
            }
            Manner::Refuses(status) => {
                // Some ring first.
                if plan.server_hangs_up
                    && let Some(after) = plan.rings_after
                    && status != 503
                {
                    send(net, after, 180);
                }
                let after = if status == 503 {
                    ms(2)
                } else {
                    ringing + plan.answers_after / 4
                };
                send(net, after, status);
            }
            Manner::Challenges(status) => send(net, ms(3), status),
            Manner::Rings => {
                send(net, ringing, 180);
                send(net, plan.rings_for + ringing, 480);
            }
            Manner::RingsThenDead => send(net, ringing, 180),
            Manner::Silent | Manner::OnlyTrying => {}
            Manner::LateRinging => {
                send(net, ms(2200) + ringing * 3, 180);
                send(net, ms(2300) + ringing * 3 + plan.answers_after, 200);
            }
            Manner::LateAnswer => send(net, ms(2200) + ringing * 4, 200),
        }
    }

    pub(crate) fn on_timer(&mut self, net: &mut Network, at: usize, timer: ServerTimer) {
        match timer {
            ServerTimer::Send(status) => self.answer(net, at, status),
            ServerTimer::Ring => self.answer(net, at, 180),
            ServerTimer::Again => self.again(net, at),
            ServerTimer::Stray => {
                net.note_text(format!("s{} sends a stray", self.index));
                self.send_last(net, at);
            }
            ServerTimer::HangUp => self.hang_up(net, at),
            ServerTimer::ByeE => self.bye_again(net, at),
        }
    }

    fn send_last(&self, net: &mut Network, at: usize) {
        let last = net.copy(&self.calls[at].last);
        self.send(net, self.calls[at].from, &last);
        net.give(last);
    }

    fn answer(&mut self, net: &mut Network, at: usize, status: u16) {
        let uas = &self.calls[at];
        if uas.phase != Phase::Proceeding {
            return;
        }
        let more = match status {
            401 | 407 => format!("WWW-Authenticate: {}\r\n", self.nonce()),
            503 => "Retry-After: 2\r\n".to_owned(),
            _ => String::new(),
        };
        let mut last = net.take();
        respond(
            &mut last,
            &uas.request,
            status,
            &uas.tag,
            self.address,
            &more,
        );
        let (address, uas) = (self.address, &mut self.calls[at]);
        debug_assert_eq!(address.port(), 5060);
        net.give(std::mem::replace(&mut uas.last, last));
        self.send_last(net, at);
        let uas = &mut self.calls[at];
        let manner = uas.manner;
        match status {
            100 => {}
            101..200 if manner != Manner::RingsThenDead => {
                self.set(net, Duration::from_secs(60), at, ServerTimer::Ring);
            }
            101..200 => {}
            _ => {
                uas.phase = if status < 300 {
                    Phase::Accepted
                } else {
                    Phase::Completed
                };
                uas.final_at = net.now;
                uas.interval = T1;
                self.set(net, T1, at, ServerTimer::Again);
                if manner == Manner::Strays && status < 300 {
                    self.set(net, Duration::from_secs(100), at, ServerTimer::Stray);
                }
            }
        }
    }

    /// RFC 3261 §13.3.1.4 and Timer G of §17.2.1: both double from T1 to T2.
    fn again(&mut self, net: &mut Network, at: usize) {
        let uas = &mut self.calls[at];
        if !matches!(uas.phase, Phase::Accepted | Phase::Completed) {
            return;
        }
        if net.now.since(uas.final_at) >= T1_64 {
            let accepted = uas.phase == Phase::Accepted;
            uas.phase = Phase::Acknowledged;
            if accepted {
                // RFC 3261 §13.3.1.4: no ACK in all that time ends the dialog.
                self.hang_up(net, at);
            }
            return;
        }
        uas.interval = (uas.interval * 2).min(T2);
        let interval = uas.interval;
        self.send_last(net, at);
        self.set(net, interval, at, ServerTimer::Again);
    }

    fn on_ack(&mut self, net: &mut Network, at: usize) {
        let uas = &mut self.calls[at];
        if uas.phase != Phase::Accepted {
            return;
        }
        uas.phase = Phase::Acknowledged;
        if uas.plan.server_hangs_up && !uas.over {
            let hold = uas.plan.hold;
            self.set(net, hold, at, ServerTimer::HangUp);
        }
    }

    /// RFC 3261 §9.2.
    fn on_cancel(&mut self, net: &mut Network, from: SocketAddr, view: &View<'_>, at: usize) {
        let uas = &self.calls[at];
        let manner = uas.manner;
        if manner == Manner::RingsThenDead {
            return;
        }
        let tag = uas.tag.clone();
        self.reply(net, view, from, 200, &tag);
        let status = if manner == Manner::Glares { 200 } else { 487 };
        self.answer(net, at, status);
    }

    fn hang_up(&mut self, net: &mut Network, at: usize) {
        if self.calls[at].over || self.calls[at].bye.is_some() {
            return;
        }
        let uas = &self.calls[at];
        let Some(view) = View::of(&uas.request) else {
            return;
        };
        let mut rows = Vec::new();
        for value in view.values("record-route") {
            rows.extend_from_slice(b"Route: ");
            rows.extend_from_slice(value);
            rows.extend_from_slice(b"\r\n");
        }
        let from = view.values("to").next().unwrap_or_default();
        let from = [from, b";tag=", &uas.tag].concat();
        let branch = format!("z9hG4bK{}s{}b{at}", uas.call, self.index);
        let call_id = view.values("call-id").next().unwrap_or_default();
        let mut bye = Vec::with_capacity(768);
        Request {
            method: Method::Bye,
            uri: view.contact(),
            source: self.address,
            branch: branch.as_bytes(),
            call_id: &String::from_utf8_lossy(call_id),
            cseq: 1,
            from: &from,
            to: view.values("from").next().unwrap_or_default(),
            rows: &rows,
        }
        .write(&mut bye);
        self.send(net, uas.from, &bye);
        let uas = &mut self.calls[at];
        uas.bye = Some(bye);
        uas.bye_at = net.now;
        uas.interval = T1;
        self.set(net, T1, at, ServerTimer::ByeE);
    }

    fn bye_again(&mut self, net: &mut Network, at: usize) {
        let uas = &mut self.calls[at];
        if uas.over {
            return;
        }
        if net.now.since(uas.bye_at) >= T1_64 {
            uas.over = true;
            net.tally.byes_unanswered += 1;
            return;
        }
        uas.interval = (uas.interval * 2).min(T2);
        let interval = uas.interval;
        let uas = &self.calls[at];
        if let Some(bye) = &uas.bye {
            let bye = net.copy(bye);
            self.send(net, uas.from, &bye);
            net.give(bye);
        }
        self.set(net, interval, at, ServerTimer::ByeE);
    }

    fn on_response(&mut self, view: &View<'_>) -> Result<(), String> {
        let of = |uas: &&mut Uas| {
            uas.bye
                .as_deref()
                .and_then(View::of)
                .is_some_and(|bye| bye.branch == view.branch)
        };
        match self.calls.iter_mut().find(of) {
            Some(uas) => {
                uas.over |= view.status >= 200;
                Ok(())
            }
            None => Err(format!("{} that this server did not ask for", view.what())),
        }
    }
}
