//! Responses of several branches: `SIP_CC_PR_MP_RS` from 018 on. Viaduct tries servers one after
//! another, never at once; of what they have said the choice is that of RFC 3261 §16.7 all the same.

use crate::fixture::*;
use crate::lab::*;

const B: &str = "z9hG4bKc1";
/// Final responses after which another server is tried, of every kind that may be.
const HUNTED: [u16; 9] = [404, 415, 420, 480, 484, 486, 500, 503, 504];
/// Those that the last server may say.
const LAST: [u16; 14] = [
    302, 401, 404, 407, 415, 420, 480, 484, 486, 500, 503, 504, 600, 603,
];

fn bench() -> Bench {
    let pool = format!("name = \"farm\"\nhunt_on = {HUNTED:?}");
    let text = ONE_ARMED.replace("name = \"farm\"", &pool);
    let listener = "name = \"clients\"\nstateful = [\"INVITE\"]";
    Bench::new(&text.replace("name = \"clients\"", listener))
}

/// RFC 3261 §16.7 step 6, written down a second time: 6xx before all, then the lowest class; of 4xx
/// first those that tell the client what to send instead; a 503 after all others.
fn place(status: u16) -> u16 {
    match status {
        600.. => 0,
        503 => 1000,
        401 | 407 | 415 | 420 | 484 => 400,
        _ => status / 100 * 100 + 50,
    }
}

/// Of the final responses of three branches, every combination, the best goes to the client; a 503
/// only as 500, and only if there is nothing else. It goes once.
///
/// SIP_CC_PR_MP_RS_V_018 SIP_CC_PR_MP_RS_V_019 SIP_CC_PR_MP_RS_V_020 SIP_CC_PR_MP_RS_V_021
/// SIP_CC_PR_MP_RS_V_022 SIP_CC_PR_MP_RS_V_023 SIP_CC_PR_MP_RS_V_024 SIP_CC_PR_MP_RS_V_025
/// SIP_CC_PR_MP_RS_V_026 SIP_CC_PR_MP_RS_V_027 SIP_CC_PR_MP_RS_V_028 SIP_CC_PR_MP_RS_V_029
/// SIP_CC_PR_MP_RS_V_030 SIP_CC_PR_MP_RS_V_031 SIP_CC_PR_MP_RS_V_032 SIP_CC_PR_MP_RS_V_035
/// SIP_CC_PR_MP_RS_V_036 SIP_CC_PR_MP_RS_V_037 SIP_CC_PR_MP_RS_V_038 SIP_CC_PR_MP_RS_V_039
/// SIP_CC_PR_MP_RS_V_040 SIP_CC_PR_MP_RS_V_041 SIP_CC_PR_MP_RS_V_042 SIP_CC_PR_MP_RS_V_043
/// SIP_CC_PR_MP_RS_V_044 SIP_CC_PR_MP_RS_V_045 SIP_CC_PR_MP_RS_V_047 SIP_CC_PR_MP_RS_V_048
/// SIP_CC_PR_MP_RS_V_049
#[test]
fn of_several_final_responses_the_best_goes_on() {
    let mut bench = bench();
    let mut call = 0;
    for first in HUNTED {
        for second in HUNTED {
            for third in LAST {
                call += 1;
                let given = [first, second, third];
                let id = format!("call-{call}");
                let request = invite(&id, &format!("{B}{call}"));
                let mut request = only(bench.client(&request), "INVITE server");
                let mut said = Vec::new();
                for status in given {
                    let sent = bench.answer(&request, status);
                    let next = sent.iter().find(|one| name(one) == "INVITE server");
                    let ends = sent.iter().filter(|one| name(one).ends_with(" client"));
                    said.extend(ends.map(|one| name(one).replace(" client", "")));
                    let Some(next) = next else { break };
                    request = next.clone();
                }
                let best = given
                    .into_iter()
                    .min_by_key(|status| place(*status))
                    .unwrap();
                let [said] = &said[..] else {
                    panic!("{given:?}: {said:?}");
                };
                let said: u16 = said.parse().unwrap();
                if best == 503 {
                    assert_eq!(said, 500, "{given:?}");
                } else {
                    assert_eq!(place(said), place(best), "{given:?}: {said}");
                    assert!(given.contains(&said), "{given:?}: {said}");
                }
            }
            // Places for the next round.
            bench.wait(100_000);
            assert_eq!(bench.open_transactions(), 0);
        }
    }
}

/// Two branches, the first without an answer.
#[track_caller]
fn abandoned(bench: &mut Bench) -> (Sent, Sent) {
    let silent = only(bench.client(invite("call", B)), "INVITE server");
    let sent = bench.wait(2100);
    let second = sent.into_iter().map(|(_, one)| one);
    let mut second = second.filter(|one| name(one) == "INVITE server" && one.to != silent.to);
    let second = second.next_back().expect("another server is tried");
    (silent, second)
}

/// When one branch has a 2xx or a 6xx, what is pending on others is cancelled: at once where a
/// provisional response has come, else with the first one.
///
/// SIP_CC_PR_MP_RS_V_046 SIP_CC_PR_MP_RS_V_050 SIP_CC_PR_MP_RS_V_051 SIP_CC_PR_MP_RS_V_052
#[test]
fn pending_branches_are_cancelled() {
    for last in [200, 603] {
        let mut bench = bench();
        let (silent, second) = abandoned(&mut bench);
        let name_of = format!("{last} client");
        let sent = bench.answer(&second, last);
        assert!(names(&sent).contains(&name_of));
        assert!(!names(&sent).contains(&"CANCEL server".to_owned()));
        let sent = bench.answer(&silent, 180);
        let cancel = only(sent, "CANCEL server");
        assert_eq!(cancel.to, silent.to);
        assert_eq!(branch(&cancel.bytes), branch(&silent.bytes));
        assert_ne!(branch(&silent.bytes), branch(&second.bytes));
    }
}

/// What comes of a branch after that: a 2xx goes to the client, its 487 gets an ACK and goes no
/// further.
///
/// SIP_CC_PR_MP_RS_V_053
#[test]
fn a_late_2xx_of_another_branch_goes_on_and_a_late_487_does_not() {
    for (status, expected) in [(200, "200 client"), (487, "ACK server")] {
        let mut bench = bench();
        let (silent, second) = abandoned(&mut bench);
        bench.answer(&second, 200);
        bench.answer(&silent, 180);
        assert_eq!(names(&bench.answer(&silent, status)), [expected]);
    }
}
