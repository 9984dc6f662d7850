//! What a step does beside its message: searches, variables, log lines, orders to the run.

use core::cmp::Ordering;

use regex::bytes::{Regex, RegexBuilder};
use roxmltree::Node;

use super::error::ScenarioError;
use super::program::{Action, Area, Check, Ereg};
use super::source::Reader;
use super::text::{Names as _, Text};
use crate::sip::{HeaderName, Message};

/// Memory of one compiled expression.
const REGEX_LEN_MAX: usize = 1 << 20;

/// A value of a variable.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Flag(bool),
    Number(f64),
    Text(Vec<u8>),
}

impl Value {
    /// Whether a jump takes it for true.
    pub(super) fn is_set(&self) -> bool {
        match self {
            Self::Flag(flag) => *flag,
            Self::Number(_) | Self::Text(_) => true,
        }
    }

    pub(super) fn number(&self) -> f64 {
        match self {
            Self::Flag(flag) => f64::from(u8::from(*flag)),
            Self::Number(number) => *number,
            Self::Text(text) => String::from_utf8_lossy(text).trim().parse().unwrap_or(0.0),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Flag(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
            Self::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Text(text) => out.extend_from_slice(text),
        }
    }
}

/// A POSIX extended expression as SIPp gives it to the C library: bytes, and a dot that matches a
/// line's end too. Where alternatives match at one place the first is taken, not the longest.
pub(super) fn regex(pattern: &str, ignores_case: bool) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .dot_matches_new_line(true)
        .case_insensitive(ignores_case)
        .size_limit(REGEX_LEN_MAX)
        .build()
        .map_err(|error| format!("regular expression {pattern:?}: {error}"))
}

/// Reads one action.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    node: Node<'a, 'a>,
) -> Result<Action, ScenarioError> {
    match node.tag_name().name() {
        "ereg" => read_ereg(reader, node),
        "log" | "warning" => {
            let message = reader.required(node, "message")?;
            let line = reader.line(node);
            Ok(Action::Log(Text::line_of(message, line, reader)?))
        }
        "assignstr" => {
            let line = reader.line(node);
            let text = Text::line_of(reader.required(node, "value")?, line, reader)?;
            Ok(Action::AssignText(target(reader, node)?, text))
        }
        "assign" => Ok(Action::Assign(target(reader, node)?, value(reader, node)?)),
        "add" => Ok(Action::Add(target(reader, node)?, value(reader, node)?)),
        "subtract" => Ok(Action::Add(target(reader, node)?, -value(reader, node)?)),
        "todouble" => {
            let to = target(reader, node)?;
            let from = reader.variable_of(node, "variable")?;
            let from = from.ok_or_else(|| reader.fault(node, "variable= is missing"))?;
            Ok(Action::ToNumber(to, from))
        }
        "test" => read_test(reader, node),
        "exec" => read_exec(reader, node),
        name => Err(reader.fault(node, format!("action <{name}> is not supported"))),
    }
}

fn target<'a>(reader: &mut Reader<'a>, node: Node<'a, 'a>) -> Result<usize, ScenarioError> {
    let place = reader.variable_of(node, "assign_to")?;
    place.ok_or_else(|| reader.fault(node, "assign_to= is missing"))
}

fn value(reader: &Reader<'_>, node: Node<'_, '_>) -> Result<f64, ScenarioError> {
    let number = reader.number(node, "value")?;
    number.ok_or_else(|| reader.fault(node, "value= is missing, a number"))
}

fn read_ereg<'a>(reader: &mut Reader<'a>, node: Node<'a, 'a>) -> Result<Action, ScenarioError> {
    const KNOWN: [&str; 10] = [
        "regexp",
        "search_in",
        "header",
        "check_it",
        "check_it_inverse",
        "assign_to",
        "case_indep",
        "occurence",
        "occurrence",
        "variable",
    ];
    if let Some(other) = node.attributes().find(|at| !KNOWN.contains(&at.name())) {
        let reason = format!("{}= of <ereg> is not supported", other.name());
        return Err(reader.fault(node, reason));
    }
    let ignores_case = reader.flag(node, "case_indep")?;
    let pattern = reader.required(node, "regexp")?;
    let regex = regex(pattern, ignores_case).map_err(|reason| reader.fault(node, reason))?;
    let area = match node.attribute("search_in") {
        None | Some("msg") => Area::Message,
        Some("body") => Area::Body,
        Some("hdr") => {
            let name = reader.required(node, "header")?;
            let name = name.trim().trim_end_matches(':').trim();
            let which = node.attribute("occurence").or(node.attribute("occurrence"));
            let which = which.unwrap_or("1").parse().ok().filter(|which| *which > 0);
            let which: usize =
                which.ok_or_else(|| reader.fault(node, "occurrence counts from 1"))?;
            Area::Header(name.as_bytes().to_vec(), which - 1)
        }
        Some("var") => {
            let variable = reader.variable_of(node, "variable")?;
            Area::Variable(variable.ok_or_else(|| reader.fault(node, "variable= is missing"))?)
        }
        Some(other) => {
            let reason = format!("search_in={other:?}: msg, hdr, body and var are supported");
            return Err(reader.fault(node, reason));
        }
    };
    let check = match (
        reader.flag(node, "check_it")?,
        reader.flag(node, "check_it_inverse")?,
    ) {
        (true, true) => return Err(reader.fault(node, "check_it and check_it_inverse at once")),
        (true, false) => Check::Match,
        (false, true) => Check::NoMatch,
        (false, false) => Check::None,
    };
    let mut assign_to = Vec::new();
    for name in node.attribute("assign_to").unwrap_or_default().split(',') {
        let name = name.trim();
        if !name.is_empty() {
            let place = reader.variable(name);
            assign_to.push(place.map_err(|reason| reader.fault(node, reason))?);
        }
    }
    let ereg = Ereg {
        regex,
        area,
        assign_to,
        check,
    };
    Ok(Action::Ereg(Box::new(ereg)))
}

