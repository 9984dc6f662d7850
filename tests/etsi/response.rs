//! Responses through the proxy: `SIP_CC_PR_MP_RS`.

use crate::fixture::*;
use crate::lab::*;

const B: &str = "z9hG4bKc1";

#[track_caller]
fn forwarded(bench: &mut Bench) -> Sent {
    only(bench.client(invite("call", B)), "INVITE server")
}

/// A request without a transaction here: its responses, each of every class, go where the next Via
/// says, without our own.
///
/// SIP_CC_PR_MP_RS_V_001 SIP_CC_PR_MP_RS_V_005 SIP_CC_PR_MP_RS_V_006 SIP_CC_PR_MP_RS_V_007
/// SIP_CC_PR_MP_RS_V_008 SIP_CC_PR_MP_RS_V_009 SIP_CC_PR_MP_RS_V_010 SIP_CC_PR_MP_RS_V_011
#[test]
fn without_a_transaction_each_response_follows_its_via() {
    for status in [180, 200, 302, 404, 500, 503, 603] {
        let mut bench = Bench::lone();
        let bye = request("BYE", "sip:bob@sip.lab.example", "call", B, 2);
        let sent = only(bench.client(bye), "BYE server");
        let back = bench.answer(&sent, status).remove(0);
        assert_eq!(back.to.to_string(), CLIENT);
        assert_eq!(start_line(&back.bytes), format!("SIP/2.0 {status} Reason"));
        assert_eq!(rows(&back.bytes, "Via").len(), 1);
        assert_eq!(branch(&back.bytes), B);
    }
}

/// A response whose top Via is not ours is dropped without a word.
///
/// SIP_CC_PR_MP_RS_V_002
#[test]
fn a_response_with_a_foreign_top_via_is_dropped() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench);
    let answer = response(&request, 200, "b1");
    let foreign = replaced(&answer, "SIP/2.0/UDP 198.18.0.1", "SIP/2.0/UDP 198.18.0.2");
    assert!(bench.receive(&request.to.to_string(), &foreign).is_empty());
}

/// Our Via is taken off; a response that has no other one is for us and goes no further.
///
/// SIP_CC_PR_MP_RS_V_004
#[test]
fn a_response_with_only_our_via_goes_no_further() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench);
    let answer = response(&request, 180, "b1");
    let client = &whole_rows(&request.bytes, "Via")[1];
    let alone = replaced(&answer, &format!("{client}\r\n"), "");
    assert!(bench.receive(&request.to.to_string(), &alone).is_empty());
    let whole = only(bench.answer(&request, 180), "180 client");
    assert_eq!(rows(&whole.bytes, "Via").len(), 1);
}

/// Provisional responses but 100 go on at once; a 100 goes one hop only.
///
/// SIP_CC_PR_MP_RS_V_012 SIP_CC_PR_MP_RS_V_015
#[test]
fn provisional_responses_go_on_at_once_but_100() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench);
    assert!(bench.answer(&request, 100).is_empty());
    for status in [180, 181, 182, 183, 199] {
        let name = format!("{status} client");
        assert_eq!(names(&bench.answer(&request, status)), [name]);
    }
}

/// A 2xx goes on at once, and so does any further 2xx, also one that another of the UAS's branches
/// sends after it.
///
/// SIP_CC_PR_MP_RS_V_013 SIP_CC_PR_MP_RS_V_014
#[test]
fn every_2xx_goes_on_at_once() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench);
    for tag in ["b1", "b2", "b1"] {
        let answer = response(&request, 200, tag);
        let sent = bench.receive(&request.to.to_string(), &answer);
        let back = only(sent, "200 client");
        assert!(row(&back.bytes, "To").ends_with(&format!(";tag={tag}")));
    }
}

/// After a final response no other goes on but 2xx: no provisional one, no second final one.
///
/// SIP_CC_PR_MP_RS_V_016 SIP_CC_PR_MP_RS_V_017
#[test]
fn after_the_final_response_only_a_2xx_goes_on() {
    for last in [200, 486, 603] {
        let mut bench = Bench::lone();
        let request = forwarded(&mut bench);
        bench.answer(&request, last);
        for status in [180, 302, 404, 600] {
            let sent = bench.answer(&request, status);
            assert!(
                names(&sent).iter().all(|name| name.ends_with(" server")),
                "{last} {status}"
            );
        }
    }
}

/// A 503 is not relayed: the client would avoid the whole farm. What becomes of several is in
/// `hunting`.
#[test]
fn a_503_alone_is_a_500() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench);
    let sent = bench.answer(&request, 503);
    assert_eq!(names(&sent), ["ACK server", "500 client"]);
}
