//! The receiving end of the load generator: `bpf/agents.bpf.c`.

use core::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject};

use super::error::{BpfError, load_error, map_error, open_error};
use super::layout::VipKey;
use super::link::{AttachMode, Link};
use super::log;
use super::skeleton::agents::AgentsSkelBuilder;
use crate::limits::{AGENT_ADDRESSES_MAX, QUEUES_MAX, RX_FRAME_LEN_MAX, WORKERS_MAX};
use crate::net::SocketAddr;

/// The loaded program.
#[derive(Debug)]
pub struct AgentsProgram {
    program: OwnedFd,
    xsks: MapHandle,
    queues: u32,
    threads: u32,
}

impl AgentsProgram {
    /// Loads it for an interface with `queues` RX queues and for `threads` threads. `agents` are
    /// the addresses whose datagrams are taken, each with its thread's number.
    ///
    /// # Errors
    /// Sizes outside `limits.rs`; the kernel's refusal, with the verifier's log.
    pub fn load(queues: u32, threads: u32, agents: &[(SocketAddr, u32)]) -> Result<Self, BpfError> {
        let fits = (1..=QUEUES_MAX).contains(&(queues as usize))
            && (1..=WORKERS_MAX).contains(&(threads as usize))
            && (1..=AGENT_ADDRESSES_MAX).contains(&agents.len());
        if !fits {
            return Err(BpfError::Size {
                interfaces: 1,
                queues,
                workers: threads,
            });
        }
        log::capture(|log| {
            let load_error = |error: libbpf_rs::Error| load_error(&error, log);
            let mut object = MaybeUninit::<OpenObject>::uninit();
            let mut open = AgentsSkelBuilder::default()
                .open(&mut object)
                .map_err(|error| open_error(&error))?;
            let Some(constants) = open.maps.rodata_data.as_deref_mut() else {
                return Err(BpfError::Open {
                    cause: "it has no constants".to_owned(),
                });
            };
            constants.queues = queues;
            constants.threads = threads;
            constants.frame_len_max = u32::try_from(RX_FRAME_LEN_MAX).unwrap_or(u32::MAX);
            let agents_len = u32::try_from(agents.len()).unwrap_or(u32::MAX);
            let sizes = [
                (&mut open.maps.agents, agents_len),
                (&mut open.maps.xsks, queues * threads),
            ];
            for (map, entries) in sizes {
                map.set_max_entries(entries).map_err(load_error)?;
            }
            let loaded = open.load().map_err(load_error)?;
            let addresses = MapHandle::try_from(&loaded.maps.agents).map_err(load_error)?;
            for (address, thread) in agents {
                let key = VipKey::new(*address).to_bytes();
                addresses
                    .update(&key, &thread.to_ne_bytes(), MapFlags::ANY)
                    .map_err(|error| map_error("agents", "write", &error))?;
            }
            let program = loaded.progs.take.as_fd().try_clone_to_owned();
            Ok(Self {
                program: program.map_err(|cause| load_error(cause.into()))?,
                xsks: MapHandle::try_from(&loaded.maps.xsks).map_err(load_error)?,
                queues,
                threads,
            })
        })
    }

    /// Puts the socket of a thread on a queue into its slot: before [`attach`](Self::attach), so
    /// that no datagram finds it empty.
    ///
    /// # Errors
    /// A queue or thread that the program was not loaded for; the system's.
    pub fn set_socket(
        &self,
        queue: u32,
        thread: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), BpfError> {
        if queue >= self.queues || thread >= self.threads {
            return Err(BpfError::Size {
                interfaces: 1,
                queues: queue,
                workers: thread,
            });
        }
        let slot = queue * self.threads + thread;
        let value = socket.as_raw_fd().to_ne_bytes();
        self.xsks
            .update(&slot.to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(|error| map_error("xsks", "write", &error))
    }

    /// Attaches it to an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// Another program is attached; the driver or the kernel cannot.
    pub fn attach(&self, ifindex: u32, mode: AttachMode) -> Result<Link, BpfError> {
        Link::attach(self.program.as_fd(), ifindex, mode)
    }
}

impl AsFd for AgentsProgram {
    /// The program.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}
