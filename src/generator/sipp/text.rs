//! Messages of a scenario: text with keywords in brackets, compiled once and written for each call.
//!
//! ```text
//! INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
//! [last_Via:]                              absent: the rest of the line goes, and an empty line with it
//! Content-Length: [len]                    known when the body is written, and then put in
//! ```
//!
//! Lines lose the blanks around them and end with CRLF; the first empty line ends the header. Owns
//! what stands in the text; what a keyword becomes is [`super::fill`]'s.

use super::error::ScenarioError;
use crate::sip::{HeaderName, Method};

/// What a keyword stands for. An `i32` is added to the number (`[cseq+1]`, `[branch-3]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Authentication(Option<Box<[Text; 2]>>),
    Branch(i32),
    CallId,
    CallNumber(i32),
    ClockTick,
    CSeq(i32),
    /// A field of the row that the call took from the table.
    Field(usize),
    LastBranch,
    LastCSeqNumber(i32),
    LastHeader(HeaderName, Vec<u8>),
    LastMessage,
    LastRequestUri,
    Len(i32),
    LocalIp,
    LocalIpType,
    LocalPort(i32),
    MediaIp,
    MediaPort(i32),
    MessageIndex,
    NextUrl,
    PeerTagParam,
    Pid,
    RemoteIp,
    RemotePort(i32),
    Routes,
    Service,
    Transport,
    /// Place of a variable.
    Variable(usize),
}

impl Keyword {
    /// Whether it can be absent, and take its line with it.
    fn drops(&self) -> bool {
        matches!(
            self,
            Self::Authentication(_)
                | Self::Field(_)
                | Self::LastBranch
                | Self::LastCSeqNumber(_)
                | Self::LastHeader(..)
                | Self::LastMessage
                | Self::LastRequestUri
                | Self::Routes
        )
    }

    fn reads_last(&self) -> bool {
        matches!(
            self,
            Self::LastBranch
                | Self::LastCSeqNumber(_)
                | Self::LastHeader(..)
                | Self::LastRequestUri
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Up to this byte of the text.
    Plain(usize),
    Key(Keyword),
    /// Ends a line of which something may have been absent.
    LineEnd,
    /// The header is over.
    Body,
}

/// A compiled text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    text: Vec<u8>,
    pieces: Vec<Piece>,
    /// Of a request that starts with its method.
    pub(super) method: Option<Method>,
    /// Whether the last message received must be read to write it.
    pub(super) reads_last: bool,
}

/// Finds the place of what a text names.
pub(super) trait Names {
    /// The place of a variable.
    fn variable(&mut self, name: &str) -> Result<usize, String>;
}

/// What filling a keyword came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Written,
    Absent,
}

impl Text {
    /// Compiles a message; `line` is that of its first character.
    pub(super) fn message(
        source: &str,
        line: u32,
        names: &mut impl Names,
    ) -> Result<Self, ScenarioError> {
        let mut made = Self::default();
        let mut lines = (line..).zip(source.split('\n').map(str::trim)).peekable();
        while lines.next_if(|(_, text)| text.is_empty()).is_some() {}
        let mut rows: Vec<(u32, &str)> = lines.collect();
        while rows.pop_if(|(_, text)| text.is_empty()).is_some() {}
        let Some((_, first)) = rows.first() else {
            return Err(ScenarioError::new(line, "a message without a text"));
        };
        let method = first.split(' ').next().unwrap_or_default();
        made.method = (!first.starts_with("SIP/")).then(|| Method::parse(method.as_bytes()));
        let header_end = rows.iter().position(|(_, text)| text.is_empty());
        for (place, (line, text)) in rows.iter().enumerate() {
            if Some(place) == header_end {
                made.end_header();
                continue;
            }
            made.line(text, *line, names)?;
        }
        if header_end.is_none() {
            made.end_header();
        }
        Ok(made)
    }

    /// Compiles one line without an end, such as a field of a table or a text to log.
    pub(super) fn line_of(
        source: &str,
        line: u32,
        names: &mut impl Names,
    ) -> Result<Self, ScenarioError> {
        let mut made = Self::default();
        made.push_line(source, line, names)?;
        Ok(made)
    }

