//! Server transactions: `SIP_CC_PR_TR_SE`.

use crate::fixture::*;
use crate::lab::*;

const B: &str = "z9hG4bKc1";
/// RFC 2543: a branch without the magic cookie.
const OLD: &str = "c1";

fn of_invite(method: &str, branch: &str) -> Vec<u8> {
    request(method, "sip:bob@sip.lab.example", "call", branch, 1)
}

/// The INVITE as it reached the server.
#[track_caller]
fn forwarded(bench: &mut Bench, branch: &str) -> Sent {
    only(bench.client(invite("call", branch)), "INVITE server")
}

/// The ACK of a final response: with its To tag.
fn ack(branch: &str) -> Vec<u8> {
    replaced(
        &of_invite("ACK", branch),
        "To: Bob <sip:bob@sip.lab.example>",
        "To: Bob <sip:bob@sip.lab.example>;tag=b1",
    )
}

/// An INVITE gets a 100 within 200 ms, before the server has said anything.
///
/// SIP_CC_PR_TR_SE_V_001
#[test]
fn an_invite_gets_its_100_at_once() {
    let mut bench = Bench::lone();
    let sent = bench.client(invite("call", B));
    assert_eq!(names(&sent), ["100 client", "INVITE server"]);
    assert_eq!(sent[0].to.to_string(), CLIENT);
}

/// The 100 has the request's Via, From, Call-ID and CSeq, and its To without a tag of ours, or with
/// the tag that the request has.
///
/// SIP_CC_PR_TR_SE_V_002 SIP_CC_PR_TR_SE_V_003 SIP_CC_PR_TR_SE_V_004
#[test]
fn the_100_has_the_rows_of_its_request() {
    for tag in ["", ";tag=b1"] {
        let to = "To: Bob <sip:bob@sip.lab.example>";
        let request = replaced(&invite("call", B), to, &format!("{to}{tag}"));
        let mut bench = Bench::lone();
        let trying = bench.client(&request).remove(0);
        assert_eq!(start_line(&trying.bytes), "SIP/2.0 100 Trying");
        for name in ["From", "To", "Call-ID", "CSeq"] {
            assert_eq!(rows(&trying.bytes, name), rows(&request, name), "{name}");
        }
        assert_eq!(rows(&trying.bytes, "Via").len(), 1);
        assert_eq!(branch(&trying.bytes), B);
    }
}

/// A Timestamp of the request stands in the 100 too.
///
/// SIP_CC_PR_TR_SE_V_005
#[test]
fn the_100_has_the_timestamp_of_its_request() {
    let request = with_row(&invite("call", B), "Contact", "Timestamp: 54");
    let trying = Bench::lone().client(request).remove(0);
    let stamp = row(&trying.bytes, "Timestamp");
    assert_eq!(stamp.split(' ').next(), Some("54"));
}

/// The INVITE again, told by branch and sent-by, by the older rule without the cookie: before a final
/// response the last provisional response is sent again, and no server sees a second INVITE.
///
/// SIP_CC_PR_TR_SE_V_006 SIP_CC_PR_TR_SE_V_009 SIP_CC_PR_TR_SE_V_026
#[test]
fn an_invite_again_gets_the_last_provisional_response() {
    for branch in [B, OLD] {
        let mut bench = Bench::lone();
        let request = forwarded(&mut bench, branch);
        assert_eq!(names(&bench.client(invite("call", branch))), ["100 client"]);
        for status in [180, 183] {
            let first = only(bench.answer(&request, status), &format!("{status} client"));
            let again = bench.client(invite("call", branch));
            assert_eq!(again, [first]);
        }
    }
}

/// The INVITE again after a final response of 300 to 699: the same response.
///
/// SIP_CC_PR_TR_SE_V_007 SIP_CC_PR_TR_SE_V_010
#[test]
fn an_invite_again_gets_the_final_response() {
    for branch in [B, OLD] {
        let mut bench = Bench::lone();
        let request = forwarded(&mut bench, branch);
        let first = only(bench.answer(&request, 486), "486 client");
        assert_eq!(bench.client(invite("call", branch)), [first]);
    }
}

/// The ACK of such a response, told by the same rules, ends its repetition and goes no further; so
/// do ACKs after it.
///
/// SIP_CC_PR_TR_SE_V_008 SIP_CC_PR_TR_SE_V_011 SIP_CC_PR_TR_SE_V_024 SIP_CC_PR_TR_SE_TI_005
#[test]
fn an_ack_ends_the_repetition() {
    for branch in [B, OLD] {
        let mut bench = Bench::lone();
        let request = forwarded(&mut bench, branch);
        bench.answer(&request, 486);
        for _ in 0..3 {
            assert!(bench.client(ack(branch)).is_empty());
        }
        assert!(times(&bench.wait(40_000), "486 client").is_empty());
    }
}

/// After the ACK an INVITE that comes late is no new call.
///
/// SIP_CC_PR_TR_SE_V_025 SIP_CC_PR_TR_SE_TI_006
#[test]
fn a_confirmed_transaction_takes_its_invite_for_four_seconds_and_more() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench, B);
    bench.answer(&request, 486);
    bench.client(ack(B));
    bench.wait(4900);
    assert!(bench.client(invite("call", B)).is_empty());
    assert!(bench.client(ack(B)).is_empty());
}

