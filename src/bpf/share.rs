//! The program that shares an address's datagrams among the workers' kernel sockets:
//! `bpf/share.bpf.c`.

use core::mem::{MaybeUninit, size_of};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject};

use super::counts::SteeredCounts;
use super::error::{BpfError, load_error, map_error, open_error};
use super::log;
use super::skeleton::share::ShareSkelBuilder;
use super::steer::CallIdKey;

/// A loaded program for one address: each address's sockets are a group of their own.
#[derive(Debug)]
pub struct ShareProgram {
    program: OwnedFd,
    sockets: MapHandle,
    shared: MapHandle,
}

impl ShareProgram {
    /// Loads it for as many sockets as there are workers.
    ///
    /// # Errors
    /// The kernel's refusal, with the verifier's log.
    pub fn load(workers: u32, key: CallIdKey) -> Result<Self, BpfError> {
        log::capture(|log| {
            let load_error = |error: libbpf_rs::Error| load_error(&error, log);
            let mut object = MaybeUninit::<OpenObject>::uninit();
            let mut open = ShareSkelBuilder::default()
                .open(&mut object)
                .map_err(|error| open_error(&error))?;
            let Some(constants) = open.maps.rodata_data.as_deref_mut() else {
                return Err(BpfError::Open {
                    cause: "it has no constants".to_owned(),
                });
            };
            constants.workers = workers;
            constants.call_id_key = key.words();
            open.maps
                .sockets
                .set_max_entries(workers)
                .map_err(load_error)?;
            let loaded = open.load().map_err(load_error)?;
            let program = loaded.progs.share.as_fd().try_clone_to_owned();
            Ok(Self {
                program: program.map_err(|cause| load_error(cause.into()))?,
                sockets: MapHandle::try_from(&loaded.maps.sockets).map_err(load_error)?,
                shared: MapHandle::try_from(&loaded.maps.shared).map_err(load_error)?,
            })
        })
    }

    /// Puts a worker's socket into its slot: UDP, bound, with `SO_REUSEPORT`. The kernel empties the
    /// slot when the socket is closed.
    ///
    /// # Errors
    /// The system's; another kind of socket.
    pub fn set_socket(&self, worker: u32, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        let value = socket.as_raw_fd().to_ne_bytes();
        self.sockets
            .update(&worker.to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(|error| map_error("sockets", "write", &error))
    }

    /// Has it choose among the sockets that share an address with `socket`, for as long as one of
    /// them is open. Slots first, so that none is found empty.
    ///
    /// # Errors
    /// The system's.
    pub fn attach(&self, socket: BorrowedFd<'_>) -> Result<(), BpfError> {
        let program: libc::c_int = self.program.as_raw_fd();
        #[expect(clippy::cast_possible_truncation, reason = "four bytes")]
        const LEN: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the value is a live int and its length is given.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_REUSEPORT_EBPF,
                (&raw const program).cast(),
                LEN,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(BpfError::Share {
                cause: io::Error::last_os_error(),
            }),
        }
    }

    /// How sockets were chosen since loading: by the Call-ID, or by the kernel.
    ///
    /// # Errors
    /// The system's.
    pub fn counts(&self) -> Result<SteeredCounts, BpfError> {
        SteeredCounts::read(&self.shared)
    }
}
