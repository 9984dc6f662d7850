//! The limiter of the steering program, by `BPF_PROG_TEST_RUN`: buckets that drain and refill, who
//! has none, what strangers share, and what a reload changes.
//!
//! Time is the kernel's and goes on while a test runs, so counts have bounds: at least what the
//! bucket holds, at most that and what the time that passed has added.
//!
//! Run as root: `cargo nextest run --test bpf_limit --run-ignored all`.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod common;

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use common::steer::{
    Bench, CLIENT_V4, LOOPBACK, SLOT, VIP_V4, VIP_V6, address, frame, networks, v4, v6,
};
use viaduct::bpf::{Limit, SteerConfig, SteerVerdict, TestRun, Vip};
use viaduct::limits::{
    EXEMPT_NETWORKS_MAX, LIMIT_SOURCES_MIN, LISTENERS_MAX, NETWORKS_MAX, RX_FRAME_LEN_MAX,
};
use viaduct::net::{IpAddr, Ipv4Addr, Network, SocketAddr};
use viaduct::sys::clock;

/// The age of the program's clock, on both ends of a measurement.
const TICKS: Duration = Duration::from_millis(20);

fn limited(limit: Limit) -> Vip {
    Vip {
        limit: Some(limit),
        ..Vip::default()
    }
}

/// A slow bucket: what it holds, and next to nothing more while a test runs.
fn slow(burst: u32) -> Limit {
    Limit {
        packets_per_second: 1,
        burst,
        ..Limit::default()
    }
}

fn bench(limit: Limit) -> Bench {
    Bench::with(&SteerConfig::new(vec![LOOPBACK], 1, 1), &limited(limit))
}

fn set(bench: &mut Bench, vip: &Vip) {
    for at in [VIP_V4, VIP_V6] {
        bench.program.set_vip(address(at), vip).unwrap();
    }
}

fn from(source: &str) -> Vec<u8> {
    let to = if source.starts_with('[') {
        VIP_V6
    } else {
        VIP_V4
    };
    frame(&[], source, to, b"OPTIONS sip:a@example.org SIP/2.0\r\n")
}

