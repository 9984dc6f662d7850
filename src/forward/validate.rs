//! Request validation, RFC 3261 §16.3. The syntax check is the parser's.

use super::hop::listener_of;
use super::{Context, Rejection};
use crate::sip::{HeaderName, Method, ParseError, Scheme, Uri, Via, values};
use crate::verdict::DropReason;

impl Context<'_> {
    /// Checks what can be wrong with a well-formed request before anything is done with it.
    pub(super) fn validate(&self, request_uri: &Uri) -> Result<(), Rejection> {
        let method = self.message.method();
        if method == Method::Ack {
            self.swallow_own_ack()?;
        }
        // RFC 3261 §16.3 step 2. tel, urn, im and pres are routed to the farm like any other.
        // RFC 5630 §5.3: a sips URI must not have come in clear, and must not leave so.
        match request_uri.scheme {
            Scheme::Sip | Scheme::Tel | Scheme::Urn | Scheme::Im | Scheme::Pres => {}
            Scheme::Sips | Scheme::Other => return Err(Rejection::UriScheme),
        }
        // RFC 3261 §16.3 step 3. OPTIONS may be answered as if for us; 483 says more.
        if self
            .message
            .max_forwards()
            .is_some_and(|hops| hops.value == Some(0))
        {
            return Err(Rejection::MaxForwards);
        }
        self.check_loop()?;
        // RFC 5393 §5.3.1: "a single positive integer". §5.3.3: the branches' sum MUST NOT exceed
        // it, so 0 leaves not even one. §5.4.1: it means nothing in CANCEL; an ACK gets no answer.
        if !matches!(method, Method::Ack | Method::Cancel)
            && self
                .message
                .max_breadth()
                .is_some_and(|breadth| breadth.value == Some(0))
        {
            return Err(Rejection::MaxBreadth);
        }
        // RFC 3261 §8.2.2.3: "MUST be ignored" in CANCEL and in the ACK of a non-2xx response.
        if !matches!(method, Method::Ack | Method::Cancel)
            && self.message.has(HeaderName::ProxyRequire)
            && self.unsupported().next().is_some()
        {
            return Err(Rejection::ProxyRequire);
        }
        Ok(())
    }

    /// RFC 3261 §8.2.7: the ACK of an answer that we made is for us; its To tag tells.
    fn swallow_own_ack(&self) -> Result<(), Rejection> {
        let Some(to_tag) = self.message.to_tag() else {
            return Ok(());
        };
        if self
            .keys
            .is_own_answer_tag(to_tag.of(self.bytes), &self.answer_input())
        {
            return Err(Rejection::Silent(DropReason::AckOwnAnswer));
        }
        Ok(())
    }

    /// RFC 3261 §16.3 step 4. A proxy that does not fork need not detect loops (RFC 5393 §4.1);
    /// counting our own Vias ends one long before Max-Forwards does. A spiral through a server is
    /// no loop, so some are allowed.
    fn check_loop(&self) -> Result<(), Rejection> {
        if self.own_vias().map_err(Rejection::Syntax)? >= self.plan.rules.own_vias_max {
            return Err(Rejection::Loop);
        }
        Ok(())
    }

    /// How often the request has passed here.
    pub(super) fn own_vias(&self) -> Result<usize, ParseError> {
        let is_own = |via: &Via| listener_of(self.plan, self.bytes, via.host, via.port).is_some();
        let mut own = usize::from(self.message.top_via().is_some_and(is_own));
        for via in self.message.vias_below(self.bytes) {
            own += usize::from(is_own(&via?));
        }
        Ok(own)
    }

    /// The Proxy-Require option tags that neither we nor the farm understand.
    pub(super) fn unsupported(&self) -> impl Iterator<Item = &[u8]> {
        let rows = self.message.rows(HeaderName::ProxyRequire);
        rows.flat_map(|row| values(self.bytes, row))
            .map(|tag| tag.of(self.bytes))
            .filter(|tag| {
                let known = &self.plan.rules.proxy_require;
                !known
                    .iter()
                    .any(|own| own.as_bytes().eq_ignore_ascii_case(tag))
            })
    }
}
