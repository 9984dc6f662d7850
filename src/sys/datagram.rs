//! UDP sockets read and written in batches: `recvmmsg(2)`, `sendmmsg(2)`, and how they are opened.
//!
//! Guarantees: no allocation after construction, never blocks, and every pointer given to the
//! kernel points into memory borrowed for the length of that one call.
#![expect(
    unsafe_code,
    reason = "no crate offers recvmmsg and sendmmsg over reused arrays"
)]

use core::mem::{self, size_of};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::ptr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::limits::BATCH;

/// How a UDP socket is opened.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Several sockets share the address, and the kernel spreads flows over them.
    pub reuse_port: bool,
    /// The address may be bound before the host has it (ip(7), `IP_FREEBIND`).
    pub freebind: bool,
    /// Receive buffer wanted, in bytes; the kernel may give less to an unprivileged process.
    pub receive_buffer_len: usize,
    /// Send buffer wanted, in bytes.
    pub send_buffer_len: usize,
}

/// Opens a non-blocking UDP socket bound to `local`.
///
/// Datagrams longer than the MTU are fragmented by the kernel, and an ICMP error of an earlier
/// datagram is not reported on later calls (the kernel's default for unconnected sockets; see
/// [`error_queue`](super::error_queue) for the other way). Whether a received datagram came in
/// fragments is told by [`Received::fragmented`].
///
/// # Errors
/// The kernel's: the address is not ours, or taken by a socket without `reuse_port`.
pub fn open(local: SocketAddr, options: &SocketOptions) -> io::Result<OwnedFd> {
    let family = match local {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    if options.reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    // The forced variants exceed net.core.{r,w}mem_max and need CAP_NET_ADMIN.
    if sockopt::set_socket_recv_buffer_size_force(&socket, options.receive_buffer_len).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, options.receive_buffer_len)?;
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, options.send_buffer_len).is_err() {
        sockopt::set_socket_send_buffer_size(&socket, options.send_buffer_len)?;
    }
    match local {
        SocketAddr::V4(_) => {
            sockopt::set_ip_freebind(&socket, options.freebind)?;
            sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::DONT)?;
            set_flag(&socket, libc::IPPROTO_IP, IP_RECVFRAGSIZE)?;
        }
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_freebind(&socket, options.freebind)?;
            sockopt::set_ipv6_v6only(&socket, true)?;
            sockopt::set_ipv6_mtu_discover(&socket, sockopt::Ipv6PathMtuDiscovery::DONT)?;
            set_flag(&socket, libc::IPPROTO_IPV6, IPV6_RECVFRAGSIZE)?;
        }
    }
    bind(&socket, &local)?;
    Ok(socket)
}

/// The address `socket` is bound to.
///
/// # Errors
/// The kernel's; for a bound IP socket there is none.
pub fn local_address(socket: impl AsFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(socket)?;
    address
        .try_into()
        .map_err(|_| io::ErrorKind::AddrNotAvailable.into())
}

/// `IP_RECVFRAGSIZE`, linux/in.h since 4.12: a control message with the largest fragment's size on
/// every datagram that was reassembled.
const IP_RECVFRAGSIZE: libc::c_int = 25;
/// `IPV6_RECVFRAGSIZE`, linux/in6.h.
const IPV6_RECVFRAGSIZE: libc::c_int = 77;

/// Sets an integer option to 1.
pub(super) fn set_flag(socket: &OwnedFd, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let value: libc::c_int = 1;
    // SAFETY: the value is a live c_int and its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            SOCKLEN_INT,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "four bytes")]
const SOCKLEN_INT: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
#[expect(clippy::cast_possible_truncation, reason = "16 bytes")]
const SOCKLEN_V4: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;
#[expect(clippy::cast_possible_truncation, reason = "28 bytes")]
const SOCKLEN_V6: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
#[expect(
    clippy::cast_possible_truncation,
    reason = "AF_INET and AF_INET6 are 2 and 10"
)]
const FAMILIES: (u16, u16) = (libc::AF_INET as u16, libc::AF_INET6 as u16);

