//! Kernel sockets of several workers on one address: a datagram reaches the home worker of its
//! Call-ID, whoever sent it, and without a Call-ID the socket that the kernel chooses.
//!
//! Run as root: `cargo nextest run --test bpf_share --run-ignored all`.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
use viaduct::affinity::{Keys, Secret, home_worker};
use viaduct::bpf::{BpfError, CallIdKey, ShareProgram};

const WORKERS: u8 = 4;

fn keys() -> Keys {
    let secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    Keys::new(&Secret::from_hex(secret).unwrap())
}

/// A socket per worker on one port of `address`.
fn sockets(address: &str) -> Vec<UdpSocket> {
    let mut local: SocketAddr = address.parse().unwrap();
    let family = match local.is_ipv4() {
        true => AddressFamily::INET,
        false => AddressFamily::INET6,
    };
    (0..WORKERS)
        .map(|_| {
            let fd = socket(family, SocketType::DGRAM, None).unwrap();
            sockopt::set_socket_reuseport(&fd, true).unwrap();
            sockopt::set_socket_recv_buffer_size(&fd, 1 << 20).unwrap();
            bind(&fd, &local).unwrap();
            let socket = UdpSocket::from(fd);
            let timeout = Some(Duration::from_millis(200));
            socket.set_read_timeout(timeout).unwrap();
            local = socket.local_addr().unwrap();
            socket
        })
        .collect()
}

fn shared(sockets: &[UdpSocket]) -> ShareProgram {
    let key = CallIdKey(keys().affinity_key());
    let program = ShareProgram::load(u32::from(WORKERS), key).unwrap();
    for (worker, socket) in (0..).zip(sockets) {
        program.set_socket(worker, socket.as_fd()).unwrap();
    }
    program.attach(sockets[0].as_fd()).unwrap();
    program
}

/// What each socket has received.
fn drain(sockets: &[UdpSocket]) -> Vec<Vec<Vec<u8>>> {
    let mut buffer = vec![0; 70_000];
    let mut taken = |socket: &UdpSocket| {
        let mut received = Vec::new();
        while let Ok(len) = socket.recv(&mut buffer) {
            received.push(buffer[..len].to_vec());
        }
        received
    };
    sockets.iter().map(&mut taken).collect()
}

fn message(call_id: &str, body: usize) -> Vec<u8> {
    let body = "x".repeat(body);
    format!(
        "OPTIONS sip:a@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 198.18.0.2\r\nCall-ID: {call_id}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// One flow, messages of every size up to what IP fragments and puts together again.
#[test]
#[ignore = "needs root"]
fn one_flow_reaches_the_home_of_each_call() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let sockets = sockets(address);
        let program = shared(&sockets);
        let client = UdpSocket::bind(address).unwrap();
        let to = sockets[0].local_addr().unwrap();
        let mut expected = vec![Vec::new(); usize::from(WORKERS)];
        for number in 0..200 {
            let call_id = format!("{number}-1@198.18.0.2");
            let bytes = message(
                &call_id,
                number * 7 + if number == 199 { 40_000 } else { 0 },
            );
            client.send_to(&bytes, to).unwrap();
            let home = home_worker(keys().call_id_hash(call_id.as_bytes()), WORKERS);
            expected[usize::from(home.0)].push(bytes);
        }
        assert!(drain(&sockets) == expected, "{address}");
        let counts = program.counts().unwrap();
        assert_eq!((counts.by_call_id, counts.by_queue), (200, 0));
    }
}

/// Without a Call-ID, or without its worker's socket, somebody gets the datagram all the same.
#[test]
#[ignore = "needs root"]
fn what_has_no_home_goes_where_the_kernel_sends_it() {
    let mut sockets = sockets("127.0.0.1:0");
    let program = shared(&sockets);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = sockets[0].local_addr().unwrap();
    let cut = message("1@a", 0);
    for bytes in [&b""[..], b"\r\n\r\n", b"x", &cut[..66], &message("", 10)] {
        client.send_to(bytes, to).unwrap();
    }
    let received = drain(&sockets);
    let which: Vec<usize> = received.iter().map(Vec::len).filter(|it| *it > 0).collect();
    assert_eq!(which, [5], "one flow, one socket");
    assert_eq!(program.counts().unwrap().by_queue, 5);

    // A worker that is gone.
    let call_id = (0..)
        .map(|number| format!("{number}@b"))
        .find(|call_id| home_worker(keys().call_id_hash(call_id.as_bytes()), WORKERS).0 == 2)
        .unwrap();
    drop(sockets.remove(2));
    client.send_to(&message(&call_id, 0), to).unwrap();
    assert_eq!(drain(&sockets).concat(), [message(&call_id, 0)]);
    assert_eq!(program.counts().unwrap().by_queue, 6);
}

#[test]
#[ignore = "needs root"]
fn a_socket_of_its_own_is_refused() {
    let program = ShareProgram::load(1, CallIdKey([1; 16])).unwrap();
    let alone = UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = program.set_socket(0, alone.as_fd()).unwrap_err();
    assert!(
        matches!(error, BpfError::Map { map: "sockets", .. }),
        "{error}"
    );
}
