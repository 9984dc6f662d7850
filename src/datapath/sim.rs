//! A network in memory: feeds datagrams to a worker and keeps what it sends.
//!
//! For tests and simulations. The same worker code runs over it, with the refusals a kernel may
//! give at will: a batch taken only in part, a full socket, an unreachable peer.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::net::{ListenerIndex, SocketAddr};

/// One datagram that a worker sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The listener it left from.
    pub listener: ListenerIndex,
    /// Its destination.
    pub peer: SocketAddr,
    /// Its payload.
    pub payload: Vec<u8>,
}

#[derive(Default)]
struct State {
    incoming: VecDeque<(ListenerIndex, SocketAddr, Vec<u8>)>,
    sent: Vec<Sent>,
    send_max: Option<usize>,
    refusals: VecDeque<io::ErrorKind>,
    unreachable: Option<SocketAddr>,
}

/// The network of one worker. Clones are the same network.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<State>>);

impl Network {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A datagram for `listener` to receive.
    pub fn deliver(&self, listener: ListenerIndex, peer: SocketAddr, payload: &[u8]) {
        let datagram = (listener, peer, payload.to_vec());
        self.state().incoming.push_back(datagram);
    }

    /// Takes what was sent since the last call.
    pub fn sent(&self) -> Vec<Sent> {
        core::mem::take(&mut self.state().sent)
    }

    /// Datagrams delivered and not yet received.
    pub fn waiting(&self) -> usize {
        self.state().incoming.len()
    }

    /// From now on a send call takes at most `count` datagrams; `None`: all.
    pub fn set_send_max(&self, count: Option<usize>) {
        self.state().send_max = count;
    }

    /// The next send calls fail with these errors, one each.
    pub fn refuse(&self, errors: impl IntoIterator<Item = io::ErrorKind>) {
        self.state().refusals.extend(errors);
    }

    /// Datagrams to `peer` fail from now on.
    pub fn set_unreachable(&self, peer: Option<SocketAddr>) {
        self.state().unreachable = peer;
    }

    pub(super) fn receive<'a>(
        &self,
        listener: ListenerIndex,
        buffers: impl Iterator<Item = &'a mut [u8]>,
        mut received: impl FnMut(SocketAddr, usize),
    ) {
        let mut state = self.state();
        for buffer in buffers {
            let Some(at) = state.incoming.iter().position(|next| next.0 == listener) else {
                break;
            };
            let Some((_, peer, payload)) = state.incoming.remove(at) else {
                break;
            };
            let len = payload.len().min(buffer.len());
            buffer[..len].copy_from_slice(&payload[..len]);
            received(peer, len);
        }
    }

    pub(super) fn send<'a>(
        &self,
        listener: ListenerIndex,
        messages: impl Iterator<Item = (&'a [u8], SocketAddr)>,
    ) -> io::Result<usize> {
        let mut state = self.state();
        if let Some(error) = state.refusals.pop_front() {
            return Err(error.into());
        }
        let count_max = state.send_max.unwrap_or(usize::MAX);
        let mut count = 0;
        for (payload, peer) in messages.take(count_max) {
            if state.unreachable == Some(peer) {
                if count == 0 {
                    return Err(io::ErrorKind::NetworkUnreachable.into());
                }
                break;
            }
            state.sent.push(Sent {
                listener,
                peer,
                payload: payload.to_vec(),
            });
            count += 1;
        }
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }
}
