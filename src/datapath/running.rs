//! A data path that has been built: what its sockets are, its threads, its end.
//!
//! The order in which it comes up is the caller's: put [`Datapath::links`] into the steering
//! program's map, attach the program, start the threads. [`Running::stop`] is the way down; closing
//! a socket empties its slot in the map, so that its datagrams go to the kernel.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::hand_over::{Control, Shared};
use super::packet::{BufferCache, BufferPool, Memory};
use super::{Handler, Idle, Worker};
use crate::metrics::WorkerMetrics;
use crate::net::{ListenerIndex, SocketAddr, WorkerIndex};
use crate::sys::cpu;
use crate::verdict::DropReason;
use crate::xsk::{Mode, Umem, XskError};

/// One AF_XDP socket and the slot it belongs into.
#[derive(Clone, Copy, Debug)]
pub struct LinkSocket<'a> {
    /// Interface it is bound to.
    pub ifindex: u32,
    /// RX queue it is bound to.
    pub queue: u32,
    /// Worker that reads it.
    pub worker: WorkerIndex,
    /// The socket, for the XSKMAP.
    pub fd: BorrowedFd<'a>,
}

/// Workers that have all their ports and no thread yet.
pub struct Datapath {
    pub(super) workers: Vec<Worker>,
    pub(super) metrics: Vec<Arc<WorkerMetrics>>,
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Arc<BufferPool>,
    pub(super) zero_copy_refusal: Option<XskError>,
}

impl Datapath {
    /// Stops and wakes the workers, from any thread.
    pub fn control(&self) -> Control {
        Control(self.shared.clone())
    }

    /// The addresses the first worker's sockets are bound to, in the order of the listeners.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        let first = self.workers.first();
        first.map_or_else(Vec::new, |worker| {
            worker.addresses().map(|(_, local)| local).collect()
        })
    }

    /// Every AF_XDP socket and its slot, for the steering program's map.
    pub fn links(&self) -> impl Iterator<Item = LinkSocket<'_>> {
        self.workers.iter().flat_map(|worker| {
            worker.links().filter_map(|link| {
                Some(LinkSocket {
                    ifindex: link.ifindex(),
                    queue: link.socket().queue(),
                    worker: worker.index(),
                    fd: link.socket().fd()?,
                })
            })
        })
    }

    /// The workers' kernel sockets of a listener, in the order of the workers: they share its address,
    /// and who gets a datagram is the kernel's choice, or a program's.
    pub fn kernel_sockets(&self, listener: ListenerIndex) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.workers.iter().flat_map(move |worker| {
            let sockets = worker.kernel_sockets();
            sockets.filter_map(move |(of, fd)| (of == listener).then_some(fd))
        })
    }

    /// How frames travel on an interface, as the kernel tells it. `None` if there is no link on
    /// it or the kernel does not answer. All queues of an interface agree.
    pub fn mode(&self, ifindex: u32) -> Option<Mode> {
        let mut links = self.workers.iter().flat_map(Worker::links);
        let link = links.find(|link| link.ifindex() == ifindex)?;
        link.socket().mode_obtained().ok()
    }

    /// Why zero-copy was tried and not obtained.
    pub fn zero_copy_refusal(&self) -> Option<&XskError> {
        self.zero_copy_refusal.as_ref()
    }

    /// The UMEM of the links.
    pub fn umem(&self) -> Option<&'static Umem> {
        let mut links = self.workers.iter().flat_map(Worker::links);
        links.next().map(|link| link.socket().umem())
    }

    /// The workers, to drive them by hand.
    pub fn into_workers(self) -> Vec<Worker> {
        self.workers
    }

    /// What its workers do that have no work.
    #[must_use]
    pub fn idle(mut self, idle: Idle) -> Self {
        for worker in &mut self.workers {
            worker.idle = idle;
        }
        self
    }

    /// Starts a thread per worker, each with the handler that `make` gives for it, on the cores of
    /// `cores` in turn (not pinned if that is empty).
    ///
    /// # Errors
    /// The kernel's, when a thread is refused; those already started are stopped.
    pub fn start<H: Handler + Send + 'static>(
        self,
        mut make: impl FnMut(WorkerIndex) -> H,
        cores: &[usize],
    ) -> io::Result<Running<H>> {
        let mut running = Running {
            control: Control(self.shared.clone()),
            threads: Vec::with_capacity(self.workers.len()),
            metrics: self.metrics,
            pool: self.pool,
        };
        let mut cores = cores.iter().copied().cycle();
        for worker in self.workers {
            let handler = make(worker.index());
            let core = cores.next();
            let thread = thread::Builder::new()
                .name(format!("worker-{}", worker.index().0))
                .spawn(move || {
                    if let Some(core) = core {
                        cpu::pin(core);
                    }
                    worker.run(handler)
                });
            match thread {
                Ok(thread) => running.threads.push(thread),
                Err(error) => {
                    running.stop();
                    return Err(error);
                }
            }
        }
        Ok(running)
    }
}

/// Workers on their threads.
pub struct Running<H> {
    control: Control,
    threads: Vec<JoinHandle<H>>,
    metrics: Vec<Arc<WorkerMetrics>>,
    pool: Arc<BufferPool>,
}

impl<H> Running<H> {
    /// Stops and wakes the workers, from any thread.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Whether a worker has ended by itself: it panicked, or somebody else stopped it.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops all workers, waits for them and gives their handlers back; a worker that panicked has
    /// none.
    pub fn stop(self) -> Vec<H> {
        self.control.stop();
        let handlers = self
            .threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect();
        // What one worker handed over after the other had ended. Frames go home by themselves.
        let mut buffers = BufferCache::new(self.pool);
        for (mailbox, metrics) in self.control.0.mailboxes.iter().zip(&self.metrics) {
            while let Some(packet) = mailbox.pop() {
                metrics.hand_over_in.increment();
                (**metrics).drop(DropReason::Stopping);
                if let Memory::Kernel(buffer) = packet.memory {
                    buffers.release(buffer);
                }
            }
        }
        buffers.flush();
        handlers
    }
}
