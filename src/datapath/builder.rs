//! Putting workers together: sockets, pools, hand-over rings, threads.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::hand_over::{Control, Shared};
use super::out::Ports;
use super::packet::{BufferCache, BufferPool};
use super::sim::Network;
use super::socket::{Io, Sockets};
use super::{Handler, Worker};
use crate::limits::{KERNEL_BUFFERS_PER_WORKER, LISTENERS_MAX, WORKERS_MAX};
use crate::metrics::WorkerMetrics;
use crate::net::{ListenerIndex, SocketAddr, WorkerIndex};
use crate::sys::cpu;
use crate::sys::datagram::{self, SocketOptions};
use crate::verdict::DropReason;

/// Buffers of a kernel socket, per direction. 4 MiB holds some 3,000 datagrams of 500 bytes (the
/// kernel counts its own overhead), that is 10 ms at 300,000 a second.
const SOCKET_BUFFER_LEN: usize = 4 << 20;

/// Why a data path could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The number of workers is out of bounds.
    #[error("{0} workers; 1 to {WORKERS_MAX} are possible")]
    Workers(usize),
    /// Two listeners share an index or an address, or an index is out of bounds.
    #[error("listener {} on {address}: index or address is taken or out of bounds", index.0)]
    Listener {
        /// Its index.
        index: ListenerIndex,
        /// Its address.
        address: SocketAddr,
    },
    /// An address that names no single local address cannot be a listener's.
    #[error("{0} is unspecified; name the address to listen on")]
    Unspecified(SocketAddr),
    /// A kernel socket could not be opened.
    #[error("cannot bind UDP {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A descriptor or a thread was refused.
    #[error("cannot set up workers: {0}")]
    System(#[from] io::Error),
}

/// Collects what a data path is made of. One worker per counter block.
pub struct Builder {
    metrics: Vec<Arc<WorkerMetrics>>,
    listeners: Vec<(ListenerIndex, SocketAddr)>,
}

impl Builder {
    /// As many workers as `metrics`.
    pub fn new(metrics: Vec<Arc<WorkerMetrics>>) -> Self {
        Self {
            metrics,
            listeners: Vec::new(),
        }
    }

    /// A listener and the address it is bound to. Port 0 lets the kernel choose, with one worker.
    pub fn listener(mut self, index: ListenerIndex, address: SocketAddr) -> Self {
        self.listeners.push((index, address));
        self
    }

    fn check(&self) -> Result<(), DatapathError> {
        let workers = self.metrics.len();
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(DatapathError::Workers(workers));
        }
        for (position, (index, address)) in self.listeners.iter().enumerate() {
            let mut earlier = self.listeners.iter().take(position);
            let taken = earlier
                .any(|other| other.0 == *index || (other.1 == *address && address.port() != 0));
            if taken || usize::from(index.0) >= LISTENERS_MAX {
                return Err(DatapathError::Listener {
                    index: *index,
                    address: *address,
                });
            }
            if address.ip().is_unspecified() {
                return Err(DatapathError::Unspecified(*address));
            }
        }
        Ok(())
    }

    /// Opens the kernel sockets and makes the workers.
    ///
    /// # Errors
    /// See [`DatapathError`]; nothing stays open.
    pub fn build(self) -> Result<Datapath, DatapathError> {
        let options = SocketOptions {
            reuse_port: self.metrics.len() > 1,
            receive_buffer_len: SOCKET_BUFFER_LEN,
            send_buffer_len: SOCKET_BUFFER_LEN,
        };
        self.build_with(|_worker, _listener, address| {
            let bind = |source| DatapathError::Bind { address, source };
            let socket = datagram::open(address, &options).map_err(bind)?;
            let local = datagram::local_address(&socket).map_err(bind)?;
            Ok((local, Io::Kernel(socket)))
        })
    }

    /// The same workers over networks in memory, one per worker.
    ///
    /// # Errors
    /// See [`DatapathError`].
    pub fn build_sim(self) -> Result<(Datapath, Vec<Network>), DatapathError> {
        let networks: Vec<Network> = self.metrics.iter().map(|_| Network::new()).collect();
        let datapath = self.build_with(|worker, _listener, address| {
            Ok((address, Io::Sim(networks[usize::from(worker.0)].clone())))
        })?;
        Ok((datapath, networks))
    }

    fn build_with(
        self,
        mut open: impl FnMut(
            WorkerIndex,
            ListenerIndex,
            SocketAddr,
        ) -> Result<(SocketAddr, Io), DatapathError>,
    ) -> Result<Datapath, DatapathError> {
        self.check()?;
        let workers = self.metrics.len();
        let shared = Arc::new(Shared::new(workers)?);
        let pool = Arc::new(BufferPool::new(workers * KERNEL_BUFFERS_PER_WORKER));
        let mut made = Vec::with_capacity(workers);
        for (worker, metrics) in (0..=u8::MAX).map(WorkerIndex).zip(&self.metrics) {
            let mut sockets = Vec::with_capacity(self.listeners.len());
            for (listener, address) in &self.listeners {
                let (local, io) = open(worker, *listener, *address)?;
                sockets.push((*listener, local, io));
            }
            made.push(Worker::new(Ports::new(
                worker,
                metrics.clone(),
                Sockets::new(sockets, 0),
                BufferCache::new(pool.clone()),
                shared.clone(),
            )));
        }
        Ok(Datapath {
            workers: made,
            metrics: self.metrics,
            shared,
            pool,
        })
    }
}

/// Workers that have all their ports and no thread yet.
pub struct Datapath {
    workers: Vec<Worker>,
    metrics: Vec<Arc<WorkerMetrics>>,
    shared: Arc<Shared>,
    pool: Arc<BufferPool>,
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

    /// The workers, to drive them by hand.
    pub fn into_workers(self) -> Vec<Worker> {
        self.workers
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
        // What one worker handed over after the other had ended.
        let mut buffers = BufferCache::new(self.pool);
        for (mailbox, metrics) in self.control.0.mailboxes.iter().zip(&self.metrics) {
            while let Some(packet) = mailbox.pop() {
                metrics.hand_over_in.increment();
                (**metrics).drop(DropReason::Stopping);
                match packet.memory {
                    super::packet::Memory::Kernel(buffer) => buffers.release(buffer),
                }
            }
        }
        buffers.flush();
        handlers
    }
}
