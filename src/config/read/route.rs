//! The route table.

use super::super::reader::Reader;
use super::super::{Action, HeaderCondition, HeaderTest, KeySource, Peers, Route};
use super::{ADDRESS, is_host_name, name_of, networks, usable_address};
use crate::limits::CONDITION_VALUES_MAX;

/// Schemes that a condition may name.
const SCHEMES: [&str; 6] = ["sip", "sips", "tel", "urn", "im", "pres"];

/// One `[[routes]]` table.
pub(super) fn route(table: Reader<'_>) -> Option<Route> {
    let peers = [
        ("outside", Peers::Outside),
        ("trusted", Peers::Trusted),
        ("farm", Peers::Farm),
    ];
    let name = match table.string("name") {
        Some(_) => name_of(&table),
        None => None,
    };
    let listener = table.string("listener").map(str::to_owned);
    let from = table.choice("from", &peers).unwrap_or_default();
    let sources = networks(&table, "sources");
    let methods = strings(&table, "methods", "a method name in capitals", is_method);
    let schemes = strings(
        &table,
        "schemes",
        "sip, sips, tel, im, pres or urn:…",
        |text| {
            let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
            SCHEMES.contains(&scheme) && (rest.is_empty() || scheme == "urn")
        },
    );
    let domains = strings(
        &table,
        "domains",
        "a host name, address, *.NAME or self",
        is_domain,
    );
    let user_prefixes = strings(
        &table,
        "user_prefixes",
        "the start of a user name",
        |text| text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.is_empty(),
    );
    let header = header(table.table("header"));
    let action = action(&table);
    table.finish();
    Some(Route {
        name,
        listener,
        from,
        sources,
        methods,
        schemes,
        domains,
        user_prefixes,
        header,
        action: action?,
    })
}

/// A token of RFC 3261 §25.1, without small letters: method names compare with regard to case, and
/// `invite` would silently match nothing.
fn is_method(text: &str) -> bool {
    is_token(text) && !text.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(token)
}

fn is_domain(text: &str) -> bool {
    let address = text.trim_start_matches('[').trim_end_matches(']');
    is_host_name(text.strip_prefix("*.").unwrap_or(text))
        || address.parse::<core::net::IpAddr>().is_ok()
}

fn strings(
    table: &Reader<'_>,
    key: &'static str,
    expected: &str,
    fits: impl Fn(&str) -> bool,
) -> Vec<String> {
    let values: Vec<String> = table.list(key, "a string").unwrap_or_default();
    if values.len() > CONDITION_VALUES_MAX {
        let reason = format!("is over {CONDITION_VALUES_MAX}");
        table.fault(key, format!("{} values", values.len()), reason);
    }
    for (index, value) in values.iter().enumerate() {
        if !fits(value) {
            let path = format!("{key}[{index}]");
            table.fault(&path, format!("{value:?}"), format!("is not {expected}"));
        }
    }
    values
}

fn header(table: Reader<'_>) -> Option<HeaderCondition> {
    let name = header_name(&table, "name");
    let mut tests = Vec::new();
    for (key, test) in [
        ("equals", HeaderTest::Equals as fn(String) -> HeaderTest),
        ("prefix", HeaderTest::Prefix),
        ("contains", HeaderTest::Contains),
    ] {
        if let Some(text) = table.string(key) {
            tests.push(test(text.to_ascii_lowercase()));
        }
    }
    if tests.len() > 1 {
        table.fault(
            "equals",
            "",
            "cannot stand beside prefix or contains, nor these together",
        );
    }
    if name.is_none() && !tests.is_empty() {
        table.fault("name", "", "is missing");
    }
    table.finish();
    Some(HeaderCondition {
        name: name?,
        test: tests.pop().unwrap_or(HeaderTest::Present),
    })
}

fn header_name(table: &Reader<'_>, key: &'static str) -> Option<String> {
    let name = table.string(key)?;
    if !is_token(name) {
        table.fault(
            key,
            format!("{name:?}"),
            "is not the name of a header field",
        );
    }
    Some(name.to_owned())
}

/// Exactly one of `pool`, `next_hop`, `reject` and `drop`.
fn action(table: &Reader<'_>) -> Option<Action> {
    let key = key_source(table);
    let mut actions = Vec::new();
    if let Some(pool) = table.string("pool") {
        actions.push(Action::Pool {
            pool: pool.to_owned(),
            key: key.clone().unwrap_or_default(),
        });
    }
    let next_hop = table.parsed("next_hop", ADDRESS);
    if let Some(address) = next_hop.and_then(|hop| usable_address(table, "next_hop", hop)) {
        actions.push(Action::NextHop(address));
    }
    if let Some(status) = table.integer("reject", 400..=699) {
        actions.push(Action::Reject(status));
    }
    match table.boolean("drop") {
        Some(true) => actions.push(Action::Drop),
        Some(false) => table.fault("drop", false, "says nothing: leave it out"),
        None => {}
    }
    let pooled = matches!(actions.as_slice(), [Action::Pool { .. }]);
    if key.is_some() && !pooled {
        table.fault("key", "", "needs a pool");
    }
    if actions.len() != 1 {
        let reason = "needs exactly one of pool, next_hop, reject and drop";
        table.fault("pool", "", reason);
        return None;
    }
    actions.pop()
}

fn key_source(table: &Reader<'_>) -> Option<KeySource> {
    let text = table.string("key")?;
    if let Some(header) = text.strip_prefix("header:").filter(|name| is_token(name)) {
        return Some(KeySource::Header(header.to_owned()));
    }
    let sources = [
        ("call-id", KeySource::CallId),
        ("aor", KeySource::Aor),
        ("from", KeySource::From),
        ("ruri-user", KeySource::RuriUser),
        ("source", KeySource::Source),
    ];
    let found = sources.into_iter().find(|(name, _)| *name == text);
    if found.is_none() {
        let reason = "is not one of call-id, aor, from, ruri-user, source, header:NAME";
        table.fault("key", format!("{text:?}"), reason);
    }
    found.map(|(_, source)| source)
}