/// A socket address as the kernel reads and writes it. IPv6 is the longer of the two and has the
/// same alignment; the family comes first in both.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    family: libc::sa_family_t,
}

impl RawAddress {
    /// Bytes of the longer one.
    pub(super) const LEN_MAX: libc::socklen_t = SOCKLEN_V6;

    pub(super) const EMPTY: Self = Self {
        v6: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    fn new(address: SocketAddr) -> (Self, libc::socklen_t) {
        match address {
            SocketAddr::V4(address) => {
                let v4 = libc::sockaddr_in {
                    sin_family: FAMILIES.0,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(address.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                let mut raw = Self::EMPTY;
                raw.v4 = v4;
                (raw, SOCKLEN_V4)
            }
            SocketAddr::V6(address) => {
                let v6 = libc::sockaddr_in6 {
                    sin6_family: FAMILIES.1,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr {
                        s6_addr: address.ip().octets(),
                    },
                    sin6_scope_id: address.scope_id(),
                };
                (Self { v6 }, SOCKLEN_V6)
            }
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        // SAFETY: every byte pattern is a family, and EMPTY initialised all bytes.
        let family = unsafe { self.family };
        if family == FAMILIES.0 {
            // SAFETY: all 28 bytes are initialised and plain integers.
            let v4 = unsafe { self.v4 };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        } else if family == FAMILIES.1 {
            // SAFETY: as above.
            let v6 = unsafe { self.v6 };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        } else {
            None
        }
    }
}

const EMPTY_IOVEC: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

fn empty_header() -> libc::mmsghdr {
    // SAFETY: mmsghdr is integers and pointers, and zero is a valid value of each.
    unsafe { mem::zeroed() }
}

/// Control bytes per datagram: one message with an int takes 24.
const CONTROL_LEN: usize = 32;

/// Aligned as `cmsghdr` is.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_LEN]);

/// What is known of one received datagram besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes written to its buffer.
    pub len: usize,
    /// Who sent it. `None` only if the kernel named a family that is not IP.
    pub source: Option<SocketAddr>,
    /// The buffer was too short for it.
    pub truncated: bool,
    /// It came in fragments.
    pub fragmented: bool,
}

/// The arrays of a `recvmmsg` call, reused.
pub struct ReceiveBatch {
    headers: Box<[libc::mmsghdr; BATCH]>,
    iovecs: Box<[libc::iovec; BATCH]>,
    sources: Box<[RawAddress; BATCH]>,
    controls: Box<[Control; BATCH]>,
    count: usize,
}

// SAFETY: the raw pointers inside point into the boxes beside them, are written anew before each
// system call and are not read outside it.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    /// Empty arrays.
    pub fn new() -> Self {
        Self {
            headers: Box::new(core::array::from_fn(|_| empty_header())),
            iovecs: Box::new([EMPTY_IOVEC; BATCH]),
            sources: Box::new([RawAddress::EMPTY; BATCH]),
            controls: Box::new([Control([0; CONTROL_LEN]); BATCH]),
            count: 0,
        }
    }

    /// Receives up to one datagram per buffer, at most [`BATCH`]; 0 if none is waiting.
    ///
    /// # Errors
    /// The kernel's, but for "none is waiting" and interruptions.
    pub fn receive<'a>(
        &mut self,
        socket: impl AsFd,
        buffers: impl IntoIterator<Item = &'a mut [u8]>,
    ) -> io::Result<usize> {
        self.count = 0;
        let mut offered: libc::c_uint = 0;
        let slots = self
            .headers
            .iter_mut()
            .zip(self.iovecs.iter_mut())
            .zip(self.sources.iter_mut().zip(self.controls.iter_mut()));
        for (((header, iovec), (source, control)), buffer) in slots.zip(buffers) {
            iovec.iov_base = buffer.as_mut_ptr().cast();
            iovec.iov_len = buffer.len();
            header.msg_len = 0;
            header.msg_hdr = libc::msghdr {
                msg_name: ptr::from_mut(source).cast(),
                msg_namelen: SOCKLEN_V6,
                msg_iov: iovec,
                msg_iovlen: 1,
                msg_control: control.0.as_mut_ptr().cast(),
                msg_controllen: CONTROL_LEN,
                msg_flags: 0,
            };
            offered += 1;
        }
        if offered == 0 {
            return Ok(0);
        }
        loop {
            // SAFETY: the first `offered` headers point to a source, an iovec and a control area
            // of ours, and each iovec to a buffer borrowed until this function returns.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_fd().as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    offered,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                )
            };
            if let Ok(count) = usize::try_from(count) {
                self.count = count.min(BATCH);
                return Ok(self.count);
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(0),
                _ => return Err(error),
            }
        }
    }

