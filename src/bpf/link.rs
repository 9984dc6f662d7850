//! Attaching a program to an interface by `bpf_link`.
//!
//! A link lives as long as its file descriptor: when the process ends, however it ends, the kernel
//! detaches the program and the interface is as it was.

use core::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;
use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketType, socket};

use super::InterfaceXdp;
use super::error::{BpfError, attach_remedy};

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the kernel's generic hook, after it: works with every driver, and slower.
    Generic,
}

impl AttachMode {
    /// The name in the configuration and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            Self::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A program attached to an interface. Dropping it detaches the program.
#[derive(Debug)]
#[must_use = "dropping a link detaches the program"]
pub struct Link {
    // Held for what closing it does.
    _fd: OwnedFd,
    ifindex: u32,
}

impl Link {
    /// Attaches `program` to the interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`BpfError::Occupied`] if another program is there, else [`BpfError::Attach`].
    pub(super) fn attach(
        program: BorrowedFd<'_>,
        ifindex: u32,
        mode: AttachMode,
    ) -> Result<Self, BpfError> {
        create(program, ifindex, libbpf_sys::BPF_XDP, mode.flags())
            .map_err(|cause| refused(cause, ifindex, mode))
    }

    /// Attaches `program` behind the driver, before all programs that are there already.
    ///
    /// # Errors
    /// [`BpfError::AttachTc`].
    pub(super) fn attach_tc(program: BorrowedFd<'_>, ifindex: u32) -> Result<Self, BpfError> {
        let flags = libbpf_sys::BPF_F_BEFORE;
        create(program, ifindex, libbpf_sys::BPF_TCX_INGRESS, flags).map_err(|cause| {
            BpfError::AttachTc {
                interface: interface_name(ifindex).unwrap_or_else(|| format!("#{ifindex}")),
                cause,
            }
        })
    }

    /// The interface.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

fn create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    hook: libbpf_sys::bpf_attach_type,
    flags: u32,
) -> Result<Link, io::Error> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        ..Default::default()
    };
    let target = i32::try_from(ifindex).unwrap_or(0);
    // SAFETY: `options` is initialised, says its own size, and outlives the call, which reads it
    // only; the program's descriptor is open as long as the borrow.
    let ret = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), target, hook, &raw const options)
    };
    if ret < 0 {
        return Err(io::Error::from_raw_os_error(-ret));
    }
    // SAFETY: the call returned a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(ret) };
    Ok(Link { _fd: fd, ifindex })
}

/// The error for a refused attachment, with the program that is in the way if there is one.
fn refused(cause: io::Error, ifindex: u32, mode: AttachMode) -> BpfError {
    // The kernel says EINVAL to an index that no interface has.
    let (interface, cause) = match interface_name(ifindex) {
        Some(name) => (name, cause),
        None => (
            format!("#{ifindex}"),
            io::Error::from_raw_os_error(libc::ENODEV),
        ),
    };
    // EBUSY: a link or a program is attached in this mode; EEXIST: one is in the other mode.
    if let Some(libc::EBUSY | libc::EEXIST) = cause.raw_os_error()
        && let Ok(InterfaceXdp {
            program: Some(program),
            ..
        }) = super::interface_xdp(ifindex)
    {
        return BpfError::Occupied {
            interface,
            program: program.to_string(),
        };
    }
    BpfError::Attach {
        interface,
        mode,
        remedy: attach_remedy(&cause, mode),
        cause,
    }
}

/// The name of an interface, if there is one with this index.
fn interface_name(ifindex: u32) -> Option<String> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    index_to_name(socket, ifindex).ok()
}
