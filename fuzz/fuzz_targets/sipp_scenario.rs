//! Any text as a SIPp scenario and as a table of fields: read or refused, never a panic.
//!
//! Seeds: what `sipp -sd` prints, put into `fuzz/corpus/sipp_scenario` by hand.

#![no_main]

use libfuzzer_sys::fuzz_target;
use viaduct::generator::sipp::{Play, Program, Table};
use viaduct::time::Duration;

fuzz_target!(|text: &str| {
    let table = text.parse::<Table>().ok();
    for scenario in [text.to_owned(), format!("<scenario>{text}</scenario>")] {
        if let Ok(program) = scenario.parse::<Program>() {
            let _ = Play::new(program, table.clone(), Duration::ZERO);
        }
    }
});
