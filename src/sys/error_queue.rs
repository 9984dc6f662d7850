//! The error queue of a UDP socket: ICMP errors for datagrams that left from its address.
//!
//! The kernel quotes the datagram that an ICMP error is about and looks for a socket that is bound to
//! its source address; how the datagram left the host plays no role. With [`enable`] the error waits
//! on that socket's queue. Beside it the kernel makes the socket's *next* call fail once, whatever
//! that call is about: a caller repeats it, and reads the queue.
#![expect(
    unsafe_code,
    reason = "no crate offers recvmsg over an error queue without allocation"
)]

use core::mem::{self, size_of};
use core::ptr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::datagram::{RawAddress, local_address, set_flag};

/// Lets ICMP errors wait on `socket`'s error queue (ip(7), `IP_RECVERR`; ipv6(7), `IPV6_RECVERR`).
///
/// # Errors
/// The kernel's; for a bound UDP socket there is none.
pub fn enable(socket: &OwnedFd) -> io::Result<()> {
    match local_address(socket)? {
        SocketAddr::V4(_) => set_flag(socket, libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => set_flag(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    }
}

/// Who says that a datagram did not arrive, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An ICMP message (RFC 792) of this type and code.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// An ICMPv6 message (RFC 4443) of this type and code.
    Icmp6 {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// This host itself, or somebody that is not known here.
    Other,
}

/// One entry of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the quoted datagram's payload: what the reporter kept of it.
    pub len: usize,
    /// Where that datagram went. `None` only if the kernel named a family that is not IP.
    pub destination: Option<SocketAddr>,
    /// Why it did not arrive.
    pub cause: Cause,
}

/// Control bytes: the error with its reporter's address takes 64, a timestamp could stand beside it.
const CONTROL_LEN: usize = 256;

/// Aligned as `cmsghdr` is.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// Takes the oldest report off the queue, its quote into `quote`; `None` if there is none. Quoted
/// bytes past the end of `quote` are lost.
///
/// # Errors
/// The kernel's, but for "none is waiting" and interruptions.
pub fn read(socket: impl AsFd, quote: &mut [u8]) -> io::Result<Option<Report>> {
    let mut destination = RawAddress::EMPTY;
    let mut control = Control([0; CONTROL_LEN]);
    let mut iovec = libc::iovec {
        iov_base: quote.as_mut_ptr().cast(),
        iov_len: quote.len(),
    };
    // SAFETY: msghdr is integers and pointers, and zero is a valid value of each.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    let len = loop {
        header.msg_name = ptr::from_mut(&mut destination).cast();
        header.msg_namelen = RawAddress::LEN_MAX;
        header.msg_iov = &raw mut iovec;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_LEN;
        // SAFETY: the header points to an address, an iovec and a control area of ours, and the
        // iovec to bytes borrowed until this function returns.
        let len = unsafe {
            libc::recvmsg(
                socket.as_fd().as_raw_fd(),
                &raw mut header,
                libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
            )
        };
        if let Ok(len) = usize::try_from(len) {
            break len.min(quote.len());
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => return Ok(None),
            _ => return Err(error),
        }
    };
    Ok(Some(Report {
        len,
        destination: destination.address(),
        cause: cause(&header),
    }))
}

