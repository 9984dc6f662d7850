//! Route information preprocessing, RFC 3261 §16.4, and its counterpart for the next hop, §16.6
//! step 6.
//!
//! Nothing is changed here: [`RouteSet`] says which Route values go and which URI becomes the
//! Request-URI, and [`RouteSet::edit`] writes that into the edit list.

use arrayvec::ArrayVec;

use super::Context;
use super::hop::own_listener;
use super::request_uri::RequestUri;
use crate::affinity::{Binding, RouteToken};
use crate::limits::ROUTE_VALUES_MAX;
use crate::packet::EditList;
use crate::sip::{HeaderName, NameAddr, ParseError, Span, Uri, values};

/// The Route values of a request and what becomes of them. One per worker, read into again and
/// again: it is too large to be moved about.
#[derive(Debug, Default)]
pub(crate) struct RouteSet {
    /// Where each value stands: its row (position among the Route rows) and its bytes.
    values: ArrayVec<(u8, Span), ROUTE_VALUES_MAX>,
    /// Values removed from the front: our own.
    popped: usize,
    /// Values removed from the end: the one that became the Request-URI.
    taken: usize,
    /// The Request-URI from now on: the received one, or the Route value that a strict router
    /// upstream had pushed to the end.
    pub(super) request_uri: RequestUri,
    /// The token of the first own value that has one.
    pub(super) token: Option<RouteToken>,
    /// The token of the first own value that a registrar has from our `Path`.
    pub(super) path: Option<RouteToken>,
    /// An own value has the form of a token with a flow and none could be read: damaged, of another
    /// dialog, or under a key that is gone.
    pub(super) is_flow_lost: bool,
    /// The first Route value that is left.
    pub(super) next: Option<Uri>,
}

impl RouteSet {
    /// Reads the Route values of a request.
    ///
    /// # Errors
    /// A value that is needed is malformed, or there are too many.
    pub(super) fn read(
        &mut self,
        context: &Context<'_>,
        request_uri: &Uri,
    ) -> Result<(), ParseError> {
        self.values.clear();
        self.popped = 0;
        self.taken = 0;
        self.request_uri = RequestUri::new(*request_uri);
        self.token = None;
        self.path = None;
        self.is_flow_lost = false;
        self.next = None;
        self.take_token(own_token(context, request_uri));
        if !context.message.has(HeaderName::Route) {
            return Ok(());
        }
        let (message, bytes) = (context.message, context.bytes);
        for (row, number) in message.rows(HeaderName::Route).zip(0_u8..) {
            for value in values(bytes, row) {
                self.values
                    .try_push((number, value))
                    .map_err(|_| ParseError::TooManyHeaders)?;
            }
        }
        // RFC 3261 §16.4: a Request-URI that we once put into a Record-Route comes from a strict
        // router; the real one is the last Route value.
        if (self.token.is_some() || self.path.is_some())
            && let Some((_, last)) = self.values.last()
        {
            self.request_uri = RequestUri::new(NameAddr::parse(bytes, *last)?.uri);
            self.taken = 1;
        }
        // RFC 3261 §16.4: remove the first Route value if it is ours. RFC 5658 §5: the second one
        // of a pair too; and what would follow is a spiral through ourselves, done in one go.
        while let Some((_, value)) = self.values.get(self.popped).filter(|_| self.left() > 0) {
            let uri = NameAddr::parse(bytes, *value)?.uri;
            if own_listener(context.plan, bytes, &uri).is_none() {
                self.next = Some(uri);
                break;
            }
            if self.token.is_none() && self.path.is_none() {
                self.take_token(own_token(context, &uri));
            }
            self.popped += 1;
        }
        Ok(())
    }

    fn take_token(&mut self, token: OwnToken) {
        match token {
            OwnToken::None => return,
            OwnToken::Dialog(token) => self.token = Some(token),
            OwnToken::Path(token) => self.path = Some(token),
            OwnToken::FlowLost => self.is_flow_lost = true,
        }
        self.is_flow_lost &= self.token.is_none() && self.path.is_none();
    }

    /// Values of our own, which go.
    pub(super) fn own_values(&self) -> usize {
        self.popped
    }

    /// Route values that stay.
    fn left(&self) -> usize {
        self.values.len() - self.taken - self.popped
    }

    /// Whether the next hop is a strict router: the first Route value left has no `lr`.
    pub(super) fn next_is_strict(&self, bytes: &[u8]) -> bool {
        self.next.is_some_and(|uri| !uri.has_lr(bytes))
    }

    /// Writes the removals into the edit list; with `strict`, also the swap of RFC 3261 §16.6
    /// step 6: the Request-URI goes to the end of the Route values and the first of them becomes
    /// the Request-URI, which the caller writes.
    pub(super) fn edit(&self, edits: &mut EditList, context: &Context<'_>, strict: bool) {
        let (message, bytes) = (context.message, context.bytes);
        if self.values.is_empty() || (self.popped == 0 && self.taken == 0 && !strict) {
            return;
        }
        let from = self.popped + usize::from(strict);
        let until = self.values.len() - self.taken;
        let mut first_of_row = 0;
        let mut end = None;
        for (row, number) in message.rows(HeaderName::Route).zip(0_u8..) {
            let of_row = self.values[first_of_row..]
                .iter()
                .take_while(|(of, _)| *of == number)
                .count();
            let next_row = first_of_row + of_row;
            let kept = from.max(first_of_row)..until.min(next_row);
            if kept.start >= kept.end {
                edits.delete(row.row.range());
            } else {
                let start_of = |value: usize| self.values[value].1.start();
                if kept.start > first_of_row {
                    edits.delete(start_of(first_of_row)..start_of(kept.start));
                }
                if kept.end < next_row {
                    edits.delete(self.values[kept.end - 1].1.end()..row.value.end());
                }
            }
            first_of_row = next_row;
            end = Some(row.row.end());
        }
        if let (true, Some(end)) = (strict, end) {
            edits.begin(end, 0);
            edits.push(b"Route: <");
            self.request_uri.push(edits, bytes, None);
            edits.push(b">\r\n");
            edits.end();
        }
    }
}

/// What the user part of a URI says to us.
enum OwnToken {
    /// Nothing.
    None,
    /// What we wrote into a Record-Route of this dialog.
    Dialog(RouteToken),
    /// What we wrote into a Path.
    Path(RouteToken),
    /// A flow, but nobody can tell which.
    FlowLost,
}

/// The token in a URI that names us.
#[inline]
fn own_token(context: &Context<'_>, uri: &Uri) -> OwnToken {
    let Some(user) = uri.user.map(|user| user.of(context.bytes)) else {
        return OwnToken::None;
    };
    // "lr" is not asked for: some servers lose it on the way.
    if !RouteToken::is_token(user) || own_listener(context.plan, context.bytes, uri).is_none() {
        return OwnToken::None;
    }
    match RouteToken::open(context.keys, user, Binding::Dialog(context.call_id)) {
        Ok(token) => OwnToken::Dialog(token),
        // A token of Path always has a flow.
        Err(_) if RouteToken::is_flow_token(user) => {
            let opened = RouteToken::open(context.keys, user, Binding::Path);
            opened.map_or(OwnToken::FlowLost, OwnToken::Path)
        }
        Err(_) => OwnToken::None,
    }
}
