//! `viaduct ctl`: what an operator asks of a running viaduct, and what it says, in words.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Map, Value};

use super::capture::CaptureError;
use super::explain::{Row, print_rows, tell_server};
use crate::admin::client::{ClientError, Session};
use crate::admin::{Command, NodeState};
use crate::cli::{CtlArgs, CtlCommand};

/// How often a drain that is waited for is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The socket that is not there, or not said.
    #[error(transparent)]
    Socket(#[from] CaptureError),
    /// viaduct did not answer, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A drain that was waited for was ended by somebody else.
    #[error("{0}: is no longer drained, but {1}")]
    NotDrained(String, String),
}

/// Does what the arguments say, and prints what came of it.
///
/// # Errors
/// See `CtlError`; in words for a user.
pub fn ctl(arguments: &CtlArgs) -> Result<(), CtlError> {
    let mut session = Session::new(&arguments.socket.path()?)?;
    let (command, wait) = command(&arguments.command);
    let fields = session.ask(&command)?;
    let print = |fields: &Map<String, Value>| {
        if arguments.json {
            println!("{}", Value::Object(fields.clone()));
        } else {
            print!("{}", words(&command, fields));
        }
    };
    print(&fields);
    if wait {
        until_drained(&mut session, fields, &print)?;
    }
    Ok(())
}

fn command(command: &CtlCommand) -> (Command, bool) {
    let mut wait = false;
    let command = match command.clone() {
        CtlCommand::List { pool } => Command::List { pool },
        CtlCommand::Drain {
            server,
            deadline,
            wait: is_waited_for,
        } => {
            wait = is_waited_for;
            Command::Drain {
                server,
                deadline_seconds: deadline.map(|deadline| deadline.as_secs()),
            }
        }
        CtlCommand::Enable { server } => Command::Enable { server },
        CtlCommand::Disable { server } => Command::Disable { server },
        CtlCommand::Weight { server, weight } => Command::Weight {
            server,
            weight: weight.0,
        },
        CtlCommand::Add {
            pool,
            name,
            address,
            weight,
        } => Command::Add {
            pool,
            name,
            address,
            weight: Some(weight),
        },
        CtlCommand::Remove { server } => Command::Remove { server },
        CtlCommand::Node { state } => Command::Node {
            state: match state {
                crate::cli::NodeWish::Drain => NodeState::Drain,
                crate::cli::NodeWish::Enable => NodeState::Enable,
            },
        },
        CtlCommand::Explain { call_id } => Command::Explain { call_id },
    };
    (command, wait)
}

/// Says what a draining server still has, each time that changes, until it is disabled.
fn until_drained(
    session: &mut Session,
    first: Map<String, Value>,
    print: &impl Fn(&Map<String, Value>),
) -> Result<(), CtlError> {
    let (pool, name) = (text(&first, "pool"), text(&first, "server"));
    let mut last = first;
    loop {
        sleep(LOOK);
        let list = session.ask(&Command::List {
            pool: Some(pool.clone()),
        })?;
        let pools = list.get("pools").and_then(Value::as_array);
        let servers = pools
            .and_then(|pools| pools.first()?.get("servers")?.as_array())
            .into_iter()
            .flatten();
        let found = servers
            .filter_map(Value::as_object)
            .find(|server| text(server, "name") == name);
        let Some(found) = found else {
            return Err(CtlError::NotDrained(name, "removed".to_owned()));
        };
        let mut now = found.clone();
        now.insert("server".to_owned(), name.as_str().into());
        now.insert("pool".to_owned(), pool.as_str().into());
        let operator = text(&now, "operator");
        let is_news = ["operator", "calls", "transactions"]
            .iter()
            .any(|key| now.get(*key) != last.get(*key));
        if is_news {
            print(&now);
        }
        match operator.as_str() {
            "draining" => last = now,
            "disabled" => return Ok(()),
            other => return Err(CtlError::NotDrained(name, other.to_owned())),
        }
    }
}