    fn line(&mut self, text: &str, line: u32, names: &mut impl Names) -> Result<(), ScenarioError> {
        if self.push_line(text, line, names)? {
            self.pieces.push(Piece::LineEnd);
        } else {
            self.plain(b"\r\n");
        }
        Ok(())
    }

    fn end_header(&mut self) {
        self.plain(b"\r\n");
        self.pieces.push(Piece::Body);
    }

    fn plain(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        let end = self.text.len();
        match self.pieces.last_mut() {
            Some(Piece::Plain(last)) => *last = end,
            _ => self.pieces.push(Piece::Plain(end)),
        }
    }

    /// Appends a line without its end; `true` if something of it may be absent.
    fn push_line(
        &mut self,
        source: &str,
        line: u32,
        names: &mut impl Names,
    ) -> Result<bool, ScenarioError> {
        let fail = |reason: String| ScenarioError::new(line, reason);
        let mut drops = false;
        let mut rest = source;
        while let Some(place) = rest.find(['[', '\\']) {
            let (before, from) = rest.split_at(place);
            self.plain(before.as_bytes());
            if let Some(escaped) = from.strip_prefix('\\') {
                // A bracket that opens no keyword is written with a backslash before it.
                if escaped.starts_with(['[', ']']) {
                    self.plain(&escaped.as_bytes()[..1]);
                    rest = &escaped[1..];
                } else {
                    self.plain(b"\\");
                    rest = escaped;
                }
                continue;
            }
            let end = closing(from).ok_or_else(|| fail("a keyword without its ']'".to_owned()))?;
            let name = &from[1..end];
            let keyword = parse(name, line, names).map_err(|reason| {
                fail(format!(
                    "[{}]: {reason}",
                    name.chars().take(60).collect::<String>()
                ))
            })?;
            drops |= keyword.drops();
            self.reads_last |= keyword.reads_last();
            self.pieces.push(Piece::Key(keyword));
            rest = &from[end + 1..];
        }
        self.plain(rest.as_bytes());
        Ok(drops)
    }

    /// Every keyword, those within keywords left out.
    pub(super) fn keywords(&self) -> impl Iterator<Item = &Keyword> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Key(keyword) => Some(keyword),
            _ => None,
        })
    }

    /// Appends the text; `fill` appends what a keyword stands for, given where the message begins.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        mut fill: impl FnMut(&Keyword, usize, &mut Vec<u8>) -> Filled,
    ) {
        let begin = out.len();
        let (mut from, mut line_start, mut body) = (0, begin, None);
        let mut lengths: Vec<(usize, i32)> = Vec::new();
        let mut is_skipping = false;
        for piece in &self.pieces {
            match piece {
                Piece::Plain(to) => {
                    let text = self.text.get(from..*to).unwrap_or_default();
                    from = *to;
                    if !is_skipping {
                        out.extend_from_slice(text);
                        if let Some(end) = text.iter().rposition(|byte| *byte == b'\n') {
                            line_start = out.len() - (text.len() - end - 1);
                        }
                    }
                }
                Piece::Key(_) if is_skipping => {}
                Piece::Key(Keyword::Len(more)) => lengths.push((out.len(), *more)),
                Piece::Key(keyword) => is_skipping = fill(keyword, begin, out) == Filled::Absent,
                Piece::LineEnd => {
                    // Nothing was left of the line: no empty one stays, it would end the header.
                    if !is_skipping || out.len() > line_start {
                        out.extend_from_slice(b"\r\n");
                    }
                    is_skipping = false;
                    line_start = out.len();
                }
                Piece::Body => body = Some(out.len()),
            }
        }
        let body_len = body.map_or(0, |body| out.len() - body);
        // From the last to the first, so that the places of those before stay.
        for (place, more) in lengths.into_iter().rev() {
            let len = i64::try_from(body_len).unwrap_or(0) + i64::from(more);
            let digits = len.max(0).to_string();
            out.splice(place..place, digits.into_bytes());
        }
    }
}

/// The bracket that closes the one a text starts with.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(place);
                }
            }
            _ => {}
        }
    }
    None
}

