//! What happened in a simulation, so that a test can say that everything did.

macro_rules! tally {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counts of one seed or of many.
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Tally { $($(#[doc = $doc])* pub(crate) $name: u64,)* }

        impl Tally {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            pub(crate) fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

tally! {
    seeds,
    calls,
    events,
    /// Offered to the network.
    datagrams,
    lost,
    duplicated,
    reordered,
    /// Decisions of workers.
    decided,
    handed_over,
    rings_full,
    worker_timers,
    reloads,
    drains,
    restarts,
    servers_dead,
    servers_refusing,
    servers_overloaded,
    servers_slow,
    servers_down,
    unreachables,
    // What callers saw.
    answered,
    refused,
    cancelled,
    challenged,
    timed_out,
    gave_up_cancelled,
    byes_answered,
    byes_unanswered,
    reinvites,
    /// 2xx after the CANCEL was sent.
    glares,
    // What the balancer did.
    hunts,
    abandoned_cancelled,
    abandoned_answered,
    timer_c,
    strays_dropped,
    drops,
}
