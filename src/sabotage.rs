//! Bugs on purpose, to try the simulation: a judge that misses one of them proves nothing.
//!
//! Only with the feature `sabotage`, which nothing but that test turns on. Per thread, so that
//! simulations of different bugs run beside each other.

use core::cell::Cell;

/// A mistake that somebody could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The choice of a server is not remembered for the authenticated retry.
    DropPin,
    /// A new call's server is chosen by its branch instead of its Call-ID.
    HashByBranch,
    /// RFC 3261 §16.7 step 2: a provisional response does not reset Timer C.
    ForgetTimerCReset,
    /// RFC 6026 §7.3: a 2xx whose transaction is over is forwarded.
    ForwardStray,
    /// RFC 3261 §16.10: the CANCEL is answered and goes no further.
    AbsorbCancel,
    /// RFC 3261 §17.1.1.2: a retransmission to a silent server gets a branch of its own.
    RetransmitOnNewBranch,
    /// Another server is tried although this one has answered.
    HuntAfterProvisional,
    /// RFC 3261 §17.1.1.3: a refusal is forwarded and not acknowledged.
    ForgetAck,
    /// RFC 3261 §9.1: a CANCEL is sent before any response.
    CancelAtOnce,
    /// RFC 3261 §16.7 step 5: the 100 of a server is forwarded.
    ForwardTrying,
    /// A server that was given up and speaks late is not told to stop.
    LetAbandonedRing,
    /// A transaction stays in its table when it is over.
    KeepTransaction,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::DropPin,
        Self::HashByBranch,
        Self::ForgetTimerCReset,
        Self::ForwardStray,
        Self::AbsorbCancel,
        Self::RetransmitOnNewBranch,
        Self::HuntAfterProvisional,
        Self::ForgetAck,
        Self::CancelAtOnce,
        Self::ForwardTrying,
        Self::LetAbandonedRing,
        Self::KeepTransaction,
    ];
}

thread_local! {
    static COMMITTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// From now on this thread's proxies have this bug, and no other.
pub fn commit(bug: Option<Bug>) {
    COMMITTED.set(bug);
}

/// Whether this thread's proxies have this bug.
pub(crate) fn has(bug: Bug) -> bool {
    COMMITTED.get() == Some(bug)
}
