//! The steering program, frame in and action out, by `BPF_PROG_TEST_RUN`: every verdict, on both
//! sides of its border, with the counter that goes with it.
//!
//! Run as root: `cargo nextest run --test bpf_program --run-ignored all`.

mod common;

use std::os::fd::AsFd;
use std::time::Duration;

use common::netns::{Namespace, ifindex};
use common::steer::{
    Bench, CLIENT_V4, CLIENT_V6, LOOPBACK, SLOT, VIP_V4, VIP_V6, address, frame, networks, v4, v6,
    vip, xdp_socket,
};
use viaduct::bpf::{
    Action, AttachMode, BpfError, CallIdKey, ProgramStatistics, Slot, SteerConfig, SteerProgram,
    SteerVerdict, TestRun, Vip,
};
use viaduct::limits::{NETWORKS_MAX, RX_FRAME_LEN_MAX, VIPS_MAX};
use viaduct::net::{Network, SocketAddr};

const TAG_8021Q: [u8; 4] = [0x81, 0x00, 0x00, 0x05];
const TAG_8021AD: [u8; 4] = [0x88, 0xa8, 0x00, 0x07];

// ---- frames -------------------------------------------------------------------------------------

/// Where the IP header starts in a frame without tags.
const IP: usize = 14;
const IPV4_FLAGS: usize = IP + 6;
const IPV4_PROTOCOL: usize = IP + 9;
const IPV4_DESTINATION: usize = IP + 16;
const IPV6_NEXT_HEADER: usize = IP + 6;
const IPV6_DESTINATION: usize = IP + 24;

/// The frame with some octets changed.
fn with(mut frame: Vec<u8>, at: usize, octets: &[u8]) -> Vec<u8> {
    frame[at..at + octets.len()].copy_from_slice(octets);
    frame
}

// ---- destinations -------------------------------------------------------------------------------

#[test]
#[ignore = "needs root"]
fn datagram_to_a_vip_is_redirected() {
    let bench = Bench::new();
    bench.expect(SteerVerdict::Redirected, &v4());
    bench.expect(SteerVerdict::Redirected, &v6());
    // An empty datagram is a keepalive, and the worker's to count.
    bench.expect(
        SteerVerdict::Redirected,
        &frame(&[], CLIENT_V4, VIP_V4, b""),
    );
    bench.expect(
        SteerVerdict::Redirected,
        &frame(&[], CLIENT_V6, VIP_V6, b""),
    );
}

#[test]
#[ignore = "needs root"]
fn only_the_vips_port_of_all_65536_is_redirected() {
    let bench = Bench::new();
    for (plain, port_at) in [(v4(), IP + 20 + 2), (v6(), IP + 40 + 2)] {
        bench.expect_all((0..=u16::MAX).map(|port| {
            let verdict = match port {
                5060 => SteerVerdict::Redirected,
                _ => SteerVerdict::NotVip,
            };
            (verdict, with(plain.clone(), port_at, &port.to_be_bytes()))
        }));
    }
}

#[test]
#[ignore = "needs root"]
fn an_address_one_bit_off_is_passed() {
    let bench = Bench::new();
    for (plain, at, bits) in [(v4(), IPV4_DESTINATION, 32), (v6(), IPV6_DESTINATION, 128)] {
        bench.expect_all((0..bits).map(|bit| {
            let mut frame = plain.clone();
            frame[at + bit / 8] ^= 0x80 >> (bit % 8);
            (SteerVerdict::NotVip, frame)
        }));
    }
}

#[test]
#[ignore = "needs root"]
fn an_ipv6_address_with_the_octets_of_an_ipv4_vip_is_passed() {
    let bench = Bench::new();
    // As the map stores it, and as RFC 4291 §2.5.5.2 maps it.
    for looks_like in ["[c612:1::]:5060", "[::ffff:198.18.0.1]:5060"] {
        let frame = frame(&[], CLIENT_V6, looks_like, b"");
        bench.expect(SteerVerdict::NotVip, &frame);
    }
}

