//! The generator against its own answering server, over loopback and through a relay that loses.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod support;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{FAST, Relay, Relayed, Script, Server, call, config, header, held_call, run, target};
use viaduct::generator::{ByeFrom, GeneratorError, Layout, Load, Timers, UacConfig, uac, uas};
use viaduct::sys::clock;

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

fn two_thousand_calls(host: &str) {
    let server = Server::start(host, "server1", |_| {});
    let report = run(&config(server.target(), call(), 2000, 1000.0));
    let answers = server.finish();
    println!("{report}\n{answers}");
    assert_eq!(
        (report.offered, report.answered, report.failed),
        (2000, 2000, 0)
    );
    assert_eq!(report.servers.len(), 1);
    assert_eq!(
        (report.servers[0].name.as_str(), report.servers[0].calls),
        ("server1", 2000)
    );
    assert_eq!(report.traffic.strays, counts(&[]));
    assert_eq!(
        (answers.calls, answers.answered, answers.ended),
        (2000, 2000, 2000)
    );
    assert_eq!(
        (answers.stray, answers.in_progress, answers.unanswered),
        (0, 0, 0)
    );
    assert_eq!(answers.traffic.strays, counts(&[]));
}

#[test]
fn two_thousand_calls_over_ipv4() {
    two_thousand_calls("127.0.0.1");
}

#[test]
fn two_thousand_calls_over_ipv6() {
    two_thousand_calls("[::1]");
}

/// RFC 3261 §17: what is lost in either direction is sent again, and nothing is counted twice.
#[test]
fn retransmissions_recover_what_a_lossy_path_drops() {
    for bye_from in [ByeFrom::Caller, ByeFrom::Callee] {
        let server = Server::start("127.0.0.1", "server1", |config| {
            config.timers = FAST;
            if bye_from == ByeFrom::Callee {
                config.bye_after = Some(Duration::from_millis(20));
            }
        });
        let address = server.address;
        // One in seven, scattered as by chance: every seventh in a row would meet the same message
        // of each call, and at the end the same one of the last call again and again.
        let scattered = |count: u64| {
            let mixed = (count + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 27)
        };
        let relay = Relay::start(&[address], move |count, _| match scattered(count) % 7 {
            6 => Relayed::Lost,
            _ => Relayed::To(address),
        });
        let load = held_call(Duration::ZERO, bye_from);
        let report = run(&UacConfig {
            timers: FAST,
            ..config(target(relay.address), load, 500, 500.0)
        });
        // The server may still be repeating its 200 for 64·T1, and then its BYE for as long again.
        std::thread::sleep(FAST.t1 * 128);
        let (answers, lost) = (server.finish(), relay.finish());
        println!("lost {lost}\n{report}\n{answers}");
        assert!(lost > 300);
        assert_eq!(
            (report.offered, report.answered, report.failed),
            (500, 500, 0)
        );
        assert!(report.traffic.retransmissions > 50 || bye_from == ByeFrom::Callee);
        assert!(report.traffic.retransmissions_seen + answers.traffic.retransmissions_seen > 20);
        assert_eq!((answers.calls, answers.answered), (500, 500));
        assert_eq!((answers.stray, answers.in_progress), (0, 0));
        // A caller that has answered its last BYE is gone, and that answer may be lost: its server
        // repeats the BYE to nobody. Only the end of the run can meet it.
        let gone = if bye_from == ByeFrom::Callee { 5 } else { 0 };
        assert_eq!(answers.ended + answers.unanswered, 500);
        assert!(answers.unanswered <= gone);
        assert_eq!(report.traffic.strays, counts(&[]));
    }
}

