//! The data path: packets in, a [`Handler`]'s decision, packets out, on pinned threads.
//!
//! ```text
//!   XDP links (interface × queue) ─┐                       ┌─ TX ring of the egress interface
//!   kernel sockets (per listener) ─┼─► batch ─► Handler ─► Out ─ kernel socket of the source address
//!   hand-over ring (other workers) ┘               │       └─ hand-over ring of another worker
//!                                              on_timer
//! ```
//!
//! A [`Worker`] is a plain thread that after its start never locks, awaits or allocates. It knows
//! frames, datagrams and flows, nothing of SIP. Every packet it takes in leaves it exactly once:
//! sent, handed over, absorbed, or dropped under a [`DropReason`], so that at rest
//!
//! ```text
//! xdp_in + kernel_in + hand_over_in + originated
//!     = xdp_out + kernel_out + hand_over_out + absorbed + drops
//! ```
//!
//! Left to others: which frames XDP sends up (`bpf`), what the rings guarantee (`xsk`), routes and
//! link-layer addresses (`neighbor` fills the egress table), and every decision (the handler).
//!
//! # Example
//!
//! An echo server on the socket datapath:
//!
//! ```
//! use std::sync::Arc;
//! use viaduct::datapath::{Batch, Builder, Handler, Out};
//! use viaduct::metrics::WorkerMetrics;
//! use viaduct::net::ListenerIndex;
//! use viaduct::time::Instant;
//!
//! struct Echo;
//! impl Handler for Echo {
//!     fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, _now: Instant) {
//!         for packet in batch.drain(..) {
//!             out.send(packet);
//!         }
//!     }
//! }
//!
//! let metrics = vec![Arc::new(WorkerMetrics::new())];
//! let datapath = Builder::new(metrics)
//!     .listener(ListenerIndex(0), "127.0.0.1:0".parse()?)
//!     .build()?;
//! let server = datapath.local_addresses()[0];
//! let running = datapath.start(|_worker| Echo, &[])?;
//!
//! let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
//! client.send_to(b"ping", server)?;
//! let mut answer = [0; 16];
//! let (len, _) = client.recv_from(&mut answer)?;
//! assert_eq!(&answer[..len], b"ping");
//! running.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`DropReason`]: crate::verdict::DropReason

mod builder;
pub mod egress;
mod hand_over;
mod link;
mod out;
mod packet;
mod running;
pub mod sim;
mod socket;
mod worker;

use arrayvec::ArrayVec;

use crate::limits::BATCH;
use crate::time::Instant;
use crate::verdict::DropReason;

pub use builder::{Builder, DatapathError, Interface, ZeroCopy, frame_count};
pub use hand_over::Control;
pub use out::Out;
pub use packet::{Origin, Packet};
pub use running::{Datapath, LinkSocket, Running};
pub use worker::{Idle, Worker};

/// Packets that are decided together.
pub type Batch = ArrayVec<Packet, BATCH>;

/// What a worker does with its packets. One value per worker, moved to its thread.
pub trait Handler {
    /// Raw mode, for measuring the rings alone: packets are given as they were received, from their
    /// Ethernet header on, unverified and with a meaningless flow, and [`Out::send`] sends them as
    /// they are where they came in.
    const RAW: bool = false;

    /// Decides over received packets. The handler takes every packet out of `batch` and gives each
    /// to `out`; what it leaves behind is dropped as [`NotHandled`].
    ///
    /// [`NotHandled`]: crate::verdict::DropReason::NotHandled
    fn on_batch(&mut self, batch: &mut Batch, out: &mut Out<'_>, now: Instant);

    /// Decides over a datagram that was sent from here, or by another worker from the same address,
    /// and did not arrive. It is as it was sent, or the part of it that an ICMP error quotes (from
    /// nothing to some 500 bytes over IPv4, 1,200 over IPv6); its flow is the one it was sent along.
    ///
    /// Anybody can write an ICMP error: nothing in it is to be believed that the handler cannot prove.
    /// Which worker gets it the kernel chooses.
    fn on_unreachable(&mut self, packet: Packet, out: &mut Out<'_>, now: Instant) {
        let _ = now;
        out.drop(packet, DropReason::Unreachable);
    }

    /// Runs timers that are due and returns the next deadline. Called once at the start, then when
    /// the deadline has passed; [`Out::wake_at`] brings it forward.
    fn on_timer(&mut self, now: Instant, out: &mut Out<'_>) -> Option<Instant> {
        let _ = (now, out);
        None
    }
}
