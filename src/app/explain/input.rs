//! The message and where it is said to come from.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Question;
use crate::config::Side;
use crate::limits::DATAGRAM_LEN_MAX;
use crate::net::{Flow, SocketAddr};
use crate::route::{Direction, Listener, Plan};
use crate::sip::{Host, Kind, Message};

/// Port of a `Via` without one, RFC 3261 §18.2.2.
const DEFAULT_PORT: u16 = 5060;

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// The file cannot be read.
    #[error("{file}: {error}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No datagram is so long.
    #[error("{0}: longer than {DATAGRAM_LEN_MAX} bytes, which is what a datagram holds")]
    TooLong(PathBuf),
    /// No listener of that name.
    #[error("--listener {0}: the configuration has no such listener; it has {1}")]
    Listener(String, String),
    /// Nobody says where it comes from.
    #[error("its top Via names no address: say where it comes from with --from IP:PORT")]
    From,
}

/// A message, and what of its way was said and what assumed.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    pub(super) flow: Flow,
    /// What was assumed.
    pub(super) notes: Vec<&'static str>,
}

impl Input {
    pub(super) fn read(question: &Question<'_>, plan: &Plan) -> Result<Self, InputError> {
        Self::new(
            read(question.message)?,
            question.from,
            question.listener,
            plan,
        )
    }

    pub(super) fn new(
        bytes: Vec<u8>,
        from: Option<SocketAddr>,
        listener: Option<&str>,
        plan: &Plan,
    ) -> Result<Self, InputError> {
        let mut notes = Vec::new();
        let bytes = with_line_ends(bytes, &mut notes);
        let mut message = Box::new(Message::new());
        let _fault_is_explained_later = message.parse(&bytes);
        let peer = match from {
            Some(from) => from,
            None => {
                notes.push("--from is not given: taken from the message");
                assumed_source(&message, &bytes, plan).ok_or(InputError::From)?
            }
        };
        let listener = match listener {
            Some(name) => named(plan, name)?,
            None => {
                notes.push("--listener is not given: the first that fits");
                assumed_listener(&message, &bytes, plan, peer)
            }
        };
        Ok(Self {
            bytes,
            flow: Flow {
                listener: listener.index,
                local: listener.address,
                peer,
            },
            notes,
        })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, InputError> {
    let failed = |error| InputError::Read {
        file: file.to_owned(),
        error,
    };
    let mut bytes = Vec::new();
    // One byte more than fits tells that there is more.
    let limit = DATAGRAM_LEN_MAX as u64 + 1;
    if file == Path::new("-") {
        io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        let file = File::open(file).map_err(failed)?;
        file.take(limit).read_to_end(&mut bytes)
    }
    .map_err(failed)?;
    if bytes.len() > DATAGRAM_LEN_MAX {
        return Err(InputError::TooLong(file.to_owned()));
    }
    Ok(bytes)
}

/// Text editors write line feeds alone. A message that has no CR at all gets them; with some and
/// some not, it is explained as it is.
fn with_line_ends(bytes: Vec<u8>, notes: &mut Vec<&'static str>) -> Vec<u8> {
    if bytes.contains(&b'\r') || !bytes.contains(&b'\n') {
        return bytes;
    }
    notes.push("its lines end with LF alone: read as CRLF");
    let mut with = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    for byte in bytes {
        if byte == b'\n' {
            with.push(b'\r');
        }
        with.push(byte);
    }
    with
}

/// A request comes from where its top `Via` says; a response from a server of ours.
fn assumed_source(message: &Message, bytes: &[u8], plan: &Plan) -> Option<SocketAddr> {
    if message.kind() == Kind::Response {
        return plan.servers().first().map(|server| server.address);
    }
    let via = message.top_via()?;
    match (via.received_ip(bytes), via.host) {
        (Some(ip), _) | (None, Host::Ip(ip)) => {
            Some(SocketAddr::new(ip, via.port.unwrap_or(DEFAULT_PORT)))
        }
        (None, Host::Name(_)) => None,
    }
}

/// A response comes to where our `Via` says; a request to a listener that faces its sender.
fn assumed_listener<'p>(
    message: &Message,
    bytes: &[u8],
    plan: &'p Plan,
    peer: SocketAddr,
) -> &'p Listener {
    let by_via = message
        .top_via()
        .filter(|_| message.kind() == Kind::Response)
        .and_then(|via| match via.host {
            Host::Ip(ip) => plan.listener_at(SocketAddr::new(ip, via.port.unwrap_or(DEFAULT_PORT))),
            Host::Name(name) => plan.listener_named(name.of(bytes), via.port),
        });
    if let Some(listener) = by_via.and_then(|index| plan.listener(index)) {
        return listener;
    }
    let listeners = plan.listeners();
    let faces = |listener: &&Listener| {
        let side = match plan.direction(listener.index, peer.ip()) {
            Direction::Farm => Side::Farm,
            Direction::Trusted | Direction::Outside => Side::Outside,
        };
        listener.side == side && listener.same_family(peer)
    };
    let same_family = |listener: &&Listener| listener.same_family(peer);
    let found = listeners.iter().find(faces);
    let found = found.or_else(|| listeners.iter().find(same_family));
    // A plan has a listener.
    found.unwrap_or(&listeners[0])
}

fn named<'p>(plan: &'p Plan, name: &str) -> Result<&'p Listener, InputError> {
    let listeners = plan.listeners();
    let found = listeners.iter().find(|listener| *listener.name == *name);
    found.ok_or_else(|| {
        let names: Vec<&str> = listeners.iter().map(|listener| &*listener.name).collect();
        InputError::Listener(name.to_owned(), names.join(", "))
    })
}