/// ACK and BYE follow the route set: a proxy that records a route sees them all.
#[test]
fn requests_inside_the_dialog_follow_the_recorded_route() {
    let server = Server::start("127.0.0.1", "server1", |_| {});
    let (address, (sender, seen)) = (server.address, std::sync::mpsc::channel());
    let relay = Relay::start(&[address], move |_, bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let method = text.split(' ').next().unwrap().to_owned();
        let has_route = text.contains("\r\nRoute: <sip:relay@127.0.0.1:");
        let aims_at_server = text.contains(&format!("@{address} SIP/2.0\r\n"));
        sender.send((method, has_route, aims_at_server)).unwrap();
        Relayed::To(address)
    });
    let report = run(&config(target(relay.address), call(), 60, 1000.0));
    assert_eq!((report.answered, report.failed), (60, 0));
    relay.finish();
    let seen: Vec<_> = seen.iter().collect();
    for method in ["ACK", "BYE"] {
        let of_method: Vec<_> = seen.iter().filter(|(name, ..)| name == method).collect();
        assert_eq!(of_method.len(), 60);
        assert!(
            of_method
                .iter()
                .all(|(_, has_route, at_server)| *has_route && *at_server)
        );
    }
}

/// The proof that BYE reaches the INVITE's server is that a BYE which does not is seen.
#[test]
fn a_bye_at_another_server_is_a_stray() {
    let first = Server::start("127.0.0.1", "server1", |config| config.secret = 1);
    let second = Server::start("127.0.0.1", "server2", |config| config.secret = 2);
    let (one, two) = (first.address, second.address);
    let relay = Relay::start(&[one, two], move |_, bytes| {
        Relayed::To(if bytes.starts_with(b"BYE ") { two } else { one })
    });
    let report = run(&config(target(relay.address), call(), 50, 500.0));
    assert_eq!((report.answered, report.failed), (50, 50));
    assert_eq!(report.failures, counts(&[("bye_481", 50)]));
    let (first, second) = (first.finish(), second.finish());
    assert_eq!(
        (first.answered, first.ended, first.stray, first.in_progress),
        (50, 0, 0, 50)
    );
    assert_eq!((second.calls, second.stray), (0, 50));
    assert_eq!(second.traffic.strays, counts(&[("dialog", 50)]));
}

/// The same for CANCEL: the INVITE it means is not there.
#[test]
fn a_cancel_at_another_server_is_a_stray() {
    let first = Server::start("127.0.0.1", "server1", |config| {
        config.answer = Duration::from_secs(60);
        config.timers = FAST;
    });
    let second = Server::start("127.0.0.1", "server2", |config| config.secret = 2);
    let (one, two) = (first.address, second.address);
    let relay = Relay::start(&[one, two], move |_, bytes| {
        Relayed::To(if bytes.starts_with(b"CANCEL ") {
            two
        } else {
            one
        })
    });
    let load = Load::Call {
        hold: Duration::ZERO,
        bye_from: ByeFrom::Caller,
        methods: Vec::new(),
        cancel_after: Some(Duration::from_millis(50)),
    };
    let timers = Timers {
        t1: Duration::from_millis(10),
        ..FAST
    };
    let report = run(&UacConfig {
        timers,
        ..config(target(relay.address), load, 20, 500.0)
    });
    assert_eq!(report.failures, counts(&[("cancel_timeout", 20)]));
    let strays = second.finish().traffic.strays;
    assert!(strays.len() == 1 && strays["cancel"] >= 20, "{strays:?}");
    assert_eq!(first.finish().cancelled, 0);
}

#[test]
fn unexpected_answers_are_classified_and_acknowledged() {
    for (status, reason) in [
        (486, "invite_486"),
        (503, "invite_503"),
        (603, "invite_603"),
    ] {
        let server = Server::start("127.0.0.1", "server1", |config| {
            config.reject = Some(status)
        });
        let report = run(&config(server.target(), call(), 60, 1000.0));
        assert_eq!((report.answered, report.failed), (0, 60));
        assert_eq!(report.failures, counts(&[(reason, 60)]));
        assert_eq!(
            report.traffic.requests_sent,
            counts(&[("ACK", 60), ("INVITE", 60)])
        );
        let answers = server.finish();
        assert_eq!(
            (answers.unanswered, answers.in_progress, answers.stray),
            (0, 0, 0)
        );
    }
}

