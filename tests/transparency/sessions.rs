//! Sessions: methods inside dialogs, reliable provisional responses, preconditions, timers.

use crate::exchange::*;
use crate::fixture::*;

/// Legacy INFO has no Info-Package and is an ordinary request in a dialog.
#[test]
fn r2976_info_without_a_package_follows_its_dialog() {
    exchange("INFO")
        .in_dialog()
        .row("Content-Disposition: signal;handling=optional")
        .body("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n")
        .answer("200 OK", &[])
        .answer("481 Call Leg/Transaction Does Not Exist", &[])
        .check();
}

/// Reliable provisional responses, their retransmissions and PRACK: never ours to answer.
#[test]
fn r3262_reliable_provisional_responses_and_prack_pass() {
    exchange("INVITE")
        .rows(&["Require: 100rel", "Supported: 100rel"])
        .body("application/sdp", SDP)
        .answer("183 Session Progress", &["Require: 100rel", "RSeq: 1"])
        .answer("180 Ringing", &["Require: 100rel", "RSeq: 2"])
        .answer("420 Bad Extension", &["Unsupported: 100rel"])
        .check();
    exchange("PRACK")
        .in_early_dialog()
        .row("RAck: 1 7 INVITE")
        .answer("200 OK", &[])
        .answer("481 Call/Transaction Does Not Exist", &[])
        .check();
}

/// Three copies of a 183 arrive as three copies, whatever the time between them.
#[test]
fn r3262_every_copy_of_a_reliable_183_reaches_the_caller() {
    let mut stage = Stage::one_armed();
    let invite = exchange("INVITE").row("Require: 100rel");
    let sent = stage.client_sends(&invite.bytes(stage.client, "sip.lab.example", "rel", &[]));
    let bytes = Answer::new("183 Session Progress", &["Require: 100rel", "RSeq: 1"], SDP)
        .bytes(&sent.bytes, sent.to);
    let first = stage.lab.reply(&bytes, &sent).sent();
    for milliseconds in [500, 1_000] {
        stage
            .lab
            .wait(std::time::Duration::from_millis(milliseconds));
        assert_eq!(stage.lab.reply(&bytes, &sent).sent(), first);
    }
    assert_eq!(first.to, stage.client);
}

#[test]
fn r3311_update_passes_in_early_dialogs_both_ways() {
    exchange("UPDATE")
        .in_early_dialog()
        .rows(&["Allow: INVITE, UPDATE, PRACK"])
        .body("application/sdp", SDP)
        .answer_with("200 OK", &["Content-Type: application/sdp"], SDP)
        .answer("491 Request Pending", &[])
        .answer("504 Server Time-out", &[])
        .check();
}

/// The whole flow of RFC 3312 §13.1 on one server, in its order.
#[test]
fn r3312_a_precondition_flow_stays_on_one_server() {
    preconditions("INVITE", false);
}

/// RFC 4032 §3: preconditions in the middle of a session.
#[test]
fn r4032_preconditions_in_a_reinvite_stay_on_one_server() {
    preconditions("INVITE", true);
}