/// The cause in a filled header's control messages.
fn cause(header: &libc::msghdr) -> Cause {
    // SAFETY: the kernel has written `msg_controllen` bytes of whole control messages there.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: not null, so it points to a control message's header inside the control area,
        // which is aligned for it.
        let message = unsafe { &*next };
        let (level, kind) = (message.cmsg_level, message.cmsg_type);
        let is_error = (level, kind) == (libc::IPPROTO_IP, libc::IP_RECVERR)
            || (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
        // SAFETY: a computation with constants.
        let needed = unsafe { libc::CMSG_LEN(ERROR_LEN) } as usize;
        if is_error && message.cmsg_len >= needed {
            // SAFETY: `next` points to a control message.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<libc::sock_extended_err>();
            // SAFETY: that many bytes of data follow the header; they may stand unaligned.
            let error = unsafe { data.read_unaligned() };
            let (kind, code) = (error.ee_type, error.ee_code);
            return match error.ee_origin {
                libc::SO_EE_ORIGIN_ICMP => Cause::Icmp { kind, code },
                libc::SO_EE_ORIGIN_ICMP6 => Cause::Icmp6 { kind, code },
                _ => Cause::Other,
            };
        }
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    Cause::Other
}

#[expect(clippy::cast_possible_truncation, reason = "16 bytes")]
const ERROR_LEN: libc::c_uint = size_of::<libc::sock_extended_err>() as libc::c_uint;

#[cfg(test)]
mod tests {
    use super::super::datagram::{ReceiveBatch, SendBatch, SocketOptions, open};
    use super::*;

    fn socket(local: &str) -> OwnedFd {
        let options = SocketOptions {
            reuse_port: false,
            freebind: false,
            receive_buffer_len: 1 << 18,
            send_buffer_len: 1 << 18,
        };
        open(local.parse().unwrap(), &options).unwrap()
    }

    /// An address where nobody listens.
    fn closed(local: &str) -> SocketAddr {
        local_address(socket(local)).unwrap()
    }

    #[test]
    fn a_closed_port_is_reported_with_what_was_sent_there() {
        let v4 = Cause::Icmp { kind: 3, code: 3 };
        let v6 = Cause::Icmp6 { kind: 1, code: 4 };
        for (local, cause) in [("127.0.0.1:0", v4), ("[::1]:0", v6)] {
            let socket = socket(local);
            enable(&socket).unwrap();
            let peer = closed(local);
            let mut quote = [0; 64];
            assert_eq!(read(&socket, &mut quote).unwrap(), None);
            let mut send = SendBatch::new();
            assert_eq!(send.send(&socket, [(&b"INVITE"[..], peer)]).unwrap(), 1);
            let expected = Report {
                len: 6,
                destination: Some(peer),
                cause,
            };
            assert_eq!(read(&socket, &mut quote).unwrap(), Some(expected));
            assert_eq!(&quote[..6], b"INVITE");
            assert_eq!(read(&socket, &mut quote).unwrap(), None);
        }
    }

    /// What the callers of `sendmmsg` and `recvmmsg` must know: one call fails for an error that is
    /// not its own, the next one does not.
    #[test]
    fn a_waiting_error_fails_one_call_and_no_datagram_is_lost() {
        let socket = socket("127.0.0.1:0");
        enable(&socket).unwrap();
        let (peer, own) = (closed("127.0.0.1:0"), local_address(&socket).unwrap());
        let mut send = SendBatch::new();
        let mut receive = ReceiveBatch::new();
        let mut buffer = [0; 64];
        assert_eq!(send.send(&socket, [(&b"x"[..], peer)]).unwrap(), 1);
        let error = send.send(&socket, [(&b"y"[..], own)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(send.send(&socket, [(&b"y"[..], own)]).unwrap(), 1);
        assert_eq!(send.send(&socket, [(&b"x"[..], peer)]).unwrap(), 1);
        let error = receive.receive(&socket, [&mut buffer[..]]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(receive.receive(&socket, [&mut buffer[..]]).unwrap(), 1);
        assert_eq!(&buffer[..1], b"y");
        let mut reports = 0;
        while read(&socket, &mut buffer).unwrap().is_some() {
            reports += 1;
        }
        assert_eq!(reports, 2);
    }

    #[test]
    fn a_quote_longer_than_its_room_is_cut() {
        let socket = socket("127.0.0.1:0");
        enable(&socket).unwrap();
        let mut send = SendBatch::new();
        let peer = closed("127.0.0.1:0");
        let long = [b'a'; 400];
        assert_eq!(send.send(&socket, [(&long[..], peer)]).unwrap(), 1);
        let mut quote = [0; 10];
        let report = read(&socket, &mut quote).unwrap().unwrap();
        assert_eq!((report.len, quote), (10, [b'a'; 10]));
    }
}
