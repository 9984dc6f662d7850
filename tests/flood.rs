//! The flood and the sink: what is sent is what was asked for, and what arrives is counted.
//!
//! Run as root: `cargo nextest run --test flood --run-ignored all`.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod common;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::netns::{Namespace, ifindex};
use viaduct::bpf::{
    Action, AttachMode, FLOOD_FIELD_LEN, FloodProgram, FloodProgramConfig, FloodRecord, SinkCounts,
    SinkHook, SinkProgram, TestRun,
};
use viaduct::generator::flood::{self, FloodConfig, RecordTo};
use viaduct::packet::ethernet::MacAddress;
use viaduct::packet::{self, LinkHeader, PartialChecksum};
use viaduct::sip::Message;

const HERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const THERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const LOOPBACK: u32 = 1;

/// A record around a payload, with fields where the payload has runs of `#`.
fn record(payload: &[u8], is_ipv4: bool) -> FloodRecord {
    let (source, target) = if is_ipv4 {
        ("198.18.0.2:5060", "198.18.0.1:5060")
    } else {
        ("[2001:db8::2]:5060", "[2001:db8::1]:5060")
    };
    let mut bytes = vec![0; 128];
    bytes.extend_from_slice(payload);
    let link = LinkHeader::default();
    let (source, target) = (source.parse().unwrap(), target.parse().unwrap());
    let start = packet::emit(
        &mut bytes,
        128..128 + payload.len(),
        &link,
        source,
        target,
        64,
    );
    let start = start.unwrap();
    let fields: Vec<usize> = payload
        .windows(FLOOD_FIELD_LEN)
        .enumerate()
        .filter(|(_, run)| run.iter().all(|octet| *octet == b'#'))
        .map(|(at, _)| 128 - start + at)
        .collect();
    FloodRecord::new(&bytes[start..], 128 - start - 8, &fields).unwrap()
}

fn program(records: &[FloodRecord], calls: u64) -> FloodProgram {
    FloodProgram::load(&FloodProgramConfig {
        egress: LOOPBACK,
        rate: None,
        frames: u64::MAX,
        calls,
        seed: 7,
        timed: false,
        records,
    })
    .unwrap()
}

fn next_frame(program: &FloodProgram) -> Vec<u8> {
    // Whatever is in the frame before: a recycled page has another call in it.
    let run = TestRun {
        frame: &[0xa5; 1500],
        ingress: None,
        repeat: 1,
    };
    let outcome = run.run(program).unwrap();
    assert_eq!(outcome.action, Some(Action::Redirect));
    outcome.frame
}

/// The payload of a frame whose checksums are right; panics if they are not.
fn payload(frame: &[u8]) -> &[u8] {
    let headers = packet::parse(frame, PartialChecksum::Reject).unwrap();
    &frame[headers.payload]
}

/// Over every parity of offset and length and every number of fields.
#[test]
#[ignore = "needs root"]
fn frames_have_right_checksums_and_new_digits() {
    let field = "#".repeat(FLOOD_FIELD_LEN);
    for is_ipv4 in [true, false] {
        for (before, between, after) in [(0, 1, 0), (1, 1, 1), (2, 3, 0), (5, 2, 7), (8, 1, 300)] {
            for fields in 0..=4 {
                let pad = |count: usize| "x".repeat(count);
                let mut text = pad(before);
                for _ in 0..fields {
                    text += &field;
                    text += &pad(between);
                }
                text += &pad(after);
                let program = program(&[record(text.as_bytes(), is_ipv4)], u64::MAX);
                let mut seen = HashSet::new();
                for _ in 0..50 {
                    let frame = next_frame(&program);
                    let payload = payload(&frame);
                    assert_eq!(payload.len(), text.len());
                    let mut digits = 0;
                    for (made, asked) in payload.iter().zip(text.as_bytes()) {
                        if *asked == b'#' {
                            digits += 1;
                            assert!(made.is_ascii_hexdigit() && !made.is_ascii_uppercase());
                        } else {
                            assert_eq!(made, asked);
                        }
                    }
                    assert_eq!(digits, fields * FLOOD_FIELD_LEN);
                    seen.insert(payload.to_vec());
                }
                assert_eq!(seen.len(), if fields == 0 { 1 } else { 50 });
            }
        }
    }
}

