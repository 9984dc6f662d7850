//! The command line of `viaduct generate` and `viaduct answer`.

use core::str::FromStr;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::capacity::CapacityArgs;
use super::digest::Credentials;
use super::flood::{FloodArgs, RawArgs};
use super::ramp::Ramp;
use super::scenario::Layout;
use super::schedule::Arrivals;
use super::target::Target;
use super::transport::DatapathArgs;
use crate::net::Network;
use crate::time::Duration;

/// `viaduct generate`: make load, and report what became of it.
#[derive(clap::Args, Clone, Debug)]
pub struct GenerateArgs {
    /// What to send.
    #[command(subcommand)]
    pub what: GenerateWhat,
}

/// Kinds of load.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum GenerateWhat {
    /// User agents.
    #[command(flatten)]
    Scenario(Box<ScenarioArgs>),
    /// Search the largest rate of calls without a failure (RFC 7502).
    Capacity(Box<CapacityArgs>),
    /// Distinct INVITEs as frames, as fast as one core makes them, with nobody waiting for answers.
    Flood(FloodArgs),
    /// Return frames with new MAC addresses: what the data path's rings reach without a balancer.
    #[command(hide = true)]
    Raw(RawArgs),
}

/// What `viaduct generate` sends.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum ScenarioArgs {
    /// Complete calls: INVITE, 180, 200, ACK, hold, BYE, 200.
    Call(CallArgs),
    /// Single requests outside a dialog: OPTIONS, or what --methods names.
    Options(OptionsArgs),
    /// Registrations, with digest authentication where it is asked for.
    Register(RegisterArgs),
    /// What a SIPp scenario file says (its common subset; `viaduct answer --scenario` answers).
    Scenario(PlayArgs),
}

/// Options of every kind of load.
#[derive(clap::Args, Clone, Debug)]
pub struct LoadArgs {
    /// SIP URI to call, for example sip:service@198.18.0.1:5060.
    #[arg(long, value_name = "URI")]
    pub target: Target,
    /// Send requests outside a dialog here, whatever the URI says.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub proxy: Option<SocketAddr>,
    /// Calls, registrations or requests started per second; 10 without it.
    #[arg(long, value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Start calls for this long (20s, 500ms, 2m; a bare number is seconds). Without --calls: 10s.
    #[arg(long, value_parser = parse_seconds)]
    pub duration: Option<Duration>,
    /// Start this many calls at most.
    #[arg(long)]
    pub calls: Option<u64>,
    /// Distances between calls.
    #[arg(long, value_enum, default_value_t)]
    pub arrivals: Arrivals,
    /// Reach the rate in a straight line over this time (a bare number is seconds).
    #[arg(long, value_parser = parse_seconds, default_value = "0s")]
    pub ramp: Duration,
    /// Reach the rate in steps of so many per second, the first of which it starts with.
    #[arg(long, value_name = "RATE", value_parser = parse_rate, requires = "ramp_every", conflicts_with = "ramp")]
    pub ramp_step: Option<f64>,
    /// Length of a step of --ramp-step (a bare number is seconds).
    #[arg(long, value_parser = parse_step, requires = "ramp_step")]
    pub ramp_every: Option<Duration>,
    /// The path of messages.
    #[command(flatten)]
    pub path: DatapathArgs,
    /// Source addresses: one, a range (198.18.0.10-198.18.0.50), a block (198.18.0.0/28); several
    /// with commas. Without it the address that leads to the target. With --datapath xdp no interface
    /// needs to have them: the target's host needs a route to them through this one.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub source: Vec<SourceRange>,
    /// Source ports on each address.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    pub source_ports: u16,
    /// First of the source ports; without it any that are free.
    #[arg(long, value_name = "PORT")]
    pub source_port: Option<u16>,
    /// Header layouts, used in turn; all without this option.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub layouts: Vec<Layout>,
    /// Callers: the user parts of From and Contact.
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(u64).range(1..))]
    pub users: u64,
    /// Prefix of every Call-ID.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse_word)]
    pub call_id_prefix: String,
    /// Seed of Call-IDs, tags, branches and arrivals; random without it.
    #[arg(long)]
    pub seed: Option<u64>,
    /// A call not answered in this time has failed (a bare number is seconds).
    #[arg(long, value_parser = parse_seconds, default_value = "32s")]
    pub timeout: Duration,
    /// After the last call wait this long for those in progress (a bare number is seconds);
    /// without it as long as a call can last.
    #[arg(long, value_parser = parse_seconds)]
    pub drain: Option<Duration>,
    /// Timer T1 of RFC 3261.
    #[arg(long, value_parser = parse_millis, default_value = "500ms")]
    pub t1: Duration,
    /// Timer T2 of RFC 3261.
    #[arg(long, value_parser = parse_millis, default_value = "4s")]
    pub t2: Duration,
    /// Calls in progress at most; one that is due beyond it fails.
    #[arg(long, value_name = "N", default_value = "500000")]
    pub max_calls: u32,
    /// Credentials for 401 and 407.
    #[arg(long, value_name = "USER:PASSWORD")]
    pub auth: Option<Credentials>,
    /// Exit with success although this many calls failed.
    #[arg(long, value_name = "N", default_value = "0")]
    pub max_failed: u64,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write what happened second by second as CSV.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write the report as one HTML page with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// A line each second, also where standard error is no terminal.
    #[arg(long)]
    pub progress: bool,
    /// No lines while running.
    #[arg(long, conflicts_with = "progress")]
    pub quiet: bool,
}

