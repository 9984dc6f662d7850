//! Calls in progress: a slab whose places stand in the Call-IDs.

use super::dialog::Dialog;
use super::digest::Challenge;
use super::identity::CallKey;
use super::timers::Resend;
use crate::time::Instant;

/// The request that a call waits for an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// INVITE that opens the dialog.
    Invite,
    /// A request outside a dialog; which of the configured methods.
    Single(usize),
    /// REGISTER.
    Register,
    /// REGISTER with Expires 0.
    Unregister,
    /// A request inside the dialog; which of the configured methods.
    Dialog(usize),
    /// BYE.
    Bye,
}

/// Where the call stands within its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The request is out; nothing has come back.
    Calling,
    /// A provisional response has come.
    Proceeding,
    /// CANCEL is out; the INVITE's final response is still to come.
    Cancelling,
    /// The step is answered; the next begins at the deadline.
    Pausing,
    /// The other side is to send BYE.
    AwaitingBye,
}

/// Credentials that a call goes on with after a challenge.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    pub(super) challenge: Challenge,
    /// 407, not 401.
    pub(super) by_proxy: bool,
    /// Requests sent with this nonce.
    pub(super) count: u32,
    /// The row of the present request, with CRLF.
    pub(super) row: Vec<u8>,
}

/// One call, registration or single request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) serial: u64,
    pub(super) source: usize,
    /// When it should have started.
    pub(super) intended: Instant,
    pub(super) step: Step,
    pub(super) phase: Phase,
    /// CSeq of the present step.
    pub(super) cseq: u32,
    pub(super) resend: Option<Resend>,
    /// End of waiting, or of a pause.
    pub(super) deadline: Option<Instant>,
    /// When to give up ringing, once it rings.
    pub(super) cancel_at: Option<Instant>,
    /// The earliest entry of this call in the wheel.
    pub(super) armed: Option<Instant>,
    pub(super) answered: bool,
    pub(super) failed: bool,
    /// The 2xx has been acknowledged: its CSeq, and so the ACK's.
    pub(super) invite_cseq: u32,
    pub(super) refreshes: u32,
    pub(super) authorization: Option<Box<Authorization>>,
    pub(super) dialog: Dialog,
}

impl Call {
    /// The next time something is to be done for it.
    pub(super) fn due(&self) -> Option<Instant> {
        [
            self.resend.map(|resend| resend.at()),
            self.deadline,
            self.cancel_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// All calls in progress.
#[derive(Debug)]
pub(super) struct Calls {
    places: Vec<Place>,
    free: Vec<u32>,
    live: u32,
}

#[derive(Debug)]
struct Place {
    is_live: bool,
    call: Call,
}

impl Calls {
    /// None yet, with room for `calls_max`: moving them to more room would be lateness of ours.
    /// Memory is touched as it is used.
    pub(super) fn new(calls_max: u32) -> Self {
        let room = usize::try_from(calls_max).unwrap_or(0);
        Self {
            places: Vec::with_capacity(room),
            free: Vec::with_capacity(room),
            live: 0,
        }
    }

    /// Calls in progress.
    pub(super) fn live(&self) -> u32 {
        self.live
    }

    /// Puts a new call in a free place; `fresh` makes it, with the dialog buffer to use again.
    pub(super) fn insert(&mut self, fresh: impl FnOnce(Dialog) -> Call) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => {
                let place = self.places.get_mut(usize::try_from(index).ok()?)?;
                let dialog = core::mem::take(&mut place.call.dialog);
                place.call = fresh(dialog);
                place.is_live = true;
                index
            }
            None => {
                let index = u32::try_from(self.places.len()).ok()?;
                self.places.push(Place {
                    is_live: true,
                    call: fresh(Dialog::default()),
                });
                index
            }
        };
        self.live += 1;
        Some(index)
    }

    /// The call of a place, if one is there.
    pub(super) fn at(&mut self, index: u32) -> Option<&mut Call> {
        let place = self.places.get_mut(usize::try_from(index).ok()?)?;
        place.is_live.then_some(&mut place.call)
    }

    /// The call a Call-ID names, if it is in progress.
    pub(super) fn find(&mut self, key: CallKey) -> Option<&mut Call> {
        self.at(key.index).filter(|call| call.serial == key.serial)
    }

    /// Frees a place.
    pub(super) fn remove(&mut self, index: u32) {
        let Some(place) = usize::try_from(index)
            .ok()
            .and_then(|index| self.places.get_mut(index))
        else {
            return;
        };
        if place.is_live {
            place.is_live = false;
            place.call.dialog.clear();
            self.free.push(index);
            self.live -= 1;
        }
    }

    /// Places with a call.
    pub(super) fn indices(&self) -> Vec<u32> {
        (0u32..)
            .zip(&self.places)
            .filter(|(_, place)| place.is_live)
            .map(|(index, _)| index)
            .collect()
    }
}
