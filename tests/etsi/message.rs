//! Messages as such and OPTIONS to the proxy itself: `SIP_MG_PR` and `SIP_QC_PR`.

use crate::fixture::*;
use crate::lab::*;

const B: &str = "z9hG4bKc1";
const BOB: &str = "sip:bob@sip.lab.example";

fn invite_to(uri: &str) -> Vec<u8> {
    request("INVITE", uri, "call", B, 1)
}

#[track_caller]
fn forwarded(bytes: &[u8]) -> Sent {
    only(Bench::lone().client(bytes), "INVITE server")
}

#[track_caller]
fn status(bytes: &[u8]) -> String {
    let sent = Bench::lone().client(bytes);
    assert_eq!(sent.len(), 1, "{:?}", names(&sent));
    start_line(&sent[0].bytes)
        .split(' ')
        .nth(1)
        .unwrap()
        .to_owned()
}

/// Another version of SIP gets 505.
///
/// SIP_MG_PR_I_001
#[test]
fn another_version_is_505() {
    let bytes = replaced(&invite_to(BOB), "SIP/2.0\r\nVia", "SIP/7.0\r\nVia");
    assert_eq!(status(&bytes), "505");
}

/// A Request-URI that is no URI, or one in angle brackets, gets 400.
///
/// SIP_MG_PR_I_002 SIP_MG_PR_I_003 SIP_MG_PR_I_004 SIP_MG_PR_I_005
#[test]
fn a_request_uri_that_is_none_is_400() {
    for uri in [
        "<sip:bob@sip.lab.example>",
        "sip:bob @sip.lab.example",
        "sip:",
    ] {
        assert_eq!(status(&invite_to(uri)), "400", "{uri}");
    }
}

/// A row that does not belong into the request, known or unknown, well-formed or not, stays as it is.
///
/// SIP_MG_PR_I_006 SIP_MG_PR_V_006
#[test]
fn rows_that_mean_nothing_to_a_proxy_stay() {
    let odd = "Unsupported: 100rel\r\nX-Unknown: <<<\"\r\nRetry-After: soon";
    let bytes = with_row(&invite_to(BOB), "Contact", odd);
    let sent = forwarded(&bytes);
    for name in ["Unsupported", "X-Unknown", "Retry-After"] {
        assert_eq!(rows(&sent.bytes, name), rows(&bytes, name), "{name}");
    }
}

/// A datagram that is shorter than its Content-Length says: 400 if it is a request, nothing if it is a
/// response. One that is longer is cut.
///
/// SIP_MG_PR_I_007 SIP_MG_PR_I_008 SIP_MG_PR_I_009 SIP_MG_PR_I_010
#[test]
fn a_datagram_ends_at_its_content_length() {
    let short = replaced(&invite_to(BOB), "Content-Length: 0", "Content-Length: 9");
    assert_eq!(status(&short), "400");

    let mut bench = Bench::lone();
    let request = only(bench.client(invite_to(BOB)), "INVITE server");
    let answer = response(&request, 180, "b1");
    let short = replaced(&answer, "Content-Length: 0", "Content-Length: 9");
    assert!(bench.receive(&request.to.to_string(), &short).is_empty());
    let long = [answer.as_slice(), b"more"].concat();
    let sent = only(bench.receive(&request.to.to_string(), &long), "180 client");
    assert!(!text(&sent.bytes).ends_with("more"));

    let long = [invite_to(BOB).as_slice(), b"more"].concat();
    assert!(!text(&forwarded(&long).bytes).ends_with("more"));
}

/// URIs with escapes, passwords, ports, unknown parameters and an unknown user part leave as they
/// came.
///
/// SIP_MG_PR_V_001 SIP_MG_PR_V_002 SIP_MG_PR_V_003 SIP_MG_PR_V_004 SIP_MG_PR_V_005
#[test]
fn every_legal_uri_leaves_as_it_came() {
    for uri in [
        "sip:b%6Fb@sip.lab.example",
        "sip:bob:secret@sip.lab.example:5060",
        "sip:bob@sip.lab.example;user=phone;x-unknown=1;flag",
        "sip:+1-201-555-0123;phone-context=example.com@sip.lab.example;user=phone",
        "sip:sip.lab.example",
        "SIP:Bob@SIP.lab.example",
    ] {
        let line = start_line(&forwarded(&invite_to(uri)).bytes);
        assert_eq!(line, format!("INVITE {uri} SIP/2.0"));
    }
}