/// A final response of 300 to 699 without an ACK is sent again after T1, then at double intervals up
/// to T2, until 64·T1 have passed.
///
/// SIP_CC_PR_TR_SE_TI_001 SIP_CC_PR_TR_SE_TI_002 SIP_CC_PR_TR_SE_TI_003 SIP_CC_PR_TR_SE_TI_004
#[test]
fn timer_g_repeats_and_timer_h_ends() {
    for status in [302, 404, 486, 603] {
        let mut bench = Bench::lone();
        let request = forwarded(&mut bench, B);
        let name = format!("{status} client");
        only(bench.answer(&request, status), &name);
        let sent = bench.wait(60_000);
        let expected = [
            500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
        ];
        let seen = times(&sent, &name);
        assert_eq!(seen.len(), expected.len(), "{seen:?}");
        for (seen, wanted) in seen.iter().zip(expected) {
            // Each interval is late by a tick and by the watch of the lab.
            assert!((wanted..wanted + 120).contains(seen), "{seen} for {wanted}");
        }
        assert_eq!(bench.open_transactions(), 0);
    }
}

/// The repetitions are the same bytes.
///
/// SIP_CC_PR_TR_SE_TI_007 SIP_CC_PR_TR_SE_TI_008
#[test]
fn what_timer_g_sends_is_what_was_sent() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench, B);
    let first = only(bench.answer(&request, 600), "600 client");
    let again: Vec<Sent> = bench.wait(5000).into_iter().map(|(_, sent)| sent).collect();
    assert_eq!(again.len(), 3);
    assert!(again.iter().all(|sent| *sent == first));
}

/// Each 2xx goes on at once, those that the server repeats too; none is repeated here.
///
/// SIP_CC_PR_TR_SE_V_027 SIP_CC_PR_TR_SE_V_028
#[test]
fn a_2xx_goes_on_whenever_it_comes_and_is_not_repeated_here() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench, B);
    for _ in 0..3 {
        assert_eq!(names(&bench.answer(&request, 200)), ["200 client"]);
        assert!(times(&bench.wait(4000), "200 client").is_empty());
    }
    // RFC 6026 §7.1: nor is the INVITE a new one now.
    assert!(bench.client(invite("call", B)).is_empty());
}

/// A CANCEL gets its 200 from here, and so does its repetition.
///
/// SIP_CC_PR_TR_SE_V_018 SIP_CC_PR_TR_SE_V_020
#[test]
fn a_cancel_gets_its_200_at_once() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench, B);
    bench.answer(&request, 180);
    for _ in 0..2 {
        let sent = bench.client(of_invite("CANCEL", B));
        let ok = sent.iter().find(|one| name(one) == "200 client").unwrap();
        assert_eq!(row(&ok.bytes, "CSeq"), "1 CANCEL");
        assert_eq!(branch(&ok.bytes), B);
    }
}

/// After a CANCEL the INVITE ends with a 487, the server's.
///
/// SIP_CC_PR_TR_SE_V_019 SIP_CC_PR_TR_SE_V_021
#[test]
fn a_cancelled_invite_ends_with_487() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench, B);
    bench.answer(&request, 180);
    let sent = bench.client(of_invite("CANCEL", B));
    only(sent, "CANCEL server");
    let end = only(bench.answer(&request, 487), "487 client");
    assert_eq!(row(&end.bytes, "CSeq"), "1 INVITE");
}

/// A CANCEL after the final response changes nothing.
///
/// SIP_CC_PR_TR_SE_V_022 SIP_CC_PR_TR_SE_V_023
#[test]
fn a_cancel_after_the_final_response_has_no_effect() {
    for status in [200, 486] {
        let mut bench = Bench::lone();
        let request = forwarded(&mut bench, B);
        bench.answer(&request, status);
        assert_eq!(names(&bench.client(of_invite("CANCEL", B))), ["200 client"]);
    }
}

/// Another request than INVITE, again, told by branch and sent-by or by the older rule: nothing while
/// there is no response, then the final one; the server sees one.
///
/// SIP_CC_PR_TR_SE_V_012 SIP_CC_PR_TR_SE_V_013 SIP_CC_PR_TR_SE_V_014
/// SIP_CC_PR_TR_SE_V_015 SIP_CC_PR_TR_SE_V_016 SIP_CC_PR_TR_SE_V_017
#[test]
fn another_request_again_gets_the_final_response() {
    for branch in [B, OLD] {
        let mut bench = Bench::stateful();
        let message = of_invite("MESSAGE", branch);
        let request = only(bench.client(&message), "MESSAGE server");
        assert!(bench.client(&message).is_empty());
        // RFC 4320 §4.1: no 100 before 3.5 s, one then, and it is what a repetition gets.
        let sent = bench.wait(3600);
        assert_eq!(times(&sent, "100 client").len(), 1);
        assert_eq!(names(&bench.client(&message)), ["100 client"]);
        let last = only(bench.answer(&request, 404), "404 client");
        assert_eq!(bench.client(&message), [last]);
    }
}

/// Timer J: the final response is kept for 64·T1.
///
/// SIP_CC_PR_TR_SE_TI_009
#[test]
fn timer_j_keeps_the_final_response_for_64_t1() {
    let mut bench = Bench::stateful();
    let message = of_invite("MESSAGE", B);
    let request = only(bench.client(&message), "MESSAGE server");
    let last = only(bench.answer(&request, 200), "200 client");
    bench.wait(31_900);
    assert_eq!(bench.client(&message), [last]);
    bench.wait(200);
    assert_eq!(bench.open_transactions(), 0);
}
