//! What chooses a server must be in the CANCEL and the ACK as well, or be remembered.

use crate::calls::{Farm, URI};
use crate::fixture::*;

/// RFC 3891: an INVITE with `Replaces` goes to the server of the dialog it names; its CANCEL and ACK
/// do not repeat that header. With and without pins they go where the INVITE went.
#[test]
fn r3891_the_cancel_of_an_invite_with_replaces_goes_where_it_went() {
    for pins in [1 << 16, 0] {
        let config = format!(
            "{}[datapath]\npins = {pins}\n",
            Farm::of(&[1, 2, 3, 4, 5]).config()
        );
        let mut lab = Lab::with_workers(&config, 3);
        for header in ["Replaces", "Join", "Target-Dialog"] {
            for n in 0..40 {
                let named = format!("named-{n}");
                lab.send(invite(&named, "z9hG4bK1"), CLIENT).sent();
                let id = format!("{header}-{pins}-{n}");
                let of = |method: &str| request(method, URI, &id, "z9hG4bK2", 1);
                let value = format!("{header}: {named};to-tag=b1;from-tag=a1");
                let invite = with_row(&of("INVITE"), "Contact", &value);
                let invite = lab.send(invite, CLIENT).sent();
                for method in ["CANCEL", "ACK"] {
                    let sent = lab.send(of(method), CLIENT).sent();
                    assert_eq!(sent.to, invite.to, "{header}, {pins} pins: {method}");
                    assert_eq!(branch(&sent.bytes), branch(&invite.bytes));
                }
            }
        }
    }
}
