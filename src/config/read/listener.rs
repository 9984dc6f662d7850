//! Listeners.

use super::super::reader::Reader;
use super::super::{Listener, Nat, PathPolicy, Side};
use super::{ADDRESS, address, is_host_name, name, networks, usable_address};
use crate::metrics::METHODS;

/// One `[[listeners]]` table.
pub(super) fn listener(table: Reader<'_>) -> Option<Listener> {
    let name = name(&table);
    let address = address(&table);
    let sides = [("outside", Side::Outside), ("farm", Side::Farm)];
    let side = table.choice("side", &sides).unwrap_or(Side::Outside);
    let advertise = table
        .parsed("advertise", ADDRESS)
        .and_then(|address| usable_address(&table, "advertise", address));
    let nats = [
        ("auto", Nat::Auto),
        ("rfc", Nat::Rfc),
        ("force-rport", Nat::ForceRport),
    ];
    let nat = table.choice("nat", &nats).unwrap_or(Nat::Auto);
    let paths = [
        ("off", PathPolicy::Off),
        ("auto", PathPolicy::Auto),
        ("supported", PathPolicy::Auto),
        ("always", PathPolicy::Always),
        ("require", PathPolicy::Require),
    ];
    let path = table.choice("path", &paths).unwrap_or(PathPolicy::Off);
    let stun = table.boolean("stun").unwrap_or(false);
    let freebind = table.boolean("freebind").unwrap_or(false);
    let interface = interface(&table);
    let aliases: Vec<String> = table.list("aliases", "a host name").unwrap_or_default();
    for (index, alias) in aliases.iter().enumerate() {
        if !is_host_name(alias) {
            table.fault(
                &format!("aliases[{index}]"),
                format!("{alias:?}"),
                "is not a host name",
            );
        }
    }
    let stateful = stateful(&table);
    let node_listener = table.string("node_listener").map(str::to_owned);
    let allow = networks(&table, "allow");
    let deny = networks(&table, "deny");
    let trusted = networks(&table, "trusted");
    if let (Some(address), Some(advertise)) = (address, advertise)
        && address.is_ipv4() != advertise.is_ipv4()
    {
        table.fault(
            "advertise",
            advertise,
            format!("is not of the family of {address}"),
        );
    }
    table.finish();
    Some(Listener {
        name: name?,
        address: address?,
        side,
        advertise,
        aliases,
        allow,
        deny,
        trusted,
        nat,
        path,
        stun,
        freebind,
        interface,
        stateful,
        node_listener,
    })
}

/// Methods handled with a transaction.
fn stateful(table: &Reader<'_>) -> Vec<String> {
    let methods: Vec<String> = table
        .list("stateful", "a method")
        .unwrap_or_else(|| vec!["INVITE".to_owned()]);
    for (index, method) in methods.iter().enumerate() {
        let key = format!("stateful[{index}]");
        match method.as_str() {
            "ACK" | "CANCEL" => table.fault(&key, method, "follows its INVITE"),
            known if METHODS.contains(&known) => {}
            _ => table.fault(
                &key,
                format!("{method:?}"),
                "is no method that has a transaction of its own here; \"other\" means all unknown ones",
            ),
        }
    }
    methods
}

/// The name of a network interface: what `dev_valid_name()` of the kernel takes.
fn interface(table: &Reader<'_>) -> Option<String> {
    let name = table.string("interface")?;
    let fits = (1..16).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"/:".contains(&byte));
    if !fits {
        let reason = "is not the name of a network interface";
        table.fault("interface", format!("{name:?}"), reason);
    }
    fits.then(|| name.to_owned())
}