impl LoadArgs {
    /// The way to the rate.
    pub fn ramp(&self) -> Ramp {
        match (self.ramp_step, self.ramp_every) {
            (Some(step), Some(every)) => Ramp::Steps { step, every },
            _ if self.ramp.is_zero() => Ramp::None,
            _ => Ramp::Straight(self.ramp),
        }
    }
}

/// `viaduct generate call`.
#[derive(clap::Args, Clone, Debug)]
pub struct CallArgs {
    /// Load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Time from the ACK to the caller's BYE (a bare number is milliseconds).
    #[arg(long, value_parser = parse_millis, default_value = "0ms")]
    pub hold: Duration,
    /// Who hangs up. The callee does it by itself: see `viaduct answer --bye-after`. With `both`,
    /// calls take turns.
    #[arg(long, value_enum, default_value_t)]
    pub bye_from: ByeFrom,
    /// Requests sent inside the dialog before the hold, in order: INVITE, UPDATE, INFO, MESSAGE,
    /// OPTIONS.
    #[arg(long, value_name = "METHODS", value_delimiter = ',', value_parser = parse_dialog_method)]
    pub methods: Vec<String>,
    /// Give up ringing calls after this time with CANCEL (a bare number is milliseconds).
    #[arg(long, value_parser = parse_millis)]
    pub cancel_after: Option<Duration>,
    /// Length of the INVITE's body; 2500 makes it longer than an Ethernet frame.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub body_bytes: Option<u32>,
}

/// `viaduct generate options`.
#[derive(clap::Args, Clone, Debug)]
pub struct OptionsArgs {
    /// Load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Methods, used in turn.
    #[arg(long, value_name = "METHODS", value_delimiter = ',', default_value = "OPTIONS", value_parser = parse_single_method)]
    pub methods: Vec<String>,
    /// Length of the body; none without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub body_bytes: Option<u32>,
}

/// `viaduct generate register`.
#[derive(clap::Args, Clone, Debug)]
pub struct RegisterArgs {
    /// Load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Life of a registration, asked for in Expires.
    #[arg(long, value_name = "SECONDS", default_value = "3600")]
    pub expires: u32,
    /// Refresh each registration this many times.
    #[arg(long, value_name = "N", default_value = "0")]
    pub refreshes: u32,
    /// Time between refreshes (a bare number is milliseconds).
    #[arg(long, value_parser = parse_millis, default_value = "1s")]
    pub refresh_after: Duration,
    /// Remove each registration at its end.
    #[arg(long)]
    pub unregister: bool,
}

/// `viaduct generate scenario`.
#[derive(clap::Args, Clone, Debug)]
pub struct PlayArgs {
    /// Load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// SIPp scenario in XML, such as `sipp -sd uac` prints.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Table of fields, a row for each call: SIPp's -inf.
    #[arg(long, value_name = "FILE")]
    pub inf: Option<PathBuf>,
    /// Length of a `pause` that names none (a bare number is milliseconds): SIPp's -d.
    #[arg(long, value_parser = parse_millis, default_value = "0ms")]
    pub pause: Duration,
}

/// Who ends a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ByeFrom {
    /// The generator, after the hold.
    #[default]
    Caller,
    /// The answering server.
    Callee,
    /// Every other call each.
    Both,
}