fn preconditions(method: &str, in_session: bool) {
    let sdp = |current: &str| {
        let text = format!(
            "a=curr:qos e2e {current}\r\na=des:qos mandatory e2e sendrecv\r\na=conf:qos e2e recv\r\n"
        );
        [SDP, text.as_bytes()].concat()
    };
    for mut stage in Stage::all() {
        let call_id = "preconditions";
        let mut invite = exchange(method)
            .rows(&["Require: precondition", "Supported: 100rel, precondition"])
            .body("application/sdp", sdp("none"));
        let mut host = "sip.lab.example".to_owned();
        let mut routes = Vec::new();
        if in_session {
            let dialog = set_up(&mut stage, call_id, "200 OK");
            invite = invite.in_dialog();
            host = dialog.server.to_string();
            routes = dialog.of_caller();
        }
        let sent = stage.client_sends(&invite.bytes(stage.client, &host, call_id, &routes));
        let server = sent.to;
        let answer = |stage: &mut Stage, to: &Sent, status: &str, rows: &[&str], body: &[u8]| {
            let bytes = Answer::new(status, rows, body).bytes(&to.bytes, to.to);
            stage.response(&bytes, to)
        };
        let progress = [
            "Require: 100rel, precondition",
            "RSeq: 9021",
            "Content-Type: application/sdp",
        ];
        let back = answer(
            &mut stage,
            &sent,
            "183 Session Progress",
            &progress,
            &sdp("send"),
        );
        let record_routes = rows(&back.bytes, "Record-Route");
        let callers: Vec<String> = record_routes.iter().rev().cloned().collect();
        for (request, cseq, extra) in [
            ("PRACK", 8, "RAck: 9021 7 INVITE"),
            ("UPDATE", 9, "Require: precondition"),
        ] {
            let bytes = exchange(request)
                .in_early_dialog()
                .cseq(cseq)
                .row(extra)
                .body("application/sdp", sdp("sendrecv"))
                .bytes(stage.client, &server.to_string(), call_id, &callers);
            let within = stage.client_sends(&bytes);
            assert_eq!(within.to, server);
            answer(
                &mut stage,
                &within,
                "200 OK",
                &["Content-Type: application/sdp"],
                &sdp("sendrecv"),
            );
        }
        answer(
            &mut stage,
            &sent,
            "180 Ringing",
            &["RSeq: 9022", "Require: 100rel"],
            b"",
        );
        answer(
            &mut stage,
            &sent,
            "580 Precondition Failure",
            &["Content-Type: application/sdp"],
            &sdp("none"),
        );
        answer(&mut stage, &sent, "200 OK", &[], b"");
    }
}

/// A stateless proxy must not ask for session timers; what others ask stays.
#[test]
fn r4028_session_timers_pass_and_none_is_added() {
    for method in ["INVITE", "UPDATE"] {
        exchange(method)
            .in_dialog()
            .rows(&[
                "Supported: timer",
                "Session-Expires: 1800;refresher=uac",
                "Min-SE: 90",
            ])
            .answer(
                "200 OK",
                &["Require: timer", "Session-Expires: 1800;refresher=uas"],
            )
            .answer("422 Session Interval Too Small", &["Min-SE: 3600"])
            .check();
    }
    exchange("INVITE")
        .row("x: 90")
        .answer("422 Session Interval Too Small", &["Min-SE: 1800"])
        .check();
    // The refresh after half an hour, pins long gone, on a node that was started anew.
    let mut stage = Stage::one_armed();
    let dialog = set_up(&mut stage, "timer", "200 OK");
    stage.lab.wait(std::time::Duration::from_secs(1_800));
    stage.lab.restart();
    let bytes = exchange("UPDATE")
        .in_dialog()
        .row("Session-Expires: 1800")
        .bytes(
            stage.client,
            &dialog.server.to_string(),
            "timer",
            &dialog.of_caller(),
        );
    assert_eq!(stage.client_sends(&bytes).to, dialog.server);
}

/// Require is addressed to the server: no 420 of ours, and the server's passes.
#[test]
fn r4092_required_anat_is_the_servers_to_judge() {
    let sdp = [&b"v=0\r\na=group:ANAT 1 2\r\n"[..], SDP, b"a=mid:1\r\n"].concat();
    exchange("INVITE")
        .row("Require: sdp-anat")
        .body("application/sdp", sdp)
        .answer("420 Bad Extension", &["Unsupported: sdp-anat"])
        .answer("200 OK", &["Require: sdp-anat"])
        .check();
}

#[test]
fn r5768_required_ice_is_the_servers_to_judge() {
    let sdp = [
        SDP,
        b"a=candidate:1 1 UDP 2130706431 198.18.200.7 8998 typ host\r\n",
    ]
    .concat();
    exchange("INVITE")
        .contact("<sip:a@198.18.200.7>;+sip.ice")
        .rows(&["Require: ice", "Supported: ice"])
        .body("application/sdp", sdp)
        .answer("200 OK", &["Require: ice"])
        .answer("420 Bad Extension", &["Unsupported: ice"])
        .check();
}