#[test]
#[ignore = "needs root"]
fn one_address_with_two_ports_is_two_vips() {
    let mut bench = Bench::new();
    let second = frame(&[], CLIENT_V4, "198.18.0.1:5070", b"");
    bench.expect(SteerVerdict::NotVip, &second);
    bench
        .program
        .set_vip(address("198.18.0.1:5070"), &Vip::default())
        .unwrap();
    bench.expect(SteerVerdict::Redirected, &second);
    bench.expect(SteerVerdict::Redirected, &v4());
    bench.program.remove_vip(address(VIP_V4)).unwrap();
    bench.expect(SteerVerdict::NotVip, &v4());
    bench.expect(SteerVerdict::Redirected, &second);
}

// ---- what the kernel is to have -----------------------------------------------------------------

/// RFC 791 §3.1: a fragment has More Fragments set or an offset that is not zero.
#[test]
#[ignore = "needs root"]
fn ipv4_fragments_are_passed_the_first_one_too() {
    let bench = Bench::new();
    let flags = |flags: u16| with(v4(), IPV4_FLAGS, &flags.to_be_bytes());
    bench.expect(SteerVerdict::Fragment, &flags(0x2000));
    bench.expect(SteerVerdict::Fragment, &flags(0x2000 | 185));
    bench.expect(SteerVerdict::Fragment, &flags(370));
    // Any single bit of the offset.
    bench.expect_all((0..13).map(|bit| (SteerVerdict::Fragment, flags(1 << bit))));
    // Don't Fragment, the reserved bit, and nothing at all make no fragment.
    bench.expect_all(
        [0x4000, 0x8000, 0]
            .map(|bits| (SteerVerdict::Redirected, flags(bits)))
            .into_iter(),
    );
}

/// RFC 8200 §4.5.
#[test]
#[ignore = "needs root"]
fn ipv6_fragments_are_passed() {
    let bench = Bench::new();
    let mut fragment = with(v6(), IPV6_NEXT_HEADER, &[44]);
    // First fragment, more to come, then the UDP header.
    fragment.splice(IP + 40..IP + 40, [17, 0, 0, 1, 0, 0, 0, 9]);
    bench.expect(SteerVerdict::Fragment, &fragment);
    // An atomic fragment (RFC 6946) is whole; it is the kernel's all the same.
    fragment[IP + 43] = 0;
    bench.expect(SteerVerdict::Fragment, &fragment);
}

#[test]
#[ignore = "needs root"]
fn ipv4_options_and_impossible_header_lengths_are_passed() {
    let bench = Bench::new();
    // Router Alert (RFC 2113) in front of the UDP header.
    let mut options = with(v4(), IP, &[0x46]);
    options.splice(IP + 20..IP + 20, [0x94, 4, 0, 0]);
    bench.expect(SteerVerdict::IpOptions, &options);
    // Every version and header length but 4 and 5.
    bench.expect_all((0..=u8::MAX).map(|octet| {
        let verdict = match octet {
            0x45 => SteerVerdict::Redirected,
            _ => SteerVerdict::IpOptions,
        };
        (verdict, with(v4(), IP, &[octet]))
    }));
}

#[test]
#[ignore = "needs root"]
fn ipv6_of_another_version_is_passed() {
    let bench = Bench::new();
    bench.expect_all((0..=u8::MAX).map(|octet| {
        // The low half is traffic class.
        let verdict = match octet >> 4 {
            6 => SteerVerdict::Redirected,
            _ => SteerVerdict::IpOptions,
        };
        (verdict, with(v6(), IP, &[octet]))
    }));
}

#[test]
#[ignore = "needs root"]
fn ipv6_extension_headers_are_passed() {
    let bench = Bench::new();
    for header in [0, 43, 60] {
        let mut extended = with(v6(), IPV6_NEXT_HEADER, &[header]);
        // Eight octets, UDP behind them, PadN inside.
        extended.splice(IP + 40..IP + 40, [17, 0, 1, 4, 0, 0, 0, 0]);
        bench.expect(SteerVerdict::IpOptions, &extended);
    }
}