#[test]
#[ignore = "needs root"]
fn records_take_turns_and_calls_repeat_with_the_same_digits() {
    let field = "#".repeat(FLOOD_FIELD_LEN);
    let records: Vec<FloodRecord> = (0..3)
        .map(|number| {
            record(
                format!("{number} {field}").repeat(number + 1).as_bytes(),
                true,
            )
        })
        .collect();
    let program = program(&records, 6);
    let first: Vec<Vec<u8>> = (0..6).map(|_| next_frame(&program)).collect();
    let second: Vec<Vec<u8>> = (0..6).map(|_| next_frame(&program)).collect();
    assert_eq!(first, second);
    let distinct: HashSet<&[u8]> = first.iter().map(|frame| payload(frame)).collect();
    assert_eq!(distinct.len(), 6);
    for (number, frame) in first.iter().enumerate() {
        assert_eq!(payload(frame)[0], b'0' + u8::try_from(number % 3).unwrap());
    }
}

#[test]
#[ignore = "needs root"]
fn a_record_that_does_not_fit_is_none() {
    let frame = [0; 1501];
    assert!(FloodRecord::new(&frame[..1500], 34, &[100]).is_some());
    assert!(FloodRecord::new(&frame, 34, &[100]).is_none());
    assert!(FloodRecord::new(&frame[..100], 34, &[100 - FLOOD_FIELD_LEN]).is_some());
    assert!(FloodRecord::new(&frame[..100], 34, &[101 - FLOOD_FIELD_LEN]).is_none());
    assert!(FloodRecord::new(&frame[..100], 34, &[41]).is_none());
    assert!(FloodRecord::new(&frame[..100], 93, &[]).is_none());
    assert!(FloodRecord::new(&frame[..1500], 34, &[100, 200, 300, 400, 500]).is_none());
}

/// Two namespaces and a veth pair; the flood is in the one we are in.
struct Pair {
    here: Namespace,
    there: Namespace,
}

impl Pair {
    fn new() -> Self {
        let (here, there) = (Namespace::new(), Namespace::new());
        here.ip(&format!(
            "link add here address {HERE} type veth peer name there address {THERE} netns {}",
            there.name()
        ));
        here.ip("link set dev here up");
        there.ip("link set dev there up");
        Self { here, there }
    }

    /// A veth that frames are redirected to must look for them: with XDP or GRO it does.
    fn look_for_redirected_frames(&self) {
        let there = self.there.name();
        common::netns::command(&format!("ip netns exec {there} ethtool -K there gro on"));
    }
}

fn sources(count: u32) -> Vec<IpAddr> {
    let first = Ipv4Addr::new(198, 18, 100, 0).to_bits();
    let address = |number| IpAddr::V4(Ipv4Addr::from_bits(first + number));
    (0..count).map(address).collect()
}

fn config(interface: u32) -> FloodConfig {
    FloodConfig {
        interface,
        source_mac: HERE,
        target_mac: THERE,
        target: "198.18.0.1:5060".parse().unwrap(),
        sources: sources(1000),
        message_len: Some(507),
        replay: Vec::new(),
        with_requests: false,
        record_to: RecordTo::default(),
        latency: false,
        calls: 1 << 20,
        rate: Some(20_000.0),
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(5),
        frames: 5_000,
        core: None,
        stations: Vec::new(),
        sink: SinkHook::Tc,
    }
}

#[test]
#[ignore = "needs root"]
fn every_frame_arrives_and_is_counted_where_it_was_addressed_to() {
    for hook in [
        SinkHook::Tc,
        SinkHook::Xdp(AttachMode::Native),
        SinkHook::Xdp(AttachMode::Generic),
    ] {
        let pair = Pair::new();
        pair.look_for_redirected_frames();
        pair.there.enter();
        let sink = SinkProgram::load(&[THERE.0, HERE.0]).unwrap();
        let _link = sink.attach(ifindex("there"), hook).unwrap();
        pair.here.enter();

        let report = flood::run(&config(ifindex("here")), &AtomicBool::new(false)).unwrap();
        assert_eq!(report.sent, 5_000);
        // Give or take a look: the pace is kept, and the bound on frames ends it.
        assert!(report.window.seconds < 1.0, "{report}");
        assert!(report.window.seconds > 0.2, "{report}");
        let counts = sink.counts(&THERE.0).unwrap();
        let all = SinkCounts {
            requests: 5_000,
            ..SinkCounts::default()
        };
        assert_eq!(counts, all, "{hook:?}");
        assert_eq!(sink.counts(&HERE.0).unwrap(), SinkCounts::default());
    }
}

