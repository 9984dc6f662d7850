//! Client transactions: `SIP_CC_PR_TR_CL`.

use crate::fixture::*;
use crate::lab::*;

const B: &str = "z9hG4bKc1";

#[track_caller]
fn forwarded(bench: &mut Bench) -> Sent {
    only(bench.client(invite("call", B)), "INVITE server")
}

/// Each time is at most a tenth of a second after the wanted one.
#[track_caller]
fn about(seen: &[u64], wanted: &[u64]) {
    assert_eq!(seen.len(), wanted.len(), "{seen:?}");
    for (seen, wanted) in seen.iter().zip(wanted) {
        assert!(
            (*wanted..wanted + 120).contains(seen),
            "{seen} for {wanted}"
        );
    }
}

/// An INVITE without any response is sent again after T1 and then at double intervals, seven times
/// in all; the same bytes.
///
/// SIP_CC_PR_TR_CL_TI_001 SIP_CC_PR_TR_CL_TI_002 SIP_CC_PR_TR_CL_TI_003
#[test]
fn timer_a_repeats_the_invite_at_double_intervals() {
    let mut bench = Bench::lone();
    let first = forwarded(&mut bench);
    let sent = bench.wait(40_000);
    about(
        &times(&sent, "INVITE server"),
        &[500, 1500, 3500, 7500, 15_500, 31_500],
    );
    let again = sent.iter().filter(|(_, one)| name(one) == "INVITE server");
    assert!(again.map(|(_, one)| one).all(|one| *one == first));
}

/// After 64·T1 without a response the client gets a 408, and the server no ACK.
///
/// SIP_CC_PR_TR_CL_TI_004 SIP_CC_PR_TR_CL_TI_005
#[test]
fn timer_b_ends_a_silent_invite_with_408() {
    let mut bench = Bench::lone();
    forwarded(&mut bench);
    let sent = bench.wait(32_200);
    about(&times(&sent, "408 client"), &[32_000]);
    assert!(times(&sent, "ACK server").is_empty());
}

/// A provisional response ends the repetition.
///
/// SIP_CC_PR_TR_CL_TI_007 SIP_CC_PR_TR_CL_TI_008
#[test]
fn a_provisional_response_ends_the_repetition() {
    for status in [100, 180, 183, 199] {
        let mut bench = Bench::lone();
        let request = forwarded(&mut bench);
        bench.wait(600);
        bench.answer(&request, status);
        assert!(times(&bench.wait(60_000), "INVITE server").is_empty());
    }
}

/// Timer D: for 32 s a final response that comes again gets its ACK again and goes no further.
///
/// SIP_CC_PR_TR_CL_TI_009 SIP_CC_PR_TR_CL_TI_010
#[test]
fn timer_d_acknowledges_what_comes_again_for_32_seconds() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench);
    let sent = bench.answer(&request, 486);
    assert_eq!(names(&sent), ["ACK server", "486 client"]);
    for _ in 0..6 {
        bench.wait(5200);
        assert_eq!(names(&bench.answer(&request, 486)), ["ACK server"]);
    }
    bench.wait(900);
    assert!(bench.answer(&request, 486).is_empty());
}

/// The ACK is built here: Request-URI, Call-ID, From, Route and the one Via of the INVITE as it
/// left, the CSeq's number with the method ACK, the To of the response.
///
/// SIP_CC_PR_TR_CL_V_006 SIP_CC_PR_TR_CL_V_007 SIP_CC_PR_TR_CL_V_008 SIP_CC_PR_TR_CL_V_009
#[test]
fn the_ack_is_made_of_the_invite_and_the_response() {
    for status in [302, 404, 486, 500, 603] {
        let mut bench = Bench::lone();
        let request = forwarded(&mut bench);
        let answer = response(&request, status, "b1");
        let sent = bench.receive(&request.to.to_string(), &answer);
        let ack = only(sent, "ACK server");
        assert_eq!((ack.to, ack.from), (request.to, request.from));
        let uri = |bytes: &[u8]| start_line(bytes).split(' ').nth(1).unwrap().to_owned();
        assert_eq!(uri(&ack.bytes), uri(&request.bytes));
        assert_eq!(rows(&ack.bytes, "Via"), rows(&request.bytes, "Via")[..1]);
        for name in ["Call-ID", "From", "Route"] {
            assert_eq!(rows(&ack.bytes, name), rows(&request.bytes, name), "{name}");
        }
        assert_eq!(row(&ack.bytes, "CSeq"), "1 ACK");
        assert_eq!(rows(&ack.bytes, "To"), rows(&answer, "To"));
    }
}

/// A 2xx goes to the client, from before and from after a provisional response, and gets no ACK of
/// ours.
///
/// SIP_CC_PR_TR_CL_V_010 SIP_CC_PR_TR_CL_V_011
#[test]
fn a_2xx_goes_up_and_is_not_acknowledged_here() {
    for provisional in [None, Some(180)] {
        let mut bench = Bench::lone();
        let request = forwarded(&mut bench);
        if let Some(status) = provisional {
            bench.answer(&request, status);
        }
        assert_eq!(names(&bench.answer(&request, 200)), ["200 client"]);
        assert!(times(&bench.wait(5000), "ACK server").is_empty());
    }
}