/// RFC 3261 §17.1.1.2: seven INVITEs in 64·T1, then timeout.
#[test]
fn silence_is_a_timeout_after_64_t1() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let timers = Timers {
        t1: Duration::from_millis(10),
        t2: Duration::from_millis(80),
    };
    let base = config(target(silent.local_addr().unwrap()), call(), 10, 1000.0);
    let start = clock::now();
    let report = run(&UacConfig {
        timers,
        ..base.clone()
    });
    assert!(clock::now().since(start) >= timers.t1_64());
    assert_eq!(report.failures, counts(&[("invite_timeout", 10)]));
    assert_eq!(report.traffic.requests_sent, counts(&[("INVITE", 70)]));
    assert_eq!(report.traffic.retransmissions, 60);
    // Timer E goes up to T2: 10, 20, 40, 80, 80, … within 640 ms.
    let load = Load::Single {
        methods: vec!["OPTIONS".to_owned()],
        with_body: false,
    };
    let report = run(&UacConfig {
        timers,
        load,
        ..base
    });
    assert_eq!(report.failures, counts(&[("options_timeout", 10)]));
    assert_eq!(report.traffic.requests_sent, counts(&[("OPTIONS", 110)]));
}

#[test]
fn nobody_answering_in_time_is_cancelled_and_failed() {
    let server = Server::start("127.0.0.1", "server1", |config| {
        config.answer = Duration::from_secs(60);
    });
    let report = run(&UacConfig {
        timeout: Duration::from_millis(200),
        ..config(server.target(), call(), 30, 1000.0)
    });
    assert_eq!(
        (report.answered, report.failed, report.cancelled),
        (0, 30, 0)
    );
    assert_eq!(report.failures, counts(&[("no_answer", 30)]));
    assert_eq!(
        report.traffic.responses_received,
        counts(&[("180", 30), ("200", 30), ("487", 30)])
    );
    let answers = server.finish();
    assert_eq!(
        (answers.cancelled, answers.unanswered, answers.in_progress),
        (30, 0, 0)
    );
}

#[test]
fn calls_given_up_on_purpose_do_not_fail() {
    let server = Server::start("127.0.0.1", "server1", |config| {
        config.ring = Duration::from_millis(20);
        config.answer = Duration::from_secs(60);
    });
    let load = Load::Call {
        hold: Duration::ZERO,
        bye_from: ByeFrom::Caller,
        methods: Vec::new(),
        cancel_after: Some(Duration::from_millis(30)),
    };
    let report = run(&config(server.target(), load, 100, 1000.0));
    assert_eq!(
        (report.cancelled, report.answered, report.failed),
        (100, 0, 0)
    );
    let answers = server.finish();
    assert_eq!((answers.cancelled, answers.stray), (100, 0));
}

#[test]
fn ringing_and_answering_take_their_time() {
    let server = Server::start("127.0.0.1", "server1", |config| {
        config.ring = Duration::from_millis(250);
        config.answer = Duration::from_millis(400);
    });
    let hold = Duration::from_millis(150);
    let start = clock::now();
    let report = run(&config(
        server.target(),
        held_call(hold, ByeFrom::Caller),
        50,
        1000.0,
    ));
    assert!(clock::now().since(start) >= Duration::from_millis(550));
    assert_eq!(
        (
            report.answered,
            report.failed,
            report.traffic.retransmissions
        ),
        (50, 0, 0)
    );
    assert_eq!(
        report.traffic.responses_received,
        counts(&[("100", 50), ("180", 50), ("200", 100)])
    );
    assert!(report.setup_ms.p50 >= 400.0 && report.setup_ms.p50 < 500.0);
    server.finish();
}

#[test]
fn either_side_hangs_up() {
    for (bye_from, by_callee) in [(ByeFrom::Callee, 100), (ByeFrom::Both, 50)] {
        let server = Server::start("127.0.0.1", "server1", |config| {
            config.bye_after = Some(Duration::from_millis(300));
        });
        let load = held_call(Duration::from_millis(20), bye_from);
        let report = run(&config(server.target(), load, 100, 1000.0));
        assert_eq!((report.answered, report.failed), (100, 0));
        let answers = server.finish();
        assert_eq!(
            (answers.ended, answers.stray, answers.in_progress),
            (100, 0, 0)
        );
        let by_caller = 100 - by_callee;
        let bye = |count| match count {
            0 => None,
            count => Some(count),
        };
        let of = |counts: &BTreeMap<String, u64>| counts.get("BYE").copied();
        assert_eq!(
            (
                of(&report.traffic.requests_sent),
                of(&report.traffic.requests_received)
            ),
            (bye(by_caller), bye(by_callee))
        );
        assert_eq!(
            (
                of(&answers.traffic.requests_received),
                of(&answers.traffic.requests_sent)
            ),
            (bye(by_caller), bye(by_callee))
        );
    }
}

