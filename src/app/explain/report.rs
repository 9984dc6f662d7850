//! The explanation in words: rows of a label and lines, or JSON of the same.

use core::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Outcome;
use super::difference::{difference, shown};
use super::input::Input;
use super::{Row, print_rows, tell_server};
use crate::affinity::{Keys, Pair, RouteToken, home_worker};
use crate::balance::AffinityKey;
use crate::config::{Config, HeaderCondition, HeaderTest, Peers, Route};
use crate::forward::{Leads, RequestExplanation, ResponseExplanation, Way};
use crate::net::{ListenerIndex, PoolIndex, ServerId, ServerIndex};
use crate::route::{Action, Condition, Direction, Plan, ServerRegistry};
use crate::sip::{Kind, Message};
use crate::verdict::Verdict;

/// Servers named as the next ones if those before were down.
const NEXT_SERVERS: usize = 3;

/// Everything a report is made of.
pub(super) struct Subject<'a> {
    pub(super) config: &'a Config,
    pub(super) plan: &'a Plan,
    pub(super) keys: &'a Arc<Keys>,
    pub(super) input: &'a Input,
    pub(super) outcome: &'a Outcome,
}

/// The explanation of one message.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
    verdict: String,
    /// What is sent, if anything.
    outgoing: Option<Vec<u8>>,
    edits: Vec<(char, String)>,
    sent: Option<(String, String)>,
    server: Option<String>,
}

impl Report {
    pub(super) fn new(subject: &Subject<'_>, secret: &str) -> Self {
        let mut report = Self::default();
        report.message(subject);
        let explanation = &subject.outcome.explanation;
        if let Some(request) = &explanation.request {
            report.request(subject, request);
        }
        if let Some(response) = &explanation.response {
            report.response(subject, response);
        }
        report.outcome(subject);
        report.row("secret", secret);
        report
    }

    fn row(&mut self, label: &'static str, line: impl Into<String>) {
        self.rows.push((label, vec![line.into()]));
    }

    fn message(&mut self, subject: &Subject<'_>) {
        let (input, explanation) = (subject.input, &subject.outcome.explanation);
        let mut message = Box::new(Message::new());
        let _told_below = message.parse(&input.bytes);
        let start = shown(message.start_line().of(&input.bytes));
        self.row("message", format!("{start} ({} bytes)", input.bytes.len()));
        if let Some(fault) = explanation.fault {
            self.row("syntax", format!("{}: {}", fault.as_str(), fault.meaning()));
        }
        if let Some(call_id) = message.call_id() {
            let workers = subject.config.workers.count;
            let home = workers
                .and_then(|count| u8::try_from(count).ok())
                .map(|count| {
                    let home = home_worker(explanation.call_id, count.max(1));
                    format!(", home worker {} of {count}", home.0)
                });
            let call_id = shown(call_id.of(&input.bytes));
            self.row("call-id", call_id + &home.unwrap_or_default());
        }
        let direction = match explanation.direction {
            Direction::Farm => "the farm",
            Direction::Trusted => "a trusted peer",
            Direction::Outside => "outside",
        };
        let peer = input.flow.peer;
        let listener = listener(subject.plan, input.flow.listener);
        let mut from = vec![format!("{peer}: {direction}, to listener {listener}")];
        from.extend(input.notes.iter().map(|note| (*note).to_owned()));
        from.extend(denied(subject));
        self.rows.push(("from", from));
    }

    fn request(&mut self, subject: &Subject<'_>, request: &RequestExplanation) {
        let plan = subject.plan;
        let mut routes = vec![match request.own_routes {
            0 => "no Route value of our own".to_owned(),
            own => format!("{own} Route value(s) of our own, taken off"),
        }];
        if let Some(next) = request.next {
            routes.push(format!("next Route: {}", leads(plan, next)));
        }
        routes.push(format!("Request-URI: {}", leads(plan, request.request_uri)));
        self.rows.push(("leads", routes));
        let token = match (&request.token, &request.path) {
            (Some(token), _) => tell_token(plan, token, request.from_initiator),
            (None, Some(path)) => tell_path(plan, path),
            (None, None) if request.is_flow_lost => {
                vec![
                    "one with a client's flow that does not open: damaged, or another secret"
                        .to_owned(),
                ]
            }
            (None, None) => vec!["none of ours for this Call-ID".to_owned()],
        };
        self.rows.push(("token", token));
        self.rules(subject, request);
        let by_table = matches!(request.way, Some(Way::Table | Way::NamedDialog));
        if let Some((pool, key)) = request.key.filter(|(pool, _)| {
            let is_empty = plan.pool(*pool).is_some_and(|pool| !pool.is_up());
            by_table || (request.asks_table && is_empty)
        }) {
            self.pool(subject, request, pool, key);
        }
        if let Some(way) = request.way {
            let server = request.server.and_then(|server| plan.server(server));
            let to = server.map_or_else(String::new, |server| {
                format!(": server {} at {}", server.name, server.address)
            });
            self.server = server.map(|server| server.name.to_string());
            self.row("chosen by", format!("{}{to}", way.as_str()));
        }
    }

