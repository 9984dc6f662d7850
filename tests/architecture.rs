//! The architecture held by a test: who imports whom, where `unsafe` lives, how files open.
//!
//! Reads the sources as text; a rule broken is named with its file and line.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its sources fails"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the ground up. A module may import modules of lower rows, and of its own row only
/// what [`EXCEPTIONS`] names.
const ROWS: &[&[&str]] = &[
    &["limits", "time", "net", "sabotage"],
    &["verdict"],
    &["metrics", "config", "xsk", "sys", "publish"],
    &["packet", "sip", "stun", "journal"],
    &["affinity", "balance", "transaction"],
    &["route"],
    // Copies of messages are told apart by the parser and shown with the packet layer's headers;
    // log records are made of what the parser finds.
    &["forward", "capture", "clf"],
    // Keeps the transactions that forwarding needs.
    &["proxy"],
    &[
        "datapath",
        "bpf",
        "admin",
        "neighbor",
        "generator",
        "health",
    ],
    // Asks the modules that touch the world what a start would get of them.
    &["doctor"],
    &["cli", "app"],
];

/// Imports within a row, or against the direction, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    // The monitor fills the egress table that the data path reads.
    ("neighbor", "datapath"),
    // A method is named as its counter is.
    ("config", "metrics"),
    // A table is built over affinity keys.
    ("balance", "affinity"),
    // The flood generator and the raw forwarder run on the data path's own rings.
    ("generator", "datapath"),
    ("generator", "bpf"),
    // Its frames need the link-layer addresses of whom it calls.
    ("generator", "neighbor"),
    // The command line is made of the generator's arguments.
    ("app", "cli"),
];

/// Imports that lower rows would allow and the architecture forbids: the data path does not know
/// SIP, the rings know frames only, the two byte layers do not know each other.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "datapath",
        &["sip", "affinity", "balance", "route", "forward", "config"],
    ),
    ("xsk", &["time", "net", "verdict"]),
    ("sys", &["verdict"]),
    ("packet", &["xsk", "sys", "config", "metrics"]),
    ("sip", &["xsk", "sys", "config"]),
    ("stun", &["xsk", "sys", "config", "metrics", "publish"]),
    ("affinity", &["xsk", "sys", "config", "packet"]),
    ("balance", &["xsk", "sys", "packet", "sip"]),
    (
        "transaction",
        &["xsk", "sys", "config", "metrics", "packet", "sip"],
    ),
    ("route", &["xsk", "sys"]),
    ("forward", &["xsk", "sys"]),
    ("proxy", &["xsk", "sys", "datapath"]),
    (
        "clf",
        &[
            "xsk", "config", "packet", "affinity", "balance", "route", "metrics",
        ],
    ),
    (
        "capture",
        &["xsk", "config", "affinity", "balance", "route", "metrics"],
    ),
    ("bpf", &["sip", "forward", "route", "config"]),
    ("admin", &["sip", "forward", "route", "config"]),
    ("neighbor", &["sip", "forward", "route", "config"]),
    ("health", &["xsk", "sys", "packet", "sip", "forward"]),
    ("generator", &["forward", "route", "balance", "config"]),
    (
        "doctor",
        &["sip", "affinity", "balance", "route", "forward"],
    ),
];

/// Where `unsafe` may stand.
const UNSAFE_HOMES: &[&str] = &["src/xsk/", "src/bpf/", "src/sys", "src/sip/scan_simd.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// (path from the package root, text) of every file below `src`.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    sources(&root.join("src"), &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    found.into_iter().map(read).collect()
}

/// The module a file belongs to: `src/sip/via.rs` → `sip`.
fn module(file: &str) -> &str {
    let rest = file.strip_prefix("src/").unwrap();
    rest.split(['/', '.']).next().unwrap()
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// The code of a line: no comment, and nothing of a doc example.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

/// Whether a file holds unit tests only, beside the module they test.
fn is_tests(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.starts_with("tests") || file.contains("/tests/") || file.contains("/testing")
}

/// The lines before the unit tests, with their numbers.
fn production(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]" || !line.starts_with('#'))
}