#[test]
fn a_callee_that_does_not_hang_up_fails_the_call() {
    let server = Server::start("127.0.0.1", "server1", |_| {});
    let timers = Timers {
        t1: Duration::from_millis(5),
        ..FAST
    };
    let report = run(&UacConfig {
        timers,
        ..config(
            server.target(),
            held_call(Duration::ZERO, ByeFrom::Callee),
            5,
            100.0,
        )
    });
    assert_eq!(report.failures, counts(&[("no_bye", 5)]));
}

#[test]
fn requests_inside_the_dialog_are_sent_in_order() {
    let server = Server::start("127.0.0.1", "server1", |_| {});
    let names = ["INVITE", "UPDATE", "INFO", "MESSAGE", "OPTIONS"];
    let load = Load::Call {
        hold: Duration::ZERO,
        bye_from: ByeFrom::Caller,
        methods: names.map(str::to_owned).to_vec(),
        cancel_after: None,
    };
    let report = run(&config(server.target(), load, 120, 1000.0));
    println!("{report}");
    assert_eq!(
        (
            report.answered,
            report.failed,
            report.traffic.retransmissions
        ),
        (120, 0, 0)
    );
    let answers = server.finish();
    let expected = [
        ("ACK", 240),
        ("BYE", 120),
        ("INFO", 120),
        ("INVITE", 240),
        ("MESSAGE", 120),
        ("OPTIONS", 120),
        ("UPDATE", 120),
    ];
    assert_eq!(answers.traffic.requests_received, counts(&expected));
    assert_eq!((answers.calls, answers.ended, answers.stray), (120, 120, 0));
}

#[test]
fn single_requests_take_turns() {
    let server = Server::start("127.0.0.1", "server1", |_| {});
    let load = Load::Single {
        methods: ["OPTIONS", "MESSAGE", "FOO"].map(str::to_owned).to_vec(),
        with_body: true,
    };
    let report = run(&config(server.target(), load, 90, 1000.0));
    assert_eq!((report.answered, report.failed), (60, 30));
    assert_eq!(report.failures, counts(&[("other_501", 30)]));
    assert_eq!(report.servers[0].name, "server1");
    server.finish();
}

fn register(refreshes: u32, unregister: bool) -> Load {
    Load::Register {
        expires: 600,
        refreshes,
        refresh_after: Duration::from_millis(100),
        unregister,
    }
}

/// RFC 3261 §22: one challenge a registration; refreshes go on with the nonce.
#[test]
fn registrations_answer_the_challenge_and_refresh() {
    let server = Server::start("127.0.0.1", "server1", |config| {
        config.credentials = Some("alice:secret".parse().unwrap());
    });
    let report = run(&UacConfig {
        credentials: Some("alice:secret".parse().unwrap()),
        ..config(server.target(), register(2, true), 100, 1000.0)
    });
    assert_eq!((report.answered, report.failed), (100, 0));
    assert_eq!(
        report.traffic.responses_received,
        counts(&[("200", 400), ("401", 100)])
    );
    server.finish();
}

#[test]
fn a_stale_nonce_is_taken_up_again() {
    let server = Server::start("127.0.0.1", "server1", |config| {
        config.credentials = Some("alice:secret".parse().unwrap());
        config.nonce_life = Duration::from_millis(50);
    });
    let report = run(&UacConfig {
        credentials: Some("alice:secret".parse().unwrap()),
        ..config(server.target(), register(1, false), 50, 1000.0)
    });
    assert_eq!((report.answered, report.failed), (50, 0));
    assert_eq!(
        report.traffic.responses_received,
        counts(&[("200", 100), ("401", 100)])
    );
    server.finish();
}

