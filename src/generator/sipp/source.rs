//! SIPp's XML becomes a [`Program`].
//!
//! Reads the common subset of SIPp 3.6; everything else is refused with its line: a scenario that
//! runs does what it says. Attributes that are for SIPp's screen alone are accepted and do nothing.
//! Bounded in bytes, elements, steps and variables; a document type with entities of its own is read
//! by the XML crate, which bounds their depth and number.

use core::str::FromStr;
use std::collections::HashMap;

use roxmltree::{Document, Node, ParsingOptions};

use super::actions;
use super::error::ScenarioError;
use super::program::{
    CLOCKS_MAX, Expected, Jump, Kind, Optional, Pause, Program, Receive, Send, Step,
};
use super::text::{Names, Text};
use crate::limits::{SIPP_FILE_LEN_MAX, SIPP_NODES_MAX, SIPP_STEPS_MAX, SIPP_VARIABLES_MAX};
use crate::sip::Method;
use crate::time::Duration;

/// Attributes of every step.
const OF_STEPS: [&str; 14] = [
    "chance",
    "condexec",
    "condexec_inverse",
    "counter",
    "crlf",
    "display",
    "hide",
    "lost",
    "next",
    "repeat_rtd",
    "rtd",
    "start_rtd",
    "test",
    "start_txn",
];

impl FromStr for Program {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        if text.len() > SIPP_FILE_LEN_MAX {
            let reason = format!("a scenario is longer than {SIPP_FILE_LEN_MAX} bytes");
            return Err(ScenarioError::new(1, reason));
        }
        let options = ParsingOptions {
            allow_dtd: true,
            nodes_limit: SIPP_NODES_MAX,
            ..ParsingOptions::default()
        };
        let document = Document::parse_with_options(text, options)
            .map_err(|error| ScenarioError::new(error.pos().row, error.to_string()))?;
        Reader::new(&document).read()
    }
}

/// The text of a file: UTF-8, or else ISO 8859-1, which SIPp's own files name.
pub(super) fn decoded(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let bytes = error.into_bytes();
        bytes.into_iter().map(char::from).collect()
    })
}

/// A label and where it is used before all labels are known.
type Wanted = (String, u32);

/// Reads one document.
pub(super) struct Reader<'a> {
    document: &'a Document<'a>,
    labels: HashMap<String, usize>,
    variables: Vec<String>,
    clocks: Vec<String>,
    steps: Vec<Step>,
    /// By step: labels of `next` and of `ontimeout`.
    wanted: Vec<(Option<Wanted>, Option<Wanted>)>,
}

impl Names for Reader<'_> {
    fn variable(&mut self, name: &str) -> Result<usize, String> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(format!("{name:?} is no name of a variable"));
        }
        place(&mut self.variables, name, SIPP_VARIABLES_MAX).ok_or("too many variables".to_owned())
    }
}

/// The place of a name, a new one if there is room.
fn place(names: &mut Vec<String>, name: &str, max: usize) -> Option<usize> {
    if let Some(place) = names.iter().position(|known| known == name) {
        return Some(place);
    }
    if names.len() >= max {
        return None;
    }
    names.push(name.to_owned());
    Some(names.len() - 1)
}

impl<'a> Reader<'a> {
    fn new(document: &'a Document<'a>) -> Self {
        Self {
            document,
            labels: HashMap::new(),
            variables: Vec::new(),
            clocks: Vec::new(),
            steps: Vec::new(),
            wanted: Vec::new(),
        }
    }

