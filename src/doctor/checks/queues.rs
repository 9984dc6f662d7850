//! Checks of the queues: how many, how long, and how packets are spread over them.

use super::super::drivers;
use super::{Case, Check, Level};
use crate::limits::{FILL_RING_LEN, QUEUES_MAX, RING_LEN};

/// Receive descriptors below which a burst between two interrupts is lost: at 300,000 packets a
/// second 512 hold 1.7 ms.
const RING_MIN: u32 = 512;

/// Receive descriptors that the fill ring feeds beside a full RX ring; in zero-copy mode the driver
/// takes its buffers from there.
const RING_ZERO_COPY_MAX: u32 = FILL_RING_LEN - RING_LEN;

pub(super) fn queues(case: &Case<'_>) -> Check {
    let (queues, workers, cores) = (case.queues(), case.workers(), case.facts.cores);
    let said = format!("{queues} queues, {workers} workers, {cores} cores");
    let combined = |count: u32| format!("ethtool -L {} combined {count}", case.name());
    let served = u32::try_from(QUEUES_MAX).unwrap_or(u32::MAX);
    if queues > served {
        let finding = format!("{said}: {served} queues are served");
        return Check::problem("queues", Level::Warn, finding, combined(served))
            .falls("the others: xdp -> kernel socket");
    }
    if workers > cores {
        let finding = format!("{said}: workers share cores");
        let fix = case.set("workers.count", &cores.to_string());
        return Check::problem("queues", Level::Warn, finding, fix);
    }
    let Some(channels) = case.facts.channels else {
        return Check::ok("queues", said);
    };
    let most = drivers::combined_for_xdp(case.driver(), channels.combined_max, cores);
    if let Some(most) = most.filter(|most| channels.combined > *most) {
        let finding = format!(
            "{said}: {} wants transmit queues of its own for XDP, {most} leave enough",
            case.driver()
        );
        return Check::problem("queues", Level::Warn, finding, combined(most))
            .falls("native -> generic, or transmit under a lock");
    }
    let wanted = u32::try_from(workers).unwrap_or(u32::MAX);
    let possible = most.unwrap_or(channels.combined_max).min(wanted);
    if possible > channels.combined && wanted > queues {
        let finding = format!("{said}: a worker without a queue gets only what others hand over");
        return Check::problem("queues", Level::Warn, finding, combined(possible));
    }
    Check::ok("queues", said)
}

pub(super) fn rings(case: &Case<'_>) -> Check {
    let Some(rings) = case.facts.rings else {
        return Check::ok("rings", "the driver does not say");
    };
    let set = |len: u32| format!("ethtool -G {} rx {len}", case.name());
    let said = format!("{} of at most {}", rings.receive, rings.receive_max);
    if rings.receive < RING_MIN.min(rings.receive_max) {
        let finding = format!("{said} descriptors: bursts are lost");
        let fix = set(rings.receive_max.min(2 * RING_MIN));
        return Check::problem("rings", Level::Warn, finding, fix);
    }
    if case.has_zero_copy() && rings.receive > RING_ZERO_COPY_MAX {
        let finding = format!(
            "{said} descriptors: in zero-copy mode the fill ring feeds {RING_ZERO_COPY_MAX}"
        );
        return Check::problem("rings", Level::Warn, finding, set(RING_ZERO_COPY_MAX));
    }
    Check::ok("rings", format!("{said} descriptors"))
}

pub(super) fn spread(case: &Case<'_>) -> Check {
    let queues = case.queues();
    let Some(spread) = case.facts.spread.filter(|_| queues > 1) else {
        return Check::ok("rss", "nothing to spread, or the driver does not say");
    };
    if spread < usize::try_from(queues).unwrap_or(usize::MAX) {
        let finding = format!("packets come to {spread} of {queues} queues");
        let fix = format!("ethtool -X {} equal {queues}", case.name());
        return Check::problem("rss", Level::Warn, finding, fix);
    }
    Check::ok("rss", format!("packets come to all {queues} queues"))
}

pub(super) fn hash_fields(case: &Case<'_>) -> Check {
    match case.facts.hashes_udp_ports.filter(|_| case.queues() > 1) {
        None => Check::ok("rss-udp", "nothing to spread, or the driver does not say"),
        Some(true) => Check::ok("rss-udp", "UDP is spread by addresses and ports"),
        Some(false) => Check::problem(
            "rss-udp",
            Level::Warn,
            "UDP is spread by addresses only: peers behind one address share a queue",
            format!("ethtool -N {} rx-flow-hash udp4 sdfn", case.name()),
        ),
    }
}
