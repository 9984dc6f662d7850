//! The header that tells a pool's servers the address of the client, for those that know it by that.
//!
//! A server behind us sees our address only. What a stranger writes under the header's name is taken
//! off; what a trusted peer writes there is the address that it has seen itself, and stays.

use super::Context;
use super::target::Target;
use crate::packet::EditList;
use crate::route::Direction;
use crate::sip::{HeaderName, HeaderRow};

impl Context<'_> {
    /// The header's name, if the request goes to a server of a pool that has one and comes from a
    /// client.
    #[inline]
    fn client_address_header(&self, target: &Target) -> Option<&[u8]> {
        if self.direction == Direction::Farm {
            return None;
        }
        let server = target.server.and_then(|server| self.plan.server(server));
        let pool = target.pool.or(server.and_then(|server| server.pool))?;
        self.plan.pool(pool)?.client_address_header.as_deref()
    }

    fn rows_named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a HeaderRow> {
        let rows = self.message.headers().iter();
        rows.filter(move |row| {
            row.name == HeaderName::Other && row.name_bytes(self.bytes).eq_ignore_ascii_case(name)
        })
    }

    /// Adds the row to the rows of ours.
    #[inline]
    pub(super) fn push_client_address(&self, edits: &mut EditList, target: &Target) {
        let Some(name) = self.client_address_header(target) else {
            return;
        };
        if self.direction == Direction::Trusted && self.rows_named(name).next().is_some() {
            return;
        }
        edits.push(name);
        edits.push(b": ");
        edits.push_ip(self.flow.peer.ip());
        edits.push(b"\r\n");
    }

    /// Takes off what a stranger claims.
    #[inline]
    pub(super) fn remove_client_address(&self, edits: &mut EditList, target: &Target) {
        if self.direction != Direction::Outside {
            return;
        }
        let Some(name) = self.client_address_header(target) else {
            return;
        };
        for row in self.rows_named(name) {
            edits.delete(row.row.range());
        }
    }
}