/// A forged address, the same for the same number.
fn forged(number: u32) -> Vec<u8> {
    let source = Ipv4Addr::from_bits(0xc612_8000 + number);
    from(&SocketAddr::new(source.into(), 5060).to_string())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What became of `count` frames: how many of each of two verdicts, and in what time.
struct Outcome {
    passed: u64,
    refused: u64,
    time: Duration,
}

/// Sends frames that are redirected or meet this refusal.
#[track_caller]
fn send(bench: &Bench, refusal: SteerVerdict, frames: impl Iterator<Item = Vec<u8>>) -> Outcome {
    let before = bench.counts();
    let begin = clock::now();
    let mut count = 0;
    for frame in frames {
        bench.run(&frame);
        count += 1;
    }
    let time = clock::now().since(begin);
    let after = bench.counts();
    let of = |verdict| after.of(verdict) - before.of(verdict);
    let outcome = Outcome {
        passed: of(SteerVerdict::Redirected),
        refused: of(refusal),
        time,
    };
    assert_eq!(outcome.passed + outcome.refused, count, "{after:?}");
    outcome
}

/// Holds what passed to a bucket of `burst` that fills with `rate`.
#[track_caller]
fn expect_bucket(outcome: &Outcome, burst: u64, rate: f64) {
    let filled = (outcome.time + TICKS).as_secs_f64() * rate;
    let most = burst as f64 + filled + 1.0;
    let Outcome {
        passed,
        refused,
        time,
    } = outcome;
    assert!(*passed >= burst, "{passed} passed, {refused} refused");
    assert!(
        (*passed as f64) <= most,
        "{passed} in {time:?}: over {most}"
    );
}

// ---- one source ---------------------------------------------------------------------------------

#[test]
#[ignore = "needs root"]
fn a_bucket_drains_and_refills() {
    let bench = bench(Limit {
        packets_per_second: 100,
        burst: 50,
        ..Limit::default()
    });
    let many = || (0..500).map(|_| v4());
    expect_bucket(&send(&bench, SteerVerdict::RateLimited, many()), 50, 100.0);
    // Half full after a quarter of a second; no fuller than full after two.
    sleep(Duration::from_millis(250));
    let begin = send(&bench, SteerVerdict::RateLimited, many());
    assert!(begin.passed >= 20, "{} passed", begin.passed);
    sleep(Duration::from_secs(2));
    expect_bucket(&send(&bench, SteerVerdict::RateLimited, many()), 50, 100.0);
}

#[test]
#[ignore = "needs root"]
fn a_source_at_its_rate_is_never_refused() {
    let bench = bench(Limit {
        packets_per_second: 200,
        burst: 10,
        ..Limit::default()
    });
    for _ in 0..100 {
        bench.expect(SteerVerdict::Redirected, &v4());
        sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs root"]
fn each_source_has_a_bucket_and_its_ports_share_it() {
    let bench = bench(slow(4));
    for port in 0..4 {
        let frame = from(&format!("198.18.0.2:{}", 5060 + port));
        bench.expect(SteerVerdict::Redirected, &frame);
    }
    bench.expect(SteerVerdict::RateLimited, &from("198.18.0.2:40000"));
    bench.expect(SteerVerdict::Redirected, &from("198.18.0.3:40000"));
    // All VIPs together.
    assert_eq!(bench.program.counted_sources(), (0, 2));
}

/// RFC 4291 §2.5.4: the last 64 bits are the host's to choose.
#[test]
#[ignore = "needs root"]
fn an_ipv6_source_is_its_64() {
    let bench = bench(slow(4));
    for source in [
        "[2001:db8::1]:5060",
        "[2001:db8::2]:5061",
        "[2001:db8::ffff:ffff:ffff:ffff]:5060",
        "[2001:db8::8000:0:0:0]:5060",
    ] {
        bench.expect(SteerVerdict::Redirected, &from(source));
    }
    bench.expect(SteerVerdict::RateLimited, &v6());
    bench.expect(SteerVerdict::Redirected, &from("[2001:db8:0:1::1]:5060"));
    assert_eq!(bench.program.counted_sources(), (0, 2));

    // The octets of an IPv4 address as the start of an IPv6 address are somebody else.
    for _ in 0..4 {
        bench.expect(SteerVerdict::Redirected, &from("[c612:2::1]:5060"));
    }
    bench.expect(SteerVerdict::RateLimited, &from("[c612:2::1]:5060"));
    bench.expect(SteerVerdict::Redirected, &v4());
}

#[test]
#[ignore = "needs root"]
fn deny_comes_first_and_takes_nothing() {
    let mut bench = bench(slow(3));
    let denied = Vip {
        deny: networks(&["198.18.0.2"]),
        ..limited(slow(3))
    };
    set(&mut bench, &denied);
    for _ in 0..10 {
        bench.expect(SteerVerdict::Denied, &v4());
    }
    assert_eq!(bench.program.counted_sources(), (0, 0));
    set(&mut bench, &limited(slow(3)));
    for _ in 0..3 {
        bench.expect(SteerVerdict::Redirected, &v4());
    }
    bench.expect(SteerVerdict::RateLimited, &v4());
}

#[test]
#[ignore = "needs root"]
fn only_datagrams_to_a_vip_are_counted_and_those_to_the_kernel_too() {
    let bench = bench(slow(3));
    let elsewhere = frame(&[], CLIENT_V4, "198.18.0.1:5061", b"");
    for _ in 0..10 {
        bench.expect(SteerVerdict::NotVip, &elsewhere);
    }
    assert_eq!(bench.program.counted_sources(), (0, 0));
    // Too long for a socket of ours, and the kernel's to deliver: it counts.
    let long = frame(&[], CLIENT_V4, VIP_V4, &vec![b'x'; RX_FRAME_LEN_MAX]);
    for _ in 0..2 {
        bench.expect(SteerVerdict::TooLong, &long);
    }
    bench.program.clear_socket(SLOT).unwrap();
    bench.expect(SteerVerdict::NoSocket, &v4());
    bench.expect(SteerVerdict::RateLimited, &long);
    bench.expect(SteerVerdict::RateLimited, &v4());
}

/// CPUs share a bucket without a lock, and it holds all the same.
#[test]
#[ignore = "needs root"]
fn several_cpus_take_no_more_than_the_bucket_holds() {
    let burst = 100_000;
    let bench = bench(slow(burst));
    let before = bench.counts();
    let program = &bench.program;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                let frame = v4();
                for _ in 0..100 {
                    let run = TestRun {
                        frame: &frame,
                        ingress: None,
                        repeat: 1000,
                    };
                    run.run(program).unwrap();
                }
            });
        }
    });
    let after = bench.counts();
    let passed = after.of(SteerVerdict::Redirected) - before.of(SteerVerdict::Redirected);
    // All four may find no bucket at the start and make it; one of them is counted.
    let seconds = 60;
    assert!(passed >= u64::from(burst), "{passed}");
    assert!(passed <= u64::from(burst) + 4 + seconds, "{passed}");
}

