//! What happens to a message: the verdict of a decide layer and the reasons for a drop.
//!
//! Per message there are no errors, there are verdicts. Every drop has one reason, every reason one
//! counter; the label of the counter is [`DropReason::as_str`].

use crate::net::WorkerIndex;

/// The decision about one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send the buffer as it now is along the flow that was set on it.
    Transmit,
    /// Give the untouched message to another worker.
    HandOver(WorkerIndex),
    /// Taken: the message was for us, and it leaves no further. Not a drop.
    Absorb,
    /// Drop, counted under the reason.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $label:literal,)*) => {
        /// Why a frame or a message was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])* $name,)* }

        impl DropReason {
            /// Every reason, in the order of its counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The metric label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// The cause in words, with the section that names it.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*).trim_ascii_start(),)* }
            }
        }
    };
}

drop_reasons! {
    // ---- link to transport layer ----
    /// The frame ends before its headers do, or a length field disagrees with the frame.
    Truncated = "truncated",
    /// An Ethernet type, IP version, extension header or protocol that XDP should not have sent up.
    NotUdp = "not_udp",
    /// A fragment on the XDP path.
    Fragment = "fragment",
    /// The IPv4 header checksum is wrong.
    IpChecksum = "ip_checksum",
    /// The UDP checksum is wrong.
    UdpChecksum = "udp_checksum",
    /// A source that no answer can reach: multicast, broadcast, loopback, IPv4-mapped, port 0.
    SourceInvalid = "source_invalid",
    /// Addressed to no listener of ours.
    NotOurs = "not_ours",

    // ---- before SIP ----
    /// Keepalive: empty, CR LF only, or NUL bytes (practice; RFC 5626 §4.4.1 for CRLF).
    Keepalive = "keepalive",
    /// STUN (first octet 0 or 1, RFC 8489 §5) that is not answered: no Binding request, or the listener
    /// does not serve it.
    Stun = "stun",
    /// SigComp: the five high bits of the first octet are set (RFC 5049 §5).
    SigComp = "sigcomp",
    /// Source address denied by the listener.
    SourceDenied = "source_denied",

    // ---- syntax ----
    /// Not a SIP message at all: no start line that could be answered.
    NotSip = "not_sip",
    /// A malformed message that cannot be answered: no usable Via, or it is an ACK.
    Malformed = "malformed",
    /// A malformed response (RFC 3261 §18.3, RFC 4475 §3.1.2.5): never answered.
    MalformedResponse = "malformed_response",

    // ---- request rules ----
    /// ACK with Max-Forwards 0 (RFC 3261 §16.3 step 3): no answer to an ACK.
    AckMaxForwards = "ack_max_forwards",
    /// ACK for an answer of our own (RFC 3261 §8.2.7).
    AckOwnAnswer = "ack_own_answer",
    /// CANCEL for a request that we answered statelessly (RFC 3261 §8.2.7).
    CancelOwnAnswer = "cancel_own_answer",
    /// An ACK that would be answered with an error if it were another method.
    AckRejected = "ack_rejected",
    /// A rule of the route table says so.
    RouteDropped = "route_dropped",
    /// No server can take the message, and it cannot be answered.
    NoServer = "no_server",
    /// The next hop is no address that we may send to.
    NextHopForbidden = "next_hop_forbidden",
    /// The next hop is a name and there is no resolver yet, and it cannot be answered.
    NextHopUnresolved = "next_hop_unresolved",
    /// More own Vias than allowed: a loop.
    Loop = "loop",
    /// An answer of our own was suppressed by the rate limit of all answers.
    AnswerLimited = "answer_limited",
    /// An answer of our own was suppressed by the rate limit of its source.
    AnswerLimitedSource = "answer_limited_source",
    /// An answer would be longer than the request, which a forged source could exploit.
    AnswerTooLong = "answer_too_long",

    // ---- response rules ----
    /// The top Via is not ours (RFC 3261 §18.1.2).
    ResponseViaForeign = "response_via_foreign",
    /// Our Via parameter is missing or does not decode.
    ResponseViaInvalid = "response_via_invalid",
    /// The MAC over branch, peer and next hop does not verify (RFC 6026 §10).
    ResponseMac = "response_mac",
    /// The response comes from outside the networks of the server the request went to.
    ResponseSource = "response_source",
    /// A response of our own request (only our Via): never forwarded (RFC 3261 §16.7 step 3).
    ResponseOwn = "response_own",
    /// The next Via is broadcast, multicast, unspecified or ourselves (RFC 4475 §3.3.10).
    ResponseNextViaForbidden = "response_next_via_forbidden",
    /// The next Via is a name without `received`.
    ResponseNextViaUnresolved = "response_next_via_unresolved",
    /// The branch carries the stateful mark and there is no such transaction (RFC 6026 §7.3).
    ResponseStray = "response_stray",

    // ---- datagrams of ours that did not arrive ----
    /// An own datagram that did not arrive, or the part of it that an ICMP error quotes; a server's
    /// requests of this kind are counted as its own (RFC 3261 §18.4).
    Unreachable = "unreachable",
    /// An ICMP error whose quote does not bear our MAC: forged, or quoted wrong.
    UnreachableForged = "unreachable_forged",
    /// An ICMP error that quotes too little of a request to know whether it was ours.
    UnreachableCut = "unreachable_cut",

    // ---- capacity ----
    /// The message would not fit its buffer after editing.
    NoRoom = "no_room",
    /// No free frame or buffer.
    NoFrame = "no_frame",
    /// The hand-over ring of the home worker is full.
    HandOverFull = "hand_over_full",
    /// The TX ring of the egress interface is full.
    TxRingFull = "tx_ring_full",
    /// The kernel refused to send (socket buffer full, message too long, forbidden by a firewall).
    KernelSend = "kernel_send",
    /// No interface or socket leads to the destination.
    NoEgress = "no_egress",
    /// The handler gave the packet to nobody: a bug of ours.
    NotHandled = "not_handled",
    /// Dropped because the process is stopping.
    Stopping = "stopping",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_in_order() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let same = DropReason::ALL
                .iter()
                .filter(|other| other.as_str() == reason.as_str());
            assert_eq!(same.count(), 1, "{}", reason.as_str());
        }
    }
}
