//! The control socket: a Unix socket of mode 0600 on which a running viaduct is asked.
//!
//! Who may open the socket may ask; there is no other authentication. Nothing here makes a worker
//! wait. [`client`](super::client) is the other end. A connection that begins with `{` brings
//! commands, one JSON object a line ([`Command`](super::Command)); any other speaks HTTP/1:
//!
//! | request | answer |
//! |---|---|
//! | `GET /config` | the text of the configuration that is running, without its secrets |
//! | `GET /capture?call-id=…&method=…&address=…&count=…&seconds=…` | a pcapng stream; 409 while another runs |
//! | `POST /capture/stop` | the capture that runs ends, its file is completed |

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CaptureService;
use super::lines::{self, Desk};
use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another process answers there.
    #[error("{}: another viaduct serves this control socket", .0.display())]
    Live(PathBuf),
    /// Something else stands there; it is not removed.
    #[error("{}: is there and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// The system's.
    #[error("{}: {action}: {error}", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What came of it.
        error: io::Error,
    },
}

/// A bound control socket. The file goes when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// A socket's file, removed on drop.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.0);
    }
}

impl ControlSocket {
    /// Makes the socket, and its directory if that is absent. The file of a process that was killed
    /// is replaced.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |action| {
            move |error: io::Error| ControlError::System {
                action,
                path: path.to_owned(),
                error,
            }
        };
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .map_err(failed("cannot make its directory"))?;
        }
        let address =
            SocketAddrUnix::new(path).map_err(|error| failed("is no path")(error.into()))?;
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ControlError::NoSocket(path.to_owned()));
            }
            Ok(_) => match answers(&address) {
                Ok(true) => return Err(ControlError::Live(path.to_owned())),
                Ok(false) => {
                    fs::remove_file(path).map_err(failed("cannot remove the old socket"))?;
                }
                Err(error) => return Err(failed("cannot be asked")(error)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("cannot be looked at")(error)),
        }
        let socket = stream_socket().map_err(failed("cannot make a socket"))?;
        bind(&socket, &address).map_err(|error| failed("cannot bind")(error.into()))?;
        let file = SocketFile(path.to_owned());
        // Nobody can connect before `listen`: at no moment do others get in.
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(failed("cannot set its mode"))?;
        listen(&socket, BACKLOG).map_err(|error| failed("cannot listen")(error.into()))?;
        Ok(Self {
            listener: UnixListener::from(socket),
            file,
        })
    }

    /// The listener and the file apart: who serves the one is not always who ends the other.
    pub fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// Whether a process listens at `address`. Never waits: a full backlog is an answer, too.
fn answers(address: &SocketAddrUnix) -> io::Result<bool> {
    match connect(&stream_socket()?, address).map_err(io::Error::from) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(false),
        // Gone between two looks.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the control socket can be asked for.
pub struct Control {
    /// The text of the running configuration without its secrets; `None` if it cannot be shown.
    pub config: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Captures.
    pub captures: Arc<CaptureService>,
    /// Where commands are brought.
    pub desk: Desk,
}

/// Serves until the future is dropped. Call it on the runtime.
///
/// # Errors
/// The socket's.
pub async fn serve(listener: UnixListener, control: Arc<Control>) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let http = lines::sort(listener, control.desk.clone());
    axum::serve(http, router(control)).await
}

fn router(control: Arc<Control>) -> Router {
    let (captures, running) = (control.captures.clone(), control.captures.clone());
    Router::new()
        .route("/config", get(move || async move { config(&control) }))
        .route(
            "/capture",
            get(move |RawQuery(query)| async move { captures.start(&query.unwrap_or_default()) }),
        )
        .route("/capture/stop", post(move || async move { running.stop() }))
}

