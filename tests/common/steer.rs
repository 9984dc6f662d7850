//! The steering program under `BPF_PROG_TEST_RUN`: frames in, verdicts out.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType};
use viaduct::bpf::{
    Action, Slot, SteerConfig, SteerCounts, SteerProgram, SteerVerdict, TestRun, Vip,
};
use viaduct::net::{IpAddr, ListenerIndex, Network, SocketAddr};

/// A test run without an interface pretends to come from loopback.
pub(crate) const LOOPBACK: u32 = 1;

pub(crate) const CLIENT_V4: &str = "198.18.0.2:40000";
pub(crate) const VIP_V4: &str = "198.18.0.1:5060";
pub(crate) const CLIENT_V6: &str = "[2001:db8::2]:40000";
pub(crate) const VIP_V6: &str = "[2001:db8::1]:5060";

/// UDP over IPv4 or IPv6, whatever the addresses are, under the given VLAN tags.
pub(crate) fn frame(tags: &[[u8; 4]], source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (source, destination): (SocketAddr, SocketAddr) =
        (source.parse().unwrap(), destination.parse().unwrap());
    let udp_len = u16::try_from(8 + payload.len()).unwrap();

    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(tags.concat());
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00]);
            frame.extend([0x45, 0]);
            frame.extend((20 + udp_len).to_be_bytes());
            // Identification 0, Don't Fragment, TTL 64, UDP, checksum (nobody looks).
            frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd]);
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(udp_len.to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("two families in one datagram"),
    }
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

pub(crate) fn v4() -> Vec<u8> {
    frame(
        &[],
        CLIENT_V4,
        VIP_V4,
        b"OPTIONS sip:a@example.org SIP/2.0\r\n",
    )
}

pub(crate) fn v6() -> Vec<u8> {
    frame(
        &[],
        CLIENT_V6,
        VIP_V6,
        b"OPTIONS sip:a@example.org SIP/2.0\r\n",
    )
}

pub(crate) struct Bench {
    pub(crate) program: SteerProgram,
    // In the slot of loopback, queue 0, worker 0 for as long as it is open.
    pub(crate) socket: Option<OwnedFd>,
}

pub(crate) fn xdp_socket() -> OwnedFd {
    rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None).unwrap()
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn networks(list: &[&str]) -> Vec<Network> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn vip(allow: &[&str], deny: &[&str]) -> Vip {
    Vip {
        listener: ListenerIndex(0),
        allow: networks(allow),
        deny: networks(deny),
        limit: None,
    }
}

impl Bench {
    /// One interface, queue and worker, both VIPs, a socket in the slot.
    pub(crate) fn new() -> Self {
        Self::with(&SteerConfig::new(vec![LOOPBACK], 1, 1), &Vip::default())
    }

    /// Loaded in another way, and with the same lists and limits for both VIPs.
    pub(crate) fn with(config: &SteerConfig, vip: &Vip) -> Self {
        let mut program = SteerProgram::load(config).unwrap();
        let vips = [VIP_V4, VIP_V6].map(|at| (address(at), vip.clone()));
        program.replace_vips(&vips).unwrap();
        let socket = xdp_socket();
        program.set_socket(SLOT, socket.as_fd()).unwrap();
        Self {
            program,
            socket: Some(socket),
        }
    }

    pub(crate) fn run(&self, frame: &[u8]) -> Action {
        let run = TestRun {
            frame,
            ingress: None,
            repeat: 1,
        };
        let outcome = run.run(&self.program).unwrap();
        assert_eq!(outcome.frame, frame, "the program changed the frame");
        outcome.action.unwrap()
    }

    pub(crate) fn counts(&self) -> SteerCounts {
        self.program.counts().unwrap()
    }

    /// Runs the frame and holds the program to the verdict: its action, its counter by one, and no
    /// other counter.
    #[track_caller]
    pub(crate) fn expect(&self, verdict: SteerVerdict, frame: &[u8]) {
        let before = self.counts();
        assert_eq!(self.run(frame), verdict.action(), "{verdict:?}");
        let after = self.counts();
        for (counted, count) in after.iter() {
            let added = u64::from(counted == verdict);
            assert_eq!(count, before.of(counted) + added, "counter of {counted:?}");
        }
    }

    /// Runs many frames and holds the counters to the verdicts of all of them.
    #[track_caller]
    pub(crate) fn expect_all(&self, frames: impl Iterator<Item = (SteerVerdict, Vec<u8>)>) {
        let before = self.counts();
        let mut expected = [0_u64; SteerVerdict::COUNT];
        for (verdict, frame) in frames {
            assert_eq!(
                self.run(&frame),
                verdict.action(),
                "{verdict:?} {frame:02x?}"
            );
            expected[verdict as usize] += 1;
        }
        let after = self.counts();
        for (verdict, count) in after.iter() {
            let added = count - before.of(verdict);
            assert_eq!(added, expected[verdict as usize], "counter of {verdict:?}");
        }
    }
}

pub(crate) const SLOT: Slot = Slot {
    ifindex: LOOPBACK,
    queue: 0,
    worker: 0,
};
