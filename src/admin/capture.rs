//! `GET /capture`: a capture as a pcapng stream, for as long as the client listens.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::capture::{Captures, Request, Running, pcapng};
use crate::sys::clock;

/// How often the rings are looked at when they were empty: workers wake nobody.
const PAUSE: Duration = Duration::from_millis(5);
/// Datagrams written in one piece.
const PIECE: usize = 256;
/// Pieces that may wait for the client.
const PIECES_WAITING: usize = 4;
/// How long a client that does not read may hold up the last piece.
const PATIENCE: Duration = Duration::from_secs(5);
/// A capture "without end" ends after this long: ten years.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Captures as they are asked for.
pub struct Service {
    captures: Arc<Captures>,
    /// The capture that runs is to end.
    stop: AtomicBool,
}

impl Service {
    /// Over these captures.
    pub fn new(captures: Arc<Captures>) -> Self {
        Self {
            captures,
            stop: AtomicBool::new(false),
        }
    }

    /// Starts a capture and streams it.
    pub(super) fn start(self: &Arc<Self>, query: &str) -> Response {
        let request = match Request::from_query(query) {
            Ok(request) => request,
            Err(fault) => {
                return (StatusCode::BAD_REQUEST, format!("{fault}\n")).into_response();
            }
        };
        let Some(running) = self.captures.begin(request.filter()) else {
            let busy = "a capture runs already; one at a time\n";
            return (StatusCode::CONFLICT, busy).into_response();
        };
        self.stop.store(false, Ordering::Relaxed);
        let (pieces, mut received) = mpsc::channel::<Bytes>(PIECES_WAITING);
        let service = self.clone();
        tokio::spawn(async move { service.write(running, &request, &pieces).await });
        let body = Body::from_stream(stream::poll_fn(move |context| {
            received
                .poll_recv(context)
                .map(|piece| piece.map(Ok::<Bytes, Infallible>))
        }));
        ([(CONTENT_TYPE, "application/x-pcapng")], body).into_response()
    }

    /// Ends the capture that runs; its file is completed.
    pub(super) fn stop(&self) -> Response {
        self.stop.store(true, Ordering::Relaxed);
        "stopped\n".into_response()
    }

    /// Writes out what is captured until the capture ends or the client is gone.
    async fn write(&self, running: Running, request: &Request, pieces: &mpsc::Sender<Bytes>) {
        let deadline = Instant::now() + request.time_max.unwrap_or(FOREVER).min(FOREVER);
        let packets_max = request.packets_max.unwrap_or(u64::MAX);
        let started = clock::real_nanos();
        let mut piece = Vec::new();
        pcapng::header(&mut piece, running.interfaces());
        let mut packets = 0;
        loop {
            if !piece.is_empty() {
                tokio::select! {
                    sent = pieces.send(core::mem::take(&mut piece).into()) => match sent {
                        Ok(()) => {}
                        Err(_gone) => return,
                    },
                    () = sleep_until(deadline) => break,
                }
            }
            packets += drain(&running, packets_max - packets, &mut piece);
            if packets == packets_max || self.stop.load(Ordering::Relaxed) {
                break;
            }
            if piece.is_empty() {
                tokio::select! {
                    () = pieces.closed() => return,
                    () = sleep_until(deadline) => break,
                    () = sleep(PAUSE) => {}
                }
            } else if Instant::now() >= deadline {
                break;
            }
        }
        running.end();
        // Two batches may still be in the making; what they add is taken with the rest.
        sleep(PAUSE).await;
        loop {
            let count = drain(&running, packets_max - packets, &mut piece);
            packets += count;
            if count == 0 {
                break;
            }
            if !last_words(pieces, core::mem::take(&mut piece)).await {
                return;
            }
        }
        let listeners = (0..).map(crate::net::ListenerIndex);
        let counts = listeners
            .zip(running.interfaces())
            .map(|(listener, _)| running.counts(listener));
        pcapng::statistics(&mut piece, started, clock::real_nanos(), counts);
        last_words(pieces, piece).await;
    }
}

/// Sends a piece after the end; `false` if nobody takes it in time.
async fn last_words(pieces: &mpsc::Sender<Bytes>, piece: Vec<u8>) -> bool {
    let sent = timeout(PATIENCE, pieces.send(piece.into())).await;
    matches!(sent, Ok(Ok(())))
}

/// Writes up to a piece of what was captured; returns how many datagrams.
fn drain(running: &Running, packets_max: u64, piece: &mut Vec<u8>) -> u64 {
    // Both clocks are read together, so that a step of the one moves what follows.
    let (real, now) = (clock::real_nanos(), clock::now());
    let mut packets = 0;
    while packets < packets_max.min(PIECE as u64) {
        let Some(slot) = running.take() else { break };
        let age = u64::try_from(now.since(slot.at).as_nanos()).unwrap_or(u64::MAX);
        // Captured after the clocks were read: ahead of them by as much.
        let ahead = u64::try_from(slot.at.since(now).as_nanos()).unwrap_or(0);
        pcapng::packet(piece, &slot, real.saturating_sub(age).saturating_add(ahead));
        running.release(slot);
        packets += 1;
    }
    packets
}