    fn rules(&mut self, subject: &Subject<'_>, request: &RequestExplanation) {
        let mut lines = vec![if request.asks_table {
            "asked".to_owned()
        } else {
            "not asked: the message leads on by itself; it would say:".to_owned()
        }];
        let mut met = false;
        let rules = subject.plan.rules().iter().zip(&request.rules);
        for (number, (rule, unmet)) in rules.enumerate() {
            let route = subject.config.routes.get(number);
            let name = match (&rule.name, route) {
                (Some(name), _) => name.to_string(),
                (None, Some(_)) => format!("routes[{number}]"),
                (None, None) => "every request".to_owned(),
            };
            let action = subject.plan.describe(&rule.action);
            lines.push(match unmet {
                Some(condition) => {
                    let wanted = route.map(|route| wanted(route, *condition));
                    format!("{name}: not met, {}", wanted.unwrap_or_default())
                }
                None if met => format!("{name}: would meet, a rule above came first"),
                None => {
                    met = true;
                    format!("{name}: MET -> {action}")
                }
            });
        }
        if !met && !request.rules.is_empty() {
            lines.push("no rule is met".to_owned());
        }
        self.rows.push(("route table", lines));
    }

    fn pool(
        &mut self,
        subject: &Subject<'_>,
        request: &RequestExplanation,
        index: PoolIndex,
        key: AffinityKey,
    ) {
        let plan = subject.plan;
        let met = request.rules.iter().position(Option::is_none);
        let kind = met.and_then(|met| match &plan.rules().get(met)?.action {
            Action::Pool { key, .. } => Some(key.as_str()),
            _ => None,
        });
        self.row("key", format!("{}: {:016x}", kind.unwrap_or("?"), key.0));
        self.row(
            "pin",
            match subject.config.datapath.pins {
                0 => "datapath.pins = 0: there are none",
                _ => "none offline; a running viaduct may have pinned this Call-ID to a server",
            },
        );
        let Some(pool) = plan.pool(index) else { return };
        if !pool.is_up() {
            self.row(
                "table",
                format!("pool {}: no server takes new calls", pool.name),
            );
            return;
        }
        let shares = pool.shares();
        let mut lines = vec![match pool.table() {
            Some(table) => format!("pool {}: {} entries", pool.name, table.len()),
            None => format!("pool {}: no table, rendezvous", pool.name),
        }];
        if !pool.policy.is_stateless() {
            lines.push(format!(
                "policy {}: where a transaction is held, the load of the moment chooses, and \
                 this is for all other requests",
                pool.policy.as_str()
            ));
        }
        let candidates = candidates(subject, index, key);
        let of_pool = subject.config.pools.get(usize::from(index.0));
        for server in of_pool.map_or(&[][..], |pool| &pool.servers) {
            let slot = plan
                .servers()
                .iter()
                .find(|known| *known.name == *server.name);
            let Some(slot) = slot.map(|slot| slot.index) else {
                continue;
            };
            let share = shares.iter().find(|(server, _)| *server == slot);
            let place = candidates.iter().position(|candidate| *candidate == slot);
            lines.push(tell_server(
                (&server.name, &server.address.to_string()),
                (&server.weight.to_string(), &server.priority.to_string()),
                share.map_or(0.0, |(_, share)| *share),
                place,
            ));
        }
        self.rows.push(("table", lines));
    }

    fn response(&mut self, subject: &Subject<'_>, response: &ResponseExplanation) {
        let plan = subject.plan;
        let mut lines = vec![match response.own {
            Some(index) => format!("the top Via is ours: listener {}", listener(plan, index)),
            None => "the top Via is not ours".to_owned(),
        }];
        lines.push(match response.next {
            Some(next) => format!("the Via below leads to {next}"),
            None => "no Via below leads to an address".to_owned(),
        });
        lines.push(match response.parameter {
            Some(parameter) => {
                let peer = server_or_outside(plan, parameter.peer);
                format!(
                    "our parameter holds: the request came to listener {} on node {} and went to \
                     {peer}",
                    listener(plan, parameter.listener),
                    parameter.node.0
                )
            }
            None => "our parameter is not there, or its MAC does not hold for this way and secret"
                .to_owned(),
        });
        self.server = response.parameter.and_then(|parameter| {
            let server = plan.server_by_id(parameter.peer)?;
            Some(server.name.to_string())
        });
        self.rows.push(("via", lines));
    }

