//! Routes and link-layer addresses of the host, over rtnetlink, as a snapshot for the workers.
//!
//! A [`Monitor`] mirrors the kernel's interfaces, addresses, routes, policy rules and neighbours,
//! and publishes an [`EgressTable`] whenever they change, at most every 50 ms. It keeps the
//! neighbours that the data path uses fresh (`probe.rs` says why and how), and looks for those that
//! the workers report as unresolved. When the kernel says that events were lost, and once a minute
//! in any case, it asks for everything anew.
//!
//! Runs as one task on the caller's tokio runtime; workers share nothing with it but the published
//! snapshot, the use marks in it, and a bounded queue. Guarantees: memory is bounded by `limits`;
//! a snapshot that a worker still holds is freed here, not on the worker's thread. What the
//! snapshot does not know goes through the kernel's socket, see [`Resolution`].
//!
//! [`Resolution`]: crate::datapath::egress::Resolution

mod decode;
mod mirror;
mod netlink;
mod probe;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NLM_F_CREATE;
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info, warn};

use crate::datapath::egress::{EgressTable, Topology};
use crate::limits::WANTED_LEN;
use crate::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use crate::time::{Duration, Instant};
use mirror::{Dirty, Mirror};
use netlink::Netlink;
use probe::{Action, Key, Prober};

/// Between two snapshots at least.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);

/// A dump may take one part in this many of the time: on a host with many routes that change all
/// the time, the snapshot lags before the monitor eats a core.
const DUMP_SHARE: u32 = 10;

/// How often the neighbours in use and the reports of the workers are looked at.
const TICK: Duration = Duration::from_millis(250);

/// How often everything is asked for anew, changes or not.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// After a failed dump.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
];

/// Why the monitor could not start.
#[derive(Debug, thiserror::Error)]
pub enum NeighborError {
    /// No netlink socket.
    #[error("cannot open a route netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The first dump failed.
    #[error("cannot read routes and neighbours from the kernel: {0}")]
    Dump(#[source] io::Error),
}

/// A running monitor. Stops when it is dropped.
#[derive(Debug)]
pub struct Monitor {
    wanted: Arc<ArrayQueue<IpAddr>>,
    task: JoinHandle<()>,
}

impl Monitor {
    /// Reads routes and neighbours of the network namespace of the calling thread, publishes the
    /// first snapshot to `shared`, and keeps it current from then on.
    ///
    /// # Errors
    /// See [`NeighborError`].
    pub async fn start(shared: Arc<ArcSwap<EgressTable>>) -> Result<Self, NeighborError> {
        let events = Netlink::open(&GROUPS).map_err(NeighborError::Open)?;
        let requests = Netlink::open(&[]).map_err(NeighborError::Open)?;
        let wanted = Arc::new(ArrayQueue::new(WANTED_LEN));
        let mut task = Task {
            events,
            requests,
            mirror: Mirror::default(),
            prober: Prober::default(),
            published: Topology::default(),
            shared,
            retired: Vec::new(),
            wanted: Arc::clone(&wanted),
            origin: tokio::time::Instant::now(),
            may_probe: true,
        };
        // Events have been collecting since the socket was opened, so nothing falls between the
        // dump and them.
        task.mirror.dirty = Dirty::ALL;
        task.refresh().await.map_err(NeighborError::Dump)?;
        let table = task.shared.load();
        info!(
            interfaces = table.interfaces().len(),
            routes = task.published.routes.len(),
            neighbours = task.published.neighbours.len(),
            "routes and neighbours read"
        );
        drop(table);
        Ok(Self {
            wanted,
            task: tokio::spawn(task.run()),
        })
    }