/// `viaduct answer`: a farm member that answers every call.
#[derive(clap::Args, Clone, Debug)]
pub struct AnswerArgs {
    /// Address and port to answer on; several with commas. No wildcard: it stands in Contact.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        value_delimiter = ',',
        required = true
    )]
    pub listen: Vec<SocketAddr>,
    /// The path of messages.
    #[command(flatten)]
    pub path: DatapathArgs,
    /// Name of this server: it opens the To tag (`name~…`), where the generator reads it.
    #[arg(long, default_value = "answer", value_parser = parse_name)]
    pub name: String,
    /// Ring after this time (a bare number is milliseconds).
    #[arg(long, value_parser = parse_millis, default_value = "0ms")]
    pub ring: Duration,
    /// Answer after this time from the INVITE (a bare number is milliseconds).
    #[arg(long, value_parser = parse_millis, default_value = "0ms")]
    pub answer: Duration,
    /// Answer every INVITE with this status instead of 200.
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(300..700))]
    pub reject: Option<u16>,
    /// Hang up this long after the ACK (a bare number is milliseconds).
    #[arg(long, value_parser = parse_millis)]
    pub bye_after: Option<Duration>,
    /// Challenge REGISTER, and INVITE with --auth-calls, and accept only these credentials.
    #[arg(long, value_name = "USER:PASSWORD")]
    pub auth: Option<Credentials>,
    /// Challenge INVITE too.
    #[arg(long, requires = "auth")]
    pub auth_calls: bool,
    /// A nonce older than this is stale (a bare number is seconds).
    #[arg(long, value_parser = parse_seconds, default_value = "300s")]
    pub nonce_life: Duration,
    /// Timer T1 of RFC 3261.
    #[arg(long, value_parser = parse_millis, default_value = "500ms")]
    pub t1: Duration,
    /// Timer T2 of RFC 3261.
    #[arg(long, value_parser = parse_millis, default_value = "4s")]
    pub t2: Duration,
    /// Calls held at most; beyond it INVITE gets 503.
    #[arg(long, value_name = "N", default_value = "500000")]
    pub max_calls: u32,
    /// Answer as this SIPp scenario says, such as `sipp -sd uas` prints.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ring", "answer", "reject", "bye_after", "auth_calls"])]
    pub scenario: Option<PathBuf>,
    /// Table of fields of the scenario, a row for each call: SIPp's -inf.
    #[arg(long, value_name = "FILE", requires = "scenario")]
    pub inf: Option<PathBuf>,
    /// Length of a `pause` that names none (a bare number is milliseconds): SIPp's -d.
    #[arg(long, value_parser = parse_millis, default_value = "0ms", requires = "scenario")]
    pub pause: Duration,
    /// End after this time (a bare number is seconds); without it at SIGINT or SIGTERM.
    #[arg(long, value_parser = parse_seconds)]
    pub duration: Option<Duration>,
    /// Write the counts as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// A line each second, also where standard error is no terminal.
    #[arg(long)]
    pub progress: bool,
    /// No lines while running.
    #[arg(long, conflicts_with = "progress")]
    pub quiet: bool,
}

/// Source addresses of one item on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRange {
    first: u128,
    last: u128,
    is_ipv4: bool,
}

impl SourceRange {
    /// How many addresses it holds, at most `u128::MAX`.
    pub fn count(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// The addresses, in order.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        (self.first..=self.last).map(move |bits| match u32::try_from(bits) {
            Ok(bits) if self.is_ipv4 => IpAddr::V4(bits.into()),
            _ => IpAddr::V6(bits.into()),
        })
    }
}

/// Not a source range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceRangeError {
    /// Neither an address nor a block nor a range.
    #[error(
        "not an address, a range such as 198.18.0.10-198.18.0.50 or a block such as 198.18.0.0/28"
    )]
    Syntax,
    /// The two ends of a range are of different families.
    #[error("a range from one address family to the other")]
    Families,
    /// The range ends before it starts.
    #[error("the range ends before it starts")]
    Order,
}

impl FromStr for SourceRange {
    type Err = SourceRangeError;