// ---- off, exempt, dry ---------------------------------------------------------------------------

#[test]
#[ignore = "needs root"]
fn without_a_limit_no_source_is_counted() {
    let bench = Bench::new();
    for number in 0..1000 {
        bench.expect(SteerVerdict::Redirected, &forged(number));
    }
    assert_eq!(bench.program.counted_sources(), (0, 0));
}

#[test]
#[ignore = "needs root"]
fn exempt_sources_are_neither_limited_nor_counted() {
    let bench = bench(Limit {
        exempt: networks(&["198.18.1.0/24", "198.19.3.4", "2001:db8:0:1::/64"]),
        strangers_per_second: 1,
        ..slow(1)
    });
    let inside = [
        "198.18.1.11:5060",
        "198.19.3.4:5060",
        "[2001:db8:0:1::7]:5060",
    ];
    for _ in 0..100 {
        for source in inside {
            bench.expect(SteerVerdict::Redirected, &from(source));
        }
    }
    assert_eq!(bench.program.counted_sources(), (0, 0));
    let outcome = send(
        &bench,
        SteerVerdict::RateLimited,
        (0..10).map(|_| from("198.18.2.11:5060")),
    );
    assert!(outcome.refused > 0);
}

#[test]
#[ignore = "needs root"]
fn an_exempt_list_and_an_allow_list_may_be_the_same() {
    let mut bench = Bench::new();
    let office = networks(&["198.18.0.0/24"]);
    let both = Vip {
        allow: office.clone(),
        ..limited(Limit {
            exempt: office.clone(),
            ..slow(1)
        })
    };
    set(&mut bench, &both);
    for _ in 0..20 {
        bench.expect(SteerVerdict::Redirected, &v4());
    }
    // One use of the list ends, the other goes on.
    let allowed = Vip {
        allow: office,
        ..limited(slow(2))
    };
    set(&mut bench, &allowed);
    for _ in 0..2 {
        bench.expect(SteerVerdict::Redirected, &v4());
    }
    bench.expect(SteerVerdict::RateLimited, &v4());
    bench.expect(SteerVerdict::NotAllowed, &from("198.18.1.2:5060"));
}

