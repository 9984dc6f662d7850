//! `viaduct capture`: asks a running viaduct for copies of what it receives and sends.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::admin::client::{self, ClientError};
use crate::capture::{Request, pcapng};
use crate::cli::CaptureArgs;
use crate::config::{CONTROL_SOCKET, Config, ConfigError};

/// How long the stream is read before signals are looked at.
const PATIENCE: Duration = Duration::from_millis(100);

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Standard output is a terminal.
    #[error("a capture is no text: write it with --write FILE, or pipe it, as into `tshark -r -`")]
    Terminal,
    /// The configuration that names the socket.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration says that there is no socket.
    #[error("{}: control.socket is \"\": the running viaduct cannot be asked", .0.display())]
    Off(PathBuf),
    /// The running viaduct did not answer, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file.
    #[error("{}: {error}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Captures until viaduct ends it, or `stop` asks for it.
///
/// # Errors
/// No socket to ask, a filter or file that is refused, or a stream that breaks off: in words for a user.
pub fn capture(arguments: &CaptureArgs, stop: &AtomicBool) -> Result<(), CaptureError> {
    let to_file = arguments.write != Path::new("-");
    if !to_file && io::stdout().is_terminal() {
        return Err(CaptureError::Terminal);
    }
    let socket = arguments.socket.path()?;
    let request = Request {
        call_id: arguments.call_id.clone(),
        method: arguments.method.clone(),
        peer: arguments.address,
        packets_max: Some(arguments.count).filter(|count| *count > 0),
        time_max: Some(Duration::from_secs(arguments.seconds)).filter(|time| !time.is_zero()),
    };
    let answer = client::get(&socket, &format!("/capture?{}", request.to_query()))?;
    let failed = |error| CaptureError::File {
        path: arguments.write.clone(),
        error,
    };
    // Opened after the answer: a refused capture leaves an old file as it was.
    let mut output: Box<dyn Write> = if to_file {
        Box::new(File::create(&arguments.write).map_err(failed)?)
    } else {
        Box::new(io::stdout().lock())
    };
    let mut stopped = false;
    let (tally, end) = copy(answer, &mut *output, failed, || {
        if !stopped && stop.load(Ordering::Relaxed) {
            stopped = true;
            // The stream ends by itself then, with its statistics.
            client::post(&socket, "/capture/stop").map(|_| ())
        } else {
            Ok(())
        }
    })?;
    let pcapng::Tally { packets, lost, .. } = tally;
    eprintln!("viaduct: captured packets: {packets}, lost: {lost}");
    if end == End::Stream && !tally.ended {
        eprintln!("viaduct: the running process ended before the capture did");
    }
    Ok(())
}

/// What ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The stream.
    Stream,
    /// Whoever read our output.
    Reader,
}

/// Copies the stream until it ends or the reader of `output` has gone.
fn copy(
    mut answer: client::Answer,
    output: &mut dyn Write,
    failed: impl Fn(io::Error) -> CaptureError,
    mut pause: impl FnMut() -> Result<(), ClientError>,
) -> Result<(pcapng::Tally, End), CaptureError> {
    answer.set_patience(PATIENCE).map_err(ClientError::Io)?;
    let mut tally = pcapng::Tally::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        pause()?;
        let piece = match answer.read(&mut buffer) {
            Ok(0) => return Ok((tally, End::Stream)),
            Ok(len) => &buffer[..len],
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(ClientError::Io(error).into()),
        };
        tally.feed(piece);
        // Flushed at once: whoever reads the pipe watches.
        match output.write_all(piece).and_then(|()| output.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok((tally, End::Reader)),
            Err(error) => return Err(failed(error)),
        }
    }
}

impl crate::cli::SocketArgs {
    /// The control socket: the one named, or that of the configuration.
    ///
    /// # Errors
    /// The configuration's, if one is named; without any the usual socket is tried.
    pub fn path(&self) -> Result<PathBuf, CaptureError> {
        if let Some(socket) = &self.control {
            return Ok(socket.clone());
        }
        let usual = Path::new(crate::cli::CONFIG_FILE);
        let file = match &self.config {
            Some(file) => file,
            None if usual.exists() => usual,
            None => return Ok(CONTROL_SOCKET.into()),
        };
        let config = Config::load(file)?;
        match config.control.socket.path() {
            Some(socket) => Ok(socket.to_owned()),
            None => Err(CaptureError::Off(file.to_owned())),
        }
    }
}