    fn from_str(text: &str) -> Result<Self, SourceRangeError> {
        fn bits(ip: IpAddr) -> (u128, bool) {
            match ip {
                IpAddr::V4(v4) => (v4.to_bits().into(), true),
                IpAddr::V6(v6) => (v6.to_bits(), false),
            }
        }
        let address = |text: &str| text.trim().parse::<IpAddr>().ok();
        if let Some((first, last)) = text.split_once('-') {
            let first = address(first).ok_or(SourceRangeError::Syntax)?;
            let last = address(last).ok_or(SourceRangeError::Syntax)?;
            let ((first, is_ipv4), (last, last_is_ipv4)) = (bits(first), bits(last));
            if is_ipv4 != last_is_ipv4 {
                return Err(SourceRangeError::Families);
            }
            if first > last {
                return Err(SourceRangeError::Order);
            }
            return Ok(Self {
                first,
                last,
                is_ipv4,
            });
        }
        let network: Network = text.trim().parse().map_err(|_| SourceRangeError::Syntax)?;
        let (first, is_ipv4) = bits(network.address());
        let host_bits = if is_ipv4 { 32 } else { 128 } - u32::from(network.prefix_len());
        let hosts = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
        let mut range = Self {
            first,
            last: first | hosts,
            is_ipv4,
        };
        // The first and the last address of an IPv4 subnet are no hosts.
        if is_ipv4 && host_bits >= 2 {
            range.first += 1;
            range.last -= 1;
        }
        Ok(range)
    }
}

/// A time whose bare number is seconds.
pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    parse_duration(text, 1000.0)
}

/// The same, above zero.
fn parse_step(text: &str) -> Result<Duration, String> {
    let time = parse_seconds(text)?;
    match time.is_zero() {
        true => Err("a step lasts longer than that".to_owned()),
        false => Ok(time),
    }
}

/// A time whose bare number is milliseconds.
fn parse_millis(text: &str) -> Result<Duration, String> {
    parse_duration(text, 1.0)
}

fn parse_duration(text: &str, default_ms: f64) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    let unit_ms = match unit.trim() {
        "" => default_ms,
        "ms" => 1.0,
        "s" => 1000.0,
        "m" | "min" => 60_000.0,
        "h" => 3_600_000.0,
        _ => return Err(format!("unknown unit in {text:?}; use ms, s, m or h")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no time; write 500ms, 20s or 2m"))?;
    Duration::try_from_secs_f64(number * unit_ms / 1000.0)
        .map_err(|_| format!("{text:?} is out of range"))
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number from 0.001 to 10000000".to_owned()),
    }
}

/// RFC 3261 §25.1: characters of `token`, which may stand in a tag.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'".contains(&byte))
}

fn parse_name(text: &str) -> Result<String, String> {
    if is_token(text) && text.len() <= 64 {
        return Ok(text.to_owned());
    }
    Err("a name has 1 to 64 letters, digits or characters of -.!%*_+`'".to_owned())
}

fn parse_word(text: &str) -> Result<String, String> {
    if (text.is_empty() || is_token(text)) && text.len() <= 64 {
        return Ok(text.to_owned());
    }
    Err("a prefix has at most 64 letters, digits or characters of -.!%*_+`'".to_owned())
}

fn parse_dialog_method(text: &str) -> Result<String, String> {
    const METHODS: [&str; 5] = ["INVITE", "UPDATE", "INFO", "MESSAGE", "OPTIONS"];
    if METHODS.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("inside a dialog: {}", METHODS.join(", ")))
}