/// The CANCEL that goes to the server has Request-URI, Call-ID, To, From, Route and the one Via of
/// the INVITE, its CSeq number with the method CANCEL, no Require, no Proxy-Require, and goes where
/// the INVITE went.
///
/// SIP_CC_PR_TR_CL_V_001 SIP_CC_PR_TR_CL_V_002 SIP_CC_PR_TR_CL_V_003 SIP_CC_PR_TR_CL_V_004
#[test]
fn the_cancel_is_made_of_the_invite() {
    let mut bench = Bench::lone();
    let invite = with_row(&invite("call", B), "Contact", "Require: 100rel");
    let request = only(bench.client(invite), "INVITE server");
    bench.answer(&request, 180);
    let cancel = request_of("CANCEL");
    let sent = only(bench.client(cancel), "CANCEL server");
    assert_eq!((sent.to, sent.from), (request.to, request.from));
    let uri = |bytes: &[u8]| start_line(bytes).split(' ').nth(1).unwrap().to_owned();
    assert_eq!(uri(&sent.bytes), uri(&request.bytes));
    assert_eq!(rows(&sent.bytes, "Via"), rows(&request.bytes, "Via")[..1]);
    for name in ["Call-ID", "From", "To", "Route"] {
        assert_eq!(
            rows(&sent.bytes, name),
            rows(&request.bytes, name),
            "{name}"
        );
    }
    assert_eq!(row(&sent.bytes, "CSeq"), "1 CANCEL");
    assert!(rows(&sent.bytes, "Require").is_empty());
    assert!(rows(&sent.bytes, "Proxy-Require").is_empty());
}

fn request_of(method: &str) -> Vec<u8> {
    request(method, "sip:bob@sip.lab.example", "call", B, 1)
}

/// No CANCEL before a provisional response; it leaves with the first one.
///
/// SIP_CC_PR_TR_CL_V_005
#[test]
fn the_cancel_waits_for_a_provisional_response() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench);
    assert_eq!(names(&bench.client(request_of("CANCEL"))), ["200 client"]);
    assert!(times(&bench.wait(1000), "CANCEL server").is_empty());
    let sent = bench.answer(&request, 180);
    only(sent, "CANCEL server");
}

/// A CANCEL without a response is sent again like any request that is no INVITE.
///
/// SIP_CC_PR_TR_CL_TI_019
#[test]
fn the_cancel_is_repeated_by_timer_e() {
    let mut bench = Bench::lone();
    let request = forwarded(&mut bench);
    bench.answer(&request, 180);
    bench.client(request_of("CANCEL"));
    let sent = bench.wait(12_000);
    about(
        &times(&sent, "CANCEL server"),
        &[500, 1500, 3500, 7500, 11_500],
    );
}

/// Another request than INVITE is sent again after T1, at double intervals up to T2.
///
/// SIP_CC_PR_TR_CL_TI_012 SIP_CC_PR_TR_CL_TI_013 SIP_CC_PR_TR_CL_TI_014
#[test]
fn timer_e_repeats_another_request_up_to_t2() {
    let mut bench = Bench::stateful();
    only(bench.client(request_of("MESSAGE")), "MESSAGE server");
    let sent = bench.wait(40_000);
    about(
        &times(&sent, "MESSAGE server"),
        &[
            500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500,
        ],
    );
}

/// A provisional response does not end the repetition: it goes on every T2.
///
/// SIP_CC_PR_TR_CL_TI_015 SIP_CC_PR_TR_CL_TI_016
#[test]
fn a_provisional_response_leaves_an_interval_of_t2() {
    let mut bench = Bench::stateful();
    let request = only(bench.client(request_of("MESSAGE")), "MESSAGE server");
    bench.answer(&request, 100);
    let sent = bench.wait(13_000);
    about(&times(&sent, "MESSAGE server"), &[500, 4500, 8500, 12_500]);
}

/// Timer F ends it after 64·T1. RFC 4320 §4.2: with no 408.
///
/// SIP_CC_PR_TR_CL_TI_017
#[test]
fn timer_f_ends_another_request_without_a_408() {
    let mut bench = Bench::stateful();
    only(bench.client(request_of("MESSAGE")), "MESSAGE server");
    let sent = bench.wait(100_000);
    assert!(times(&sent, "408 client").is_empty());
    assert!(times(&sent, "MESSAGE server").iter().all(|at| *at < 32_000));
    assert_eq!(bench.open_transactions(), 0);
}

/// Timer K: a final response ends the repetition; when it comes again it goes no further.
///
/// SIP_CC_PR_TR_CL_TI_018
#[test]
fn timer_k_absorbs_a_final_response_that_comes_again() {
    let mut bench = Bench::stateful();
    let request = only(bench.client(request_of("MESSAGE")), "MESSAGE server");
    only(bench.answer(&request, 200), "200 client");
    bench.wait(4900);
    assert!(bench.answer(&request, 200).is_empty());
    assert!(times(&bench.wait(40_000), "MESSAGE server").is_empty());
}
