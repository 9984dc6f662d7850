//! The paths a message can take into one process: RFC 3261 §16.11.

use std::net::SocketAddr;

use crate::calls::{Farm, Ringing, cancelled};
use crate::fixture::*;

/// A large INVITE comes in fragments by the kernel, to whatever worker reads that socket; its CANCEL
/// by XDP, to another; the ACK from another source port, to a third. Hand-over brings all of them to
/// one pin.
#[test]
fn a32_kernel_path_xdp_and_another_port_meet_at_one_server() {
    for workers in [1, 2, 3, 4, 7] {
        let config = Farm::of(&[1, 2, 3]).config();
        let mut lab = Lab::with_workers(&config, workers);
        let count = usize::from(workers);
        let vip: SocketAddr = VIP.parse().unwrap();
        for n in 0..60 {
            let id = format!("paths-{workers}-{n}");
            let body = "v".repeat(4000);
            let large = replaced(&invite(&id, "z9hG4bK1"), "Length: 0", "Length: 4000");
            let large = [large, body.into_bytes()].concat();
            let kernel = n % count;
            let from: SocketAddr = CLIENT.parse().unwrap();
            let invite = lab.deliver_at(kernel, &large, from, vip).sent();
            let call = Ringing {
                id,
                from,
                invite: invite.clone(),
            };
            call.answered(&mut lab, 180);
            lab.reload(&Farm::of(&[4, 5, 6]).config());
            let again = lab
                .deliver_at((kernel + 1) % count, &large, from, vip)
                .sent();
            assert_eq!(again, invite, "a retransmission by another worker");
            let cancel = call.follow_up(&mut lab, "CANCEL", 5060, kernel + 1);
            let ack = call.follow_up(&mut lab, "ACK", 41_000, kernel + 2);
            for sent in [cancel, ack] {
                assert_eq!(sent.to, invite.to);
                assert_eq!(branch(&sent.bytes), branch(&invite.bytes));
            }
            lab.reload(&config);
        }
        // An INVITE of one in so many is at home; what follows finds its pin from everywhere.
        assert!(workers == 1 || lab.handed_over > 30, "{}", lab.handed_over);
    }
}

/// The worker that reads a response is any worker, and the pin lives on.
#[test]
fn a32_responses_read_by_any_worker_keep_the_pin() {
    let mut lab = Lab::with_workers(&Farm::of(&[1, 2, 3]).config(), 4);
    let calls = Ringing::many(&mut lab, 40);
    for minute in 0..5 {
        lab.wait(std::time::Duration::from_secs(60));
        for (n, call) in calls.iter().enumerate() {
            let ringing = response(&call.invite, 180, "b1");
            let worker = (n + minute) % 4;
            lab.deliver_at(worker, &ringing, call.invite.to, call.invite.from)
                .sent();
        }
    }
    lab.reload(&Farm::of(&[9]).config());
    cancelled(&mut lab, &calls, "five minutes");
}
