//! Pools and their servers.

use super::super::reader::Reader;
use super::super::{Hunting, Pool, Reach, Server};
use super::{address, name, networks};
use crate::limits::WEIGHT_MAX;

/// One `[[pools]]` table.
pub(super) fn pool(table: Reader<'_>) -> Option<Pool> {
    let name = name(&table);
    let reaches = [
        ("destination", Reach::Destination),
        ("route", Reach::Route),
        ("request-uri", Reach::RequestUri),
    ];
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
        hunting: Hunting::read(&table),
    };
    table.finish();
    name.map(|_| pool)
}

fn server(table: Reader<'_>) -> Option<Server> {
    let name = name(&table);
    let address = address(&table);
    let weight = table.integer("weight", 0..=WEIGHT_MAX).unwrap_or(1);
    let priority = table.integer("priority", 0..=255_u8).unwrap_or(0);
    table.finish();
    Some(Server {
        name: name?,
        address: address?,
        weight,
        priority,
    })
}
