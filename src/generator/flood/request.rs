//! The requests of a flood that sends its own: one frame for each source.

use std::net::{IpAddr, SocketAddr};

use super::shapes::Shapes;
use super::{FloodConfig, frames};
use crate::bpf::FLOOD_FRAME_LEN_MAX;
use crate::packet::LinkHeader;

/// Port that requests come from, and that their `Via` names.
const SOURCE_PORT: u16 = 5060;

/// Longest message: a frame less Ethernet, IPv6 and UDP headers, 14 + 40 + 8.
pub(super) const LEN_MAX: usize = FLOOD_FRAME_LEN_MAX - 62;

/// Length of a message that carries its sending time, unless one is asked for: the shortest round
/// number from IPv4 addresses.
const TIMED_LEN: usize = 540;

/// Why a request cannot be made as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The length is below what the headers need, or beyond a frame.
    #[error("a message of {wanted} bytes; {least} to {most} are possible from these addresses")]
    Length {
        /// Bytes asked for.
        wanted: usize,
        /// Shortest possible.
        least: usize,
        /// Longest possible.
        most: usize,
    },
    /// Source and target are not of one IP version.
    #[error("{from} cannot send to {target}: one is IPv4, the other IPv6")]
    Family {
        /// The source.
        from: IpAddr,
        /// The target.
        target: SocketAddr,
    },
}

/// One frame per source.
pub(super) fn frames(config: &FloodConfig) -> Result<Vec<Vec<u8>>, RequestError> {
    let target = config.target;
    let shapes = Shapes::new(target);
    let link = LinkHeader {
        src_mac: config.source_mac,
        dst_mac: config.target_mac,
        ..LinkHeader::default()
    };
    let frame_of = |(number, from): (usize, &IpAddr)| {
        let source = SocketAddr::new(*from, SOURCE_PORT);
        let message = match (config.message_len, config.latency) {
            (None, false) => shapes.mixed(number, source),
            (len, timed) => shapes.plain(source, len.unwrap_or(TIMED_LEN), timed)?,
        };
        frames::frame(&link, source, target, &message).ok_or(RequestError::Family {
            from: *from,
            target,
        })
    };
    config.sources.iter().enumerate().map(frame_of).collect()
}
