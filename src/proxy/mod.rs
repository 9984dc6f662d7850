//! The proxy core: what RFC 3261 §16.2 to §16.10 adds to forwarding when a transaction is kept.
//!
//! | file | RFC |
//! |---|---|
//! | `compose` | requests of our own on a branch: the ACK of RFC 3261 §17.1.1.3, the CANCEL of §9.1 |

pub mod compose;