#[test]
#[ignore = "needs root"]
fn every_protocol_but_udp_is_passed() {
    let bench = Bench::new();
    bench.expect_all((0..=u8::MAX).map(|protocol| {
        let verdict = match protocol {
            17 => SteerVerdict::Redirected,
            _ => SteerVerdict::NotUdp,
        };
        (verdict, with(v4(), IPV4_PROTOCOL, &[protocol]))
    }));
    bench.expect_all((0..=u8::MAX).map(|protocol| {
        let verdict = match protocol {
            17 => SteerVerdict::Redirected,
            44 => SteerVerdict::Fragment,
            0 | 43 | 60 => SteerVerdict::IpOptions,
            _ => SteerVerdict::NotUdp,
        };
        (verdict, with(v6(), IPV6_NEXT_HEADER, &[protocol]))
    }));
}

#[test]
#[ignore = "needs root"]
fn arp_is_passed() {
    let bench = Bench::new();
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 2, 0x08, 0x06]);
    // Who has 198.18.0.1? Tell 198.18.0.2.
    arp.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 198, 18, 0, 2]);
    arp.extend([0, 0, 0, 0, 0, 0, 198, 18, 0, 1]);
    bench.expect(SteerVerdict::NotIp, &arp);
}

#[test]
#[ignore = "needs root"]
fn of_all_65536_ether_types_only_the_right_one_is_redirected() {
    let bench = Bench::new();
    bench.expect_all((0..=u16::MAX).map(|ether_type| {
        let verdict = match ether_type {
            0x0800 => SteerVerdict::Redirected,
            // IPv4 octets under an IPv6 EtherType: the version says no.
            0x86dd => SteerVerdict::IpOptions,
            // The IPv4 header read as a tag has 0x0045 or so where the EtherType should be.
            _ => SteerVerdict::NotIp,
        };
        (verdict, with(v4(), 12, &ether_type.to_be_bytes()))
    }));
}

// ---- tags ---------------------------------------------------------------------------------------

/// IEEE 802.1Q: up to two tags, a third is unknown.
#[test]
#[ignore = "needs root"]
fn one_and_two_vlan_tags_are_read_and_a_third_is_passed() {
    let bench = Bench::new();
    let inner_and_outer: [&[[u8; 4]]; 5] = [
        &[TAG_8021Q],
        &[TAG_8021AD],
        &[TAG_8021AD, TAG_8021Q],
        &[TAG_8021Q, TAG_8021Q],
        &[TAG_8021AD, TAG_8021AD],
    ];
    for (from, to) in [(CLIENT_V4, VIP_V4), (CLIENT_V6, VIP_V6)] {
        for tags in inner_and_outer {
            bench.expect(SteerVerdict::Redirected, &frame(tags, from, to, b"x"));
        }
        let three = [TAG_8021AD, TAG_8021Q, TAG_8021Q];
        bench.expect(SteerVerdict::NotIp, &frame(&three, from, to, b"x"));
    }
}

#[test]
#[ignore = "needs root"]
fn a_tagged_frame_is_classified_behind_its_tags() {
    let bench = Bench::new();
    let tags = [TAG_8021AD, TAG_8021Q];
    let elsewhere = frame(&tags, CLIENT_V4, "198.18.0.1:5061", b"x");
    bench.expect(SteerVerdict::NotVip, &elsewhere);
    let tagged = frame(&tags, CLIENT_V4, VIP_V4, b"x");
    let fragment = with(tagged.clone(), IPV4_FLAGS + 8, &[0x20, 0]);
    bench.expect(SteerVerdict::Fragment, &fragment);
    let tcp = with(tagged, IPV4_PROTOCOL + 8, &[6]);
    bench.expect(SteerVerdict::NotUdp, &tcp);
}

// ---- length -------------------------------------------------------------------------------------

