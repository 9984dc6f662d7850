//! The route table is who may go where: RFC 3261 §26.1.5. Who names a server by its address does not
//! get around it.

use crate::fixture::*;
use crate::tools::*;

const TABLE: &str = r#"
    trusted = ["198.18.100.0/24"]
    [[listeners]]
    name = "clients"
    address = "198.18.0.1:5060"
    aliases = ["sip.lab.example"]
    [[pools]]
    name = "edge"
    servers = [{ name = "s1", address = "198.18.1.11:5060" }]
    [[pools]]
    name = "core"
    servers = [{ name = "s2", address = "198.18.1.12:5060" }]
    [[routes]]
    from = "trusted"
    pool = "core"
    [[routes]]
    methods = ["INVITE", "REGISTER"]
    domains = ["sip.lab.example", "198.18.1.11", "198.18.1.12"]
    pool = "edge"
"#;

const EDGE: &str = "198.18.1.11:5060";
const CORE: &str = "198.18.1.12:5060";

fn goes(lab: &mut Lab, method: &str, uri: &str, routes: &str, from: &str) -> Result<String, u16> {
    let sent = lab.send(routed(method, uri, "table", routes), from).sent();
    match start_line(&sent.bytes).strip_prefix("SIP/2.0 ") {
        Some(line) => Err(line[..3].parse().unwrap()),
        None => Ok(sent.to.to_string()),
    }
}

/// No rule, no service: 403, also for who knows the address of a server.
#[test]
fn a14_without_a_rule_a_literal_address_of_the_farm_is_refused() {
    let mut lab = Lab::new(TABLE);
    for (uri, routes) in [
        ("sip:x@198.18.1.11", ""),
        ("sip:x@198.18.1.12", ""),
        ("sip:x@y.example", "Route: <sip:198.18.1.11;lr>\r\n"),
        (
            "sip:x@y.example",
            "Route: <sip:198.18.0.1;lr>, <sip:198.18.1.12;lr>\r\n",
        ),
        ("sip:x@y.example;maddr=198.18.1.12", ""),
    ] {
        assert_eq!(
            goes(&mut lab, "MESSAGE", uri, routes, STRANGER),
            Err(403),
            "{uri} {routes}"
        );
    }
    assert_eq!(
        goes(&mut lab, "INVITE", "sip:x@elsewhere.example", "", STRANGER),
        Err(403)
    );
    assert_eq!(
        goes(&mut lab, "INVITE", "sip:x@sip.lab.example", "", STRANGER),
        Ok(EDGE.to_owned())
    );
}

/// A rule that leads to one pool is no leave to choose a server of another.
#[test]
fn a14_a_rule_to_one_pool_opens_no_other() {
    let mut lab = Lab::new(TABLE);
    let edge = Ok(EDGE.to_owned());
    assert_eq!(
        goes(&mut lab, "INVITE", "sip:x@198.18.1.11", "", STRANGER),
        edge
    );
    for (uri, routes) in [
        ("sip:x@198.18.1.12", ""),
        ("sip:x@sip.lab.example", "Route: <sip:198.18.1.12;lr>\r\n"),
        (
            "sip:x@sip.lab.example",
            "Route: <sip:198.18.0.1;lr>,<sip:198.18.1.12:5060>\r\n",
        ),
        ("sip:x@sip.lab.example;maddr=198.18.1.12", ""),
    ] {
        let went = goes(&mut lab, "INVITE", uri, routes, STRANGER);
        assert_ne!(went, Ok(CORE.to_owned()), "{uri} {routes}");
    }
    // Those whom the rule is for do reach it; with a Call-ID that no stranger's call has.
    let mut lab = Lab::new(TABLE);
    let core = Ok(CORE.to_owned());
    assert_eq!(
        goes(&mut lab, "MESSAGE", "sip:x@198.18.1.12", "", TRUSTED),
        core
    );
}

/// Inside a dialog the token has vouched: a rule that does not match a BYE does not end calls.
#[test]
fn a13_a_dialog_needs_no_rule() {
    let mut lab = Lab::new(TABLE);
    let dialog = Dialog::set_up(&mut lab, "vouched");
    for method in ["ACK", "BYE", "MESSAGE"] {
        let sent = lab
            .send(dialog.by_client(method, 2, "z9hG4bK2"), CLIENT)
            .sent();
        assert_eq!(sent.to, dialog.server, "{method}");
    }
}

/// A transaction under way keeps its server, and opens no other: neither by its Call-ID nor by its
/// CSeq does another request get past the table.
#[test]
fn a14_a_pin_opens_no_other_pool() {
    let mut lab = Lab::new(TABLE);
    let edge = Ok(EDGE.to_owned());
    assert_eq!(
        goes(&mut lab, "INVITE", "sip:x@sip.lab.example", "", STRANGER),
        edge
    );
    for method in ["MESSAGE", "BYE", "INVITE", "ACK", "CANCEL"] {
        for (uri, routes) in [
            ("sip:x@198.18.1.12", ""),
            ("sip:x@sip.lab.example", "Route: <sip:198.18.1.12;lr>\r\n"),
        ] {
            let bytes = routed(method, uri, "table", routes);
            if let Outcome::Sent(sent) = lab.send(&bytes, STRANGER) {
                assert_ne!(sent.to, CORE.parse().unwrap(), "{method} {uri} {routes}");
            }
        }
    }
}

/// RFC 3891: to name a dialog of another pool does not lead into that pool.
#[test]
fn r3891_a_named_dialog_opens_no_other_pool() {
    let mut lab = Lab::new(TABLE);
    let core = Ok(CORE.to_owned());
    assert_eq!(
        goes(&mut lab, "INVITE", "sip:x@y.example", "", TRUSTED),
        core
    );
    for header in ["Replaces", "Join", "Target-Dialog"] {
        let bytes = request("INVITE", "sip:x@sip.lab.example", header, "z9hG4bK1", 1);
        let bytes = with_row(
            &bytes,
            "Contact",
            &format!("{header}: table;to-tag=1;from-tag=2"),
        );
        assert_eq!(
            lab.send(bytes, STRANGER).sent().to,
            EDGE.parse().unwrap(),
            "{header}"
        );
    }
}
