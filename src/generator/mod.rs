//! Load: `viaduct generate` calls like many user agents, `viaduct answer` answers like a farm
//! member.
//!
//! ```text
//!  schedule ──► uac ── INVITE ──►            ──► uas      one thread each: a slab of calls, a timer
//!   (open       ▲  ◄─ 180, 200 ─   target   ◄──  │        wheel, sockets in batches
//!    loop)      │  ── ACK, BYE ─►            ──► │
//!               └── report                       └── report
//! ```
//!
//! The generator is an instrument, and an instrument must not flatter. Calls start by schedule,
//! whatever the target does, and latencies count from the intended time. Every message is checked
//! for what a proxy may get wrong: branch, number of Vias, tags, the server a dialog belongs to.
//! And it says when it was itself the limit.
//!
//! Which server answered stands in the To tag: `viaduct answer --name server1` writes
//! `server1~` and sixteen hexadecimal digits, a keyed hash of the Call-ID. By that hash a server
//! also knows a dialog that is not its own: a BYE with another's tag is counted as `stray`.
//!
//! [`sipp`] plays SIPp's scenario files with the same parts.
//!
//! [`flood`] measures the data path in frames, beside [`raw`], which forwards them without a thought.
//! Not here: anything that decides about balancing.

mod args;
mod call;
pub mod capacity;
mod config;
mod dialog;
mod digest;
pub mod flood;
mod html;
mod identity;
mod progress;
mod ramp;
pub mod raw;
mod reply;
mod report;
mod scenario;
mod schedule;
mod series;
pub mod sipp;
mod socket;
mod stats;
mod target;
mod template;
mod threads;
mod timers;
mod transport;
pub mod uac;
pub mod uas;
mod usage;
mod wheel;
mod xdp;

use core::sync::atomic::AtomicBool;
use std::path::Path;

pub use args::{
    AnswerArgs, ByeFrom, CallArgs, GenerateArgs, GenerateWhat, LoadArgs, OptionsArgs, PlayArgs,
    RegisterArgs, ScenarioArgs, SourceRange, SourceRangeError,
};
pub use config::{GeneratorError, Load, UacConfig, UasConfig};
pub use digest::{ChallengeError, Credentials, CredentialsError};
pub use ramp::Ramp;
pub use report::{AnswerReport, Latencies, Percentiles, Report, SelfCheck, ServerShare, Traffic};
pub use scenario::Layout;
pub use schedule::{Arrivals, Limit, Schedule};
pub use series::Timeline;
pub use socket::BindError;
pub use target::{Target, TargetError};
pub use timers::Timers;
pub use transport::{Datapath, DatapathArgs, DatapathKind};
pub use xdp::{XdpConfig, XdpError};

use crate::sip::{HeaderName, Message, NameAddr, values};
use capacity::CapacityArgs;
use flood::{FloodArgs, RawArgs};
use identity::HEX_LEN;

/// Between the server's name and the hash in the To tags of `viaduct answer`.
const NAME_END: u8 = b'~';

/// Runs `viaduct generate`: prints the report, writes it where asked. `true` if no more calls
/// failed than allowed.
///
/// # Errors
/// What kept it from starting, or the report from being written.
pub fn run_generate(args: &GenerateArgs, stop: &AtomicBool) -> Result<bool, GeneratorError> {
    let scenario = match &args.what {
        GenerateWhat::Scenario(scenario) => scenario,
        GenerateWhat::Capacity(args) => return run_capacity(args, stop),
        GenerateWhat::Flood(args) => return run_flood(args, stop),
        GenerateWhat::Raw(args) => return run_raw(args, stop),
    };
    let load = config::load_args(scenario);
    let is_wanted = progress::is_wanted(load.progress, load.quiet);
    let config = UacConfig::from_args(scenario, is_wanted)?;
    let sources = config.source_count()?;
    note(&format!(
        "{} calls/s to {} at {}, {sources} source addresses and ports, seed {}",
        config.rate,
        config.target.uri(),
        config.target.address(),
        config.seed,
    ));
    let report = uac::run(&config, stop)?;
    print(&report.to_string());
    if let Some(path) = &load.json {
        write_text(path, &report.json())?;
    }
    if let Some(path) = &load.csv {
        write_text(path, &report.timeline.csv())?;
    }
    if let Some(path) = &load.html {
        let page = html::page(&report, &config.target, &html::Run::of_this_process());
        write_text(path, &page)?;
    }
    Ok(report.failed <= load.max_failed)
}