#[test]
#[ignore = "needs root"]
fn a_dry_run_counts_and_passes() {
    let mut bench = bench(Limit {
        dry_run: true,
        ..slow(3)
    });
    for _ in 0..3 {
        bench.expect(SteerVerdict::Redirected, &v4());
    }
    for _ in 0..10 {
        bench.expect(SteerVerdict::RateLimitedDry, &v4());
    }
    // A datagram that the kernel is to have is counted as such.
    bench.program.clear_socket(SLOT).unwrap();
    bench.expect(SteerVerdict::NoSocket, &v4());
    bench
        .program
        .set_socket(SLOT, bench.socket.as_ref().unwrap().as_fd())
        .unwrap();

    // The end of the dry run finds the bucket as it is.
    set(&mut bench, &limited(slow(3)));
    bench.expect(SteerVerdict::RateLimited, &v4());

    let dry = Limit {
        dry_run: true,
        strangers_per_second: 1,
        ..slow(3)
    };
    set(&mut bench, &limited(dry));
    let outcome = send(
        &bench,
        SteerVerdict::StrangersLimitedDry,
        (0..1000).map(forged),
    );
    assert!(outcome.refused > 900, "{}", outcome.refused);
}

#[test]
#[ignore = "needs root"]
fn who_was_refused_is_told_once() {
    let mut bench = bench(slow(2));
    assert_eq!(bench.program.take_refused().unwrap(), [None, None]);
    for source in ["198.18.0.2:5060", "[2001:db8::2]:5060"] {
        for _ in 0..20 {
            let _ = bench.run(&from(source));
        }
        let source: SocketAddr = source.parse().unwrap();
        let refused = bench.program.take_refused().unwrap();
        assert_eq!(refused, [Some(source.ip()), None]);
        assert_eq!(bench.program.take_refused().unwrap(), [None, None]);
    }
    let strangers = Limit {
        strangers_per_second: 1,
        dry_run: true,
        ..slow(100)
    };
    set(&mut bench, &limited(strangers));
    for _ in 0..20 {
        let _ = bench.run(&from("198.18.0.9:5060"));
    }
    let refused = bench.program.take_refused().unwrap();
    assert_eq!(refused, [None, Some(ip("198.18.0.9"))]);
}

// ---- strangers ----------------------------------------------------------------------------------

#[test]
#[ignore = "needs root"]
fn strangers_share_a_bucket_and_known_sources_do_not() {
    let bench = bench(Limit {
        packets_per_second: 100,
        burst: 1000,
        strangers_per_second: 200,
        exempt: networks(&["198.18.1.0/24"]),
        ..Limit::default()
    });
    let known = ["198.18.0.2:5060", "[2001:db8::2]:5060"];
    for source in known {
        let source: SocketAddr = source.parse().unwrap();
        bench.program.make_known(source.ip()).unwrap();
        bench.program.make_known(source.ip()).unwrap();
    }
    assert_eq!(bench.program.counted_sources(), (2, 0));

    let outcome = send(
        &bench,
        SteerVerdict::StrangersLimited,
        (0..20_000).map(forged),
    );
    expect_bucket(&outcome, 200, 200.0);
    // Who was refused has left no trace.
    let (_, strangers) = bench.program.counted_sources();
    assert_eq!(strangers as u64, outcome.passed);

    // In the middle of it: known and exempt sources as if nothing were.
    for number in 0..900 {
        let _ = bench.run(&forged(number));
        for source in known {
            bench.expect(SteerVerdict::Redirected, &from(source));
        }
        bench.expect(SteerVerdict::Redirected, &from("198.18.1.11:5060"));
    }
    // The neighbour of a known source in its /64 is known; that of an IPv4 source is not.
    bench.expect(SteerVerdict::Redirected, &from("[2001:db8::99]:5060"));
    let outcome = send(
        &bench,
        SteerVerdict::StrangersLimited,
        (0..100).map(|_| from("198.18.0.3:5060")),
    );
    assert!(outcome.refused > 0);
}

