//! Preformatted messages: text with fields, compiled once and written many times.
//!
//! A template is written as `"CSeq: {cseq} {method}\r\n"`. Compiling it splits the text at the
//! fields; rendering copies the pieces and asks the caller for the fields.

/// What a template leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Authorization or other rows of this one request, each with its CRLF; often empty.
    Rows,
    Body,
    Branch,
    CallId,
    CSeq,
    FromTag,
    /// Own address, IPv6 in brackets.
    Host,
    /// Bytes of the body.
    Length,
    Method,
    /// Own port.
    Port,
    /// Route rows, each with its CRLF; often empty.
    Routes,
    /// The whole value of the To header.
    To,
    Uri,
    /// Number of the calling user.
    User,
}

const FIELDS: [(&str, Field); 14] = [
    ("{rows}", Field::Rows),
    ("{body}", Field::Body),
    ("{branch}", Field::Branch),
    ("{call_id}", Field::CallId),
    ("{cseq}", Field::CSeq),
    ("{from_tag}", Field::FromTag),
    ("{host}", Field::Host),
    ("{length}", Field::Length),
    ("{method}", Field::Method),
    ("{port}", Field::Port),
    ("{routes}", Field::Routes),
    ("{to}", Field::To),
    ("{uri}", Field::Uri),
    ("{user}", Field::User),
];

/// A compiled template.
#[derive(Clone, Debug)]
pub(super) struct Template {
    text: Vec<u8>,
    /// Each piece: up to this byte of the text, then this field.
    pieces: Vec<(usize, Field)>,
}

impl Template {
    /// Compiles a text. A brace that opens no known field is plain text.
    pub(super) fn compile(source: &str) -> Self {
        let mut text = Vec::with_capacity(source.len());
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some(brace) = rest.find('{') {
            let (before, from_brace) = rest.split_at(brace);
            text.extend_from_slice(before.as_bytes());
            let known = FIELDS.iter().find(|(name, _)| from_brace.starts_with(name));
            match known {
                Some((name, field)) => {
                    pieces.push((text.len(), *field));
                    rest = &from_brace[name.len()..];
                }
                None => {
                    text.push(b'{');
                    rest = &from_brace[1..];
                }
            }
        }
        text.extend_from_slice(rest.as_bytes());
        Self { text, pieces }
    }

    /// Appends the text; `fill` appends each field.
    #[inline]
    pub(super) fn render(&self, out: &mut Vec<u8>, mut fill: impl FnMut(Field, &mut Vec<u8>)) {
        let mut from = 0;
        for &(to, field) in &self.pieces {
            out.extend_from_slice(&self.text[from..to]);
            fill(field, out);
            from = to;
        }
        out.extend_from_slice(&self.text[from..]);
    }
}

/// Appends a number in decimal.
pub(super) fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_filled_and_other_braces_stay() {
        let template = Template::compile("{method} {uri} {x} {cseq}{cseq}");
        let mut out = Vec::new();
        template.render(&mut out, |field, out| match field {
            Field::Method => out.extend_from_slice(b"BYE"),
            Field::CSeq => write_decimal(10, out),
            _ => out.push(b'-'),
        });
        assert_eq!(out, b"BYE - {x} 1010");
    }

    #[test]
    fn every_field_has_a_name_of_its_own() {
        for (place, (name, field)) in FIELDS.iter().enumerate() {
            assert!(FIELDS[..place].iter().all(|(n, f)| n != name && f != field));
            assert_eq!(Template::compile(name).pieces, [(0, *field)]);
        }
    }

    #[test]
    fn decimals() {
        for number in [0, 9, 10, 4_294_967_295, u64::MAX] {
            let mut out = Vec::new();
            write_decimal(number, &mut out);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
