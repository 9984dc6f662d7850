//! ETSI TS 102 027-2's test purposes for a SIP proxy, through `proxy::Proxy`.
//!
//! `tests/etsi.tsv` has a row for every identifier: the RFC 3261 sections that it is about, its
//! status, and either the test that covers it or why it does not apply. The catalogue of identifiers
//! is at hand, the purposes' texts are ETSI's and are not: each test says in its own words what the
//! cited section asks for, and its documentation names the identifiers of that section.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
#[path = "../rfc3261_16/fixture.rs"]
mod fixture;
mod hunting;
mod lab;
mod message;
mod request;
mod response;
mod server;

use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = include_str!("../etsi.tsv");
const SOURCES: [(&str, &str); 6] = [
    ("client", include_str!("client.rs")),
    ("hunting", include_str!("hunting.rs")),
    ("message", include_str!("message.rs")),
    ("request", include_str!("request.rs")),
    ("response", include_str!("response.rs")),
    ("server", include_str!("server.rs")),
];
/// Identifiers by group, as the catalogue has them: numbers run from 1 without a gap.
const GROUPS: [(&str, usize); 10] = [
    ("SIP_CC_PR_MP_RQ_I", 4),
    ("SIP_CC_PR_MP_RQ_V", 67),
    ("SIP_CC_PR_MP_RS_V", 53),
    ("SIP_CC_PR_TR_CL_TI", 19),
    ("SIP_CC_PR_TR_CL_V", 14),
    ("SIP_CC_PR_TR_SE_TI", 9),
    ("SIP_CC_PR_TR_SE_V", 29),
    ("SIP_MG_PR_I", 10),
    ("SIP_MG_PR_V", 16),
    ("SIP_QC_PR_V", 13),
];

/// Test by identifier, read off the tests' documentation.
fn cited() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (module, source) in SOURCES {
        let mut ids: Vec<&str> = Vec::new();
        for line in source.lines() {
            if let Some(text) = line.strip_prefix("/// ") {
                ids.extend(text.split(' ').filter(|word| word.starts_with("SIP_")));
            } else if let Some(rest) = line.strip_prefix("fn ") {
                let name = rest.split('(').next().unwrap();
                for id in ids.drain(..) {
                    let other = found.insert(id.to_owned(), format!("{module}::{name}"));
                    assert_eq!(other, None, "{id} twice");
                }
            }
        }
    }
    found
}

#[test]
fn every_identifier_has_a_test_or_a_reason() {
    let cited = cited();
    let mut seen = BTreeSet::new();
    for line in TABLE.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [id, _sections, status, test, reason] = columns[..] else {
            panic!("{line:?} has {} columns", columns.len());
        };
        assert!(seen.insert(id.to_owned()), "{id} twice");
        assert_eq!(cited.get(id).map_or("", String::as_str), test, "{id}");
        assert!(test.is_empty() != reason.is_empty(), "{id}: one of both");
        assert!(status != "Void" || test.is_empty(), "{id} is void");
    }
    let all: BTreeSet<String> = GROUPS
        .iter()
        .flat_map(|(group, count)| (1..=*count).map(move |n| format!("{group}_{n:03}")))
        .collect();
    assert_eq!(seen, all);
    let strangers: Vec<_> = cited.keys().filter(|id| !seen.contains(*id)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}
