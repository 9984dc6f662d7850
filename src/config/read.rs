//! From TOML to [`Config`]: keys, defaults and ranges. What no single section can see is checked in
//! `across`.

mod across;
mod farm;
mod listener;
mod route;

use toml::Table;

use self::farm::pool;
use self::listener::listener;
use self::route::route;
use super::reader::{Faults, Reader};
use super::{
    Config, Control, Datapath, Fault, Idle, Limit, Log, Metrics, Mode, Secret, SecretSource, Sip,
    TokenSecret, Transactions, Workers, ZeroCopy,
};
use crate::limits::{NETWORKS_MAX, PINS_DEFAULT, PINS_MAX, PINS_MIN, WORKERS_MAX};
use crate::net::{Network, SocketAddr, canonical};

/// Where the secret is kept unless the configuration says otherwise.
const SECRET_FILE: &str = "/var/lib/viaduct/secret";

const ADDRESS: &str = "an address and port such as 198.18.0.1:5060 or [2001:db8::1]:5060";
const NETWORK: &str = "an address or a CIDR block such as 198.18.0.0/15";

/// Reads a whole file.
pub(super) fn config(text: &str) -> Result<Config, Vec<Fault>> {
    checked(&table(text)?, Faults::default())
}

/// The text as TOML.
pub(super) fn table(text: &str) -> Result<Table, Vec<Fault>> {
    text.parse().map_err(|error: toml::de::Error| {
        let reason = format!("is not TOML: {}", error.to_string().trim_end());
        vec![Fault {
            key: String::new(),
            value: String::new(),
            reason,
        }]
    })
}

/// Reads a whole table.
pub(super) fn checked(table: &Table, faults: Faults) -> Result<Config, Vec<Fault>> {
    let config = root(&Reader::root(table, &faults), &faults);
    let faults = faults.into_vec();
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(faults)
    }
}

fn root(root: &Reader<'_>, faults: &Faults) -> Config {
    let config = Config {
        node: root.integer("node", 0..=255).unwrap_or(0),
        secret: secret(root.table("secret")),
        workers: workers(root.table("workers")),
        datapath: datapath(root.table("datapath")),
        listeners: root
            .tables("listeners")
            .into_iter()
            .filter_map(listener)
            .collect(),
        pools: root.tables("pools").into_iter().filter_map(pool).collect(),
        routes: root
            .tables("routes")
            .into_iter()
            .filter_map(route)
            .collect(),
        trusted: networks(root, "trusted"),
        limit: Limit::read(root.table("limit")),
        metrics: metrics(root.table("metrics")),
        control: Control::read(root.table("control")),
        log: Log::read(root.table("log")),
        transactions: Transactions::read(root.table("transactions")),
        sip: sip(root.table("sip")),
    };
    root.finish_ref();
    across::check(&config, faults);
    config
}

fn secret(table: Reader<'_>) -> Secret {
    let file = table.string("file");
    let hex = hex_text(&table);
    if file.is_some() && hex.is_some() {
        table.fault("file", "", "cannot stand beside secret.hex");
    }
    let tokens: Vec<TokenSecret> = table
        .tables("tokens")
        .into_iter()
        .filter_map(|table| {
            let id = table.integer("id", 0..=15_u8);
            if id.is_none() {
                table.fault("id", "", "is needed: tokens carry it");
            }
            let hex = hex_text(&table);
            if hex.is_none() {
                table.fault("hex", "", "is needed");
            }
            table.finish();
            Some(TokenSecret { id: id?, hex: hex? })
        })
        .collect();
    for (index, token) in tokens.iter().enumerate() {
        if tokens[..index].iter().any(|other| other.id == token.id) {
            table.fault(&format!("tokens[{index}].id"), token.id, "is taken already");
        }
    }
    table.finish();
    let master = match hex {
        Some(hex) => SecretSource::Hex(hex),
        None => SecretSource::File(file.unwrap_or(SECRET_FILE).into()),
    };
    Secret { master, tokens }
}

/// 64 hexadecimal digits. What was written stays out of logs and terminals.
fn hex_text(table: &Reader<'_>) -> Option<String> {
    let text = table.string("hex")?;
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        table.fault("hex", "", "is not 64 hexadecimal digits (32 bytes)");
    } else if text
        .as_bytes()
        .chunks(2)
        .all(|byte| byte == &text.as_bytes()[..2])
    {
        table.fault(
            "hex",
            "",
            "repeats one byte: make a secret with `openssl rand -hex 32`",
        );
    }
    Some(text.to_owned())
}