/// The kernel at the far end takes the frames for datagrams: they are received by a socket.
#[test]
#[ignore = "needs root"]
fn a_socket_receives_distinct_invites_from_all_sources() {
    let pair = Pair::new();
    pair.there.ip("address add 198.18.0.1/15 dev there");
    pair.look_for_redirected_frames();
    pair.there.enter();
    let socket = std::net::UdpSocket::bind("198.18.0.1:5060").unwrap();
    // Room for all of them, each in a page of its own, however late we come to read.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 32 << 20).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    pair.here.enter();

    let flood = std::thread::spawn(move || {
        pair.here.enter();
        let config = FloodConfig {
            frames: 2_000,
            sources: sources(500),
            ..config(ifindex("here"))
        };
        let report = flood::run(&config, &AtomicBool::new(false)).unwrap();
        (report, pair)
    });
    let mut message = Message::new();
    let (mut calls, mut branches, mut sources) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut buffer = [0; 2048];
    for _ in 0..2_000 {
        let (len, source) = socket.recv_from(&mut buffer).unwrap();
        let bytes = &buffer[..len];
        assert_eq!(len, 507);
        message.parse(bytes).unwrap();
        let via = message.top_via().unwrap();
        calls.insert(message.call_id().unwrap().of(bytes).to_vec());
        branches.insert(via.branch.unwrap().of(bytes).to_vec());
        sources.insert(source);
    }
    let (report, _pair) = flood.join().unwrap();
    assert_eq!(report.sent, 2_000);
    assert_eq!(
        (calls.len(), branches.len(), sources.len()),
        (2_000, 2_000, 500)
    );
}

#[test]
#[ignore = "needs root"]
fn what_comes_back_is_counted_by_the_floods_own_sink() {
    let pair = Pair::new();
    pair.here.enter();
    let mut config = config(ifindex("here"));
    config.stations = vec![HERE, MacAddress([2, 0, 0, 0, 0, 9])];
    // A datagram a time from there to here: a response, a request, and something else.
    let there = pair.there;
    there.ip("address add 198.18.0.1/15 dev there");
    there.ip(&format!(
        "neighbor add 198.18.0.2 lladdr {HERE} dev there nud permanent"
    ));
    there.ip("neighbor add 198.18.0.3 lladdr 02:00:00:00:00:09 dev there nud permanent");
    let answers = std::thread::spawn(move || {
        there.enter();
        // The peer must have its sink before anything is sent to it.
        std::thread::sleep(Duration::from_millis(100));
        let socket = std::net::UdpSocket::bind("198.18.0.1:5060").unwrap();
        for (text, to) in [
            ("SIP/2.0 200 OK\r\n", "198.18.0.2:5060"),
            ("BYE sip:a SIP/2.0\r\n", "198.18.0.3:5060"),
            ("\r\n\r\n", "198.18.0.3:5060"),
            ("\r\n", "198.18.0.2:5060"),
        ] {
            socket.send_to(text.as_bytes(), to).unwrap();
        }
        there
    });
    let report = flood::run(&config, &AtomicBool::new(false)).unwrap();
    let _there = answers.join().unwrap();
    assert_eq!(report.returned, 4);
    let [here, ninth] = report.stations.as_slice() else {
        panic!("two stations");
    };
    assert_eq!((here.requests, here.responses, here.others), (0, 1, 1));
    assert_eq!((ninth.requests, ninth.responses, ninth.others), (1, 0, 1));
    assert!(report.loss > 0.99);
}