fn parse_single_method(text: &str) -> Result<String, String> {
    const DIALOGS: [&str; 6] = ["INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE"];
    if is_token(text) && !DIALOGS.contains(&text) {
        return Ok(text.to_owned());
    }
    Err("a method that stands alone, such as OPTIONS, MESSAGE or SUBSCRIBE".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Generate {
        #[command(flatten)]
        args: GenerateArgs,
    }

    #[derive(Parser)]
    struct Answer {
        #[command(flatten)]
        args: AnswerArgs,
    }

    fn addresses(text: &str) -> Vec<String> {
        let range: SourceRange = text.parse().unwrap();
        let all: Vec<_> = range.addresses().map(|ip| ip.to_string()).collect();
        assert_eq!(range.count(), all.len() as u128);
        all
    }

    #[test]
    fn source_ranges_blocks_and_single_addresses() {
        assert_eq!(addresses("198.18.0.1"), ["198.18.0.1"]);
        assert_eq!(
            addresses("198.18.0.255-198.18.1.0"),
            ["198.18.0.255", "198.18.1.0"]
        );
        assert_eq!(addresses("198.18.0.0/30"), ["198.18.0.1", "198.18.0.2"]);
        assert_eq!(addresses("198.18.0.0/31"), ["198.18.0.0", "198.18.0.1"]);
        assert_eq!(addresses("2001:db8::/127"), ["2001:db8::", "2001:db8::1"]);
        assert_eq!(addresses("2001:db8::a-2001:db8::b").len(), 2);
        assert_eq!("::/0".parse::<SourceRange>().unwrap().count(), u128::MAX);
        let fails = |text: &str| text.parse::<SourceRange>().unwrap_err();
        assert_eq!(fails("198.18.0.9-198.18.0.1"), SourceRangeError::Order);
        assert_eq!(fails("198.18.0.9-::1"), SourceRangeError::Families);
        assert_eq!(fails("somewhere"), SourceRangeError::Syntax);
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_seconds("20"), Ok(Duration::from_secs(20)));
        assert_eq!(parse_millis("20"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_seconds("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_millis("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_seconds("soon").is_err());
        assert!(parse_seconds("-1").is_err());
        assert!(parse_seconds("9e9h").is_err());
    }

    #[test]
    fn command_lines_are_read() {
        let line = "generate call --target sip:service@198.18.0.1:5060 --rate 1000 --duration 20s \
            --source 198.18.0.100-198.18.0.199,198.18.2.1 --source-ports 2 --hold 250 \
            --bye-from both --methods INFO,UPDATE --layouts compact,odd --progress --json x.json";
        let Generate { args } = Generate::try_parse_from(line.split_whitespace()).unwrap();
        let GenerateWhat::Scenario(scenario) = args.what else {
            panic!("no scenario");
        };
        let ScenarioArgs::Call(call) = *scenario else {
            panic!("not a call");
        };
        assert_eq!(call.load.source.len(), 2);
        assert_eq!(call.hold, Duration::from_millis(250));
        assert_eq!(call.bye_from, ByeFrom::Both);
        assert_eq!(call.load.layouts, [Layout::Compact, Layout::Odd]);

        let line = "generate capacity --target sip:service@198.18.0.1:5060 --sessions 1000 \
            --max-rate 5000 --ramp-step 100 --ramp-every 10s --datapath xdp --threads 2";
        let Generate { args } = Generate::try_parse_from(line.split_whitespace()).unwrap();
        let GenerateWhat::Capacity(capacity) = args.what else {
            panic!("no capacity");
        };
        let bounds = capacity.bounds();
        assert_eq!((bounds.first, bounds.rate_max), (1000.0, 5000.0));
        let every = Duration::from_secs(10);
        let steps = Ramp::Steps { step: 100.0, every };
        assert_eq!(capacity.call.load.ramp(), steps);

        let line = "answer --listen 198.18.1.11:5060,[2001:db8::11]:5060 --name server1 --ring 100";
        let Answer { args } = Answer::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(args.listen.len(), 2);
        assert_eq!(args.ring, Duration::from_millis(100));
    }

    #[test]
    fn faults_are_named() {
        for (line, fault) in [
            (
                "generate flood --interface a --target 198.18.0.1:5060",
                "--target-mac",
            ),
            (
                "generate raw --interface a --listen 198.18.0.1:5060 --target-mac 2:0",
                "MAC",
            ),
            ("generate call", "--target"),
            (
                "generate call --target sip:198.18.0.1 --ramp-step 10",
                "--ramp-every",
            ),
            (
                "generate call --target sip:198.18.0.1 --ramp-step 10 --ramp-every 0",
                "longer than that",
            ),
            (
                "generate capacity --target sip:198.18.0.1 --resolution 2",
                "a share",
            ),
            (
                "generate call --target sip:198.18.0.1 --rate 0",
                "a rate is a number",
            ),
            (
                "generate call --target sip:198.18.0.1 --methods BYE",
                "inside a dialog",
            ),
            (
                "generate options --target sip:198.18.0.1 --methods INVITE",
                "stands alone",
            ),
            ("generate call --target tel:1", "its scheme is not sip"),
            (
                "generate call --target sip:198.18.0.1 --source a",
                "not an address",
            ),
        ] {
            let error = Generate::try_parse_from(line.split_whitespace())
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(error.contains(fault), "{line}: {error}");
        }
        let line = "answer --listen 198.18.1.11:5060 --name a~b";
        assert!(Answer::try_parse_from(line.split_whitespace()).is_err());
    }
}