    /// The datagrams of the last call, in the order of its buffers.
    pub fn received(&self) -> impl Iterator<Item = Received> {
        self.headers
            .iter()
            .zip(self.sources.iter())
            .take(self.count)
            .map(|(header, source)| Received {
                len: usize::try_from(header.msg_len).unwrap_or(0),
                source: source.address(),
                truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                // The only control message asked for is the fragment size, and the kernel adds
                // it only to reassembled datagrams.
                fragmented: header.msg_hdr.msg_controllen != 0,
            })
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// The arrays of a `sendmmsg` call, reused.
pub struct SendBatch {
    headers: Box<[libc::mmsghdr; BATCH]>,
    iovecs: Box<[libc::iovec; BATCH]>,
    destinations: Box<[RawAddress; BATCH]>,
}

// SAFETY: as for ReceiveBatch.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// Empty arrays.
    pub fn new() -> Self {
        Self {
            headers: Box::new(core::array::from_fn(|_| empty_header())),
            iovecs: Box::new([EMPTY_IOVEC; BATCH]),
            destinations: Box::new([RawAddress::EMPTY; BATCH]),
        }
    }

    /// Sends the first datagrams of `messages`, at most [`BATCH`], and returns how many the kernel
    /// took. Fewer than offered means that the next one failed; call again with it first to learn
    /// why.
    ///
    /// # Errors
    /// Why the first datagram could not be sent; nothing was.
    pub fn send<'a>(
        &mut self,
        socket: impl AsFd,
        messages: impl IntoIterator<Item = (&'a [u8], SocketAddr)>,
    ) -> io::Result<usize> {
        let mut offered: libc::c_uint = 0;
        let slots = self
            .headers
            .iter_mut()
            .zip(self.iovecs.iter_mut())
            .zip(self.destinations.iter_mut());
        for (((header, iovec), destination), (bytes, peer)) in slots.zip(messages) {
            let (raw, raw_len) = RawAddress::new(peer);
            *destination = raw;
            iovec.iov_base = bytes.as_ptr().cast_mut().cast();
            iovec.iov_len = bytes.len();
            header.msg_len = 0;
            header.msg_hdr = libc::msghdr {
                msg_name: ptr::from_mut(destination).cast(),
                msg_namelen: raw_len,
                msg_iov: iovec,
                msg_iovlen: 1,
                msg_control: ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            };
            offered += 1;
        }
        if offered == 0 {
            return Ok(0);
        }
        loop {
            // SAFETY: the first `offered` headers point to a destination and an iovec of ours, and
            // each iovec to bytes borrowed until this function returns, which sendmmsg only reads.
            let count = unsafe {
                libc::sendmmsg(
                    socket.as_fd().as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    offered,
                    libc::MSG_DONTWAIT,
                )
            };
            if let Ok(count) = usize::try_from(count) {
                return Ok(count.min(BATCH));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DATAGRAM_LEN_MAX;

    const OPTIONS: SocketOptions = SocketOptions {
        reuse_port: false,
        freebind: false,
        receive_buffer_len: 1 << 20,
        send_buffer_len: 1 << 20,
    };

    fn local_address(socket: &OwnedFd) -> SocketAddr {
        super::local_address(socket).unwrap()
    }

    fn exchange(local: &str, len: usize) -> Received {
        let receiver = open(local.parse().unwrap(), &OPTIONS).unwrap();
        let sender = open(local.parse().unwrap(), &OPTIONS).unwrap();
        let bytes: Vec<u8> = (0u8..251).cycle().take(len).collect();
        let mut send = SendBatch::new();
        let messages = [(&bytes[..], local_address(&receiver))];
        assert_eq!(send.send(&sender, messages).unwrap(), 1);
        let mut receive = ReceiveBatch::new();
        let mut buffers = [vec![0; 66_000], vec![0; 66_000]];
        let slices = buffers.iter_mut().map(Vec::as_mut_slice);
        assert_eq!(receive.receive(&receiver, slices).unwrap(), 1);
        let received = receive.received().next().unwrap();
        assert_eq!(received.source, Some(local_address(&sender)));
        assert_eq!(received.len, len);
        assert_eq!(buffers[0][..len], bytes);
        received
    }

    #[test]
    fn datagrams_of_every_size_come_back_with_their_source() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            for len in [0, 1, 1472, DATAGRAM_LEN_MAX - 1, DATAGRAM_LEN_MAX] {
                let received = exchange(local, len);
                assert!(!received.truncated);
            }
        }
    }

    #[test]
    fn loopback_fragments_above_its_mtu_are_marked() {
        // lo has an MTU of 65,536, so nothing fragments there; the veth test sees the mark.
        assert!(!exchange("127.0.0.1:0", 512).fragmented);
    }

    #[test]
    fn a_datagram_too_long_is_an_error_and_those_before_it_are_sent() {
        let sender = open("127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let receiver = open("127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let peer = local_address(&receiver);
        let long = vec![0; DATAGRAM_LEN_MAX + 1];
        let mut send = SendBatch::new();
        let messages = [(&b"a"[..], peer), (&long[..], peer), (&b"b"[..], peer)];
        assert_eq!(send.send(&sender, messages).unwrap(), 1);
        let error = send.send(&sender, messages[1..].iter().copied());
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(
            send.send(&sender, messages[2..].iter().copied()).unwrap(),
            1
        );
    }

    #[test]
    fn an_icmp_error_does_not_disturb_the_next_call() {
        let socket = open("127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let closed = {
            let closed = open("127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
            local_address(&closed)
        };
        let mut send = SendBatch::new();
        let mut receive = ReceiveBatch::new();
        let mut buffer = [0; 64];
        for _ in 0..3 {
            assert_eq!(send.send(&socket, [(&b"x"[..], closed)]).unwrap(), 1);
            assert_eq!(receive.receive(&socket, [&mut buffer[..]]).unwrap(), 0);
        }
    }

    #[test]
    fn a_batch_is_cut_at_its_bound() {
        let sender = open("127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let receiver = open("127.0.0.1:0".parse().unwrap(), &OPTIONS).unwrap();
        let peer = local_address(&receiver);
        let mut send = SendBatch::new();
        let messages = core::iter::repeat_n((&b"x"[..], peer), BATCH + 1);
        assert_eq!(send.send(&sender, messages).unwrap(), BATCH);
        let mut receive = ReceiveBatch::new();
        let mut buffers = vec![[0u8; 16]; BATCH + 1];
        let slices = buffers.iter_mut().map(|buffer| &mut buffer[..]);
        assert_eq!(receive.receive(&receiver, slices).unwrap(), BATCH);
        assert_eq!(receive.received().count(), BATCH);
    }

    #[test]
    fn an_address_of_nobody_is_bound_with_freebind_only() {
        // TEST-NET-3 of RFC 5737 and the documentation prefix of RFC 3849: no host has them.
        for address in ["203.0.113.250:0", "[2001:db8::250]:0"] {
            let address = address.parse().unwrap();
            let refused = open(address, &OPTIONS).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);
            let freebind = SocketOptions {
                freebind: true,
                ..OPTIONS
            };
            open(address, &freebind).unwrap();
        }
    }
}
