//! What the kernel knows of a socket's memory: `SO_MEMINFO`.
#![expect(unsafe_code, reason = "no crate offers SO_MEMINFO")]

use core::mem::size_of;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Counters of `SO_MEMINFO`, linux/sock_diag.h since 4.12.
const COUNTERS: usize = 9;
/// Place of the dropped datagrams: `SK_MEMINFO_DROPS`.
const DROPS: usize = 8;
/// `SO_MEMINFO`, asm-generic/socket.h.
const SO_MEMINFO: libc::c_int = 55;

/// Places of what waits to be received and of its limit, in bytes with the kernel's overhead:
/// `SK_MEMINFO_RMEM_ALLOC` and `SK_MEMINFO_RCVBUF`.
const WAITING: usize = 0;
const RECEIVE_BUFFER: usize = 1;

/// Datagrams that arrived for `socket` and were dropped, for want of room or for a bad checksum.
///
/// # Errors
/// The kernel's.
pub fn receive_drops(socket: impl AsFd) -> io::Result<u32> {
    Ok(counters(socket)?[DROPS])
}

/// How full the receive buffer of `socket` is, in percent.
///
/// # Errors
/// The kernel's.
pub fn receive_fill(socket: impl AsFd) -> io::Result<u8> {
    let counters = counters(socket)?;
    let (waiting, limit) = (
        u64::from(counters[WAITING]),
        u64::from(counters[RECEIVE_BUFFER]),
    );
    let percent = (100 * waiting).checked_div(limit).unwrap_or(0);
    Ok(u8::try_from(percent.min(100)).unwrap_or(100))
}

fn counters(socket: impl AsFd) -> io::Result<[u32; COUNTERS]> {
    let mut counters = [0u32; COUNTERS];
    let size = size_of::<[u32; COUNTERS]>();
    let mut len = libc::socklen_t::try_from(size).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes, which are ours, and says in `len` how many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            counters.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(counters)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_receive_buffer_counts_its_drops() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&receiver, 4096).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(receive_drops(&receiver).unwrap(), 0);
        for _ in 0..100 {
            let to = receiver.local_addr().unwrap();
            sender.send_to(&[0; 1000], to).unwrap();
        }
        let mut buffer = [0; 1500];
        receiver.set_nonblocking(true).unwrap();
        let received = core::iter::from_fn(|| receiver.recv(&mut buffer).ok()).count();
        let drops = usize::try_from(receive_drops(&receiver).unwrap()).unwrap();
        assert!(drops > 0);
        assert_eq!(received + drops, 100);
    }
}