    fn outcome(&mut self, subject: &Subject<'_>) {
        let (input, outcome) = (subject.input, subject.outcome);
        let explanation = &outcome.explanation;
        let request = explanation.request.as_ref();
        let refusal = request.and_then(|request| request.refusal);
        match outcome.verdict {
            Verdict::Transmit => {
                let listener = listener(subject.plan, outcome.flow.listener);
                let what = match (explanation.kind, refusal.and_then(|refusal| refusal.status)) {
                    (_, Some(status)) => format!("answered with {status}"),
                    (Kind::Response, None) => "response forwarded".to_owned(),
                    (_, None) => "request forwarded".to_owned(),
                };
                let (from, to) = (outcome.flow.local, outcome.flow.peer);
                let mut lines = vec![format!("{what}: from {from} ({listener}) to {to}")];
                lines.extend(refusal.map(|refusal| refusal.meaning.to_owned()));
                self.rows.push(("verdict", lines));
                self.verdict = what;
                self.sent = Some((from.to_string(), to.to_string()));
                // An answer of our own is another message, not an edit of this one.
                if refusal.is_none() {
                    self.edits = difference(&input.bytes, &outcome.bytes);
                }
                self.outgoing = Some(outcome.bytes.clone());
            }
            Verdict::Drop(reason) => {
                let mut lines = vec![format!("dropped, counted as {}", reason.as_str())];
                lines.push(reason.meaning().to_owned());
                if let Some(refusal) = refusal
                    && refusal.meaning != reason.meaning()
                {
                    lines.push(refusal.meaning.to_owned());
                }
                self.verdict = format!("dropped: {}", reason.as_str());
                self.rows.push(("verdict", lines));
            }
            Verdict::Absorb => {
                self.verdict = "taken: it was for us".to_owned();
                self.row("verdict", self.verdict.clone());
            }
            Verdict::HandOver(worker) => {
                self.verdict = format!("handed over to worker {}", worker.0);
                self.row("verdict", self.verdict.clone());
            }
        }
    }

    /// The report for a program.
    pub(super) fn json(&self) -> Value {
        let mut report = serde_json::Map::new();
        for (label, lines) in &self.rows {
            report.insert((*label).to_owned(), json!(lines));
        }
        let edits: Vec<String> = self
            .edits
            .iter()
            .map(|(sign, line)| format!("{sign} {line}"))
            .collect();
        report.insert("edits".to_owned(), json!(edits));
        let sent = self.sent.as_ref().map(|(from, to)| {
            let bytes = self.outgoing.as_deref().unwrap_or_default();
            json!({ "from": from, "to": to, "message": String::from_utf8_lossy(bytes) })
        });
        report.insert("sent".to_owned(), json!(sent));
        report.insert("server".to_owned(), json!(self.server));
        report.insert("outcome".to_owned(), json!(self.verdict));
        Value::Object(report)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = String::new();
        print_rows(&mut rows, &self.rows);
        f.write_str(rows.trim_end_matches('\n'))?;
        if !self.edits.is_empty() {
            f.write_str("\n\nedits:")?;
            for (sign, line) in &self.edits {
                write!(f, "\n{sign} {line}")?;
            }
        }
        if let Some(outgoing) = &self.outgoing {
            f.write_str("\n\nsent:")?;
            let text = outgoing.strip_suffix(b"\r\n").unwrap_or(outgoing);
            for line in text.split(|byte| *byte == b'\n') {
                write!(f, "\n  {}", shown(line.strip_suffix(b"\r").unwrap_or(line)))?;
            }
        }
        Ok(())
    }
}

fn listener(plan: &Plan, index: ListenerIndex) -> String {
    match plan.listener(index) {
        Some(listener) if listener.advertised != listener.address => {
            let (address, advertised) = (listener.address, listener.advertised);
            format!("{} {address}, advertised as {advertised}", listener.name)
        }
        Some(listener) => format!("{} {}", listener.name, listener.address),
        None => format!("#{}", index.0),
    }
}

/// Whether the source lists keep it from getting this far.
fn denied(subject: &Subject<'_>) -> Option<String> {
    let flow = subject.input.flow;
    let listener = subject.config.listeners.get(usize::from(flow.listener.0))?;
    let source = flow.peer.ip();
    let holds = |list: &[crate::net::Network]| list.iter().any(|network| network.contains(source));
    if holds(&listener.deny) {
        return Some("the listener's `deny` has it: dropped before all of this".to_owned());
    }
    (!listener.allow.is_empty() && !holds(&listener.allow))
        .then(|| "the listener's `allow` lacks it: dropped before all of this".to_owned())
}

