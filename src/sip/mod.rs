//! SIP messages as bytes: one pass over a datagram into a fixed index of spans.
//!
//! [`Message::parse`] finds every header row and decodes the few things that each message is
//! forwarded by; everything else stays a [`Span`] until asked: [`Uri::parse`], [`NameAddr::parse`],
//! [`Message::vias`], [`values`]. Nothing is copied, nothing is allocated, nothing panics, whatever
//! the bytes. Compact names, folds, comma lists and case are met here once; above, a header is
//! already the right one.
//!
//! Not here: what a message means, and changing it. `forward` decides, `packet` edits.
//!
//! ```
//! use viaduct::sip::{HeaderName, Message, Method};
//!
//! let datagram = b"OPTIONS sip:lab.example SIP/2.0\r\n\
//!     v: SIP/2.0/UDP 198.18.0.1:5060;branch=z9hG4bK1\r\n\
//!     Max-Forwards: 70\r\n\
//!     f: <sip:a@lab.example>;tag=1\r\n\
//!     t: <sip:lab.example>\r\n\
//!     i: 1@198.18.0.1\r\n\
//!     CSeq: 1 OPTIONS\r\n\
//!     l: 0\r\n\
//!     \r\n";
//! let mut message = Message::new();
//! message.parse(datagram)?;
//! assert_eq!(message.method(), Method::Options);
//! assert_eq!(message.top_via().and_then(|via| via.port), Some(5060));
//! let call_id = message.first(HeaderName::CallId).map(|row| row.value.of(datagram));
//! assert_eq!(call_id, Some(&b"1@198.18.0.1"[..]));
//! # Ok::<(), viaduct::sip::ParseError>(())
//! ```

mod cseq;
mod error;
mod header;
mod host;
mod list;
mod message;
mod method;
mod name_addr;
mod noise;
mod params;
mod scan;
mod scan_plain;
#[cfg(target_arch = "x86_64")]
mod scan_simd;
mod span;
mod start_line;
mod status;
mod uri;
mod via;

pub use cseq::CSeq;
pub use error::ParseError;
pub use header::{HeaderName, HeaderRow};
pub use host::{Host, parse_ip};
pub use list::{Values, first_value_removal, values};
pub use message::{Kind, MaxBreadth, MaxForwards, Message, Vias};
pub use method::Method;
pub use name_addr::NameAddr;
pub use noise::{Noise, classify_noise};
pub use params::{Param, Params};
pub use scan::delta_seconds;
pub use span::Span;
pub use status::{StatusClass, reason_phrase};
pub use uri::{Scheme, Uri};
pub use via::{MAGIC_COOKIE, Transport, Via};