/// Modules named as `crate::X` in a line; `crate::{a::…, b::…}` over one line too.
fn imports(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("crate::") {
        let before = rest[..at].chars().next_back();
        rest = &rest[at + "crate::".len()..];
        if before.is_some_and(|c| c == '$' || c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name = |text: &'_ str| {
            text.find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(text.len())
        };
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or("");
            found.extend(list.split(',').map(|item| {
                let item = item.trim();
                &item[..name(item)]
            }));
        } else {
            found.push(&rest[..name(rest)]);
        }
    }
    found
}

#[test]
fn imports_go_down_only() {
    let mut faults = Vec::new();
    for (file, text) in files() {
        let from = module(&file);
        if matches!(from, "lib" | "main") {
            continue;
        }
        let Some(from_row) = row(from) else {
            faults.push(format!(
                "{file}: module {from} stands in no row of tests/architecture.rs"
            ));
            continue;
        };
        for (number, line) in production(&text) {
            for to in imports(code(line)) {
                let Some(to_row) = row(to) else { continue };
                let excepted = EXCEPTIONS.contains(&(from, to));
                let forbidden = FORBIDDEN
                    .iter()
                    .any(|(module, list)| *module == from && list.contains(&to));
                if to != from && !excepted && (to_row >= from_row || forbidden) {
                    faults.push(format!("{file}:{number}: {from} may not import {to}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn unsafe_stays_in_its_homes() {
    let mut faults = Vec::new();
    for (file, text) in files() {
        if UNSAFE_HOMES.iter().any(|home| file.starts_with(home)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = code(line);
            let spelled = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
            if spelled.iter().any(|form| code.contains(form)) || code.contains("allow(unsafe_code")
            {
                faults.push(format!("{file}:{}: unsafe outside its homes", number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_file_opens_with_its_purpose_and_has_one_room() {
    let mut faults = Vec::new();
    for (file, text) in files() {
        if !text.starts_with("//!") {
            faults.push(format!("{file}: does not open with `//!`"));
        }
        let lines = production(&text).count();
        if lines > 700 && !is_tests(&file) {
            faults.push(format!(
                "{file}: {lines} lines before its tests: does it hold two rooms?"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Decide layers take `now` and secrets as arguments: they read no clock, no socket, no randomness.
#[test]
fn decide_layers_are_pure() {
    let banned = [
        "std::net::UdpSocket",
        "std::net::TcpStream",
        "Instant::now",
        "SystemTime",
        "getrandom",
        "tokio::",
        "std::thread",
        "std::fs",
    ];
    let mut faults = Vec::new();
    for (file, text) in files() {
        let pure = [
            "sip",
            "packet",
            "affinity",
            "balance",
            "transaction",
            "route",
            "forward",
            "proxy",
        ];
        if !pure.contains(&module(&file)) || is_tests(&file) {
            continue;
        }
        for (number, line) in production(&text) {
            for word in banned {
                // A secret may be made of random bytes; that one call is named for what it is.
                let generates = word == "getrandom" && file == "src/affinity/secret.rs";
                if code(line).contains(word) && !generates {
                    faults.push(format!("{file}:{number}: {word} in a decide layer"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Style B.4: names that say nothing, and the words the field does not use.
#[test]
fn names_are_the_fields_own() {
    let banned = [
        "fn get_",
        "fn do_",
        "mod utils",
        "mod helpers",
        "mod common",
        "process_data",
    ];
    let mut faults = Vec::new();
    for (file, text) in files() {
        for (number, line) in text.lines().enumerate() {
            for word in banned {
                if code(line).contains(word) {
                    faults.push(format!("{file}:{}: `{word}`", number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_rules_can_fail() {
    assert_eq!(imports("use crate::sip::Via;"), ["sip"]);
    assert_eq!(imports("use crate::{sip::Via, packet};"), ["sip", "packet"]);
    assert_eq!(
        imports("crate::forward::decide(crate::route::x)"),
        ["forward", "route"]
    );
    assert!(imports("$crate::sip").is_empty());
    assert_eq!(module("src/sip/via.rs"), "sip");
    assert_eq!(module("src/neighbor.rs"), "neighbor");
    assert!(row("sip") < row("forward") && row("forward") < row("app"));
}