/// A known source has a bucket like everybody.
#[test]
#[ignore = "needs root"]
fn known_is_not_exempt() {
    let bench = bench(slow(5));
    bench.program.make_known(ip("198.18.0.2")).unwrap();
    for _ in 0..5 {
        bench.expect(SteerVerdict::Redirected, &v4());
    }
    bench.expect(SteerVerdict::RateLimited, &v4());
    // To be made known once more fills no bucket.
    bench.program.make_known(ip("198.18.0.2")).unwrap();
    bench.expect(SteerVerdict::RateLimited, &v4());
    assert_eq!(bench.program.counted_sources(), (1, 0));
}

/// One loud stranger meets its own bucket and leaves the common one to others.
#[test]
#[ignore = "needs root"]
fn one_stranger_cannot_use_up_what_strangers_have() {
    let bench = bench(Limit {
        strangers_per_second: 100,
        ..slow(10)
    });
    let outcome = send(&bench, SteerVerdict::RateLimited, (0..5000).map(|_| v4()));
    assert!((10..90).contains(&outcome.passed), "{}", outcome.passed);
    bench.expect(SteerVerdict::Redirected, &from("198.18.0.3:5060"));
}

/// 200,000 forged sources go through a map of 1,024, and every known source is still known.
#[test]
#[ignore = "needs root"]
fn forged_sources_push_no_known_source_out() {
    let mut config = SteerConfig::new(vec![LOOPBACK], 1, 1);
    config.limit_sources = LIMIT_SOURCES_MIN;
    // No bucket for all strangers, so that each of them makes an entry.
    let mut bench = Bench::with(&config, &limited(slow(2)));
    let known: Vec<Ipv4Addr> = (0..500)
        .map(|number| Ipv4Addr::from_bits(0xc612_0100 + number))
        .collect();
    let of = |source: &Ipv4Addr| from(&SocketAddr::new((*source).into(), 5060).to_string());
    for source in &known {
        bench.program.make_known((*source).into()).unwrap();
        for _ in 0..2 {
            bench.expect(SteerVerdict::Redirected, &of(source));
        }
    }
    let outcome = send(&bench, SteerVerdict::RateLimited, (0..200_000).map(forged));
    assert_eq!(outcome.refused, 0);
    let (still_known, strangers) = bench.program.counted_sources();
    assert_eq!(still_known, known.len());
    assert!(strangers <= LIMIT_SOURCES_MIN as usize, "{strangers}");

    // And they are known where it counts: no stranger passes any more, they do.
    set(
        &mut bench,
        &limited(Limit {
            strangers_per_second: 1,
            ..slow(1000)
        }),
    );
    let outcome = send(
        &bench,
        SteerVerdict::StrangersLimited,
        (0..1000).map(forged),
    );
    assert!(outcome.refused > 900, "{}", outcome.refused);
    for source in &known {
        bench.expect(SteerVerdict::Redirected, &of(source));
    }
}

// ---- live changes -------------------------------------------------------------------------------

