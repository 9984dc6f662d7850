//! Keepalives on either path: a kernel socket, and a frame as XDP delivers it.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use viaduct::affinity::{Keys, Pins, Secret};
use viaduct::app::{Samples, SipHandler};
use viaduct::balance::Board;
use viaduct::config::Config;
use viaduct::datapath::Builder;
use viaduct::forward::Forwarder;
use viaduct::metrics::WorkerMetrics;
use viaduct::net::ListenerIndex;
use viaduct::packet::{PartialChecksum, parse};
use viaduct::proxy::{Proxy, Room};
use viaduct::route::{Plan, ServerRegistry};
use viaduct::time::Instant;
use viaduct::verdict::DropReason;

use crate::fixture::*;

/// What phones send to keep their NAT's mapping.
const KEEPALIVES: [&[u8]; 6] = [b"", b"\r\n", b"\r\n\r\n", b"\0", b"\0\0\0\0", b"\n"];

#[test]
fn a03_keepalives_on_a_kernel_socket_are_dropped_and_counted() {
    let vip = {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let config = format!(
        "[[listeners]]\nname = \"l\"\naddress = \"{vip}\"\n[[pools]]\nname = \"p\"\n\
         servers = [{{ name = \"s\", address = \"127.0.0.2:5060\" }}]\n"
    );
    let config = Config::parse(&config).unwrap();
    let keys = Arc::new(Keys::new(&Secret::generate().unwrap()));
    let plan = Plan::build(&config, &mut ServerRegistry::new(), &keys).unwrap();
    let plan = Arc::new(ArcSwap::from_pointee(plan));
    let metrics = Arc::new(WorkerMetrics::new());
    let datapath = Builder::new(vec![metrics.clone()])
        .listener(ListenerIndex(0), vip)
        .build()
        .unwrap();
    let running = datapath
        .start(
            |worker| {
                let pins = Arc::new(Pins::new(64));
                let forwarder = Forwarder::new(worker, 1, pins, metrics.clone());
                SipHandler::new(
                    Proxy::new(forwarder, Room::NONE, Arc::new(Board::new()), Instant::ZERO),
                    plan.clone(),
                    Arc::new(Samples::new()),
                )
            },
            &[],
        )
        .unwrap();
    let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
    for bytes in KEEPALIVES {
        phone.send_to(bytes, vip).unwrap();
    }
    // OPTIONS to us is answered: what was sent before has been seen.
    let options = request(
        "OPTIONS",
        &format!("sip:{vip}"),
        "keep-1",
        "z9hG4bK1;rport",
        1,
    );
    phone.send_to(&options, vip).unwrap();
    phone
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut answer = [0; 2048];
    let (len, _) = phone.recv_from(&mut answer).unwrap();
    assert!(answer[..len].starts_with(b"SIP/2.0 200 "));
    running.stop();
    let drops = |reason: DropReason| metrics.drops[reason as usize].value();
    assert_eq!(drops(DropReason::Keepalive), KEEPALIVES.len() as u64);
    assert_eq!(metrics.dropped(), KEEPALIVES.len() as u64);
    assert_eq!(metrics.kernel_in.value(), KEEPALIVES.len() as u64 + 1);
    assert_eq!(metrics.kernel_out.value(), 1);
}

/// An Ethernet frame with this datagram, without a UDP checksum (RFC 768), padded to the least
/// length of a frame.
fn frame(payload: &[u8]) -> Vec<u8> {
    let len = |headers: usize| {
        u16::try_from(headers + payload.len())
            .unwrap()
            .to_be_bytes()
    };
    let mut ip = vec![0x45, 0];
    ip.extend(len(28));
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0, 203, 0, 113, 50, 198, 18, 0, 1]);
    let sum: u32 = ip
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]))
        .sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend(ip);
    frame.extend([0x7a, 0x69, 0x13, 0xc4]);
    frame.extend(len(8));
    frame.extend([0, 0]);
    frame.extend(payload);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The padding of a short frame is no part of the datagram: an empty one stays empty.
#[test]
fn a03_keepalives_in_a_frame_are_dropped_and_counted() {
    let mut lab = Lab::new(ONE_ARMED);
    for bytes in KEEPALIVES {
        let frame = frame(bytes);
        let headers = parse(&frame, PartialChecksum::Reject).unwrap();
        let payload = &frame[headers.payload.clone()];
        assert_eq!(payload, bytes);
        let peer = headers.src.to_string();
        assert_eq!(lab.send(payload, &peer).dropped(), DropReason::Keepalive);
    }
}
