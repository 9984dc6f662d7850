//! Calls that ring: what belongs to them must stay together.

use std::net::SocketAddr;
use std::time::Duration;

use crate::fixture::*;

/// A farm as text.
#[derive(Clone, Debug)]
pub(crate) struct Farm {
    /// Servers: number, weight, priority. Server n is `sN` at 198.18.1.1N.
    pub(crate) servers: Vec<(u8, u32, u8)>,
    /// Rows of the pool.
    pub(crate) pool: &'static str,
    /// What follows: route table, other pools.
    pub(crate) rest: &'static str,
}

impl Farm {
    pub(crate) fn of(numbers: &[u8]) -> Self {
        Self {
            servers: numbers.iter().map(|number| (*number, 1, 0)).collect(),
            pool: "",
            rest: "",
        }
    }

    pub(crate) fn config(&self) -> String {
        let servers: Vec<String> = self
            .servers
            .iter()
            .map(|(n, weight, priority)| {
                format!(
                    "{{ name = \"s{n}\", address = \"198.18.1.1{n}:5060\", weight = {weight}, \
                     priority = {priority} }}"
                )
            })
            .collect();
        format!(
            "trusted = [\"198.18.100.0/24\"]\n\
             [[listeners]]\nname = \"clients\"\naddress = \"198.18.0.1:5060\"\n\
             aliases = [\"sip.lab.example\"]\n\
             [[pools]]\nname = \"farm\"\n{}\nservers = [{}]\n{}\n",
            self.pool,
            servers.join(", "),
            self.rest
        )
    }
}

/// A call that rings.
#[derive(Clone, Debug)]
pub(crate) struct Ringing {
    pub(crate) id: String,
    pub(crate) from: SocketAddr,
    pub(crate) invite: Sent,
}

pub(crate) const URI: &str = "sip:bob@sip.lab.example";

fn vip() -> SocketAddr {
    VIP.parse().unwrap()
}

/// One worker after the other reads the datagrams of a call, as kernel and program divide them.
fn worker(lab: &Lab, turn: usize) -> usize {
    turn % lab.forwarders.len()
}

impl Ringing {
    /// An INVITE and its 180.
    #[track_caller]
    pub(crate) fn begin(lab: &mut Lab, id: &str) -> Self {
        let from: SocketAddr = CLIENT.parse().unwrap();
        let turn = id.len() + usize::from(id.as_bytes()[id.len() - 1]);
        let invite = lab
            .deliver_at(worker(lab, turn), &invite(id, "z9hG4bK1"), from, vip())
            .sent();
        let call = Self {
            id: id.to_owned(),
            from,
            invite,
        };
        call.answered(lab, 100);
        call.answered(lab, 180);
        call
    }

    /// Many, on all servers of the farm.
    #[track_caller]
    pub(crate) fn many(lab: &mut Lab, count: usize) -> Vec<Self> {
        (0..count)
            .map(|n| Self::begin(lab, &format!("ringing-{n}@client.example")))
            .collect()
    }

    /// A response of its server reaches the client.
    #[track_caller]
    pub(crate) fn answered(&self, lab: &mut Lab, status: u16) {
        let bytes = response(&self.invite, status, "b1");
        let turn = usize::from(status);
        let back = lab
            .deliver_at(worker(lab, turn), &bytes, self.invite.to, self.invite.from)
            .sent();
        assert_eq!(
            (back.to, back.from),
            (self.from, vip()),
            "{status} of {}",
            self.id
        );
    }

    /// A request of its transaction, from some port, by some worker.
    #[track_caller]
    pub(crate) fn follow_up(&self, lab: &mut Lab, method: &str, port: u16, turn: usize) -> Sent {
        let bytes = request(method, URI, &self.id, "z9hG4bK1", 1);
        let bytes = match method {
            "ACK" => replaced(
                &bytes,
                "To: Bob <sip:bob@sip.lab.example>",
                "To: Bob <sip:bob@sip.lab.example>;tag=b1",
            ),
            _ => bytes,
        };
        let from = SocketAddr::new(self.from.ip(), port);
        match lab.deliver_at(worker(lab, turn), &bytes, from, vip()) {
            Outcome::Sent(sent) => sent,
            Outcome::Dropped(reason) => panic!("{method} of {}: {}", self.id, reason.as_str()),
        }
    }

    /// Asserts that everything a client may send now goes to the call's server with its branch.
    #[track_caller]
    pub(crate) fn holds_together(&self, lab: &mut Lab, what: &str) {
        for turn in 0..3 {
            let again = self.follow_up(lab, "INVITE", 5060, turn);
            assert_eq!(
                again.to, self.invite.to,
                "{what}: INVITE of {} again",
                self.id
            );
            assert_eq!(branch(&again.bytes), branch(&self.invite.bytes), "{what}");
            for (method, port) in [
                ("CANCEL", 5060),
                ("CANCEL", 40_001),
                ("ACK", 5060),
                ("ACK", 40_002),
            ] {
                let sent = self.follow_up(lab, method, port, turn + usize::from(port));
                assert!(
                    sent.bytes.starts_with(method.as_bytes()),
                    "{what}: {}",
                    text(&sent.bytes)
                );
                assert_eq!(sent.to, self.invite.to, "{what}: {method} of {}", self.id);
                assert_eq!(
                    branch(&sent.bytes),
                    branch(&self.invite.bytes),
                    "{what}: {method}"
                );
            }
        }
    }
}

/// CANCEL, its 200, the 487, and for half a minute the ACK from another port.
#[track_caller]
pub(crate) fn cancelled(lab: &mut Lab, calls: &[Ringing], what: &str) {
    for call in calls {
        call.holds_together(lab, what);
        let cancel = call.follow_up(lab, "CANCEL", 5060, 1);
        let ok = lab.reply(response(&cancel, 200, "b1"), &cancel).sent();
        assert_eq!(ok.to, call.from, "{what}");
        call.answered(lab, 487);
    }
    for seconds in [0, 1, 30] {
        lab.wait(Duration::from_secs(seconds));
        for call in calls {
            let ack = call.follow_up(lab, "ACK", 40_003, 2);
            assert_eq!(ack.to, call.invite.to, "{what}: ACK of {}", call.id);
            assert_eq!(branch(&ack.bytes), branch(&call.invite.bytes), "{what}");
        }
    }
}

/// Rings for five minutes, `changes` at equal distances, a 180 every minute; then hangs up.
#[track_caller]
pub(crate) fn ring(lab: &mut Lab, calls: &[Ringing], changes: &[String], what: &str) {
    let minutes = 5;
    let mut changes = changes.iter().collect::<std::collections::VecDeque<_>>();
    let each_minute = changes.len().div_ceil(minutes);
    for minute in 0..minutes {
        for _ in 0..each_minute {
            if let Some(config) = changes.pop_front() {
                lab.reload(config);
                let what = format!("{what}, minute {minute}");
                for call in calls {
                    call.holds_together(lab, &what);
                }
            }
        }
        for call in calls {
            call.answered(lab, 180);
        }
        lab.wait(Duration::from_secs(60));
    }
    cancelled(lab, calls, what);
}

/// How many servers these calls ring on.
pub(crate) fn spread(calls: &[Ringing]) -> usize {
    let servers: std::collections::BTreeSet<_> = calls.iter().map(|call| call.invite.to).collect();
    servers.len()
}