fn workers(table: Reader<'_>) -> Workers {
    let idles = [
        ("adaptive", Idle::Adaptive),
        ("sleep", Idle::Sleep),
        ("spin", Idle::Spin),
    ];
    let workers = Workers {
        count: table
            .integer("count", 1..=WORKERS_MAX as i64)
            .and_then(|n| usize::try_from(n).ok()),
        cores: table.integers("cores", 0..=1023).unwrap_or_default(),
        idle: table.choice("idle", &idles).unwrap_or_default(),
    };
    if let Some(count) = workers.count
        && !workers.cores.is_empty()
        && workers.cores.len() != count
    {
        let reason = format!("names {} cores for {count} workers", workers.cores.len());
        table.fault("cores", "", reason);
    }
    table.finish();
    workers
}

fn datapath(table: Reader<'_>) -> Datapath {
    let modes = [
        ("auto", Mode::Auto),
        ("native", Mode::Native),
        ("generic", Mode::Generic),
        ("socket", Mode::Socket),
    ];
    let zero_copies = [
        ("auto", ZeroCopy::Auto),
        ("off", ZeroCopy::Off),
        ("require", ZeroCopy::Require),
    ];
    let pins_max = i64::try_from(PINS_MAX).unwrap_or(i64::MAX);
    let datapath = Datapath {
        mode: table.choice("mode", &modes).unwrap_or(Mode::Auto),
        zero_copy: table
            .choice("zero_copy", &zero_copies)
            .unwrap_or(ZeroCopy::Auto),
        hugepages: table.boolean("hugepages").unwrap_or(true),
        pins: table
            .integer("pins", 0..=pins_max)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(PINS_DEFAULT),
    };
    if (1..PINS_MIN).contains(&datapath.pins) {
        let reason = format!("is neither 0 (no pins) nor at least {PINS_MIN}");
        table.fault("pins", datapath.pins, reason);
    }
    table.finish();
    datapath
}

/// A name that can stand in a metric label, a log line and a command.
fn name(table: &Reader<'_>) -> Option<String> {
    table.required_string("name")?;
    name_of(table)
}

/// The same where it may be absent.
fn name_of(table: &Reader<'_>) -> Option<String> {
    let name = table.string("name")?;
    let fits = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fits {
        let reason = "is not 1 to 64 letters, digits, '-', '_' or '.'";
        table.fault("name", format!("{name:?}"), reason);
    }
    fits.then(|| name.to_owned())
}

/// A host name as in RFC 3261 §25.1, without regard to the form of its last label.
fn is_host_name(text: &str) -> bool {
    let host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(host)
}

/// An address and port that must be there; port 0 is not one.
fn address(table: &Reader<'_>) -> Option<SocketAddr> {
    table.required_string("address")?;
    let address: SocketAddr = table.parsed("address", ADDRESS)?;
    usable_address(table, "address", address)
}

fn usable_address(table: &Reader<'_>, key: &str, address: SocketAddr) -> Option<SocketAddr> {
    let ip = canonical(address.ip());
    if address.port() == 0 {
        table.fault(key, address, "has port 0");
        return None;
    }
    let broadcast = matches!(ip, core::net::IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast {
        table.fault(key, address, "is not the address of one host");
        return None;
    }
    Some(SocketAddr::new(ip, address.port()))
}

pub(super) fn networks(table: &Reader<'_>, key: &'static str) -> Vec<Network> {
    let networks = table.list(key, NETWORK).unwrap_or_default();
    if networks.len() > NETWORKS_MAX {
        table.fault(
            key,
            format!("{} blocks", networks.len()),
            format!("is over {NETWORKS_MAX}"),
        );
    }
    networks
}

fn metrics(table: Reader<'_>) -> Metrics {
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    let enabled = table.boolean("enabled").unwrap_or(true);
    let address = table.parsed("address", ADDRESS).unwrap_or(default);
    if !address.ip().is_loopback() {
        let reason = "is not a loopback address; the page has no authentication";
        table.fault("address", address, reason);
    }
    table.finish();
    Metrics {
        address: enabled.then_some(address),
    }
}

fn sip(table: Reader<'_>) -> Sip {
    let sip = Sip {
        max_breadth: table.integer("max_breadth", 1..=255).unwrap_or(60),
        own_vias_max: table
            .integer("own_vias_max", 1..=70)
            .and_then(|n: i64| usize::try_from(n).ok())
            .unwrap_or(5),
        proxy_require: table
            .list("proxy_require", "an option tag")
            .unwrap_or_default(),
        answers_per_second: match table.integer("answers_per_second", 0..=10_000_000_u32) {
            Some(0) => None,
            Some(limit) => Some(limit),
            None => Some(10_000),
        },
        answers_per_source: match table.integer("answers_per_source", 0..=10_000_000_u32) {
            Some(0) => None,
            Some(limit) => Some(limit),
            None => Some(20),
        },
    };
    table.finish();
    sip
}
