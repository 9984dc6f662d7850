//! A scenario as the steps that a call walks through.

use regex::bytes::Regex;

use super::text::{Keyword, Text};
use crate::sip::Method;
use crate::time::Duration;

/// Names of response times: SIPp numbers them from 1 to 5 and allows words.
pub(super) const CLOCKS_MAX: usize = 8;

/// A scenario that can be played.
#[derive(Clone, Debug)]
pub struct Program {
    /// As the file names it.
    pub(super) name: String,
    pub(super) steps: Vec<Step>,
    /// Names of variables, in their places.
    pub(super) variables: Vec<String>,
    /// Names of response times, in their places.
    pub(super) clocks: Vec<String>,
}

impl Program {
    /// The name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of the response times that it measures.
    pub(in crate::generator) fn clocks(&self) -> &[String] {
        &self.clocks
    }

    /// Steps of a call.
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }

    /// Whether its calls begin with a message of ours.
    pub fn is_caller(&self) -> bool {
        let first = self.steps.iter().find_map(|step| match step.kind {
            Kind::Send(_) => Some(true),
            Kind::Receive(_) => Some(false),
            _ => None,
        });
        first.unwrap_or(true)
    }

    /// The highest field of a table that its messages use.
    pub(super) fn field_max(&self) -> Option<usize> {
        let texts = self.steps.iter().flat_map(|step| {
            let sent = match &step.kind {
                Kind::Send(send) => Some(&send.text),
                _ => None,
            };
            sent.into_iter()
                .chain(step.actions.iter().filter_map(Action::text))
        });
        texts.flat_map(fields).max()
    }
}

/// The fields of a table that a text uses.
pub(super) fn fields(text: &Text) -> Vec<usize> {
    let mut found = Vec::new();
    for keyword in text.keywords() {
        match keyword {
            Keyword::Field(place) => found.push(*place),
            Keyword::Authentication(Some(texts)) => found.extend(texts.iter().flat_map(fields)),
            _ => {}
        }
    }
    found
}

/// One step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) kind: Kind,
    /// Where it goes on, if not with the next step.
    pub(super) next: Option<Jump>,
    /// Skipped unless this variable is set, or with `false` unless it is not.
    pub(super) condition: Option<(usize, bool)>,
    /// Clocks that it starts and stops.
    pub(super) starts: Option<usize>,
    pub(super) stops: Option<usize>,
    /// Share of messages lost on purpose, 0 to 1.
    pub(super) lost: f64,
    pub(super) actions: Vec<Action>,
}

/// A step that does not follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Jump {
    /// Place of a step, or behind the last: the end.
    pub(super) to: usize,
    /// Only if this variable is set.
    pub(super) test: Option<usize>,
    /// Only this often, 0 to 1.
    pub(super) chance: f64,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Send(Box<Send>),
    Receive(Box<Receive>),
    Pause(Pause),
    /// The call is over; what is received again is answered again for this long.
    TimeWait(Duration),
    Nop,
}

#[derive(Clone, Debug)]
pub(super) struct Send {
    pub(super) text: Text,
    /// T1 of its retransmissions.
    pub(super) retrans: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct Receive {
    pub(super) what: Expected,
    pub(super) optional: Optional,
    pub(super) timeout: Option<Duration>,
    /// Where a timeout leads.
    pub(super) on_timeout: Option<usize>,
    /// Learn route set and remote target.
    pub(super) record_routes: bool,
    /// Learn the challenge.
    pub(super) auth: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Expected {
    Request(Method, Vec<u8>),
    Response(u16),
    /// Status codes that match.
    Responses(Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Optional {
    No,
    Yes,
    /// At any later time too.
    Global,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pause {
    /// As the command line says.
    Default,
    Fixed(Duration),
    Uniform(Duration, Duration),
    Exponential(Duration),
    /// Milliseconds in a variable.
    Variable(usize),
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Assign(usize, f64),
    AssignText(usize, Text),
    Add(usize, f64),
    Ereg(Box<Ereg>),
    Log(Text),
    /// The call ends and has failed.
    StopCall,
    /// No new call begins; with `true` those in progress end too.
    Stop(bool),
    Test {
        assign_to: usize,
        variable: usize,
        order: core::cmp::Ordering,
        /// The order is not to be this one.
        is_not: bool,
        value: f64,
    },
    ToNumber(usize, usize),
}

impl Action {
    fn text(&self) -> Option<&Text> {
        match self {
            Self::AssignText(_, text) | Self::Log(text) => Some(text),
            _ => None,
        }
    }
}

/// A search in what was received.
#[derive(Clone, Debug)]
pub(super) struct Ereg {
    pub(super) regex: Regex,
    pub(super) area: Area,
    /// The whole match, then its groups.
    pub(super) assign_to: Vec<usize>,
    pub(super) check: Check,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Area {
    Body,
    /// Name, and which of several rows from 0.
    Header(Vec<u8>, usize),
    Message,
    Variable(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    None,
    /// The call fails without a match.
    Match,
    /// The call fails with one.
    NoMatch,
}
