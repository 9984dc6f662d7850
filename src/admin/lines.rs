//! The control socket's connections: commands in lines of JSON, and HTTP/1 for what streams.
//!
//! A connection's first byte tells: `{` begins a command, anything else a request of HTTP. Commands
//! of one connection are answered in their order; they go to the desk, the one place where the
//! process changes, and wait for nobody else.

use std::io;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::command::{Command, Reply, reply_line};
use crate::limits::{CONTROL_CLIENTS_MAX, CONTROL_LINE_LEN_MAX};

/// How long a client may take to say its first byte.
const FIRST_BYTE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may be silent between commands, or take for one.
const LINE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a client may not read its answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Connections that wait for the HTTP server.
const HTTP_WAITING: usize = 16;
/// What an accept that failed for want of memory or descriptors waits for.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A command that waits for its answer.
#[derive(Debug)]
pub struct Asked {
    /// The command.
    pub command: Command,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

/// Where commands are brought.
pub type Desk = mpsc::Sender<Asked>;

/// A desk, and the end at which its commands are taken.
pub fn desk() -> (Desk, mpsc::Receiver<Asked>) {
    mpsc::channel(CONTROL_CLIENTS_MAX)
}

/// The connections that speak HTTP, as its server takes them.
pub(super) struct HttpConnections(mpsc::Receiver<UnixStream>);

impl axum::serve::Listener for HttpConnections {
    type Io = UnixStream;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            // The socket is gone; the process goes too.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(())
    }
}

/// Takes connections for as long as the runtime lives: those with commands are served, the others
/// come out of what is returned.
pub(super) fn sort(listener: UnixListener, desk: Desk) -> HttpConnections {
    let (http, connections) = mpsc::channel(HTTP_WAITING);
    let places = std::sync::Arc::new(Semaphore::new(CONTROL_CLIENTS_MAX));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _nameless)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tokio::spawn(refuse(stream));
                continue;
            };
            tokio::spawn(welcome(stream, place, desk.clone(), http.clone()));
        }
    });
    HttpConnections(connections)
}

/// More clients than there are places for.
async fn refuse(mut stream: UnixStream) {
    let error = format!("{CONTROL_CLIENTS_MAX} clients are connected already");
    let line = reply_line(Err(error));
    let _gone = timeout(WRITE_PATIENCE, stream.write_all(line.as_bytes())).await;
}

async fn welcome(
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
    desk: Desk,
    http: mpsc::Sender<UnixStream>,
) {
    match timeout(FIRST_BYTE_PATIENCE, first_byte(&stream)).await {
        Ok(Ok(Some(b'{'))) => {
            let _client_gone = serve(stream, &desk).await;
        }
        Ok(Ok(Some(_))) => {
            let _process_ends = http.send(stream).await;
        }
        Ok(Ok(None) | Err(_)) | Err(_) => {}
    }
}

/// The first byte that a client says, which stays to be read; `None` if it says nothing.
async fn first_byte(stream: &UnixStream) -> io::Result<Option<u8>> {
    loop {
        stream.readable().await?;
        let mut byte = [0];
        let peeked = stream.try_io(Interest::READABLE, || {
            Ok(rustix::net::recv(stream, &mut byte[..], RecvFlags::PEEK)?)
        });
        match peeked {
            Ok((_, 0)) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Answers a client's commands until it has no more.
async fn serve(mut stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = CONTROL_LINE_LEN_MAX as u64 + 1;
        let mut limited = (&mut read).take(limit);
        match timeout(LINE_PATIENCE, limited.read_until(b'\n', &mut line)).await {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_)) => {}
        }
        let is_whole = line.last() == Some(&b'\n');
        let reply = if line.len() > CONTROL_LINE_LEN_MAX {
            Err(format!(
                "a line is longer than {CONTROL_LINE_LEN_MAX} bytes"
            ))
        } else {
            match Command::parse(&line) {
                Ok(command) => ask(desk, command).await,
                Err(error) => Err(error),
            }
        };
        let answer = reply_line(reply);
        match timeout(WRITE_PATIENCE, write.write_all(answer.as_bytes())).await {
            Ok(result) => result?,
            Err(_) => return Ok(()),
        }
        // What follows an endless line is not known to begin a command; behind an end without a line
        // end nothing follows.
        if !is_whole {
            return Ok(());
        }
    }
}

async fn ask(desk: &Desk, command: Command) -> Reply {
    let gone = || "viaduct is stopping".to_owned();
    let (reply, answer) = oneshot::channel();
    let asked = Asked { command, reply };
    desk.send(asked).await.map_err(|_| gone())?;
    answer.await.unwrap_or_else(|_| Err(gone()))
}