    fn read(mut self) -> Result<Program, ScenarioError> {
        let root = self.document.root_element();
        if root.tag_name().name() != "scenario" {
            return Err(self.fault(root, "not a <scenario>"));
        }
        for node in root.children().filter(Node::is_element) {
            self.element(node)?;
        }
        if self.steps.is_empty() {
            return Err(self.fault(root, "a scenario without a step"));
        }
        for (step, (next, on_timeout)) in self.steps.iter_mut().zip(&self.wanted) {
            let find = |(label, line): &Wanted| {
                let reason = format!("there is no <label id=\"{label}\"/>");
                self.labels
                    .get(label)
                    .copied()
                    .ok_or(ScenarioError::new(*line, reason))
            };
            if let (Some(jump), Some(label)) = (&mut step.next, next) {
                jump.to = find(label)?;
            }
            if let (Kind::Receive(receive), Some(label)) = (&mut step.kind, on_timeout) {
                receive.on_timeout = Some(find(label)?);
            }
        }
        Ok(Program {
            name: root.attribute("name").unwrap_or("scenario").to_owned(),
            steps: self.steps,
            variables: self.variables,
            clocks: self.clocks,
        })
    }

    fn element(&mut self, node: Node<'a, 'a>) -> Result<(), ScenarioError> {
        match node.tag_name().name() {
            "send" => self.send(node),
            "recv" => self.receive(node),
            "pause" => self.pause(node),
            "timewait" => {
                self.known(node, &["milliseconds"])?;
                let wait = self.millis(node, "milliseconds")?.unwrap_or_default();
                self.push(node, Kind::TimeWait(wait), None)
            }
            "nop" => {
                self.known(node, &[])?;
                self.push(node, Kind::Nop, None)
            }
            "label" => {
                let id = self.required(node, "id")?;
                let is_new = self
                    .labels
                    .insert(id.to_owned(), self.steps.len())
                    .is_none();
                is_new
                    .then_some(())
                    .ok_or_else(|| self.fault(node, format!("a second <label id=\"{id}\"/>")))
            }
            // Distributions for SIPp's screen: the report has percentiles instead. Names of variables
            // that are not used are no fault.
            "ResponseTimeRepartition" | "CallLengthRepartition" | "Reference" => Ok(()),
            name => Err(self.fault(node, format!("<{name}> is not supported"))),
        }
    }

    fn send(&mut self, node: Node<'a, 'a>) -> Result<(), ScenarioError> {
        self.known(node, &["retrans", "ack_txn"])?;
        let mut source = String::new();
        let mut line = self.line(node);
        for child in node.children().filter(Node::is_text) {
            let text = child.text().unwrap_or_default();
            if source.trim().is_empty() && !text.trim().is_empty() {
                line = self.document.text_pos_at(child.range().start).row;
                source.clear();
            }
            source.push_str(text);
        }
        let send = Send {
            text: Text::message(&source, line, self)?,
            retrans: self.millis(node, "retrans")?.filter(|time| !time.is_zero()),
        };
        self.push(node, Kind::Send(Box::new(send)), None)
    }

    fn receive(&mut self, node: Node<'a, 'a>) -> Result<(), ScenarioError> {
        const OWN: [&str; 11] = [
            "request",
            "response",
            "optional",
            "timeout",
            "ontimeout",
            "rrs",
            "auth",
            "regexp_match",
            "response_txn",
            "ignoresdp",
            "advance_state",
        ];
        self.known(node, &OWN)?;
        let optional = match node.attribute("optional") {
            None | Some("false") => Optional::No,
            Some("true") => Optional::Yes,
            Some("global") => Optional::Global,
            Some(_) => return Err(self.fault(node, "optional is true, false or global")),
        };
        let is_regex = self.flag(node, "regexp_match")?;
        let what = match (node.attribute("request"), node.attribute("response")) {
            (Some(_), None) if is_regex => {
                return Err(self.fault(node, "regexp_match is supported for responses"));
            }
            (Some(method), None) => {
                Expected::Request(Method::parse(method.as_bytes()), method.as_bytes().to_vec())
            }
            (None, Some(pattern)) if is_regex => {
                let regex = actions::regex(&format!("^(?:{pattern})$"), false);
                Expected::Responses(regex.map_err(|reason| self.fault(node, reason))?)
            }
            (None, Some(status)) => Expected::Response(
                status
                    .parse()
                    .ok()
                    .filter(|status| (100..700).contains(status))
                    .ok_or_else(|| self.fault(node, "response is a status code, 100 to 699"))?,
            ),
            _ => return Err(self.fault(node, "<recv> has request= or response=")),
        };
        let receive = Receive {
            what,
            optional,
            timeout: self.millis(node, "timeout")?,
            on_timeout: None,
            record_routes: self.flag(node, "rrs")?,
            auth: self.flag(node, "auth")?,
        };
        let on_timeout = node.attribute("ontimeout");
        let on_timeout = on_timeout.map(|label| (label.to_owned(), self.line(node)));
        self.push(node, Kind::Receive(Box::new(receive)), on_timeout)
    }

