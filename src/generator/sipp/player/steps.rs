//! What single steps do: send, wait, pause, act.

use super::{Player, WAIT_MAX, open_receives};
use crate::generator::note;
use crate::generator::sipp::actions::{self, Value};
use crate::generator::sipp::calls::Call;
use crate::generator::sipp::fill::Occasion;
use crate::generator::sipp::program::{Action, Pause, Send};
use crate::generator::stats::Failure;
use crate::generator::timers::Timers;
use crate::generator::wheel::Timekeeper as _;
use crate::sip::{Kind as MessageKind, Method};
use crate::time::{Duration, Instant};

impl Player<'_> {
    /// Does one action. `false` if the call has ended by it.
    pub(super) fn act(&mut self, index: u32, place: usize, action: &Action, now: Instant) -> bool {
        let text = match action {
            Action::AssignText(_, text) | Action::Log(text) => {
                let mut out = Vec::new();
                if let Some(call) = self.calls.at(index) {
                    let of = Occasion {
                        call,
                        index,
                        step: place,
                        now,
                    };
                    self.constants.write(text, &of, &mut out);
                }
                out
            }
            _ => Vec::new(),
        };
        let Some(call) = self.calls.at(index) else {
            return false;
        };
        let number = |call: &Call, place: usize| {
            let value = call.variables.get(place).and_then(Option::as_ref);
            value.map_or(0.0, Value::number)
        };
        let (to, value) = match action {
            Action::Assign(to, number) => (*to, Value::Number(*number)),
            Action::AssignText(to, _) => (*to, Value::Text(text)),
            Action::Add(to, more) => (*to, Value::Number(number(call, *to) + more)),
            Action::ToNumber(to, from) => (*to, Value::Number(number(call, *from))),
            Action::Test {
                assign_to,
                variable,
                order,
                is_not,
                value,
            } => {
                let is_so = number(call, *variable).partial_cmp(value) == Some(*order);
                (*assign_to, Value::Flag(is_so != *is_not))
            }
            Action::Ereg(ereg) => {
                let mut reader = self.constants.reader.borrow_mut();
                let is_good = reader.parse(&call.last).is_ok()
                    && actions::search(ereg, &call.last, &reader, &mut call.variables);
                drop(reader);
                if !is_good {
                    self.fail(index, Failure::Check);
                }
                return is_good;
            }
            Action::Log(_) => {
                note(&String::from_utf8_lossy(&text));
                return true;
            }
            Action::StopCall => {
                self.fail(index, Failure::Stopped);
                return false;
            }
            Action::Stop(at_once) => {
                if let Some(schedule) = self.schedule.as_mut() {
                    schedule.stop();
                }
                self.is_stopped = true;
                if *at_once {
                    self.drain_end = Some(now);
                }
                return true;
            }
        };
        if let Some(variable) = call.variables.get_mut(to) {
            *variable = Some(value);
        }
        true
    }

    /// Writes and sends a step's message, and sets its retransmissions.
    pub(super) fn send_step(
        &mut self,
        index: u32,
        place: usize,
        send: &Send,
        lost: f64,
        now: Instant,
    ) {
        let is_lost = lost > 0.0 && self.uniform() < lost;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        let is_ack = send.text.method == Some(Method::Ack);
        // As SIPp counts: every request but ACK and CANCEL has the next number.
        if send
            .text
            .method
            .is_some_and(|method| !matches!(method, Method::Ack | Method::Cancel))
        {
            call.cseq = call.cseq.saturating_add(1);
            if let Some(challenged) = call.challenged.as_mut() {
                challenged.count += 1;
            }
        }
        let mut out = core::mem::take(if is_ack {
            &mut call.ack
        } else {
            &mut call.sent
        });
        out.clear();
        let of = Occasion {
            call,
            index,
            step: place,
            now,
        };
        self.constants.write(&send.text, &of, &mut out);
        let is_read = self.sent.parse(&out).is_ok();
        let is_response = send.text.method.is_none();
        let kinds = &mut self.stats.messages.sent;
        match self.sent.kind() {
            _ if !is_read => {}
            MessageKind::Response => kinds.response(self.sent.status()),
            _ => kinds.request(self.sent.method()),
        }
        if !is_lost {
            self.sender.send(call.socket, call.peer, |arena| {
                arena.extend_from_slice(&out)
            });
        }
        if is_ack {
            call.ack = out;
            return;
        }
        call.sent = out;
        if is_read {
            call.note_sent(&self.sent, is_response);
        } else {
            call.sent_of = None;
        }
        if is_response && is_read && self.sent.status() / 100 == 2 && !call.answered {
            call.answered = true;
            self.stats.answer(now.since(call.intended));
        }
        call.resend = send.retrans.map(|t1| {
            let timers = Timers {
                t1,
                t2: self.setting.timers.t2.max(t1),
            };
            call.resend_end = now + timers.t1_64();
            if send.text.method == Some(Method::Invite) {
                timers.invite(now)
            } else {
                timers.other(now)
            }
        });
        self.arm(index);
    }

    /// Waits for a message: until the nearest time out of the receive steps that are open.
    pub(super) fn wait(&mut self, index: u32, now: Instant) {
        let program = &self.play.program;
        let timeout = self.setting.timeout;
        let Some(call) = self.calls.at(index) else {
            return;
        };
        // A step that is entered again goes on waiting as long as it began to.
        if call.deadline.is_none() {
            let named = open_receives(program, call.at).filter_map(|(_, receive)| receive.timeout);
            let mut deadline = now + named.min().unwrap_or(WAIT_MAX);
            if let (Some(timeout), false) = (timeout, call.answered) {
                deadline = deadline.min(call.intended + timeout);
            }
            call.deadline = Some(deadline);
        }
        self.arm(index);
    }

    /// Goes on at that time.
    pub(super) fn sleep(&mut self, index: u32, until: Instant) {
        if let Some(call) = self.calls.at(index) {
            call.deadline = Some(until);
        }
        self.arm(index);
    }

    /// Length of a pause of this call.
    pub(super) fn pause(&mut self, pause: Pause, index: u32) -> Duration {
        match pause {
            Pause::Default => self.play.pause,
            Pause::Fixed(length) => length,
            Pause::Uniform(low, high) => {
                let share = self.uniform();
                low + high.saturating_sub(low).mul_f64(share)
            }
            // The inverse of the distribution; 1 − u is above zero.
            Pause::Exponential(mean) => {
                let factor = -(1.0 - self.uniform()).ln();
                mean.mul_f64(factor.clamp(0.0, 100.0))
            }
            Pause::Variable(place) => {
                let value = self
                    .calls
                    .at(index)
                    .and_then(|call| call.variables.get(place));
                let value = value.and_then(Option::as_ref).map_or(0.0, Value::number);
                Duration::from_secs_f64((value / 1000.0).clamp(0.0, 86_400.0))
            }
        }
    }
}