#[test]
#[ignore = "needs root"]
fn a_flood_without_bounds_stops_when_told() {
    let pair = Pair::new();
    pair.here.enter();
    let config = FloodConfig {
        rate: None,
        frames: u64::MAX,
        duration: Duration::from_secs(60),
        ..config(ifindex("here"))
    };
    let stop = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        flood::run(&config, &stop).unwrap()
    });
    assert!(report.sent > 0);
    assert!(report.window.seconds < 10.0);
}

/// The mix is of many shapes, each legal, each with the digits of its call.
#[test]
#[ignore = "needs root"]
fn a_mix_has_many_shapes_and_no_message_twice() {
    let pair = Pair::new();
    pair.there.ip("address add 198.18.0.1/15 dev there");
    pair.look_for_redirected_frames();
    pair.there.enter();
    let socket = std::net::UdpSocket::bind("198.18.0.1:5060").unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 32 << 20).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    pair.here.enter();
    let config = FloodConfig {
        frames: 2_000,
        message_len: None,
        ..config(ifindex("here"))
    };
    let report = flood::run(&config, &AtomicBool::new(false)).unwrap();
    assert_eq!(report.sent, 2_000);
    let mut message = Message::new();
    let mut buffer = [0; 2048];
    let (mut calls, mut shapes) = (HashSet::new(), HashSet::new());
    for _ in 0..2_000 {
        let len = socket.recv(&mut buffer).unwrap();
        let bytes = &buffer[..len];
        message.parse(bytes).unwrap();
        calls.insert(message.call_id().unwrap().of(bytes).to_vec());
        // A shape is its rows: method, names and their order.
        let text = String::from_utf8_lossy(bytes);
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let names = head
            .lines()
            .map(|row| row.split([' ', ':']).next().unwrap());
        shapes.insert(names.collect::<Vec<_>>().join(" "));
    }
    assert_eq!(calls.len(), 2_000);
    assert!(shapes.len() >= 8, "{shapes:?}");
}

/// A forwarder in the kernel's place: writes down what comes, and sends it back a while later.
#[test]
#[ignore = "needs root"]
fn the_time_a_message_takes_is_measured_and_what_comes_back_is_recorded() {
    const DELAY: Duration = Duration::from_millis(3);
    let pair = Pair::new();
    pair.there.ip("address add 198.18.0.1/15 dev there");
    pair.there.ip(&format!(
        "neighbor add 198.18.0.9 lladdr {HERE} dev there nud permanent"
    ));
    pair.look_for_redirected_frames();
    pair.there.enter();
    let socket = std::net::UdpSocket::bind("198.18.0.1:5060").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    pair.here.enter();
    let there = pair.there;
    let echo = std::thread::spawn(move || {
        there.enter();
        let mut buffer = [0; 2048];
        while let Ok(len) = socket.recv(&mut buffer) {
            std::thread::sleep(DELAY);
            socket.send_to(&buffer[..len], "198.18.0.9:5060").unwrap();
        }
        there
    });
    let folder = tempfile::tempdir().unwrap();
    let responses = folder.path().join("responses.pcap");
    let timed = FloodConfig {
        rate: Some(100.0),
        frames: 30,
        stations: vec![HERE],
        message_len: None,
        latency: true,
        ..config(ifindex("here"))
    };
    let report = flood::run(&timed, &AtomicBool::new(false)).unwrap();
    let latency = report.latency.unwrap();
    assert!((20..=30).contains(&latency.count), "{latency}");
    assert!(latency.p50_us > 3_000.0, "{latency}");
    assert!(latency.p50_us < 100_000.0, "{latency}");

    let recording = FloodConfig {
        latency: false,
        record_to: RecordTo {
            responses: Some(responses.clone()),
            in_dialog: None,
        },
        ..timed.clone()
    };
    let report = flood::run(&recording, &AtomicBool::new(false)).unwrap();
    assert_eq!(report.recorded_responses, 30);

    let replay = FloodConfig {
        latency: false,
        replay: vec![responses],
        ..timed
    };
    let report = flood::run(&replay, &AtomicBool::new(false)).unwrap();
    let _there = echo.join().unwrap();
    let [station] = report.stations.as_slice() else {
        panic!("one station");
    };
    assert_eq!((station.requests, station.responses), (0, 30));
}