    fn pause(&mut self, node: Node<'a, 'a>) -> Result<(), ScenarioError> {
        const OWN: [&str; 8] = [
            "milliseconds",
            "variable",
            "distribution",
            "min",
            "max",
            "mean",
            "value",
            "sanity_check",
        ];
        self.known(node, &OWN)?;
        let between = |reader: &Self| -> Result<Pause, ScenarioError> {
            let low = reader.millis(node, "min")?.unwrap_or_default();
            let high = reader.millis(node, "max")?;
            let high = high.ok_or_else(|| reader.fault(node, "max= is missing"))?;
            if low > high {
                return Err(reader.fault(node, "min= is above max="));
            }
            Ok(Pause::Uniform(low, high))
        };
        let missing = |name: &str| self.fault(node, format!("{name}= is missing"));
        let pause = match node.attribute("distribution") {
            None if node.has_attribute("variable") => {
                let name = self.required(node, "variable")?;
                let variable = self.variable(name);
                Pause::Variable(variable.map_err(|reason| self.fault(node, reason))?)
            }
            None if node.has_attribute("max") => between(self)?,
            None => self
                .millis(node, "milliseconds")?
                .map_or(Pause::Default, Pause::Fixed),
            Some("fixed") => Pause::Fixed(self.millis(node, "value")?.ok_or(missing("value"))?),
            Some("uniform") => between(self)?,
            Some("exponential") => {
                Pause::Exponential(self.millis(node, "mean")?.ok_or(missing("mean"))?)
            }
            Some(other) => {
                let reason =
                    format!("distribution {other:?}: fixed, uniform and exponential are supported");
                return Err(self.fault(node, reason));
            }
        };
        self.push(node, Kind::Pause(pause), None)
    }

    /// Adds a step, with what every kind of step can have.
    fn push(
        &mut self,
        node: Node<'a, 'a>,
        kind: Kind,
        on_timeout: Option<Wanted>,
    ) -> Result<(), ScenarioError> {
        if self.steps.len() >= SIPP_STEPS_MAX {
            return Err(self.fault(node, format!("more than {SIPP_STEPS_MAX} steps")));
        }
        let next = node.attribute("next");
        let jump = match next {
            None => None,
            Some(_) => Some(Jump {
                to: 0,
                test: self.variable_of(node, "test")?,
                chance: self.number(node, "chance")?.unwrap_or(1.0).clamp(0.0, 1.0),
            }),
        };
        if next.is_none() && (node.has_attribute("test") || node.has_attribute("chance")) {
            return Err(self.fault(node, "test= and chance= belong to next="));
        }
        let condition = match (
            self.variable_of(node, "condexec")?,
            self.flag(node, "condexec_inverse")?,
        ) {
            (Some(variable), inverse) => Some((variable, !inverse)),
            (None, _) => None,
        };
        let mut read = Vec::new();
        for child in node.children().filter(Node::is_element) {
            if child.tag_name().name() != "action" {
                let name = child.tag_name().name();
                return Err(self.fault(child, format!("<{name}> is not supported here")));
            }
            for action in child.children().filter(Node::is_element) {
                read.push(actions::read(self, action)?);
            }
        }
        let step = Step {
            kind,
            next: jump,
            condition,
            starts: self.clock(node, "start_rtd")?,
            stops: self.clock(node, "rtd")?,
            lost: self.number(node, "lost")?.unwrap_or(0.0).clamp(0.0, 100.0) / 100.0,
            actions: read,
        };
        let next = next.map(|label| (label.to_owned(), self.line(node)));
        self.steps.push(step);
        self.wanted.push((next, on_timeout));
        Ok(())
    }

