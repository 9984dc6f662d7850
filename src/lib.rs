//! viaduct: a SIP load balancer that takes SIP at the driver with XDP and forwards it statelessly.
//!
//! # Layers
//!
//! ```text
//!             main  cli  app                               composition; nobody imports it
//!                  doctor                                  looks at the host
//!   admin  health  generator  neighbor  bpf  datapath      touch the world
//!                      proxy                              keeps transactions, pure
//!        route   forward   transaction   balance   affinity decide, pure
//!                     capture   clf                        copies for who looks, memory only
//!                journal   packet   sip   stun            records to files; bytes, no allocation
//!     config  limits  time  net  verdict  metrics  publish  plain data
//!     xsk  sys                                             UMEM, rings, sockets; know frames only
//! ```
//!
//! Imports go down only; `tests/architecture.rs` holds them to it.
//!
//! # Life of a packet
//!
//! ```text
//!            NIC queue q                        user space (one pinned thread per core)
//!  ┌──────────────────────────┐   XSK    ┌───────────────────────────────────────────────┐
//!  │ bpf/steer.bpf.c          │ ───────► │ datapath::worker                              │
//!  │  L2/L3/L4: a VIP?        │          │  packet  → views over Ethernet, IP, UDP       │
//!  │  source allowed?         │          │  sip     → one pass, fixed index of spans     │
//!  │  Call-ID → which worker? │          │  forward → stateless decision + edit list     │
//!  └───────────┬──────────────┘          │  edit in place, headers into the headroom     │
//!              │ XDP_PASS                │  → TX ring of the egress interface            │
//!              ▼                         └───────────▲───────────────────────────────────┘
//!        kernel stack ── UDP socket on the same VIP ─┘
//! ```
//!
//! Three rules hold the picture together. XDP passes what it does not know, and an ordinary UDP
//! socket on the same VIP hands it to the same worker code. The fast path is a subset, not a second
//! opinion: one parser, one routing decision, one editor. Decisions are pure: they take bytes and
//! `now`, and return bytes and actions.

/// Whether this thread's proxies are to have one of these [bugs on purpose](crate::sabotage).
#[cfg(feature = "sabotage")]
macro_rules! sabotaged {
    ($($bug:ident)|+) => {
        $(crate::sabotage::has(crate::sabotage::Bug::$bug))||+
    };
}
#[cfg(not(feature = "sabotage"))]
macro_rules! sabotaged {
    ($($bug:ident)|+) => {
        false
    };
}

pub mod limits;
pub mod metrics;
pub mod net;
pub mod publish;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod time;
pub mod verdict;

pub mod journal;
pub mod packet;
pub mod sip;
pub mod stun;

pub mod affinity;
pub mod balance;
pub mod capture;
pub mod clf;
pub mod forward;
pub mod proxy;
pub mod route;
pub mod transaction;

pub mod config;

pub mod sys;
pub mod xsk;

pub mod admin;
pub mod bpf;
pub mod datapath;
pub mod generator;
pub mod health;
pub mod neighbor;

pub mod doctor;

pub mod app;
pub mod cli;