#[test]
#[ignore = "needs root"]
fn a_limit_goes_on_and_off_while_running() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        set(&mut bench, &limited(slow(3)));
        let outcome = send(&bench, SteerVerdict::RateLimited, (0..10).map(|_| v4()));
        assert!(outcome.refused > 0);
        set(&mut bench, &Vip::default());
        for _ in 0..10 {
            bench.expect(SteerVerdict::Redirected, &v4());
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_changed_rate_counts_at_once() {
    let mut bench = bench(slow(3));
    let many = |count: u32| (0..count).map(|_| v4());
    let outcome = send(&bench, SteerVerdict::RateLimited, many(10));
    assert!(outcome.passed < 10);
    // A larger burst: the difference is there at once.
    set(&mut bench, &limited(slow(50)));
    let outcome = send(&bench, SteerVerdict::RateLimited, many(100));
    assert!((40..60).contains(&outcome.passed), "{}", outcome.passed);
    // A higher rate: 50 datagrams at one a second were 50 s ahead; nobody waits for that.
    set(
        &mut bench,
        &limited(Limit {
            packets_per_second: 100,
            burst: 10,
            ..Limit::default()
        }),
    );
    bench.expect(SteerVerdict::RateLimited, &v4());
    sleep(Duration::from_millis(300));
    let outcome = send(&bench, SteerVerdict::RateLimited, many(100));
    assert!(outcome.passed >= 10, "{}", outcome.passed);
    // Strangers likewise.
    set(
        &mut bench,
        &limited(Limit {
            strangers_per_second: 1,
            ..slow(1)
        }),
    );
    let _ = send(&bench, SteerVerdict::StrangersLimited, (0..100).map(forged));
    set(
        &mut bench,
        &limited(Limit {
            strangers_per_second: 100_000,
            ..slow(1)
        }),
    );
    sleep(TICKS);
    let outcome = send(
        &bench,
        SteerVerdict::StrangersLimited,
        (1000..2000).map(forged),
    );
    assert_eq!(outcome.refused, 0);
}

#[test]
#[ignore = "needs root"]
fn full_lists_fit_beside_full_exempt_lists() {
    let mut bench = Bench::new();
    let block = |from: u32, count: usize| -> Vec<Network> {
        (from..)
            .take(count)
            .map(|bits| Network::host(Ipv4Addr::from_bits(bits).into()))
            .collect()
    };
    // Every listener with lists of its own.
    let vips: Vec<(SocketAddr, Vip)> = (0..u32::try_from(LISTENERS_MAX).unwrap())
        .map(|index| {
            let first = 0xc612_0000 + index;
            let vip = Vip {
                allow: block(first, NETWORKS_MAX),
                deny: block(first + 0x1_0000, NETWORKS_MAX),
                ..limited(Limit {
                    exempt: block(first, EXEMPT_NETWORKS_MAX),
                    ..slow(1)
                })
            };
            (address(&format!("198.19.0.1:{}", 5060 + index)), vip)
        })
        .collect();
    bench.program.replace_vips(&vips).unwrap();
    let last = frame(&[], "198.18.4.30:1", "198.19.0.1:5091", b"");
    for _ in 0..5 {
        bench.expect(SteerVerdict::Redirected, &last);
    }
}

/// Not a gate, a number: what the limiter adds to a run.
#[test]
#[ignore = "needs root"]
fn what_the_limiter_costs() {
    let plenty = Limit {
        packets_per_second: 1_000_000,
        burst: 10_000_000,
        ..Limit::default()
    };
    let exempt = Limit {
        exempt: (1..=20)
            .map(|host| Network::host(Ipv4Addr::new(198, 18, 1, host).into()))
            .collect(),
        ..plenty.clone()
    };
    let strangers = Limit {
        strangers_per_second: 1,
        ..exempt.clone()
    };
    let known = ["198.18.0.2"];
    let cases = [
        ("off", None, v4()),
        ("on, source has a bucket", Some(plenty), v4()),
        (
            "on, source is exempt",
            Some(exempt.clone()),
            from("198.18.1.11:5060"),
        ),
        ("on, source is not exempt", Some(exempt), v4()),
        ("on, source is known", Some(strangers.clone()), v4()),
        (
            "on, stranger is refused",
            Some(strangers),
            from("198.18.0.3:5060"),
        ),
    ];
    for (name, limit, frame) in cases {
        let vip = Vip {
            limit,
            ..Vip::default()
        };
        let bench = Bench::with(&SteerConfig::new(vec![LOOPBACK], 1, 1), &vip);
        for source in known {
            bench.program.make_known(ip(source)).unwrap();
        }
        let run = TestRun {
            frame: &frame,
            ingress: None,
            repeat: 1_000_000,
        };
        let outcome = run.run(&bench.program).unwrap();
        println!("{name}: {:?} a run", outcome.duration);
        assert!(outcome.duration < Duration::from_micros(1), "{name}");
    }
}