/// From and To change in the middle of a dialog; nothing we route by is in them.
#[test]
fn r4916_a_changed_identity_stays_in_its_dialog() {
    for mut stage in Stage::all() {
        let dialog = set_up(&mut stage, "identity", "200 OK");
        let client = stage.client.to_string();
        for (method, cseq) in [("UPDATE", 1), ("BYE", 2)] {
            let bytes = exchange(method)
                .in_dialog()
                .cseq(cseq)
                .from("\"Carol\" <sip:carol@other.example>")
                .rows(&[
                    "Supported: from-change",
                    "Identity: abc;info=<https://x.example/c>",
                ])
                .bytes(dialog.server, &client, "identity", &dialog.routes);
            let sent = stage.server_sends(&bytes, dialog.server);
            let ok = Answer::new("200 OK", &["Supported: from-change"], b"");
            stage.response(&ok.bytes(&sent.bytes, sent.to), &sent);
        }
        for (method, cseq) in [("UPDATE", 8), ("BYE", 9)] {
            let bytes = exchange(method)
                .in_dialog()
                .cseq(cseq)
                .from("<sip:somebody@else.example>")
                .bytes(
                    stage.client,
                    &dialog.server.to_string(),
                    "identity",
                    &dialog.of_caller(),
                );
            assert_eq!(stage.client_sends(&bytes).to, dialog.server);
        }
    }
}

/// RFC 6141 §4: a target refresh changes where the next request goes; we remember no target.
#[test]
fn r6141_a_new_contact_is_followed_at_once() {
    for mut stage in Stage::all() {
        let dialog = set_up(&mut stage, "target", "200 OK");
        let moved = |port: u16| std::net::SocketAddr::new(dialog.server.ip(), port);
        for (port, cseq) in [(5060, 8), (6060, 9), (7060, 10)] {
            let bytes = exchange("INVITE").in_dialog().cseq(cseq).bytes(
                stage.client,
                &moved(port).to_string(),
                "target",
                &dialog.of_caller(),
            );
            let (client, outside) = (stage.client, stage.outside);
            assert_eq!(stage.request(&bytes, client, outside).to, moved(port));
        }
        let mut client = stage.client;
        for (port, cseq) in [(5060, 1), (9988, 2)] {
            client.set_port(port);
            let bytes = exchange("INVITE").in_dialog().cseq(cseq).bytes(
                dialog.server,
                &client.to_string(),
                "target",
                &dialog.routes,
            );
            let farm = stage.farm;
            assert_eq!(stage.request(&bytes, dialog.server, farm).to, client);
        }
    }
}

#[test]
fn r6228_199_is_forwarded_like_any_provisional() {
    exchange("INVITE")
        .row("Supported: 199, 100rel")
        .answer("180 Ringing", &[])
        .answer(
            "199 Early Dialog Terminated",
            &["Reason: SIP ;cause=486 ;text=\"Busy Here\""],
        )
        .answer("100 Trying", &[])
        .check();
}

#[test]
fn r5373_answer_modes_stay() {
    exchange("INVITE")
        .rows(&[
            "Answer-Mode: Auto;require",
            "Priv-Answer-Mode: Manual",
            "Require: answermode",
        ])
        .answer("200 OK", &["Answer-Mode: Auto"])
        .answer(
            "403 Forbidden",
            &["Warning: 399 x \"Answering Mode Refused\""],
        )
        .check();
}

#[test]
fn r6086_info_packages_and_an_empty_recv_info_stay() {
    exchange("INVITE")
        .row("Recv-Info: ")
        .answer("200 OK", &["Recv-Info: foo, bar;x=\"a,b\"", "Recv-Info:"])
        .check();
    exchange("INFO")
        .in_dialog()
        .rows(&["Info-Package: foo;a=1", "Content-Disposition: Info-Package"])
        .body("application/foo", binary(80))
        .answer("200 OK", &[])
        .answer("469 Bad Info Package", &["Recv-Info: bar"])
        .check();
}
