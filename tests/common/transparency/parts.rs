//! A message cut at its line ends, byte for byte, with none of the parser's code.

/// A header row: its name in lower case and long form, its bytes with line end and folds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// A message cut at its line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The start line without its line end.
    pub(crate) start: Vec<u8>,
    pub(crate) rows: Vec<Row>,
    pub(crate) body: Vec<u8>,
}

/// A value of a comma list: where it stands in its row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub(super) row: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Parts {
    /// A message that the test itself wrote.
    #[track_caller]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::read(bytes).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Cuts a message: start line, rows with their folds, body as long as Content-Length says.
    ///
    /// # Errors
    /// It is no message.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes;
        while let Some(after) = rest.strip_prefix(b"\r\n") {
            rest = after;
        }
        let (start, mut rest) = line(rest)?;
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let (text, after) = line(rest)?;
            if text.is_empty() {
                rest = after;
                break;
            }
            let whole = &rest[..rest.len() - after.len()];
            match rows.last_mut() {
                Some(row) if matches!(text[0], b' ' | b'\t') => row.bytes.extend_from_slice(whole),
                _ => rows.push(Row {
                    name: name_of(text),
                    bytes: whole.to_vec(),
                }),
            }
            rest = after;
        }
        let mut parts = Self {
            start: start.to_vec(),
            rows,
            body: rest.to_vec(),
        };
        if let Some(row) = parts.rows.iter().find(|row| row.name == "content-length") {
            let text = String::from_utf8_lossy(row.value()).trim().to_owned();
            let length = text
                .parse()
                .ok()
                .filter(|length| *length <= parts.body.len());
            let length = length.ok_or_else(|| format!("Content-Length: {text}"))?;
            parts.body.truncate(length);
        }
        if parts.rows.iter().any(|row| !row.bytes.contains(&b':')) {
            return Err("a row without a colon".to_owned());
        }
        Ok(parts)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&self.start[..], b"\r\n"].concat();
        for row in &self.rows {
            bytes.extend_from_slice(&row.bytes);
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    pub(crate) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.name == name)
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.name == name)
    }

    pub(super) fn is_response(&self) -> bool {
        self.start.starts_with(b"SIP/2.0 ")
    }

    /// The first and second word of a request line.
    pub(super) fn method_and_uri(&self) -> (String, String) {
        let text = String::from_utf8_lossy(&self.start).into_owned();
        let mut words = text.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        (method, words.next().unwrap_or_default().to_owned())
    }

    pub(super) fn set_uri(&mut self, uri: &str) {
        let (method, old) = self.method_and_uri();
        let rest = self.start.split_off(method.len() + 1 + old.len());
        self.start = [method.as_bytes(), b" ", uri.as_bytes(), &rest].concat();
    }

    /// The values of all rows of a comma list.
    pub(super) fn values(&self, name: &str) -> Vec<Value> {
        let mut values = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            if row.name == name {
                for (start, end) in row.values() {
                    values.push(Value {
                        row: index,
                        start,
                        end,
                    });
                }
            }
        }
        values
    }

    pub(super) fn text(&self, value: Value) -> String {
        let bytes = &self.rows[value.row].bytes[value.start..value.end];
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl Row {
    pub(crate) fn new(text: &str) -> Self {
        Self {
            name: name_of(text.as_bytes()),
            bytes: format!("{text}\r\n").into_bytes(),
        }
    }

    /// Where the value starts: behind the colon and white space.
    pub(super) fn value_start(&self) -> usize {
        let colon = self.bytes.iter().position(|byte| *byte == b':').unwrap();
        let blank = self.bytes[colon + 1..].iter().take_while(|b| is_blank(**b));
        colon + 1 + blank.count()
    }

    pub(super) fn value_end(&self) -> usize {
        let last = self.bytes.iter().rposition(|byte| !is_blank(*byte));
        last.map_or(0, |last| last + 1).max(self.value_start())
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.bytes[self.value_start()..self.value_end()]
    }

    /// The values between commas that stand outside quotes and angle brackets.
    pub(super) fn values(&self) -> Vec<(usize, usize)> {
        let (from, to) = (self.value_start(), self.value_end());
        let mut found = Vec::new();
        let mut start = from;
        for comma in split_points(&self.bytes[from..to], b',', true) {
            found.push(trimmed(&self.bytes, start, from + comma));
            start = from + comma + 1;
        }
        found.push(trimmed(&self.bytes, start, to));
        found
    }
}

/// The first line without its end, and what follows it.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let end = bytes.windows(2).position(|two| two == b"\r\n");
    let end = end.ok_or_else(|| format!("no line end in {}", bytes.escape_ascii()))?;
    Ok((&bytes[..end], &bytes[end + 2..]))
}

fn name_of(line: &[u8]) -> String {
    let name = line.split(|byte| *byte == b':').next().unwrap();
    let name = String::from_utf8_lossy(name).trim().to_ascii_lowercase();
    match name.as_str() {
        "v" => "via".to_owned(),
        "l" => "content-length".to_owned(),
        "f" => "from".to_owned(),
        "t" => "to".to_owned(),
        "i" => "call-id".to_owned(),
        "m" => "contact".to_owned(),
        _ => name,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

pub(super) fn trimmed(bytes: &[u8], start: usize, end: usize) -> (usize, usize) {
    let blank = |range: &[u8], back: bool| {
        let count =
            |iter: &mut dyn Iterator<Item = &u8>| iter.take_while(|b| is_blank(**b)).count();
        if back {
            count(&mut range.iter().rev())
        } else {
            count(&mut range.iter())
        }
    };
    let start = start + blank(&bytes[start..end], false);
    (start, end - blank(&bytes[start..end], true))
}

/// Where `mark` stands outside quoted strings and, if wanted, outside angle brackets.
pub(super) fn split_points(text: &[u8], mark: u8, brackets: bool) -> Vec<usize> {
    let mut found = Vec::new();
    let (mut quoted, mut escaped, mut inside) = (false, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'<' => inside = brackets,
            b'>' => inside = false,
            of if *of == mark && !inside => found.push(at),
            _ => {}
        }
    }
    found
}