    /// The queue on which workers report peers that they found unresolved. When it is full a report
    /// is lost, no more: the kernel socket, through which the datagram goes, asks for the peer too.
    pub fn wanted(&self) -> Arc<ArrayQueue<IpAddr>> {
        Arc::clone(&self.wanted)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    events: Netlink,
    requests: Netlink,
    mirror: Mirror,
    prober: Prober,
    /// What the published table was built from.
    published: Topology,
    shared: Arc<ArcSwap<EgressTable>>,
    /// Tables that were published before and that a worker may still hold.
    retired: Vec<Arc<EgressTable>>,
    wanted: Arc<ArrayQueue<IpAddr>>,
    origin: tokio::time::Instant,
    /// Cleared when the kernel does not let us.
    may_probe: bool,
}

impl Task {
    async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refresh_at = tokio::time::Instant::now();
        let mut resync_at = refresh_at + RESYNC_INTERVAL;
        loop {
            tokio::select! {
                received = self.events.receive(|message| self.mirror.on_event(message)) => {
                    if let Err(error) = received {
                        // ENOBUFS: the socket has overflowed.
                        debug!(%error, "route events lost, reading everything anew");
                        self.mirror.dirty = Dirty::ALL;
                        if error.raw_os_error() != Some(libc::ENOBUFS) {
                            tokio::time::sleep(RETRY_INTERVAL).await;
                        }
                    }
                    self.forward_states();
                }
                () = sleep_until(refresh_at), if self.mirror.dirty.any() => {
                    let begin = tokio::time::Instant::now();
                    let pause = match self.refresh().await {
                        Ok(()) => PUBLISH_INTERVAL.max(begin.elapsed() * DUMP_SHARE),
                        Err(error) => {
                            warn!(%error, "cannot read routes and neighbours, trying again");
                            RETRY_INTERVAL
                        }
                    };
                    refresh_at = tokio::time::Instant::now() + pause;
                }
                now = tick.tick() => {
                    self.on_tick().await;
                    if now >= resync_at {
                        resync_at = now + RESYNC_INTERVAL;
                        self.mirror.dirty = Dirty::ALL;
                    }
                }
            }
        }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// Tells the prober what the mirror has learned.
    fn forward_states(&mut self) {
        let now = self.now();
        for (key, reachability) in self.mirror.states.drain(..) {
            self.prober.on_state(key, reachability, now);
        }
    }

    /// Reads what is dirty and publishes a snapshot if it differs from the last.
    async fn refresh(&mut self) -> io::Result<()> {
        self.mirror.refresh(&mut self.requests).await?;
        self.forward_states();
        let topology = self.mirror.topology();
        if topology == self.published {
            return Ok(());
        }
        let table = Arc::new(EgressTable::build(&topology));
        self.published = topology;
        let previous = self.shared.swap(table);
        self.note_use(&previous);
        self.retired.push(previous);
        Ok(())
    }

    fn note_use(&mut self, table: &EgressTable) {
        let now = self.now();
        for used in table.take_used() {
            self.prober.on_use((used.ifindex, used.address), now);
        }
    }

    async fn on_tick(&mut self) {
        // The last holder frees: that shall not be a worker.
        self.retired.retain(|table| Arc::strong_count(table) > 1);
        let table = self.shared.load_full();
        self.note_use(&table);
        let now = self.now();
        for _ in 0..WANTED_LEN {
            let Some(peer) = self.wanted.pop() else { break };
            let local = match peer {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            if let Some(key) = table.next_hop(local, SocketAddr::new(peer, 0)) {
                self.prober.on_use(key, now);
            }
        }
        drop(table);
        if !self.may_probe {
            return;
        }
        for (key, action) in self
            .prober
            .on_tick(now, |key| self.mirror.reachability(key))
        {
            if let Err(error) = self.act(key, action).await {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    warn!(
                        "no CAP_NET_ADMIN: a neighbour that changes its MAC address is noticed late"
                    );
                    self.may_probe = false;
                    return;
                }
                debug!(interface = key.0, address = %key.1, ?action, %error, "neighbour not asked");
            }
        }
    }

    async fn act(&mut self, key: Key, action: Action) -> io::Result<()> {
        let flags = NeighbourFlags::empty();
        match action {
            Action::Probe => self.set(key, NeighbourState::Probe, flags, 0).await,
            Action::Restart => {
                self.set(key, NeighbourState::Failed, flags, 0).await?;
                self.set(key, NeighbourState::None, NeighbourFlags::Use, NLM_F_CREATE)
                    .await
            }
            Action::Resolve => {
                self.set(key, NeighbourState::None, NeighbourFlags::Use, NLM_F_CREATE)
                    .await
            }
        }
    }

    /// `RTM_NEWNEIGH` without a MAC address. Without `NLM_F_REPLACE`: the kernel then keeps the MAC
    /// address and the router mark of an entry that is there (`neigh_add`, net/core/neighbour.c).
    async fn set(
        &mut self,
        (ifindex, address): Key,
        state: NeighbourState,
        flags: NeighbourFlags,
        message_flags: u16,
    ) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = ifindex;
        message.header.state = state;
        message.header.flags = flags;
        message
            .attributes
            .push(NeighbourAttribute::Destination(address.into()));
        self.requests
            .command(RouteNetlinkMessage::NewNeighbour(message), message_flags)
            .await
    }
}