    /// A response time: `true` is the first of SIPp's.
    fn clock(&mut self, node: Node<'_, '_>, name: &str) -> Result<Option<usize>, ScenarioError> {
        let clock = match node.attribute(name) {
            None | Some("false") => return Ok(None),
            Some("true") => "1",
            Some(clock) => clock,
        };
        let clock = clock.chars().take(40).collect::<String>();
        let found = place(&mut self.clocks, &clock, CLOCKS_MAX);
        let reason = format!("more than {CLOCKS_MAX} response times");
        found.map(Some).ok_or_else(|| self.fault(node, reason))
    }

    /// Refuses attributes that a step has and this reader does not know.
    fn known(&self, node: Node<'_, '_>, own: &[&str]) -> Result<(), ScenarioError> {
        let is_known = |name: &str| own.contains(&name) || OF_STEPS.contains(&name);
        match node
            .attributes()
            .find(|attribute| !is_known(attribute.name()))
        {
            None => Ok(()),
            Some(attribute) => {
                let (tag, name) = (node.tag_name().name(), attribute.name());
                Err(self.fault(node, format!("{name}= of <{tag}> is not supported")))
            }
        }
    }

    pub(super) fn line(&self, node: Node<'_, '_>) -> u32 {
        self.document.text_pos_at(node.range().start).row
    }

    pub(super) fn fault(&self, node: Node<'_, '_>, reason: impl Into<String>) -> ScenarioError {
        ScenarioError::new(self.line(node), reason)
    }

    pub(super) fn required(
        &self,
        node: Node<'a, 'a>,
        name: &str,
    ) -> Result<&'a str, ScenarioError> {
        let missing = || self.fault(node, format!("{name}= is missing"));
        node.attribute(name).ok_or_else(missing)
    }

    pub(super) fn flag(&self, node: Node<'_, '_>, name: &str) -> Result<bool, ScenarioError> {
        match node.attribute(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(self.fault(node, format!("{name} is true or false"))),
        }
    }

    pub(super) fn number(
        &self,
        node: Node<'_, '_>,
        name: &str,
    ) -> Result<Option<f64>, ScenarioError> {
        let Some(text) = node.attribute(name) else {
            return Ok(None);
        };
        let number = text
            .trim()
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite());
        number
            .map(Some)
            .ok_or_else(|| self.fault(node, format!("{name}={text:?} is no number")))
    }

    fn millis(&self, node: Node<'_, '_>, name: &str) -> Result<Option<Duration>, ScenarioError> {
        let Some(number) = self.number(node, name)? else {
            return Ok(None);
        };
        // A day is longer than any call and far from what a clock overflows at.
        if !(0.0..=86_400_000.0).contains(&number) {
            return Err(self.fault(node, format!("{name} is out of range: 0 to a day")));
        }
        Ok(Some(Duration::from_secs_f64(number / 1000.0)))
    }

    pub(super) fn variable_of(
        &mut self,
        node: Node<'_, '_>,
        name: &str,
    ) -> Result<Option<usize>, ScenarioError> {
        let Some(variable) = node.attribute(name) else {
            return Ok(None);
        };
        let place = self.variable(variable.trim());
        place.map(Some).map_err(|reason| self.fault(node, reason))
    }
}

#[cfg(test)]
#[path = "tests_source.rs"]
mod tests;