#[test]
fn wrong_or_missing_credentials_fail() {
    let server = Server::start("127.0.0.1", "server1", |config| {
        config.credentials = Some("alice:secret".parse().unwrap());
        config.challenge_calls = true;
    });
    let without = run(&config(server.target(), register(0, false), 20, 1000.0));
    assert_eq!(without.failures, counts(&[("register_401", 20)]));
    let wrong = run(&UacConfig {
        credentials: Some("alice:wrong".parse().unwrap()),
        seed: 2,
        ..config(server.target(), register(0, false), 20, 1000.0)
    });
    assert_eq!(wrong.failures, counts(&[("challenge_401", 20)]));
    let right = run(&UacConfig {
        credentials: Some("alice:secret".parse().unwrap()),
        seed: 3,
        ..config(server.target(), call(), 60, 1000.0)
    });
    assert_eq!((right.answered, right.failed), (60, 0));
    assert_eq!(
        right.traffic.requests_sent,
        counts(&[("ACK", 120), ("BYE", 60), ("INVITE", 120)])
    );
    server.finish();
}

#[test]
fn many_sources_and_long_bodies() {
    let server = Server::start("127.0.0.1", "server1", |_| {});
    let report = run(&UacConfig {
        sources: vec![
            "127.0.0.2-127.0.0.21".parse().unwrap(),
            "127.1.0.0/29".parse().unwrap(),
        ],
        source_ports: 3,
        body_len: Some(2500),
        layouts: vec![Layout::Folded, Layout::Long],
        ..config(server.target(), call(), 500, 1000.0)
    });
    assert_eq!((report.answered, report.failed), (500, 0));
    server.finish();
}

#[test]
fn calls_beyond_the_limit_fail_and_name_the_generator() {
    let server = Server::start("127.0.0.1", "server1", |_| {});
    let load = held_call(Duration::from_millis(500), ByeFrom::Caller);
    let report = run(&UacConfig {
        calls_max: 10,
        ..config(server.target(), load, 30, 1000.0)
    });
    assert_eq!((report.answered, report.failed), (10, 20));
    assert_eq!(report.failures, counts(&[("max_calls", 20)]));
    assert!(report.bottleneck);
    assert!(
        report
            .bottleneck_reasons
            .iter()
            .any(|why| why.contains("--max-calls"))
    );
    server.finish();
}

#[test]
fn a_stop_ends_a_run_early() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let base = config(
        target(silent.local_addr().unwrap()),
        call(),
        1_000_000,
        100.0,
    );
    let stop = AtomicBool::new(false);
    let start = clock::now();
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| uac::run(&base, &stop).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        run.join().unwrap()
    });
    assert!(clock::now().since(start) < Duration::from_secs(5));
    assert!(report.offered > 0 && report.offered < 200);
    assert_eq!(report.failures, counts(&[("unfinished", report.offered)]));
}

#[test]
fn what_cannot_start_says_why() {
    let stop = AtomicBool::new(false);
    let v4 = || target("198.18.0.1:5060".parse().unwrap());
    let wrong_family = UacConfig {
        sources: vec!["::1".parse().unwrap()],
        ..UacConfig::new(v4(), call())
    };
    let error = uac::run(&wrong_family, &stop).unwrap_err();
    assert!(matches!(error, GeneratorError::Family { .. }), "{error}");
    let not_ours = UacConfig {
        sources: vec!["203.0.113.1".parse().unwrap()],
        ..UacConfig::new(v4(), call())
    };
    let error = uac::run(&not_ours, &stop).unwrap_err().to_string();
    assert!(
        error.contains("203.0.113.1:0") && error.contains("add the address"),
        "{error}"
    );
    let too_many = UacConfig {
        sources: vec!["198.18.0.0/15".parse().unwrap()],
        ..UacConfig::new(v4(), call())
    };
    let error = uac::run(&too_many, &stop).unwrap_err();
    assert!(matches!(error, GeneratorError::Sources { .. }), "{error}");
    let beyond = UacConfig {
        source_port: 65_000,
        source_ports: 1000,
        ..UacConfig::new(v4(), call())
    };
    let error = uac::run(&beyond, &stop).unwrap_err();
    assert!(matches!(error, GeneratorError::Ports { .. }), "{error}");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = viaduct::generator::UasConfig::new(vec![taken.local_addr().unwrap()], "x");
    let error = uas::run(&config, &stop).unwrap_err().to_string();
    assert!(error.contains("another socket has it"), "{error}");
}