/// `true` if a rate was found and proven.
fn run_capacity(args: &CapacityArgs, stop: &AtomicBool) -> Result<bool, GeneratorError> {
    let config = UacConfig::from_args(&ScenarioArgs::Call(args.call.clone()), false)?;
    let (max_time, settle) = (args.max_time, args.settle);
    let tell = |trial: &capacity::Trial| {
        if !args.call.load.quiet {
            note(&trial.to_string());
        }
    };
    let report = capacity::run(&config, &args.bounds(), max_time, settle, stop, tell)?;
    print(&report.to_string());
    if let Some(path) = &args.call.load.json {
        write_text(path, &report.json())?;
    }
    Ok(report.proven && report.capacity.is_some())
}

fn run_flood(args: &FloodArgs, stop: &AtomicBool) -> Result<bool, GeneratorError> {
    let config = args.config().map_err(GeneratorError::Interface)?;
    let report = flood::run(&config, stop)?;
    print(report.to_string().trim_end());
    if let Some(path) = &args.json {
        write_text(path, &report.json())?;
    }
    Ok(true)
}

fn run_raw(args: &RawArgs, stop: &AtomicBool) -> Result<bool, GeneratorError> {
    let config = args.config().map_err(GeneratorError::Interface)?;
    let report = raw::run(&config, stop)?;
    print(&report.to_string());
    if let Some(path) = &args.json {
        write_text(
            path,
            &serde_json::to_string_pretty(&report).unwrap_or_default(),
        )?;
    }
    Ok(true)
}

/// Runs `viaduct answer` until `stop` is set: prints the counts, writes them where asked.
///
/// # Errors
/// What kept it from starting, or the counts from being written.
pub fn run_answer(args: &AnswerArgs, stop: &AtomicBool) -> Result<(), GeneratorError> {
    let is_wanted = progress::is_wanted(args.progress, args.quiet);
    let config = UasConfig::from_args(args, is_wanted)?;
    let server = uas::Server::bind(&config)?;
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    note(&format!(
        "{} answers on {}",
        config.name,
        addresses.join(", ")
    ));
    let report = server.run(stop)?;
    print(&report.to_string());
    if let Some(path) = &args.json {
        write_text(path, &report.json())?;
    }
    Ok(())
}

/// One line to standard error: what runs, so that a log or a script knows.
fn note(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(text: &str) {
    use std::io::Write as _;
    // A reader that has gone is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn write_text(path: &Path, text: &str) -> Result<(), GeneratorError> {
    std::fs::write(path, text).map_err(|error| GeneratorError::Write {
        path: path.display().to_string(),
        error,
    })
}

/// Who answered: the name in the To tag, else the host and port of Contact.
fn server_name<'a>(bytes: &'a [u8], message: &Message) -> &'a [u8] {
    if let Some(tag) = message.to_tag() {
        let tag = tag.of(bytes);
        let name_len = tag.len().saturating_sub(HEX_LEN + 1);
        if let Some((name, [NAME_END, hash @ ..])) = tag.split_at_checked(name_len)
            && !name.is_empty()
            && identity::unhex(hash).is_some()
        {
            return name;
        }
    }
    message
        .first(HeaderName::Contact)
        .and_then(|row| values(bytes, row).next())
        .and_then(|value| NameAddr::parse(bytes, value).ok())
        .map_or(b"unknown", |contact| contact.uri.host_port.of(bytes))
}
