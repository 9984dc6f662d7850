//! `viaduct explain`: a message in, and why it would go where.
//!
//! The answer is the forwarder's own: [`Forwarder::decide`] on the message as it is, with the plan
//! that `run` would build from the configuration, and [`Forwarder::explain`] for the reasons. No
//! socket is opened and nothing is sent. `viaduct ctl explain` asks a running viaduct what it has
//! decided; its rows are written here too, so that both use the same words.

mod difference;
mod input;
mod report;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use self::input::{Input, InputError};
use self::report::Report;
use super::secret;
use crate::affinity::Pins;
use crate::config::{Config, ConfigError};
use crate::forward::{Explanation, Forwarder};
use crate::limits::{GROWTH_MAX, KERNEL_BUFFER_LEN};
use crate::metrics::WorkerMetrics;
use crate::net::{Flow, SocketAddr, WorkerIndex};
use crate::packet::Buffer;
use crate::route::{Plan, PlanError, ServerRegistry};
use crate::sys::clock;
use crate::verdict::Verdict;

/// A label, and what is said of it.
pub(super) type Row = (&'static str, Vec<String>);

/// Appends rows: a label and its first line, then its other lines below.
pub(super) fn print_rows(out: &mut String, rows: &[Row]) {
    for (label, lines) in rows {
        for (at, line) in lines.iter().enumerate() {
            let label = if at == 0 { label } else { "" };
            let _infallible = writeln!(out, "{label:<12} {line}");
        }
    }
}

/// A server of a pool's table: its share, and its place for the key in question.
pub(super) fn tell_server(
    (name, address): (&str, &str),
    (weight, priority): (&str, &str),
    share: f64,
    place: Option<usize>,
) -> String {
    let place = match place {
        None => "",
        Some(0) => "  <- this key",
        Some(1) => "  <- next, were that down",
        Some(_) => "  <- then this",
    };
    let percent = share * 100.0;
    format!(
        "{name} {address} weight {weight} priority {priority}: {percent:.1} % of the keys{place}"
    )
}

/// Pins of a forwarder that sees one message.
const PINS: usize = 64;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The configuration.
    pub config: &'a Path,
    /// The file with the message, `-` for standard input.
    pub message: &'a Path,
    /// Where the message comes from; absent = where its top `Via` says.
    pub from: Option<SocketAddr>,
    /// Name of the listener it comes to; absent = the first that faces its sender.
    pub listener: Option<&'a str>,
    /// JSON instead of text.
    pub json: bool,
}

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Input(#[from] InputError),
}

/// What becomes of one message.
struct Outcome {
    verdict: Verdict,
    /// From where to whom, if it is sent.
    flow: Flow,
    /// What is sent.
    bytes: Vec<u8>,
    explanation: Explanation,
}

/// Explains one message.
pub fn explain(question: &Question<'_>) -> ExitCode {
    match answer(question) {
        Ok(report) if question.json => {
            println!("{}", report.json());
            ExitCode::SUCCESS
        }
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("viaduct: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(question: &Question<'_>) -> Result<Report, ExplainError> {
    let config = Config::load(question.config)?;
    let looking = secret::for_looking(&config.secret);
    let plan = Plan::build(&config, &mut ServerRegistry::new(), &looking.keys)?;
    let input = Input::read(question, &plan)?;
    let outcome = decide(&plan, &input);
    let subject = report::Subject {
        config: &config,
        plan: &plan,
        keys: &looking.keys,
        input: &input,
        outcome: &outcome,
    };
    Ok(Report::new(&subject, &looking.origin))
}

/// Asks two forwarders that have seen nothing: one why, the other what.
fn decide(plan: &Plan, input: &Input) -> Outcome {
    let forwarder = || {
        let (pins, metrics) = (Arc::new(Pins::new(PINS)), Arc::new(WorkerMetrics::new()));
        Forwarder::new(WorkerIndex(0), 1, pins, metrics)
    };
    let now = clock::now();
    let explanation = forwarder().explain(plan, &input.bytes, input.flow, now);
    let mut memory = vec![0; KERNEL_BUFFER_LEN];
    let (start, end) = (GROWTH_MAX, GROWTH_MAX + input.bytes.len());
    memory[start..end].copy_from_slice(&input.bytes);
    let mut buffer = Buffer::new(&mut memory, start, end);
    let mut flow = input.flow;
    let verdict = forwarder().decide(plan, &mut buffer, &mut flow, now);
    Outcome {
        verdict,
        flow,
        bytes: buffer.payload().to_vec(),
        explanation,
    }
}

#[cfg(test)]
mod tests;