fn plain(script: &Script, calls: u64) -> UacConfig {
    UacConfig {
        layouts: vec![Layout::Plain],
        timers: FAST,
        ..config(target(script.address), call(), calls, 100.0)
    }
}

/// RFC 3261 §13.2.2.4: each dialog of a forked INVITE is acknowledged, the second is hung up.
#[test]
fn a_second_server_that_answers_is_hung_up() {
    let script = Script::start(|method, text| {
        let contact = |port| {
            format!(
                "Contact: <sip:{port}@{}>\r\n",
                header(text, "To")
                    .trim_matches(|c| c == '<' || c == '>')
                    .split('@')
                    .nth(1)
                    .unwrap()
            )
        };
        match method {
            "INVITE" => vec![("200 OK", "a", contact("a")), ("200 OK", "b", contact("b"))],
            "ACK" => vec![],
            _ => vec![("200 OK", "x", String::new())],
        }
    });
    let report = run(&UacConfig {
        load: held_call(Duration::from_millis(200), ByeFrom::Caller),
        ..plain(&script, 5)
    });
    let requests = script.finish();
    assert_eq!((report.answered, report.failed), (5, 0));
    assert_eq!(report.traffic.strays, counts(&[("fork", 5)]));
    for (method, user, tag) in [
        ("ACK", "a", "a"),
        ("ACK", "b", "b"),
        ("BYE", "a", "a"),
        ("BYE", "b", "b"),
    ] {
        let start = format!("{method} sip:{user}@");
        let end = format!(";tag={tag}");
        let of_dialog = requests
            .iter()
            .filter(|text| text.starts_with(&start) && header(text, "To").ends_with(&end));
        assert_eq!(of_dialog.count(), 5, "{method} {user}");
    }
}

/// RFC 3261 §8.1.3.3: a response with more Vias than the request had is not for this caller: a
/// proxy has left its own in it.
#[test]
fn a_response_with_a_via_too_many_is_discarded() {
    let script = Script::start(|_, _| {
        let via = "Via: SIP/2.0/UDP 198.18.0.1;branch=z9hG4bKproxy\r\n".to_owned();
        vec![("200 OK", "a", via)]
    });
    let timers = Timers {
        t1: Duration::from_millis(5),
        ..FAST
    };
    let report = run(&UacConfig {
        timers,
        ..plain(&script, 3)
    });
    script.finish();
    assert_eq!(report.failures, counts(&[("invite_timeout", 3)]));
    assert_eq!(report.traffic.strays, counts(&[("via", 21)]));
}

/// RFC 3261 §17.1.1.3, §13.2.2.4: the ACK to a 486 has the branch of its INVITE, the ACK to a 200
/// another one, and each repetition is the same.
#[test]
fn acks_have_the_branches_they_should_and_repeat() {
    for (status, same_branch) in [("486 Busy Here", true), ("200 OK", false)] {
        let script = Script::start(move |method, text| match method {
            "INVITE" => {
                let host = text.split(' ').nth(1).unwrap();
                let contact = format!("Contact: <{host}>\r\n");
                vec![
                    (status, "a", contact.clone()),
                    (status, "a", contact.clone()),
                    (status, "a", contact),
                ]
            }
            "ACK" => vec![],
            _ => vec![("200 OK", "x", String::new())],
        });
        let report = run(&plain(&script, 4));
        // All copies of the last response must have been read: the run may end before.
        let requests = script.finish();
        assert_eq!(report.failed, if same_branch { 4 } else { 0 });
        for invite in requests.iter().filter(|text| text.starts_with("INVITE ")) {
            let call_id = header(invite, "Call-ID");
            let acks: Vec<_> = requests
                .iter()
                .filter(|text| text.starts_with("ACK ") && header(text, "Call-ID") == call_id)
                .collect();
            assert!(!acks.is_empty());
            assert!(acks.iter().all(|ack| ack == &acks[0]));
            assert_eq!(header(acks[0], "CSeq"), "1 ACK");
            let is_same = header(acks[0], "Via") == header(invite, "Via");
            assert_eq!(is_same, same_branch, "{status}");
        }
        let acks = requests
            .iter()
            .filter(|text| text.starts_with("ACK "))
            .count();
        assert!(acks > 8, "{acks}");
    }
}