fn read_test<'a>(reader: &mut Reader<'a>, node: Node<'a, 'a>) -> Result<Action, ScenarioError> {
    let (order, is_not) = match reader.required(node, "compare")? {
        "equal" => (Ordering::Equal, false),
        "not_equal" => (Ordering::Equal, true),
        "greater_than" => (Ordering::Greater, false),
        "less_than" => (Ordering::Less, false),
        "greater_than_equal" => (Ordering::Less, true),
        "less_than_equal" => (Ordering::Greater, true),
        other => return Err(reader.fault(node, format!("compare={other:?} is not supported"))),
    };
    let variable = reader.variable_of(node, "variable")?;
    Ok(Action::Test {
        assign_to: target(reader, node)?,
        variable: variable.ok_or_else(|| reader.fault(node, "variable= is missing"))?,
        order,
        is_not,
        value: value(reader, node)?,
    })
}

fn read_exec(reader: &Reader<'_>, node: Node<'_, '_>) -> Result<Action, ScenarioError> {
    match node.attribute("int_cmd") {
        Some("stop_call") => Ok(Action::StopCall),
        Some("stop_gracefully") => Ok(Action::Stop(false)),
        Some("stop_now") => Ok(Action::Stop(true)),
        Some(other) => Err(reader.fault(node, format!("int_cmd {other:?} is not supported"))),
        // A load generator that runs what a file says, or sends media, is not this one.
        None => Err(reader.fault(
            node,
            "<exec> is supported with int_cmd= alone: no command, no media",
        )),
    }
}

/// Searches what was received; the variables get what was found. `false` if the call has failed.
pub(super) fn search(
    ereg: &Ereg,
    bytes: &[u8],
    message: &Message,
    variables: &mut [Option<Value>],
) -> bool {
    let owned;
    let text = match &ereg.area {
        Area::Message => bytes,
        Area::Body => bytes.get(message.body_start()..).unwrap_or_default(),
        Area::Header(name, which) => header_values(bytes, message, name)
            .nth(*which)
            .unwrap_or_default(),
        Area::Variable(place) => {
            let mut written = Vec::new();
            if let Some(Some(value)) = variables.get(*place) {
                value.write(&mut written);
            }
            owned = written;
            &owned
        }
    };
    let Some(found) = ereg.regex.captures(text) else {
        return ereg.check != Check::Match;
    };
    for (group, place) in ereg.assign_to.iter().enumerate() {
        if let Some(variable) = variables.get_mut(*place) {
            let text = found.get(group).map(|group| group.as_bytes().to_vec());
            *variable = text.map(Value::Text);
        }
    }
    ereg.check != Check::NoMatch
}

/// The values of the rows of a name, long or compact.
fn header_values<'a>(
    bytes: &'a [u8],
    message: &'a Message,
    name: &'a [u8],
) -> impl Iterator<Item = &'a [u8]> {
    let known = HeaderName::parse(name);
    let rows = message.headers().iter().filter(move |row| {
        let written = row.name_bytes(bytes);
        match known {
            HeaderName::Other => written.eq_ignore_ascii_case(name),
            known => HeaderName::parse(written) == known,
        }
    });
    rows.map(|row| row.value.of(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1\r\n\
        f: ua25 <sip:a@b>;tag=1\r\nX-A: one\r\nX-A: two\r\nt: b\r\ni: 1\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\no=u 1 2 IN\r\n";

    fn searched(pattern: &str, area: Area, check: Check) -> (bool, Vec<Option<Value>>) {
        let mut message = Message::new();
        message.parse(MESSAGE).unwrap();
        let ereg = Ereg {
            regex: regex(pattern, false).unwrap(),
            area,
            assign_to: vec![0, 1],
            check,
        };
        let mut variables = vec![None, None];
        (search(&ereg, MESSAGE, &message, &mut variables), variables)
    }

    fn text(text: &str) -> Option<Value> {
        Some(Value::Text(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_search_assigns_the_match_and_its_groups() {
        let pattern = "o=([[:alnum:]]*) ([[:alnum:]]*)";
        let (is_good, variables) = searched(pattern, Area::Body, Check::Match);
        assert_eq!(
            (is_good, &variables[..]),
            (true, &[text("o=u 1"), text("u")][..])
        );
        let (_, variables) = searched("[0-9.]+:([0-9]{1,5})", Area::Message, Check::None);
        assert_eq!(variables[1], text("5070"));
    }

    #[test]
    fn headers_are_found_by_long_and_compact_names_and_by_place() {
        let from = Area::Header(b"From".to_vec(), 0);
        assert_eq!(searched("ua[0-9]+", from, Check::Match).1[0], text("ua25"));
        let second = Area::Header(b"x-a".to_vec(), 1);
        assert_eq!(searched(".*", second, Check::Match).1[0], text("two"));
    }

    #[test]
    fn a_check_fails_the_call() {
        assert!(!searched("nothing", Area::Message, Check::Match).0);
        assert!(searched("nothing", Area::Message, Check::NoMatch).0);
        assert!(!searched("INVITE", Area::Message, Check::NoMatch).0);
        assert!(searched("nothing", Area::Message, Check::None).0);
    }

    #[test]
    fn expressions_are_bounded_in_memory() {
        assert!(regex("((a{1,500}){1,500}){1,500}", false).is_err());
        assert!(
            regex("(", false)
                .unwrap_err()
                .contains("regular expression")
        );
    }
}