/// Several values in one row or in rows of their own, in any order, folded, in any case: the same.
///
/// SIP_MG_PR_V_007 SIP_MG_PR_V_008 SIP_MG_PR_V_009 SIP_MG_PR_V_010 SIP_MG_PR_V_011
#[test]
fn rows_and_lists_are_the_same() {
    let routes = [
        "Route: <sip:198.18.0.1;lr>, <sip:198.18.1.11;lr>",
        "Route: <sip:198.18.0.1;lr>\r\nRoute: <sip:198.18.1.11;lr>",
        "ROUTE:<sip:198.18.0.1;lr>  ,\r\n  <sip:198.18.1.11;lr>",
    ];
    for route in routes {
        let bytes = with_row(&invite_to(BOB), "Max-Forwards", route);
        let sent = forwarded(&bytes);
        assert_eq!(sent.to.to_string(), "198.18.1.11:5060", "{route}");
        let left = rows(&sent.bytes, "Route");
        assert_eq!(left.join(",").matches("sip:").count(), 1, "{left:?}");
    }
    let bytes = replaced(&invite_to(BOB), "Call-ID: call", "cALL-iD:   call");
    assert_eq!(rows(&forwarded(&bytes).bytes, "Call-ID"), ["call"]);
}

/// A status code that is not known is handled as the x00 of its class.
///
/// SIP_MG_PR_V_012 SIP_MG_PR_V_013
#[test]
fn an_unknown_status_is_handled_as_its_class() {
    for (status, names_sent) in [
        (199, vec!["199 client"]),
        (299, vec!["299 client"]),
        (399, vec!["ACK server", "399 client"]),
        (499, vec!["ACK server", "499 client"]),
        (699, vec!["ACK server", "699 client"]),
    ] {
        let mut bench = Bench::lone();
        let request = only(bench.client(invite_to(BOB)), "INVITE server");
        assert_eq!(names(&bench.answer(&request, status)), names_sent);
    }
}

/// Compact names mean what the long ones mean.
///
/// SIP_MG_PR_V_014
#[test]
fn compact_names_are_read() {
    let mut bytes = invite_to(BOB);
    for (long, short) in [
        ("\r\nVia:", "\r\nv:"),
        ("\r\nFrom:", "\r\nf:"),
        ("\r\nTo:", "\r\nt:"),
        ("\r\nCall-ID:", "\r\ni:"),
        ("\r\nContact:", "\r\nm:"),
        ("\r\nContent-Length:", "\r\nl:"),
    ] {
        bytes = replaced(&bytes, long, short);
    }
    let mut bench = Bench::lone();
    let first = bench.client(&bytes);
    assert_eq!(names(&first), ["100 client", "INVITE server"]);
    // The same transaction as the long form's.
    assert_eq!(names(&bench.client(invite_to(BOB))), ["100 client"]);
}

/// Blank lines before the start line are skipped.
///
/// SIP_MG_PR_V_016
#[test]
fn blank_lines_before_the_start_line_are_skipped() {
    let bytes = [b"\r\n\r\n".as_slice(), &invite_to(BOB)].concat();
    assert!(start_line(&forwarded(&bytes).bytes).starts_with("INVITE "));
}

/// OPTIONS to the proxy itself gets a 200 by the rules of a UAS: Via, From, Call-ID and CSeq of the
/// request, a To tag; with Allow, Accept and Supported where they fit.
///
/// SIP_QC_PR_V_001 SIP_QC_PR_V_002 SIP_QC_PR_V_003 SIP_QC_PR_V_004 SIP_QC_PR_V_005
/// SIP_QC_PR_V_006 SIP_QC_PR_V_007 SIP_QC_PR_V_008
#[test]
fn options_to_the_proxy_is_answered() {
    let options = request("OPTIONS", "sip:198.18.0.1", "call", B, 1);
    let padding = format!("X-Padding: {}", "x".repeat(200));
    let options = with_row(&options, "Contact", &padding);
    let answer = Bench::lone().client(&options).remove(0);
    assert_eq!(start_line(&answer.bytes), "SIP/2.0 200 OK");
    for name in ["From", "Call-ID", "CSeq"] {
        assert_eq!(rows(&answer.bytes, name), rows(&options, name), "{name}");
    }
    assert_eq!(branch(&answer.bytes), B);
    assert!(row(&answer.bytes, "To").contains(";tag="));
    for name in ["Allow", "Accept", "Supported"] {
        assert_eq!(rows(&answer.bytes, name).len(), 1, "{name}");
    }
}
