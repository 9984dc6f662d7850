//! The asking end of the control socket, for the subcommands.
//!
//! A [`Session`] brings commands, any number of them. [`get`] and [`post`] are one request a
//! connection, in HTTP/1.0: the answer is never chunked and ends with the connection.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::command::{Command, parse_reply};

/// Bytes of status line and headers at most.
const HEAD_LEN_MAX: u64 = 16 * 1024;
/// Bytes of a refusal's text that are shown.
const REASON_LEN_MAX: u64 = 4096;
/// Bytes of a reply to a command: 4,096 servers of 4 KiB.
const REPLY_LEN_MAX: u64 = 16 << 20;
/// How long the other end may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error(
        "{}: {error}; is viaduct running, and is this its control.socket?",
        socket.display()
    )]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The connection broke.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// What came back is no HTTP.
    #[error("control socket: the answer is no HTTP")]
    NotHttp,
    /// What came back is no reply to a command.
    #[error("control socket: the answer is none to a command; is it an older viaduct that runs?")]
    NotJson,
    /// viaduct said no to a command.
    #[error("{0}")]
    No(String),
    /// viaduct said no to a request.
    #[error("{text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        text: String,
    },
}

/// An answer, its body still on the way.
#[derive(Debug)]
pub struct Answer {
    stream: BufReader<UnixStream>,
}

impl Answer {
    /// The body as text.
    ///
    /// # Errors
    /// The connection's, or `InvalidData` if it is no UTF-8.
    pub fn text(mut self) -> Result<String, ClientError> {
        let mut text = String::new();
        self.stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// How long a read of the body waits before it fails with `WouldBlock`.
    ///
    /// # Errors
    /// The socket's.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(patience))
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

/// A connection that commands are brought over.
#[derive(Debug)]
pub struct Session {
    stream: BufReader<UnixStream>,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn new(socket: &Path) -> Result<Self, ClientError> {
        let stream = BufReader::new(connect(socket)?);
        Ok(Self { stream })
    }

    /// Brings a command and waits for what comes of it.
    ///
    /// # Errors
    /// The connection's, or viaduct's own words if it says no.
    pub fn ask(&mut self, command: &Command) -> Result<Map<String, Value>, ClientError> {
        self.stream.get_mut().write_all(command.line().as_bytes())?;
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(REPLY_LEN_MAX);
        limited.read_until(b'\n', &mut line)?;
        match parse_reply(&line) {
            Some(Ok(fields)) => Ok(fields),
            Some(Err(text)) => Err(ClientError::No(text)),
            None => Err(ClientError::NotJson),
        }
    }
}

fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    let stream = UnixStream::connect(socket).map_err(|error| ClientError::Connect {
        socket: socket.to_owned(),
        error,
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks for `target`, such as `/config`.
///
/// # Errors
/// See [`ClientError`]; a status other than 200 is one.
pub fn get(socket: &Path, target: &str) -> Result<Answer, ClientError> {
    request("GET", socket, target)
}

/// Asks for something to be done.
///
/// # Errors
/// As [`get`].
pub fn post(socket: &Path, target: &str) -> Result<Answer, ClientError> {
    request("POST", socket, target)
}

fn request(method: &str, socket: &Path, target: &str) -> Result<Answer, ClientError> {
    let mut stream = connect(socket)?;
    let head = format!("{method} {target} HTTP/1.0\r\nHost: viaduct\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut stream = BufReader::new(stream);
    let status = status(&mut (&mut stream).take(HEAD_LEN_MAX))?;
    if status == 200 {
        return Ok(Answer { stream });
    }
    let mut text = Vec::new();
    stream.take(REASON_LEN_MAX).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    let text = if text.is_empty() {
        format!("control socket: {target}: HTTP status {status}")
    } else {
        text
    };
    Err(ClientError::Refused { status, text })
}

/// Reads status line and headers.
fn status(head: &mut impl BufRead) -> Result<u16, ClientError> {
    let mut line = String::new();
    let mut next = |line: &mut String| {
        line.clear();
        match head.read_line(line) {
            Ok(_) if line.ends_with('\n') => Ok(()),
            Err(error) if error.kind() != ErrorKind::InvalidData => Err(ClientError::Io(error)),
            _ => Err(ClientError::NotHttp),
        }
    };
    next(&mut line)?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.trim_end().parse().ok())
        .ok_or(ClientError::NotHttp)?;
    while line.trim_end() != "" {
        next(&mut line)?;
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_to_the_empty_line() {
        let mut answer = &b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody"[..];
        assert_eq!(status(&mut answer).unwrap(), 200);
        assert_eq!(answer, b"body");
        let mut bare = &b"HTTP/1.1 503\r\n\r\n"[..];
        assert_eq!(status(&mut bare).unwrap(), 503);
        for broken in [
            &b""[..],
            b"SIP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.0 OK\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nA: b\r\n",
            b"\xff\xfe\r\n\r\n",
        ] {
            let error = status(&mut &broken[..]).unwrap_err();
            assert!(matches!(error, ClientError::NotHttp), "{error}");
        }
    }

    #[test]
    fn nobody_there_is_said_with_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        let error = get(&socket, "/config").unwrap_err().to_string();
        assert!(error.contains("control") && error.contains("is viaduct running"));
    }
}
