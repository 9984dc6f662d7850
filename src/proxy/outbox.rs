//! Where messages go that are not the received one edited in place.

use crate::net::Flow;

/// Takes messages of our own: answers, retransmissions, requests to another server.
pub trait Outbox {
    /// Sends `payload` from `flow.local` to `flow.peer`. What cannot be sent is lost like a datagram
    /// on the wire, and counted by whoever drops it.
    fn send(&mut self, flow: Flow, payload: &[u8]);
}

/// For tests and tools.
impl Outbox for Vec<(Flow, Vec<u8>)> {
    fn send(&mut self, flow: Flow, payload: &[u8]) {
        self.push((flow, payload.to_vec()));
    }
}
