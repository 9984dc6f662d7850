//! The README says what the program does: every drop reason and every metric has its row.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its files fails"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use viaduct::admin::{Names, Page, Readings, ServerName};
use viaduct::metrics::WorkerMetrics;
use viaduct::net::ServerIndex;
use viaduct::verdict::DropReason;

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

#[test]
fn every_drop_reason_has_a_row() {
    let readme = readme();
    for reason in DropReason::ALL {
        let row = format!("| `{}` |", reason.as_str());
        assert!(
            readme.contains(&row),
            "README.md has no row for {}",
            reason.as_str()
        );
    }
}

#[test]
fn every_verdict_of_the_steering_program_has_a_row_and_no_other_has() {
    let readme = readme();
    let table = readme.split("| verdict | what happened |").nth(1).unwrap();
    let told: Vec<&str> = table
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let verdicts = viaduct::bpf::SteerVerdict::ALL.iter();
    let shown: Vec<&str> = verdicts.map(|verdict| verdict.as_str()).collect();
    assert_eq!(told, shown);
}

#[test]
fn every_metric_has_a_row_and_every_row_a_metric() {
    let server = ServerName {
        index: ServerIndex(0),
        pool: "p".into(),
        server: "s".into(),
        state: "active",
        is_watched: true,
    };
    let names = Names {
        pools: vec!["p".into()],
        listeners: vec!["l".into()],
        servers: vec![server],
        panics: vec![false],
    };
    let page = Arc::new(Page {
        workers: vec![Arc::new(WorkerMetrics::new())],
        names: Arc::new(ArcSwap::from_pointee(names)),
        health: Arc::default(),
        readings: Box::new(|| Readings {
            steering: vec![("pass", 0)],
            steered: vec![("call_id", 0)],
            ..Readings::default()
        }),
    });
    let text = page.text();
    let mut shown: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("viaduct_"))
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .collect();
    shown.sort_unstable();
    shown.dedup();
    let readme = readme();
    let mut told: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `viaduct_"))
        .map(|line| line.split('`').next().unwrap())
        .collect();
    told.sort_unstable();
    let shown: Vec<String> = shown
        .iter()
        .map(|name| name.trim_start_matches("viaduct_").to_owned())
        .collect();
    assert_eq!(told, shown);
}
