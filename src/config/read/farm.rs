//! Pools and their servers.

use core::time::Duration;

use super::super::reader::{Faults, Reader};
use super::super::{Health, Hunting, Policy, Pool, Reach, Server};
use super::{address, name, networks};
use crate::limits::{
    CALL_MAX_DEFAULT, CALL_MAX_SECONDS, CALLS_MAX, CALLS_PER_SECOND_MAX,
    CLIENT_ADDRESS_HEADER_LEN_MAX, SLOW_START_DEFAULT, SLOW_START_MAX, WEIGHT_MAX,
};
use crate::net::SocketAddr;

/// One `[[pools]]` table.
pub(super) fn pool(table: Reader<'_>) -> Option<Pool> {
    let name = name(&table);
    let reaches = [
        ("destination", Reach::Destination),
        ("route", Reach::Route),
        ("request-uri", Reach::RequestUri),
    ];
    let policies = [
        Policy::Maglev,
        Policy::Rendezvous,
        Policy::RoundRobin,
        Policy::LeastLoaded,
        Policy::Tlwl,
    ]
    .map(|policy| (policy.as_str(), policy));
    let call_max = table.integer("call_max", CALL_MAX_SECONDS);
    let slow_start = table.integer("slow_start", 0..=SLOW_START_MAX);
    let pool = Pool {
        name: name.clone().unwrap_or_default(),
        servers: table
            .tables("servers")
            .into_iter()
            .filter_map(server)
            .collect(),
        networks: networks(&table, "networks"),
        reach: table
            .choice("reach", &reaches)
            .unwrap_or(Reach::Destination),
        udp_max_request: table
            .integer("udp_max_request", 1300..=65_507)
            .and_then(|n: i64| usize::try_from(n).ok()),
        client_address_header: client_address_header(&table),
        overload_control: table.boolean("overload_control").unwrap_or(false),
        hunting: Hunting::read(&table),
        policy: table.choice("policy", &policies).unwrap_or_default(),
        call_max: Duration::from_secs(call_max.unwrap_or(CALL_MAX_DEFAULT).into()),
        slow_start: Duration::from_secs(slow_start.unwrap_or(SLOW_START_DEFAULT).into()),
        health: Health::read(&table),
    };
    table.finish();
    name.map(|_| pool)
}

/// The name of a header that no standard has: what strangers write there is taken off, and that
/// must not be anything that a message needs.
fn client_address_header(table: &Reader<'_>) -> Option<String> {
    let name = table.string("client_address_header")?;
    let fits = (3..=CLIENT_ADDRESS_HEADER_LEN_MAX).contains(&name.len())
        && name
            .get(..2)
            .is_some_and(|start| start.eq_ignore_ascii_case("x-"))
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte));
    if !fits {
        table.fault(
            "client_address_header",
            format!("{name:?}"),
            format!("is not the name of a header of 3 to {CLIENT_ADDRESS_HEADER_LEN_MAX} characters that starts with X-"),
        );
    }
    fits.then(|| name.to_owned())
}

fn server(table: Reader<'_>) -> Option<Server> {
    let name = name(&table);
    let address = address(&table);
    let weight = table.integer("weight", 0..=WEIGHT_MAX).unwrap_or(1);
    let priority = table.integer("priority", 0..=255_u8).unwrap_or(0);
    let max_calls = table.integer("max_calls", 0..=CALLS_MAX).unwrap_or(0);
    let per_second = table.integer("max_calls_per_second", 0..=CALLS_PER_SECOND_MAX);
    table.finish();
    Some(Server {
        name: name?,
        address: address?,
        weight,
        priority,
        max_calls,
        max_calls_per_second: per_second.unwrap_or(0),
    })
}

impl Server {
    /// A server as the file would name it, checked by itself.
    ///
    /// # Errors
    /// What is wrong with it, in the words of the file's faults.
    pub fn checked(name: &str, address: SocketAddr, weight: u32) -> Result<Self, String> {
        let mut table = toml::Table::new();
        table.insert("name".to_owned(), name.into());
        table.insert("address".to_owned(), address.to_string().into());
        table.insert("weight".to_owned(), i64::from(weight).into());
        let faults = Faults::default();
        let read = server(Reader::root(&table, &faults));
        let said: Vec<String> = faults.into_vec().iter().map(ToString::to_string).collect();
        match read {
            Some(server) if said.is_empty() => Ok(server),
            _ => Err(said.join("; ")),
        }
    }
}