#[test]
#[ignore = "needs root"]
fn a_frame_cut_at_every_octet_is_passed_until_its_headers_are_whole() {
    let bench = Bench::new();
    let tags: [&[[u8; 4]]; 3] = [&[], &[TAG_8021Q], &[TAG_8021AD, TAG_8021Q]];
    for tags in tags {
        for (from, to, ip_len) in [(CLIENT_V4, VIP_V4, 20), (CLIENT_V6, VIP_V6, 40)] {
            let whole = frame(tags, from, to, &[b'x'; 32]);
            let headers = 14 + 4 * tags.len() + ip_len + 8;
            for len in 0..=80 {
                if len < 14 {
                    // The kernel itself refuses what is shorter than an Ethernet header, here as on
                    // an interface.
                    let run = TestRun {
                        frame: &whole[..len],
                        ingress: None,
                        repeat: 1,
                    };
                    let outcome = run.run(&bench.program);
                    assert!(matches!(outcome, Err(BpfError::TestRun { .. })), "{len}");
                } else if len < headers {
                    bench.expect(SteerVerdict::Truncated, &whole[..len]);
                } else {
                    bench.expect(SteerVerdict::Redirected, &whole[..len.min(whole.len())]);
                }
            }
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_frame_longer_than_a_chunk_is_passed() {
    let bench = Bench::new();
    let of_len = |len: usize| frame(&[], CLIENT_V4, VIP_V4, &vec![b'x'; len - 42]);
    bench.expect(SteerVerdict::Redirected, &of_len(RX_FRAME_LEN_MAX));
    bench.expect(SteerVerdict::TooLong, &of_len(RX_FRAME_LEN_MAX + 1));

    // The bound is the configured one.
    let mut config = SteerConfig::new(vec![LOOPBACK], 1, 1);
    config.frame_len_max = 100;
    let mut program = SteerProgram::load(&config).unwrap();
    program.set_vip(address(VIP_V4), &Vip::default()).unwrap();
    let socket = xdp_socket();
    program.set_socket(SLOT, socket.as_fd()).unwrap();
    let bench = Bench {
        program,
        socket: Some(socket),
    };
    bench.expect(SteerVerdict::Redirected, &of_len(100));
    bench.expect(SteerVerdict::TooLong, &of_len(101));
}

// ---- sources ------------------------------------------------------------------------------------

#[test]
#[ignore = "needs root"]
fn a_denied_source_is_dropped() {
    let mut bench = Bench::new();
    let deny = vip(&[], &["198.18.0.0/24", "198.19.3.4", "2001:db8:0:1::/64"]);
    for at in [VIP_V4, VIP_V6] {
        bench.program.set_vip(address(at), &deny).unwrap();
    }
    for (source, verdict) in [
        ("198.18.0.0:1", SteerVerdict::Denied),
        ("198.18.0.255:1", SteerVerdict::Denied),
        ("198.18.1.0:1", SteerVerdict::Redirected),
        ("198.17.255.255:1", SteerVerdict::Redirected),
        ("198.19.3.4:1", SteerVerdict::Denied),
        ("198.19.3.5:1", SteerVerdict::Redirected),
    ] {
        bench.expect(verdict, &frame(&[], source, VIP_V4, b""));
    }
    for (source, verdict) in [
        ("[2001:db8:0:1::]:1", SteerVerdict::Denied),
        ("[2001:db8:0:1:ffff:ffff:ffff:ffff]:1", SteerVerdict::Denied),
        ("[2001:db8:0:2::]:1", SteerVerdict::Redirected),
        ("[2001:db8::]:1", SteerVerdict::Redirected),
    ] {
        bench.expect(verdict, &frame(&[], source, VIP_V6, b""));
    }
}

#[test]
#[ignore = "needs root"]
fn with_an_allow_list_others_are_dropped() {
    let mut bench = Bench::new();
    let allow = vip(&["198.18.0.0/24", "2001:db8::/64"], &[]);
    for at in [VIP_V4, VIP_V6] {
        bench.program.set_vip(address(at), &allow).unwrap();
    }
    bench.expect(SteerVerdict::Redirected, &v4());
    bench.expect(SteerVerdict::Redirected, &v6());
    let elsewhere = frame(&[], "198.18.1.2:1", VIP_V4, b"");
    bench.expect(SteerVerdict::NotAllowed, &elsewhere);
    let elsewhere = frame(&[], "[2001:db8:0:1::2]:1", VIP_V6, b"");
    bench.expect(SteerVerdict::NotAllowed, &elsewhere);
}

#[test]
#[ignore = "needs root"]
fn deny_wins_over_allow_however_specific() {
    let mut bench = Bench::new();
    let both = vip(&["198.18.0.2"], &["198.18.0.0/15"]);
    bench.program.set_vip(address(VIP_V4), &both).unwrap();
    bench.expect(SteerVerdict::Denied, &v4());
    let hole = vip(&["198.18.0.0/15"], &["198.18.0.2"]);
    bench.program.set_vip(address(VIP_V4), &hole).unwrap();
    bench.expect(SteerVerdict::Denied, &v4());
    let neighbour = frame(&[], "198.18.0.3:1", VIP_V4, b"");
    bench.expect(SteerVerdict::Redirected, &neighbour);
}

#[test]
#[ignore = "needs root"]
fn the_whole_of_one_family_says_nothing_of_the_other() {
    let mut bench = Bench::new();
    for at in [VIP_V4, VIP_V6] {
        bench
            .program
            .set_vip(address(at), &vip(&["::/0"], &[]))
            .unwrap();
    }
    bench.expect(SteerVerdict::NotAllowed, &v4());
    bench.expect(SteerVerdict::Redirected, &v6());
    for at in [VIP_V4, VIP_V6] {
        bench
            .program
            .set_vip(address(at), &vip(&[], &["0.0.0.0/0"]))
            .unwrap();
    }
    bench.expect(SteerVerdict::Denied, &v4());
    bench.expect(SteerVerdict::Redirected, &v6());
}

#[test]
#[ignore = "needs root"]
fn lists_belong_to_their_vip() {
    let mut bench = Bench::new();
    let second = "198.18.0.1:5070";
    bench
        .program
        .replace_vips(&[
            (address(VIP_V4), vip(&[], &["198.18.0.2"])),
            (address(second), vip(&["198.18.0.2"], &[])),
        ])
        .unwrap();
    bench.expect(SteerVerdict::Denied, &v4());
    bench.expect(
        SteerVerdict::Redirected,
        &frame(&[], CLIENT_V4, second, b""),
    );
    bench.expect(SteerVerdict::NotVip, &v6());
}

#[test]
#[ignore = "needs root"]
fn a_reload_replaces_lists_and_keeps_shared_ones() {
    let mut bench = Bench::new();
    let second = "198.18.0.1:5070";
    let shared = vip(&[], &["198.18.0.2", "198.18.7.0/24"]);
    for round in 0..200 {
        // Both VIPs share a list, then only one has it, then it is gone.
        let states = [
            (shared.clone(), shared.clone()),
            (vip(&[], &[]), shared.clone()),
            (vip(&["198.18.0.0/24"], &[]), vip(&["198.19.0.0/16"], &[])),
        ];
        let (first_vip, second_vip) = &states[round % 3];
        bench
            .program
            .replace_vips(&[
                (address(VIP_V4), first_vip.clone()),
                (address(second), second_vip.clone()),
            ])
            .unwrap();
        let to_second = frame(&[], CLIENT_V4, second, b"");
        let (first_verdict, second_verdict) = match round % 3 {
            0 => (SteerVerdict::Denied, SteerVerdict::Denied),
            1 => (SteerVerdict::Redirected, SteerVerdict::Denied),
            _ => (SteerVerdict::Redirected, SteerVerdict::NotAllowed),
        };
        bench.expect(first_verdict, &v4());
        bench.expect(second_verdict, &to_second);
    }
}

/// While lists are replaced, a denied source is denied and an allowed one allowed at every moment.
#[test]
#[ignore = "needs root"]
fn no_datagram_meets_half_a_list() {
    let mut bench = Bench::new();
    let denied = frame(&[], "198.19.9.9:1", VIP_V4, b"");
    let list = |round: u32| {
        // Many networks that differ by round, and one that does not.
        let mut deny = networks(&["198.19.9.9"]);
        deny.extend((0..200).map(|net| {
            let text = format!("198.18.{net}.{}", round % 256);
            text.parse::<Network>().unwrap()
        }));
        Vip {
            deny,
            ..Vip::default()
        }
    };
    bench.program.set_vip(address(VIP_V4), &list(0)).unwrap();
    bench.expect(SteerVerdict::Denied, &denied);

    // The reload runs in another thread, which borrows the loader; the program itself runs here.
    let before = bench.counts();
    let program = bench.program.as_fd().try_clone_to_owned().unwrap();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| {
            for round in 1..=100 {
                bench
                    .program
                    .set_vip(address(VIP_V4), &list(round))
                    .unwrap();
            }
        });
        let mut runs = 0_u64;
        while !reload.is_finished() {
            let run = TestRun {
                frame: &denied,
                ingress: None,
                repeat: 100,
            };
            let outcome = run.run(&program).unwrap();
            assert_eq!(outcome.action, Some(Action::Drop));
            runs += 100;
        }
        assert!(runs > 0);
    });
    let after = bench.counts();
    assert!(after.of(SteerVerdict::Denied) > before.of(SteerVerdict::Denied));
    for verdict in [SteerVerdict::Redirected, SteerVerdict::NotVip] {
        assert_eq!(after.of(verdict), before.of(verdict), "{verdict:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn full_lists_and_full_vips_fit_and_one_more_does_not() {
    let mut bench = Bench::new();
    let full: Vec<Network> = (0..NETWORKS_MAX)
        .map(|index| {
            let text = format!("198.18.{}.{}", index / 256, index % 256);
            text.parse().unwrap()
        })
        .collect();
    let vips: Vec<(SocketAddr, Vip)> = (0..VIPS_MAX)
        .map(|index| {
            let address = address(&format!("198.19.0.{}:{}", index % 250, 5060 + index));
            let vip = Vip {
                deny: full.clone(),
                ..Vip::default()
            };
            (address, vip)
        })
        .collect();
    bench.program.replace_vips(&vips).unwrap();
    let last = frame(
        &[],
        "198.18.3.255:1",
        &vips[VIPS_MAX - 1].0.to_string(),
        b"",
    );
    bench.expect(SteerVerdict::Denied, &last);

    let mut one_more = vips.clone();
    one_more.push((address("198.19.1.1:5060"), Vip::default()));
    let error = bench.program.replace_vips(&one_more).unwrap_err();
    assert!(matches!(error, BpfError::TooManyVips { .. }), "{error}");
    // Nothing was changed.
    bench.expect(SteerVerdict::Denied, &last);

    // All others, in place of these.
    let others: Vec<(SocketAddr, Vip)> = (0..VIPS_MAX)
        .map(|index| {
            (
                address(&format!("198.19.2.1:{}", 1 + index)),
                Vip::default(),
            )
        })
        .collect();
    bench.program.replace_vips(&others).unwrap();
    bench.expect(SteerVerdict::NotVip, &last);
    let first = frame(&[], CLIENT_V4, &others[0].0.to_string(), b"");
    bench.expect(SteerVerdict::Redirected, &first);
}

// ---- slots and the switch -----------------------------------------------------------------------

#[test]
#[ignore = "needs root"]
fn the_kill_switch_passes_everything() {
    let mut bench = Bench::new();
    bench
        .program
        .set_vip(address(VIP_V6), &vip(&[], &["::/0"]))
        .unwrap();
    bench.program.enable(false).unwrap();
    for frame in [v4(), v6(), with(v4(), 12, &[8, 6])] {
        bench.expect(SteerVerdict::Disabled, &frame);
    }
    bench.program.enable(true).unwrap();
    bench.expect(SteerVerdict::Redirected, &v4());
    bench.expect(SteerVerdict::Denied, &v6());
}

#[test]
#[ignore = "needs root"]
fn an_empty_slot_passes_and_a_closed_socket_empties_its_slot() {
    let mut bench = Bench::new();
    bench.expect(SteerVerdict::Redirected, &v4());
    bench.program.clear_socket(SLOT).unwrap();
    bench.expect(SteerVerdict::NoSocket, &v4());
    bench.program.clear_socket(SLOT).unwrap();

    let socket = bench.socket.take().unwrap();
    bench.program.set_socket(SLOT, socket.as_fd()).unwrap();
    bench.expect(SteerVerdict::Redirected, &v4());
    drop(socket);
    bench.expect(SteerVerdict::NoSocket, &v4());
}

#[test]
#[ignore = "needs root"]
fn every_interface_and_queue_has_its_own_slot() {
    let namespace = Namespace::new();
    namespace.ip("link add a0 numrxqueues 4 numtxqueues 4 type veth peer name b0 numrxqueues 4 numtxqueues 4");
    namespace.enter();
    let interfaces = [ifindex("a0"), ifindex("b0")];
    // Three workers, so that queue 3 wraps around to worker 0.
    let config = SteerConfig::new(interfaces.to_vec(), 4, 3);
    let mut program = SteerProgram::load(&config).unwrap();
    program.set_vip(address(VIP_V4), &Vip::default()).unwrap();

    let frame = v4();
    let run = |ifindex: u32, queue: u32| {
        let run = TestRun {
            frame: &frame,
            ingress: Some((ifindex, queue)),
            repeat: 1,
        };
        run.run(&program).unwrap().action.unwrap()
    };
    let slots: Vec<Slot> = interfaces
        .iter()
        .flat_map(|ifindex| {
            (0..4).flat_map(move |queue| {
                (0..3).map(move |worker| Slot {
                    ifindex: *ifindex,
                    queue,
                    worker,
                })
            })
        })
        .collect();
    for slot in slots {
        let socket = xdp_socket();
        program.set_socket(slot, socket.as_fd()).unwrap();
        for ifindex in interfaces {
            for queue in 0..4 {
                let there = (ifindex, queue, config.worker_of(queue));
                let action = if there == (slot.ifindex, slot.queue, slot.worker) {
                    Action::Redirect
                } else {
                    Action::Pass
                };
                assert_eq!(run(ifindex, queue), action, "{slot:?} {there:?}");
            }
        }
    }
    assert_eq!(
        [0, 1, 2, 0],
        [0, 1, 2, 3].map(|queue| config.worker_of(queue))
    );

    // Queues and interfaces that were not configured.
    let mut program = SteerProgram::load(&SteerConfig::new(vec![interfaces[0]], 2, 1)).unwrap();
    program.set_vip(address(VIP_V4), &Vip::default()).unwrap();
    let socket = xdp_socket();
    for queue in 0..2 {
        let slot = Slot {
            ifindex: interfaces[0],
            queue,
            worker: 0,
        };
        program.set_socket(slot, socket.as_fd()).unwrap();
    }
    for (ifindex, queue, action) in [
        (interfaces[0], 1, Action::Redirect),
        (interfaces[0], 2, Action::Pass),
        (interfaces[1], 0, Action::Pass),
    ] {
        let run = TestRun {
            frame: &frame,
            ingress: Some((ifindex, queue)),
            repeat: 1,
        };
        assert_eq!(run.run(&program).unwrap().action, Some(action));
    }
    assert_eq!(program.counts().unwrap().of(SteerVerdict::NoSocket), 2);
    for (ifindex, queue, worker) in [
        (interfaces[0], 2, 0),
        (interfaces[0], 0, 1),
        (interfaces[1], 0, 0),
    ] {
        let slot = Slot {
            ifindex,
            queue,
            worker,
        };
        let error = program.set_socket(slot, socket.as_fd()).unwrap_err();
        assert!(matches!(error, BpfError::Slot { .. }), "{error}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_thing_that_is_no_xdp_socket_is_refused() {
    let bench = Bench::new();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = bench.program.set_socket(SLOT, udp.as_fd()).unwrap_err();
    assert!(
        matches!(error, BpfError::Map { map: "xsks", .. }),
        "{error}"
    );
}

// ---- loading and attaching ----------------------------------------------------------------------

/// The budget leaves room for growth, not for a loop by accident.
#[test]
#[ignore = "needs root"]
fn the_verifier_accepts_it_within_its_budget() {
    // A number of workers beside which the search for the Call-ID is dead, and such as it is not.
    for (interfaces, queues, workers, most) in
        [(1, 1, 1, 20_000), (8, 64, 64, 150_000), (2, 3, 5, 150_000)]
    {
        let config = SteerConfig {
            call_id_key: Some(CallIdKey([7; 16])),
            ..SteerConfig::new((1..=interfaces).collect(), queues, workers)
        };
        let program = SteerProgram::load(&config).unwrap();
        let statistics = ProgramStatistics::read(&program).unwrap();
        println!("{interfaces} × {queues} × {workers}: {statistics:?}");
        assert!(statistics.instructions <= 1_600, "{statistics:?}");
        assert!(statistics.verified_instructions <= most, "{statistics:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn sizes_outside_the_bounds_are_refused() {
    for (interfaces, queues, workers) in [
        (0, 1, 1),
        (9, 1, 1),
        (1, 0, 1),
        (1, 65, 1),
        (1, 1, 0),
        (1, 1, 65),
    ] {
        let config = SteerConfig::new((1..=interfaces).collect(), queues, workers);
        let error = SteerProgram::load(&config).unwrap_err();
        assert!(matches!(error, BpfError::Size { .. }), "{error}");
    }
}

#[test]
#[ignore = "needs root"]
fn without_capabilities_the_error_says_what_is_needed() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).unwrap();
    sets.effective = CapabilitySet::empty();
    set_capabilities(None, sets).unwrap();
    let error = SteerProgram::load(&SteerConfig::new(vec![LOOPBACK], 1, 1)).unwrap_err();
    assert!(matches!(error, BpfError::Load { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("CAP_BPF"), "{text}");
}

#[test]
#[ignore = "needs root"]
fn a_link_holds_the_program_and_its_drop_detaches_it() {
    let namespace = Namespace::new();
    namespace.ip("link add a0 type veth peer name b0");
    namespace.enter();
    let a0 = ifindex("a0");
    let config = SteerConfig::new(vec![a0], 1, 1);
    let first = SteerProgram::load(&config).unwrap();
    let second = SteerProgram::load(&config).unwrap();

    for mode in [AttachMode::Native, AttachMode::Generic] {
        let link = first.attach(a0, mode).unwrap();
        assert_eq!(link.ifindex(), a0);
        for other in [AttachMode::Native, AttachMode::Generic] {
            let error = second.attach(a0, other).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, BpfError::Occupied { .. }), "{text}");
            for part in ["interface a0", "`steer`", mode.as_str()] {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
        }
        drop(link);
    }
    // The link alone keeps the program.
    let link = first.attach(a0, AttachMode::Native).unwrap();
    drop(first);
    assert!(second.attach(a0, AttachMode::Native).is_err());
    drop(link);
    let _link = second.attach(a0, AttachMode::Native).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_driver_without_native_xdp_is_named_with_the_way_out() {
    let namespace = Namespace::new();
    namespace.enter();
    let program = SteerProgram::load(&SteerConfig::new(vec![LOOPBACK, 99], 1, 1)).unwrap();
    let error = program.attach(LOOPBACK, AttachMode::Native).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BpfError::Attach { .. }), "{text}");
    for part in ["interface lo", "native", "generic"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    let _link = program.attach(LOOPBACK, AttachMode::Generic).unwrap();

    let error = program
        .attach(99, AttachMode::Native)
        .unwrap_err()
        .to_string();
    assert!(error.contains("gone"), "{error}");
    let error = program.attach(7, AttachMode::Native).unwrap_err();
    assert!(matches!(error, BpfError::Slot { .. }), "{error}");
}

/// Not a gate, a number: what a redirect costs in the program alone.
#[test]
#[ignore = "needs root"]
fn a_run_costs_well_under_a_microsecond() {
    let bench = Bench::new();
    for (name, frame) in [
        ("IPv4", v4()),
        ("IPv6", v6()),
        ("not ours", with(v4(), 37, &[1])),
        ("ARP", with(v4(), 12, &[8, 6])),
    ] {
        let run = TestRun {
            frame: &frame,
            ingress: None,
            repeat: 1_000_000,
        };
        let outcome = run.run(&bench.program).unwrap();
        println!("{name}: {:?} a run", outcome.duration);
        assert!(outcome.duration < Duration::from_micros(1));
    }
}