fn parse(name: &str, line: u32, names: &mut impl Names) -> Result<Keyword, String> {
    if let Some(variable) = name.strip_prefix('$') {
        return Ok(Keyword::Variable(names.variable(variable)?));
    }
    if let Some(last) = name.strip_prefix("last_") {
        return parse_last(last);
    }
    if let Some(rest) = name.strip_prefix("authentication") {
        return parse_authentication(rest, line, names);
    }
    if let Some(field) = name.strip_prefix("field") {
        return parse_field(field);
    }
    let (word, more) = split_offset(name)?;
    let keyword = match word {
        "branch" => Keyword::Branch(more),
        "call_number" => Keyword::CallNumber(more),
        "cseq" => Keyword::CSeq(more),
        "len" => Keyword::Len(more),
        "local_port" => Keyword::LocalPort(more),
        "media_port" | "auto_media_port" => Keyword::MediaPort(more),
        "remote_port" => Keyword::RemotePort(more),
        _ if more != 0 => return Err("takes no number".to_owned()),
        "call_id" => Keyword::CallId,
        "clock_tick" => Keyword::ClockTick,
        "local_ip" | "server_ip" => Keyword::LocalIp,
        "local_ip_type" | "media_ip_type" => Keyword::LocalIpType,
        "media_ip" => Keyword::MediaIp,
        "msg_index" => Keyword::MessageIndex,
        "next_url" => Keyword::NextUrl,
        "peer_tag_param" => Keyword::PeerTagParam,
        "pid" => Keyword::Pid,
        "remote_ip" | "remote_host" => Keyword::RemoteIp,
        "routes" => Keyword::Routes,
        "service" => Keyword::Service,
        "transport" => Keyword::Transport,
        _ => return Err("no keyword that is known here".to_owned()),
    };
    Ok(keyword)
}

/// `cseq+1` is `cseq` and 1.
fn split_offset(name: &str) -> Result<(&str, i32), String> {
    let Some(sign) = name.find(['+', '-']) else {
        return Ok((name, 0));
    };
    let (word, number) = name.split_at(sign);
    let number: i32 = number
        .parse()
        .map_err(|_| format!("{number:?} is no number"))?;
    if number.unsigned_abs() > 1_000_000 {
        return Err(format!("{number} is out of range"));
    }
    Ok((word, number))
}

fn parse_last(name: &str) -> Result<Keyword, String> {
    let (word, more) = split_offset(name).unwrap_or((name, 0));
    match word {
        "message" => return Ok(Keyword::LastMessage),
        "Request_URI" => return Ok(Keyword::LastRequestUri),
        "cseq_number" => return Ok(Keyword::LastCSeqNumber(more)),
        "branch" => return Ok(Keyword::LastBranch),
        _ => {}
    }
    let name = name.trim().trim_end_matches(':').trim();
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == ':') {
        return Err("not the name of a header".to_owned());
    }
    let bytes = name.as_bytes();
    Ok(Keyword::LastHeader(
        HeaderName::parse(bytes),
        bytes.to_vec(),
    ))
}

fn parse_field(rest: &str) -> Result<Keyword, String> {
    if rest.contains(char::is_whitespace) {
        return Err("file= and line= are not supported: there is one table, --inf".to_owned());
    }
    let place = rest
        .parse()
        .map_err(|_| "not fieldN with a number".to_owned())?;
    Ok(Keyword::Field(place))
}