fn leads(plan: &Plan, leads: Leads) -> String {
    match leads {
        Leads::Own(index) => format!("ourselves, listener {}", listener(plan, index)),
        Leads::Address(address) => {
            let whose = match (plan.server_at(address), plan.is_farm(address.ip())) {
                (Some(server), true) => format!("server {}", server.name),
                (_, true) => "in the farm".to_owned(),
                (_, false) => "not in the farm".to_owned(),
            };
            format!("{address}, {whose}")
        }
        Leads::Name => "a name that is not ours".to_owned(),
        Leads::OtherTransport => "another transport than UDP".to_owned(),
        Leads::Secure => "a sips URI".to_owned(),
        Leads::Forbidden => "an address that nobody may send to".to_owned(),
        Leads::Nowhere => "nowhere by itself".to_owned(),
    }
}

fn server_or_outside(plan: &Plan, id: ServerId) -> String {
    match plan.server_by_id(id) {
        Some(server) => format!("server {}", server.name),
        None if id == ServerId::OUTSIDE => "a peer outside the farm".to_owned(),
        None => "a server that the configuration does not have".to_owned(),
    }
}

fn tell_token(plan: &Plan, token: &RouteToken, from_initiator: bool) -> Vec<String> {
    let pair = match token.pair {
        Pair::Single => "the only row",
        Pair::Outside => "the outer one of two rows (RFC 5658)",
        Pair::Farm => "the inner one of two rows (RFC 5658)",
    };
    let flow = token.flow.map_or_else(
        || "no client flow".to_owned(),
        |flow| {
            let use_of_it = if token.nat {
                "behind a NAT: used instead of the Request-URI"
            } else {
                "used where the Request-URI leads nowhere"
            };
            format!("client flow {} ({use_of_it})", flow.address)
        },
    );
    let sender = if from_initiator {
        "the sender began this dialog"
    } else {
        "the sender did not begin this dialog"
    };
    vec![
        format!("ours: {}", server_or_outside(plan, token.server)),
        format!(
            "client side: listener {}; {flow}",
            listener(plan, token.listener)
        ),
        format!("{pair}; {sender}"),
    ]
}

/// What our `Path` says (RFC 3327).
fn tell_path(plan: &Plan, token: &RouteToken) -> Vec<String> {
    let flow = token.flow.map_or_else(
        || "no flow".to_owned(),
        |flow| format!("client at {}", flow.address),
    );
    let listener = listener(plan, token.listener);
    vec![format!("ours, of a Path: {flow}, by listener {listener}")]
}

/// The condition that is not met, as configured.
fn wanted(route: &Route, condition: Condition) -> String {
    match condition {
        Condition::From => match route.from {
            Peers::Any => "not for what the farm sends out".to_owned(),
            Peers::Outside => "from = \"outside\"".to_owned(),
            Peers::Trusted => "from = \"trusted\"".to_owned(),
            Peers::Farm => "from = \"farm\"".to_owned(),
        },
        Condition::Listener => {
            format!(
                "listener = {:?}",
                route.listener.as_deref().unwrap_or_default()
            )
        }
        Condition::Source => {
            let sources: Vec<String> = route.sources.iter().map(ToString::to_string).collect();
            format!("sources = {sources:?}")
        }
        Condition::Method => format!("methods = {:?}", route.methods),
        Condition::Scheme => format!("schemes = {:?}", route.schemes),
        Condition::Domain => format!("domains = {:?}", route.domains),
        Condition::UserPrefix => format!("user_prefixes = {:?}", route.user_prefixes),
        Condition::Header => route.header.as_ref().map_or_else(String::new, header),
    }
}

/// A condition on a header field, as configured.
fn header(condition: &HeaderCondition) -> String {
    let name = &condition.name;
    let (test, text) = match &condition.test {
        HeaderTest::Present => return format!("header = {{ name = {name:?} }}"),
        HeaderTest::Equals(text) => ("equals", text),
        HeaderTest::Prefix(text) => ("prefix", text),
        HeaderTest::Contains(text) => ("contains", text),
    };
    format!("header = {{ name = {name:?}, {test} = {text:?} }}")
}

/// The server of a key, and who would be if it and each after it were down: by tables without them.
fn candidates(subject: &Subject<'_>, pool: PoolIndex, key: AffinityKey) -> Vec<ServerIndex> {
    let mut config = subject.config.clone();
    let mut found = Vec::new();
    while found.len() < NEXT_SERVERS {
        let plan = Plan::build(&config, &mut ServerRegistry::new(), subject.keys);
        let chosen = plan.ok().and_then(|plan| plan.pool(pool)?.select(key));
        let Some(chosen) = chosen else { break };
        found.push(chosen);
        let name = subject
            .plan
            .server(chosen)
            .map(|server| server.name.clone());
        let servers = config.pools.iter_mut().flat_map(|pool| &mut pool.servers);
        for server in servers.filter(|server| Some(&*server.name) == name.as_deref()) {
            server.weight = 0;
        }
    }
    found
}
