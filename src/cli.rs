//! The command line: types only, no logic.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::capture::Peer;
use crate::limits::{CAPTURE_PACKETS_DEFAULT, CAPTURE_SECONDS_DEFAULT};
use crate::net::SocketAddr;

/// Where the configuration is unless `--config` says otherwise.
pub const CONFIG_FILE: &str = "/etc/viaduct/viaduct.toml";

/// A SIP load balancer on XDP and AF_XDP.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: take SIP at the listeners and balance it over the pools.
    Run(ConfigArgs),
    /// Read a configuration as `run` would and name every fault.
    Check(CheckArgs),
    /// Look at an interface and at the host: what XDP gets there, what falls back to what, and one
    /// command for each problem. Exits with 1 if something fails.
    Doctor(DoctorArgs),
    /// Say what would become of a message and why: the rule it meets, the server its key means, its
    /// token, every edit and where it is sent. Sends nothing.
    Explain(ExplainArgs),
    /// Make load: calls, OPTIONS or registrations.
    Generate(crate::generator::GenerateArgs),
    /// Answer calls, registrations and OPTIONS: the other end of `generate`.
    Answer(crate::generator::AnswerArgs),
    /// Ask something of a running viaduct: list its servers, drain one, say why a call went where it
    /// went.
    Ctl(CtlArgs),
    /// Copy what a running viaduct receives and sends into a pcapng file or pipe.
    Capture(CaptureArgs),
}

/// Which configuration.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file (TOML); `deploy/viaduct.toml` is the commented reference.
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    pub config: PathBuf,
}

/// Which configuration, and what it is compared with.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// What runs now: its configuration file, or the control socket of the running viaduct. Names
    /// what cannot change live and prints the share of calls that would move to another server.
    /// Exits with 1 if a reload would be refused.
    #[arg(long, value_name = "RUNNING")]
    pub against: Option<PathBuf>,
}

/// Which interface, for which configuration.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// The interface.
    #[arg(value_name = "IFACE")]
    pub interface: String,
    /// The configuration that is to run on it; without one the defaults count.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which running viaduct.
#[derive(Debug, clap::Args)]
pub struct SocketArgs {
    /// The configuration file that names the control socket [default: /etc/viaduct/viaduct.toml].
    #[arg(long, value_name = "FILE", conflicts_with = "control", global = true)]
    pub config: Option<PathBuf>,
    /// The control socket itself.
    #[arg(long, value_name = "SOCKET", visible_alias = "socket", global = true)]
    pub control: Option<PathBuf>,
}

/// Which running viaduct is asked for what.
#[derive(Debug, clap::Args)]
pub struct CtlArgs {
    /// Which running viaduct.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
    /// What for.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What a running viaduct is asked for. SERVER is POOL/NAME, or the name alone. What is changed
/// outlives a reload, not a restart.
#[derive(Clone, Debug, Subcommand)]
pub enum CtlCommand {
    /// Show pools and servers: address, weight, state, health, calls.
    List {
        /// This pool only.
        pool: Option<String>,
    },
    /// Give a server no new calls. Those it has go on until it has none, or to the deadline; then it
    /// is disabled.
    Drain {
        /// The server.
        server: String,
        /// Disable it after this time whatever it still has, as 90s, 10m or 2h.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        deadline: Option<Duration>,
        /// Wait until it is disabled, and show what it still has.
        #[arg(long)]
        wait: bool,
    },
    /// Give a server what its health and weight allow; bring a removed one back.
    Enable {
        /// The server.
        server: String,
    },
    /// Give a server nothing but requests of its dialogs, at once.
    Disable {
        /// The server.
        server: String,
    },
    /// Give a server another weight than the file's.
    Weight {
        /// The server.
        server: String,
        /// The weight, or `file` for that of the file.
        #[arg(value_parser = parse_weight)]
        weight: WeightWish,
    },
    /// Add a server to a pool.
    Add {
        /// The pool.
        pool: String,
        /// The server's name.
        name: String,
        /// Where its SIP port is, IP:PORT.
        address: SocketAddr,
        /// Its weight.
        #[arg(long, default_value_t = 1)]
        weight: u32,
    },
    /// Take a server out as if the file did not name it; calls that it has still find it.
    Remove {
        /// The server.
        server: String,
    },
    /// Say, or no longer say, that this node wants no traffic: OPTIONS to itself is answered 503, and
    /// everything else goes on.
    Node {
        /// What it is to be.
        state: NodeWish,
    },
    /// Say why a call went where it went, by what was known then.
    Explain {
        /// Its Call-ID.
        #[arg(value_name = "CALL-ID", allow_hyphen_values = true)]
        call_id: String,
    },
}

/// Whether this node wants traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NodeWish {
    /// It does not.
    Drain,
    /// It does.
    Enable,
}

/// A weight; none = that of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightWish(pub Option<u32>);

fn parse_weight(text: &str) -> Result<WeightWish, String> {
    match text {
        "file" => Ok(WeightWish(None)),
        number => match number.parse() {
            Ok(number) => Ok(WeightWish(Some(number))),
            Err(_) => Err("is neither a number nor `file`".to_owned()),
        },
    }
}

/// Seconds, or a number with s, m or h.
fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.get(number.len()..).unwrap_or_default()),
        None => (text, "s"),
    };
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        _ => 1,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "is no time such as 90s, 10m or 2h".to_owned())
}

/// What to capture. All conditions must hold; none: everything.
#[derive(Debug, clap::Args)]
pub struct CaptureArgs {
    /// Which running viaduct.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Only messages with this Call-ID.
    #[arg(long, value_name = "ID")]
    pub call_id: Option<String>,
    /// Only requests of this method and their responses, by CSeq.
    #[arg(long)]
    pub method: Option<String>,
    /// Only messages from or to this peer, as received or as sent on: IP, IP:PORT or CIDR.
    #[arg(long, value_name = "IP[:PORT]")]
    pub address: Option<Peer>,
    /// End after this many packets; 0 = no limit.
    #[arg(long, default_value_t = CAPTURE_PACKETS_DEFAULT)]
    pub count: u64,
    /// End after this many seconds; 0 = no limit.
    #[arg(long, default_value_t = CAPTURE_SECONDS_DEFAULT)]
    pub seconds: u64,
    /// The file to write; `-` = standard output, as for `| tshark -r -`.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub write: PathBuf,
}

/// Which message, and what is not in it.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// A file with one SIP message, as on the wire; `-` reads it from standard input.
    #[arg(value_name = "MESSAGE_FILE")]
    pub message: PathBuf,
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where the message comes from. Default: where its top Via says.
    #[arg(long, value_name = "IP:PORT")]
    pub from: Option<SocketAddr>,
    /// Name of the listener it comes to. Default: the first that faces its sender.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_weights_are_read_with_their_units() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("2h", 7200),
            ("0", 0),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "m",
            "10 m",
            "-5",
            "1.5h",
            "10d",
            "99999999999999999999",
            "9999999999999999h",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        assert_eq!(parse_weight("7"), Ok(WeightWish(Some(7))));
        assert_eq!(parse_weight("file"), Ok(WeightWish(None)));
        assert!(parse_weight("-1").is_err() && parse_weight("").is_err());
    }
}