fn config(control: &Control) -> Response {
    match (control.config)() {
        Some(text) => ([(CONTENT_TYPE, "application/toml")], text).into_response(),
        None => (
            StatusCode::FORBIDDEN,
            "a secret stands in the configuration in a form that cannot be cut out\n",
        )
            .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use serde_json::{Map, Value};

    use super::super::client::{self, ClientError, Session};
    use super::super::{Asked, Command};
    use super::*;
    use crate::limits::{CONTROL_CLIENTS_MAX, CONTROL_LINE_LEN_MAX};

    fn control(text: Option<&'static str>, desk: Desk) -> Arc<Control> {
        Arc::new(Control {
            config: Box::new(move || text.map(str::to_owned)),
            captures: Arc::new(CaptureService::new(Arc::default())),
            desk,
        })
    }

    /// A desk that says no to `drain` and tells every other command back.
    async fn clerk(mut asked: tokio::sync::mpsc::Receiver<Asked>) {
        while let Some(Asked { command, reply }) = asked.recv().await {
            let answer = match &command {
                Command::Drain { server, .. } => Err(format!("no server {server:?}")),
                _ => {
                    let mut fields = Map::new();
                    fields.insert("heard".to_owned(), command.line().trim().into());
                    Ok(fields)
                }
            };
            let _client_gone = reply.send(answer);
        }
    }

    fn serving(path: &Path, text: Option<&'static str>) -> (tokio::runtime::Runtime, SocketFile) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (listener, file) = ControlSocket::bind(path).unwrap().into_parts();
        let (desk, asked) = lines::desk();
        runtime.spawn(clerk(asked));
        runtime.spawn(serve(listener, control(text, desk)));
        (runtime, file)
    }

    #[test]
    fn the_configuration_is_told_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/viaduct/control");
        let (_runtime, file) = serving(&path, Some("node = 1\n"));
        let text = client::get(&path, "/config").unwrap().text().unwrap();
        assert_eq!(text, "node = 1\n");
        let missing = client::get(&path, "/nothing").unwrap_err();
        assert!(matches!(missing, ClientError::Refused { status: 404, .. }));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_configuration_that_cannot_be_shown_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let (_runtime, _file) = serving(&path, None);
        let refused = client::get(&path, "/config").unwrap_err().to_string();
        assert!(refused.contains("cannot be cut out"), "{refused}");
    }

    fn raw(path: &Path) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        BufReader::new(stream)
    }

    fn say(stream: &mut BufReader<UnixStream>, line: &[u8]) -> Value {
        stream.get_mut().write_all(line).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    #[test]
    fn commands_and_http_share_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let (_runtime, _file) = serving(&path, Some("node = 1\n"));
        let mut session = Session::new(&path).unwrap();
        for pool in ["a", "b"] {
            let list = Command::List {
                pool: Some(pool.to_owned()),
            };
            let fields = session.ask(&list).unwrap();
            assert_eq!(fields["heard"], list.line().trim());
        }
        let drain = Command::Drain {
            server: "s9".to_owned(),
            deadline_seconds: None,
        };
        let no = session.ask(&drain).unwrap_err().to_string();
        assert_eq!(no, "no server \"s9\"");
        let text = client::get(&path, "/config").unwrap().text().unwrap();
        assert_eq!(text, "node = 1\n");
    }

    #[test]
    fn a_line_that_is_no_command_is_answered_and_the_next_one_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let (_runtime, _file) = serving(&path, None);
        let mut stream = raw(&path);
        for bad in [&b"{\n"[..], b"{\"command\":\"fly\"}\n", b"{\xff\xfe}\n"] {
            let answer = say(&mut stream, bad);
            assert_eq!(answer["ok"], false, "{answer}");
            assert!(answer["error"].as_str().unwrap().starts_with("no command:"));
        }
        assert_eq!(say(&mut stream, b"\n")["ok"], false);
        let answer = say(&mut stream, b"  {\"command\":\"list\"}\r\n");
        assert_eq!(answer["ok"], true, "{answer}");
        // Two at once, in their order, the last without a line end.
        let two = b"{\"command\":\"enable\",\"server\":\"a\"}\n{\"command\":\"disable\",\"server\":\"b\"}";
        let first = say(&mut stream, two);
        assert!(first["heard"].as_str().unwrap().contains("enable"));
        stream
            .get_ref()
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("disable") && rest.ends_with('\n'), "{rest}");
    }

    #[test]
    fn an_endless_line_is_refused_and_its_connection_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let (_runtime, _file) = serving(&path, None);
        let of_len = |len: usize| {
            let frame = "{\"command\":\"explain\",\"call_id\":\"\"}\n";
            let call_id = "x".repeat(len - frame.len());
            frame.replace("\"\"", &format!("\"{call_id}\""))
        };
        let mut stream = raw(&path);
        let answer = say(&mut stream, of_len(CONTROL_LINE_LEN_MAX).as_bytes());
        assert_eq!(answer["ok"], true, "the longest line that is taken");
        let answer = say(&mut stream, of_len(CONTROL_LINE_LEN_MAX + 1).as_bytes());
        assert_eq!(answer["ok"], false, "one byte more");
        // What never ends is not read on.
        let mut stream = raw(&path);
        stream
            .get_mut()
            .write_all(&vec![b'{'; CONTROL_LINE_LEN_MAX + 1])
            .unwrap();
        let mut said = String::new();
        let _reset = stream.read_to_string(&mut said);
        assert!(said.contains("longer than"), "{said}");
    }

    #[test]
    fn so_many_clients_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let (_runtime, _file) = serving(&path, None);
        let list = b"{\"command\":\"list\"}\n";
        let mut clients: Vec<_> = (0..CONTROL_CLIENTS_MAX).map(|_| raw(&path)).collect();
        for client in &mut clients {
            assert_eq!(say(client, list)["ok"], true);
        }
        let mut one_more = raw(&path);
        let mut answer = String::new();
        one_more.read_line(&mut answer).unwrap();
        assert!(answer.contains("connected already"), "{answer}");
        // The others are served still, and a place that is given back is taken again.
        assert_eq!(say(&mut clients[0], list)["ok"], true);
        drop(clients.pop());
        let end = (0..1000).find(|_| {
            std::thread::sleep(Duration::from_millis(10));
            let mut stream = raw(&path);
            let _refused = stream.get_mut().write_all(list);
            let mut answer = String::new();
            let _refused = stream.read_line(&mut answer);
            answer.contains("heard")
        });
        assert!(end.is_some());
    }

    #[test]
    fn only_its_owner_may_open_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let _socket = ControlSocket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_socket_of_the_dead_is_replaced_and_that_of_the_living_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        // What kill -9 leaves behind: the file stays, nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let living = ControlSocket::bind(&path).unwrap();
        let refused = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(refused, ControlError::Live(_)), "{refused}");
        assert!(path.exists(), "the living one lost its file");
        drop(living);
        assert!(ControlSocket::bind(&path).is_ok());
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        fs::write(&path, "precious").unwrap();
        let refused = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(refused, ControlError::NoSocket(_)), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let long = folder.path().join("x".repeat(120));
        assert!(ControlSocket::bind(&long).is_err());
    }
}