/// `username=… password=…`, both or neither.
fn parse_authentication(rest: &str, line: u32, names: &mut impl Names) -> Result<Keyword, String> {
    let (mut user, mut password) = (None, None);
    for word in rest.split_whitespace() {
        let (key, value) = word.split_once('=').ok_or("not key=value")?;
        let place = match key {
            "username" => &mut user,
            "password" => &mut password,
            _ => {
                return Err(format!(
                    "{key}= is not supported; username= and password= are"
                ));
            }
        };
        if value.contains("[authentication") {
            return Err("a keyword within itself".to_owned());
        }
        let text = Text::line_of(value, line, names).map_err(|error| error.reason)?;
        *place = Some(text);
    }
    match (user, password) {
        (Some(user), Some(password)) => {
            Ok(Keyword::Authentication(Some(Box::new([user, password]))))
        }
        (None, None) => Ok(Keyword::Authentication(None)),
        _ => {
            Err("username= and password= belong together; without both, --auth is used".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Known(Vec<String>);

    impl Names for Known {
        fn variable(&mut self, name: &str) -> Result<usize, String> {
            self.0.push(name.to_owned());
            Ok(self.0.len() - 1)
        }
    }

    fn written(source: &str, is_absent: bool) -> String {
        let text = Text::message(source, 1, &mut Known::default()).unwrap();
        let mut out = Vec::new();
        text.write(&mut out, |keyword, _, out| {
            if is_absent && keyword.drops() {
                return Filled::Absent;
            }
            out.extend_from_slice(b"X");
            Filled::Written
        });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_end_with_crlf_and_the_length_is_the_body_s() {
        let source =
            "\n\n   INVITE [service] SIP/2.0  \n\tContent-Length: [len]\n\n  v=0\n  s=-\n  ";
        assert_eq!(
            written(source, false),
            "INVITE X SIP/2.0\r\nContent-Length: 10\r\n\r\nv=0\r\ns=-\r\n"
        );
        assert_eq!(
            written("BYE x SIP/2.0\nl: [len+7]", false),
            "BYE x SIP/2.0\r\nl: 7\r\n\r\n"
        );
    }

    /// What is absent goes with the rest of its line; a line of which nothing is left goes whole.
    #[test]
    fn an_absent_keyword_takes_its_line_with_it() {
        let source =
            "A b SIP/2.0\n[last_Via:]\nTo: [last_To:];tag=1\n[routes]\nx: [service]\nl: [len]\n\nb";
        assert_eq!(
            written(source, true),
            "A b SIP/2.0\r\nTo: \r\nx: X\r\nl: 3\r\n\r\nb\r\n"
        );
        assert_eq!(
            written(source, false),
            "A b SIP/2.0\r\nX\r\nTo: X;tag=1\r\nX\r\nx: X\r\nl: 3\r\n\r\nb\r\n"
        );
    }

    #[test]
    fn brackets_that_are_no_keyword_are_escaped() {
        assert_eq!(written(r"A \[::1\] \x S", false), "A [::1] \\x S\r\n\r\n");
    }

    #[test]
    fn the_method_of_a_request_is_known() {
        let of = |source| {
            Text::message(source, 1, &mut Known::default())
                .unwrap()
                .method
        };
        assert_eq!(of("BYE x SIP/2.0"), Some(Method::Bye));
        assert_eq!(of("SIP/2.0 200 OK"), None);
    }

    #[test]
    fn faults_name_their_line_and_what_is_wrong() {
        for (source, line, part) in [
            ("A\nB [nothing]", 11, "no keyword"),
            ("A [len", 10, "without its ']'"),
            ("A [cseq+x]", 10, "no number"),
            ("A [service+1]", 10, "takes no number"),
            ("\n\n", 10, "without a text"),
            ("A\n\n[field0 file=\"x\"]", 12, "--inf"),
            ("A [authentication username=a]", 10, "belong together"),
            ("A [authentication aka_K=1]", 10, "not supported"),
            ("A [last_ ]", 10, "name of a header"),
        ] {
            let error = Text::message(source, 10, &mut Known::default()).unwrap_err();
            assert_eq!(error.line, line, "{source}");
            assert!(error.reason.contains(part), "{source}: {}", error.reason);
        }
    }

    #[test]
    fn keywords_of_every_kind() {
        let parsed = |name: &str| parse(name, 1, &mut Known::default()).unwrap();
        assert_eq!(parsed("branch-3"), Keyword::Branch(-3));
        assert_eq!(parsed("field12"), Keyword::Field(12));
        assert_eq!(parsed("$name"), Keyword::Variable(0));
        assert_eq!(
            parsed("last_Call-ID:"),
            Keyword::LastHeader(HeaderName::CallId, b"Call-ID".to_vec())
        );
        assert_eq!(parsed("last_cseq_number+1"), Keyword::LastCSeqNumber(1));
        assert_eq!(parsed("authentication"), Keyword::Authentication(None));
        let with = parsed("authentication username=[field0] password=x");
        assert!(matches!(with, Keyword::Authentication(Some(_))));
    }
}