/// An answer in words.
fn words(command: &Command, fields: &Map<String, Value>) -> String {
    match command {
        Command::List { .. } => list(fields),
        Command::Explain { .. } => explain(fields),
        Command::Node { .. } => node(fields),
        _ => one(fields),
    }
}

/// A field as text; nothing for what is not there.
fn text(fields: &Map<String, Value>, key: &str) -> String {
    fields.get(key).map_or_else(String::new, shown)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A server that a command was about.
fn one(server: &Map<String, Value>) -> String {
    let mut line = format!(
        "{}/{}: {}",
        text(server, "pool"),
        text(server, "server"),
        state(server)
    );
    if let Some(address) = server.get("address").filter(|address| !address.is_null()) {
        let weight = text(server, "weight");
        let _infallible = write!(line, ", {} weight {weight}", shown(address));
    }
    line += &calls_left(server);
    line + "\n"
}

/// State, and what the operator wants besides.
fn state(server: &Map<String, Value>) -> String {
    let (state, operator) = (text(server, "state"), text(server, "operator"));
    match operator.as_str() {
        "" | "enabled" => state,
        operator if operator == state => state,
        operator => format!("{state}, {operator}"),
    }
}

fn calls_left(server: &Map<String, Value>) -> String {
    let Some(drain) = server.get("drain").and_then(Value::as_object) else {
        return String::new();
    };
    let left = match server.get("calls").filter(|calls| !calls.is_null()) {
        Some(calls) => format!(
            "; {} calls and {} transactions left",
            shown(calls),
            text(server, "transactions")
        ),
        None => "; its calls are not counted".to_owned(),
    };
    match drain.get("deadline_in_seconds").and_then(Value::as_u64) {
        Some(seconds) => format!("{left}, {seconds} s to the deadline"),
        None => left,
    }
}

fn node(fields: &Map<String, Value>) -> String {
    let Some(node) = fields.get("node").and_then(Value::as_object) else {
        return String::new();
    };
    let open = match text(node, "transactions") {
        open if open.is_empty() => String::new(),
        open => format!(", {open} transactions open"),
    };
    format!(
        "node {}: {}{open}\n",
        text(node, "number"),
        text(node, "state")
    )
}

/// Pools and servers as a table.
fn list(fields: &Map<String, Value>) -> String {
    const COLUMNS: [&str; 10] = [
        "SERVER", "ADDRESS", "WEIGHT", "STATE", "HEALTH", "CALLS", "OPEN", "CALLS/S", "FROM",
        "SINCE",
    ];
    let mut out = node(fields);
    let pools = fields.get("pools").and_then(Value::as_array);
    let mut rows: Vec<[String; 10]> = vec![COLUMNS.map(str::to_owned)];
    for pool in pools.into_iter().flatten().filter_map(Value::as_object) {
        let servers = pool.get("servers").and_then(Value::as_array);
        for server in servers.into_iter().flatten().filter_map(Value::as_object) {
            let or_dash = |key: &str| match text(server, key) {
                text if text.is_empty() => "-".to_owned(),
                text => text,
            };
            let weight = match (text(server, "weight"), text(server, "weight_in_file")) {
                (weight, file) if file.is_empty() || file == weight => weight,
                // Which of the two counts, and which the file would bring back.
                (weight, file) => format!("{weight} (file: {file})"),
            };
            rows.push([
                format!("{}/{}", text(pool, "name"), text(server, "name")),
                or_dash("address"),
                weight,
                state(server),
                or_dash("health"),
                or_dash("calls"),
                or_dash("transactions"),
                or_dash("new_calls_per_second"),
                or_dash("origin"),
                or_dash("since"),
            ]);
        }
    }
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _infallible = write!(line, "{cell:<width$}  ");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// Why a call went where it went, in the rows of `viaduct explain`.
fn explain(fields: &Map<String, Value>) -> String {
    let decisions = fields.get("decisions").and_then(Value::as_array);
    let decisions: Vec<&Map<String, Value>> = decisions
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .collect();
    let mut out = String::new();
    for decision in &decisions {
        if !out.is_empty() {
            out.push('\n');
        }
        print_rows(&mut out, &decision_rows(decision));
    }
    if decisions.is_empty() {
        let pins = fields.get("pins").and_then(Value::as_array);
        for pin in pins.into_iter().flatten().filter_map(Value::as_object) {
            let rows = [("pin", vec![format!("to {}", text(pin, "server"))])];
            print_rows(&mut out, &rows);
        }
    }
    out
}

fn decision_rows(decision: &Map<String, Value>) -> Vec<Row> {
    let of = |key: &str| text(decision, key);
    let is_known = |key: &str| decision.get(key).is_some_and(|value| !value.is_null());
    let mut rows: Vec<Row> = Vec::new();
    let mut decided = vec![format!(
        "{}, {} s ago, by plan {}",
        of("at"),
        of("age_seconds"),
        of("plan")
    )];
    if is_known("plan_since") {
        decided.push(format!(
            "in force from {}: {}",
            of("plan_since"),
            of("plan_why")
        ));
    } else {
        decided.push("which is no longer remembered".to_owned());
    }
    rows.push(("decided", decided));
    rows.push((
        "from",
        vec![format!("{}, to listener {}", of("from"), of("listener"))],
    ));
    if is_known("rule") {
        let met = format!(
            "{}: MET -> pool {} by {}",
            of("rule"),
            of("pool"),
            of("key_by")
        );
        rows.push(("route table", vec![met]));
    }
    let key_by = if is_known("key_by") {
        of("key_by")
    } else {
        "?".to_owned()
    };
    rows.push(("key", vec![format!("{key_by}: {}", of("key"))]));
    let pin = decision.get("pin").and_then(Value::as_object);
    rows.push((
        "pin",
        vec![match pin {
            Some(pin) => format!("to server {}, now", text(pin, "server")),
            None => "none now: its transactions are over".to_owned(),
        }],
    ));
    if let Some(table) = decision.get("table").and_then(Value::as_object) {
        rows.push(("table", table_lines(&of("pool"), table)));
    }
    let tried = decision.get("tried").and_then(Value::as_array);
    let tried: Vec<String> = tried.into_iter().flatten().map(shown).collect();
    if tried.len() > 1 {
        rows.push(("tried", vec![tried.join(", then ")]));
    }
    rows.push((
        "chosen by",
        vec![if is_known("server") {
            let address = match is_known("address") {
                true => format!(" at {}", of("address")),
                false => String::new(),
            };
            format!("{}: server {}{address}", of("chosen_by"), of("server"))
        } else {
            "no server took new calls".to_owned()
        }],
    ));
    if let Some(now) = decision.get("now").and_then(Value::as_object) {
        let server = match text(now, "server") {
            server if server.is_empty() => "no server".to_owned(),
            server => format!("server {server}"),
        };
        rows.push((
            "now",
            vec![format!(
                "the table of plan {} says {server}",
                text(now, "plan")
            )],
        ));
    }
    rows
}

fn table_lines(pool: &str, table: &Map<String, Value>) -> Vec<String> {
    let is_up = table.get("takes_calls").and_then(Value::as_bool);
    let entries = match text(table, "entries") {
        _ if is_up == Some(false) => "no server took new calls".to_owned(),
        none if none.is_empty() => "no table, rendezvous".to_owned(),
        entries => format!("{entries} entries"),
    };
    let policy = text(table, "policy");
    let mut lines = vec![format!(
        "pool {pool}, as it was: {entries}, policy {policy}"
    )];
    let servers = table.get("servers").and_then(Value::as_array);
    for server in servers.into_iter().flatten().filter_map(Value::as_object) {
        let number = |key: &str| server.get(key).and_then(Value::as_u64);
        let place = number("place").and_then(|place| usize::try_from(place).ok());
        let share = server.get("share").and_then(Value::as_f64).unwrap_or(0.0);
        let mut line = tell_server(
            (&text(server, "name"), &text(server, "address")),
            (&text(server, "weight"), &text(server, "priority")),
            share,
            place,
        );
        let state = text(server, "state");
        if state != "active" {
            let _infallible = write!(line, "  ({state})");
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(fields) => fields,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_list_shows_which_weight_counts_and_what_is_left_of_a_drain() {
        let told = fields(json!({
            "node": { "number": 0, "state": "enabled", "transactions": 7 },
            "pools": [{ "name": "farm", "servers": [
                { "name": "s1", "address": "198.18.1.11:5060", "weight": 5, "weight_in_file": 1,
                  "state": "active", "operator": "enabled", "health": "active", "calls": 3,
                  "transactions": 4, "new_calls_per_second": 1.5, "origin": "file",
                  "since": "2026-11-22T21:10:33.123Z" },
                { "name": "s2", "address": "198.18.1.12:5060", "weight": 1, "weight_in_file": null,
                  "state": "down", "operator": "draining", "health": "down", "calls": null,
                  "transactions": null, "new_calls_per_second": 0.0, "origin": "runtime", "since": null },
            ] }],
        }));
        assert_eq!(
            list(&told),
            "node 0: enabled, 7 transactions open\n\
             SERVER   ADDRESS           WEIGHT       STATE           HEALTH  CALLS  OPEN  CALLS/S  FROM     SINCE\n\
             farm/s1  198.18.1.11:5060  5 (file: 1)  active          active  3      4     1.5      file     2026-11-22T21:10:33.123Z\n\
             farm/s2  198.18.1.12:5060  1            down, draining  down    -      -     0.0      runtime  -\n"
        );
        let drained = fields(json!({
            "pool": "farm", "server": "s1", "state": "draining", "operator": "draining",
            "address": "198.18.1.11:5060", "weight": 1, "calls": 3, "transactions": 1,
            "drain": { "for_seconds": 2, "deadline_in_seconds": 598 },
        }));
        assert_eq!(
            one(&drained),
            "farm/s1: draining, 198.18.1.11:5060 weight 1; 3 calls and 1 transactions left, 598 s to \
             the deadline\n"
        );
    }

    #[test]
    fn an_explanation_has_the_rows_of_the_offline_one() {
        let told = fields(json!({ "decisions": [{
            "at": "2026-11-22T21:10:33.123Z", "age_seconds": 12, "listener": "clients",
            "from": "outside", "rule": "all", "key": "00000000000000ff", "key_by": "call-id",
            "plan": 3, "plan_since": "2026-11-22T21:00:00.000Z", "plan_why": "s3 is to be drained",
            "pool": "farm", "chosen_by": "the pool's table", "tried": ["s2", "s1"], "server": "s1",
            "address": "198.18.1.11:5060", "pin": null,
            "table": { "entries": 65537, "takes_calls": true, "policy": "maglev", "servers": [
                { "name": "s1", "address": "198.18.1.11:5060", "weight": 1, "priority": 0,
                  "state": "active", "share": 0.5, "place": 1 },
                { "name": "s3", "address": "198.18.1.13:5060", "weight": 1, "priority": 0,
                  "state": "draining", "share": 0.0, "place": null },
            ] },
            "now": { "plan": 5, "server": null },
        }] }));
        assert_eq!(
            explain(&told),
            "decided      2026-11-22T21:10:33.123Z, 12 s ago, by plan 3\n             \
             in force from 2026-11-22T21:00:00.000Z: s3 is to be drained\n\
             from         outside, to listener clients\n\
             route table  all: MET -> pool farm by call-id\n\
             key          call-id: 00000000000000ff\n\
             pin          none now: its transactions are over\n\
             table        pool farm, as it was: 65537 entries, policy maglev\n             \
             s1 198.18.1.11:5060 weight 1 priority 0: 50.0 % of the keys  <- next, were that down\n             \
             s3 198.18.1.13:5060 weight 1 priority 0: 0.0 % of the keys  (draining)\n\
             tried        s2, then s1\n\
             chosen by    the pool's table: server s1 at 198.18.1.11:5060\n\
             now          the table of plan 5 says no server\n"
        );
    }
}
