//! Why a message is malformed: one variant per cause, no text, no heap.
//!
//! What goes on the wire for an error (400, 505, silence) is the forwarder's decision; after an
//! error the index still holds every row that could be read, so an answer can be built from it.

macro_rules! parse_errors {
    ($($(#[doc = $doc:literal])* $name:ident = $label:literal,)*) => {
        /// Why a message is malformed. The first cause met wins.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ParseError { $($(#[doc = $doc])* $name,)* }

        impl ParseError {
            /// Every cause.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The cause as a label, for counters and log lines.
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

parse_errors! {
    // ---- framing ----
    /// More bytes than a UDP datagram carries, `limits::MESSAGE_LEN_MAX`.
    MessageTooLong = "message_too_long",
    /// No start line of SIP: neither `SIP/…` in front nor at the end of the first line.
    NotSip = "not_sip",
    /// The header section has no empty line at its end.
    HeadersUnterminated = "headers_unterminated",
    /// More rows than `limits::HEADERS_MAX`.
    TooManyHeaders = "too_many_headers",
    /// The header section is longer than `limits::HEADER_SECTION_LEN_MAX`.
    HeadersTooLong = "headers_too_long",
    /// A CR or LF of its own in the header section (RFC 3261 §7 demands CRLF).
    BareLineEnd = "bare_line_end",
    /// A folded row whose first line has no colon.
    HeaderWithoutColon = "header_without_colon",

    // ---- start line ----
    /// SIP, but not version 2.0 (505).
    VersionUnsupported = "version_unsupported",
    /// Spaces in the start line beyond the two single ones, or at its end.
    StartLineSpaces = "start_line_spaces",
    /// A continuation line right after the start line.
    StartLineFolded = "start_line_folded",
    /// The method is no token.
    Method = "method",
    /// The status code is not three digits, or outside 100 to 699.
    StatusCode = "status_code",

    // ---- URIs and addresses ----
    /// White space inside the Request-URI.
    UriSpaces = "uri_spaces",
    /// The Request-URI is written in angle brackets.
    UriBrackets = "uri_brackets",
    /// The Request-URI has a headers part (RFC 3261 §19.1.1 table 1 forbids it).
    UriHeaders = "uri_headers",
    /// No scheme in front of a URI.
    UriScheme = "uri_scheme",
    /// A byte that no URI may hold unescaped.
    UriByte = "uri_byte",
    /// The user part of a URI is empty, or there are two of them.
    UriUser = "uri_user",
    /// What follows the host of a URI is neither port, parameters nor headers.
    UriTrailer = "uri_trailer",
    /// Neither a host name nor an address.
    Host = "host",
    /// Not a port of 1 to 65,535.
    Port = "port",
    /// A quoted string without its end.
    QuoteUnbalanced = "quote_unbalanced",
    /// `<` without `>`.
    BracketUnbalanced = "bracket_unbalanced",
    /// A comma where one address is wanted: an unquoted display name, or a list.
    AddressComma = "address_comma",
    /// Bytes after an address that are no parameter.
    AddressTrailer = "address_trailer",
    /// A parameter without a name, or with text after its value.
    Parameter = "parameter",
    /// A tag parameter without a value, or two of them.
    Tag = "tag",

    // ---- Via ----
    /// No Via row.
    ViaMissing = "via_missing",
    /// The sent-protocol is not `SIP / 2.0 / transport`.
    ViaProtocol = "via_protocol",
    /// The sent-by is no host and port.
    ViaSentBy = "via_sent_by",
    /// A Via parameter without a name, or with text after its value.
    ViaParameter = "via_parameter",
    /// Two parameters of one name among those that we use (RFC 3261 §7.3.1).
    ViaParameterTwice = "via_parameter_twice",
    /// More Via values than `limits::VIAS_MAX`.
    TooManyVias = "too_many_vias",

    // ---- other rows ----
    /// No From row.
    FromMissing = "from_missing",
    /// No To row.
    ToMissing = "to_missing",
    /// No Call-ID row.
    CallIdMissing = "call_id_missing",
    /// No CSeq row.
    CSeqMissing = "cseq_missing",
    /// More than one From row.
    FromTwice = "from_twice",
    /// More than one To row.
    ToTwice = "to_twice",
    /// More than one Call-ID row.
    CallIdTwice = "call_id_twice",
    /// More than one CSeq row.
    CSeqTwice = "cseq_twice",
    /// More than one Max-Forwards row.
    MaxForwardsTwice = "max_forwards_twice",
    /// More than one Content-Length row, even with equal values.
    ContentLengthTwice = "content_length_twice",
    /// More than one Max-Breadth row.
    MaxBreadthTwice = "max_breadth_twice",
    /// An empty Call-ID, or one with white space inside.
    CallId = "call_id",
    /// The CSeq is not `number method`.
    CSeq = "cseq",
    /// The CSeq number is 2^31 or more (RFC 3261 §8.1.1.5).
    CSeqTooLarge = "cseq_too_large",
    /// The CSeq method is not the method of the request (RFC 3261 §8.1.1.5).
    CSeqMethod = "cseq_method",
    /// The Content-Length is no number.
    ContentLength = "content_length",
    /// The Content-Length is negative.
    ContentLengthNegative = "content_length_negative",
    /// The Content-Length is a number beyond any message.
    ContentLengthTooLarge = "content_length_too_large",
    /// The body is shorter than the Content-Length (RFC 3261 §18.3).
    BodyTruncated = "body_truncated",
}

impl core::fmt::Display for ParseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct() {
        for error in ParseError::ALL {
            let same = ParseError::ALL
                .iter()
                .filter(|other| other.as_str() == error.as_str());
            assert_eq!(same.count(), 1, "{error}");
        }
        assert_eq!(size_of::<Result<(), ParseError>>(), 1);
    }
}
