//! The whole way of a call.

use crate::fixture::*;

#[test]
fn a40_a_call_and_its_bye_go_to_one_server_and_back() {
    let mut lab = Lab::new(ONE_ARMED);
    let sent = lab.send(invite("call-1", "z9hG4bKa"), CLIENT).sent();
    assert!(SERVERS.contains(&sent.to.to_string().as_str()));
    let ringing = lab.reply(response(&sent, 180, "b1"), &sent).sent();
    assert_eq!(ringing.to, CLIENT.parse().unwrap());
    assert_eq!(ringing.from, VIP.parse().unwrap());

    let dialog = Dialog::set_up(&mut lab, "call-2");
    let bye = lab
        .send(dialog.by_client("BYE", 2, "z9hG4bKb"), CLIENT)
        .sent();
    assert_eq!(bye.to, dialog.server);
    let bye = dialog.by_server("BYE", 1, "z9hG4bKc");
    let sent = lab.deliver(&bye, dialog.server, dialog.server_side).sent();
    assert_eq!(sent.to, CLIENT.parse().unwrap());
}
