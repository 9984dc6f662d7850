//! What the kernel says of XDP: on an interface, and at all. Looks only, changes nothing.

use core::fmt;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo};

use crate::sys::kernel;

/// XDP on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceXdp {
    /// The program that is attached.
    pub program: Option<AttachedProgram>,
    /// What the driver offers; `None` if the kernel cannot say (before 6.3).
    pub driver: Option<DriverXdp>,
}

/// A program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// The kernel's number of it.
    pub id: u32,
    /// Its name, if it may be read.
    pub name: Option<String>,
    /// `native`, `generic`, `offloaded` or `unknown`.
    pub mode: &'static str,
    /// The `bpf_link` that holds it there, if one does and may be looked at: then only its owner, or
    /// the link's number, takes it off.
    pub link: Option<u32>,
}

impl fmt::Display for AttachedProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id {}, ", self.id)?;
        match &self.name {
            Some(name) => write!(f, "`{name}`")?,
            None => f.write_str("name not readable")?,
        }
        write!(f, ", {} mode", self.mode)
    }
}

/// `NETDEV_XDP_ACT_*` of linux/netdev.h (6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverXdp {
    /// `XDP_PASS`, `XDP_DROP`, `XDP_TX` and `XDP_ABORTED` in the driver.
    pub native: bool,
    /// `XDP_REDIRECT`, which AF_XDP sockets are fed by.
    pub redirect: bool,
    /// Zero-copy AF_XDP.
    pub zero_copy: bool,
}

impl DriverXdp {
    const BASIC: u64 = 1 << 0;
    const REDIRECT: u64 = 1 << 1;
    const XSK_ZEROCOPY: u64 = 1 << 3;

    const fn from_flags(flags: u64) -> Self {
        Self {
            native: flags & Self::BASIC != 0,
            redirect: flags & Self::REDIRECT != 0,
            zero_copy: flags & Self::XSK_ZEROCOPY != 0,
        }
    }
}

/// XDP on an interface of the calling thread's network namespace.
///
/// # Errors
/// The kernel's: no such interface.
pub fn interface_xdp(ifindex: u32) -> io::Result<InterfaceXdp> {
    let mut query = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        // libbpf leaves these as they are, or says 0, where the kernel has no such family.
        feature_flags: 0,
        ..Default::default()
    };
    let target = i32::try_from(ifindex).unwrap_or(0);
    // SAFETY: `query` says its own size and is ours to be written for the time of the call.
    let ret = unsafe { libbpf_sys::bpf_xdp_query(target, 0, &raw mut query) };
    if ret < 0 {
        return Err(io::Error::from_raw_os_error(-ret));
    }
    let ids = [
        (query.drv_prog_id, "native"),
        (query.skb_prog_id, "generic"),
        (query.hw_prog_id, "offloaded"),
        (query.prog_id, "unknown"),
    ];
    // libbpf says 0 both where the kernel has no `netdev` family and where a driver has no XDP. The
    // family came with 6.3; distributions have carried it back.
    let known = kernel::version().is_some_and(|version| version >= (6, 3));
    let attached = ids.into_iter().find(|(id, _)| *id != 0);
    Ok(InterfaceXdp {
        program: attached.map(|(id, mode)| AttachedProgram {
            id,
            name: program_name(id),
            mode,
            link: link_of(id, ifindex),
        }),
        driver: (known || query.feature_flags != 0)
            .then(|| DriverXdp::from_flags(query.feature_flags)),
    })
}

/// Whether the kernel loads XDP programs for the caller.
///
/// # Errors
/// The kernel's: no bpf system call, or no right to use it.
pub fn loads_xdp_programs() -> io::Result<bool> {
    // SAFETY: takes a number; the options may be null.
    let ret = unsafe {
        libbpf_sys::libbpf_probe_bpf_prog_type(libbpf_sys::BPF_PROG_TYPE_XDP, core::ptr::null())
    };
    match ret {
        0 => Ok(false),
        1.. => Ok(true),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// The link that holds program `id` on an interface.
fn link_of(id: u32, ifindex: u32) -> Option<u32> {
    LinkInfoIter::default()
        .find(|link| {
            let here = matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == ifindex);
            here && link.prog_id == id
        })
        .map(|link| link.id)
}

fn program_name(id: u32) -> Option<String> {
    // SAFETY: takes a number, returns a new descriptor or a negative error.
    let ret = unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) };
    if ret < 0 {
        return None;
    }
    // SAFETY: the call returned a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(ret) };
    let info = super::program_info(fd.as_fd())?;
    let name: Vec<u8> = info
        .name
        .iter()
        .map(|byte| byte.to_ne_bytes()[0])
        .take_while(|byte| *byte != 0)
        .collect();
    Some(String::from_utf8_lossy(&name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_the_kernel() {
        // virtio_net on 6.18 says BASIC | REDIRECT | XSK_ZEROCOPY | RX_SG.
        let virtio = DriverXdp::from_flags(0b10_1011);
        assert!(virtio.native && virtio.redirect && virtio.zero_copy);
        let veth = DriverXdp::from_flags(0b10_0011);
        assert!(veth.native && veth.redirect && !veth.zero_copy);
        let none = DriverXdp::from_flags(0);
        assert!(!none.native && !none.redirect && !none.zero_copy);
    }

    #[test]
    fn an_attached_program_is_named() {
        let mut program = AttachedProgram {
            id: 7,
            name: Some("xdp_pass".to_owned()),
            mode: "native",
            link: None,
        };
        assert_eq!(program.to_string(), "id 7, `xdp_pass`, native mode");
        program.name = None;
        assert_eq!(program.to_string(), "id 7, name not readable, native mode");
    }

    #[test]
    fn an_interface_that_is_not_there_has_no_xdp() {
        let other = interface_xdp(i32::MAX as u32);
        assert!(other.is_err() || other.is_ok_and(|xdp| xdp.program.is_none()));
    }
}
