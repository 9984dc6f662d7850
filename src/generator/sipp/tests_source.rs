//! Reading scenarios: SIPp's own, faults with their lines, and whatever else a file may hold.

use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::generator::sipp::program::{Action, Area, Check};

/// SIPp's own scenarios, as the installed SIPp prints them: they are its text, not ours.
fn stock(name: &str) -> String {
    let output = Command::new("sipp").args(["-sd", name]).output();
    let output = output.expect("sipp is installed by scripts/setup --test");
    decoded(output.stdout)
}

fn program(steps: &str) -> Result<Program, ScenarioError> {
    format!("<?xml version=\"1.0\"?>\n<scenario name=\"x\">\n{steps}\n</scenario>").parse()
}

fn fault(steps: &str) -> (u32, String) {
    let error = program(steps).unwrap_err();
    (error.line, error.reason)
}

#[test]
fn the_stock_scenarios_are_read() {
    for (name, steps, is_caller) in [
        ("uac", 9, true),
        ("uas", 7, false),
        ("regexp", 9, true),
        ("branchc", 14, true),
        ("branchs", 11, false),
    ] {
        let program: Program = stock(name)
            .parse()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (program.step_count(), program.is_caller()),
            (steps, is_caller),
            "{name}"
        );
    }
    let regexp: Program = stock("regexp").parse().unwrap();
    assert_eq!(regexp.variables, ["1", "6", "3", "4", "5", "8"]);
    let Action::Ereg(ereg) = &regexp.steps[4].actions[1] else {
        panic!("no search");
    };
    assert_eq!(
        (&ereg.area, ereg.check),
        (&Area::Header(b"Contact".to_vec(), 0), Check::Match)
    );
}

/// What sends media or runs commands is refused at its line, not half played.
#[test]
fn media_and_third_party_control_are_refused_by_name() {
    for (name, part) in [
        ("uac_pcap", "no media"),
        ("3pcc-C-B", "<recvCmd>"),
        ("3pcc-C-A", "<sendCmd>"),
    ] {
        let text = stock(name);
        let error = text.parse::<Program>().unwrap_err();
        assert!(error.reason.contains(part), "{name}: {error}");
        let line = usize::try_from(error.line).unwrap();
        let tag = part.trim_matches(['<', '>']);
        let tag = if tag == "no media" { "exec" } else { tag };
        assert!(
            text.lines().nth(line - 1).unwrap().contains(tag),
            "{name}: {error}"
        );
    }
}

#[test]
fn faults_name_their_line() {
    for (steps, line, part) in [
        ("<recv/>", 3, "request= or response="),
        ("<recv response=\"99\"/>", 3, "status code"),
        (
            "<nop/>\n<recv response=\"200\" next=\"7\"/>",
            4,
            "no <label id=\"7\"/>",
        ),
        (
            "<recv response=\"200\" nonsense=\"1\"/>",
            3,
            "nonsense= of <recv>",
        ),
        ("<send>\n<![CDATA[\nA [what]\n]]></send>", 5, "no keyword"),
        ("<send/>", 3, "without a text"),
        ("<pause milliseconds=\"soon\"/>", 3, "no number"),
        ("<pause milliseconds=\"-1\"/>", 3, "out of range"),
        ("<pause distribution=\"weibull\"/>", 3, "weibull"),
        ("<label id=\"1\"/>\n<label id=\"1\"/>", 4, "second <label"),
        (
            "<nop><action><exec command=\"rm\"/></action></nop>",
            3,
            "no command",
        ),
        (
            "<nop><action><ereg regexp=\"(\"/></action></nop>",
            3,
            "regular expression",
        ),
        ("<recv response=\"200\" test=\"1\"/>", 3, "belong to next="),
        ("<nop>", 4, "expected"),
        ("", 2, "without a step"),
        ("<what/>", 3, "<what> is not supported"),
    ] {
        let (at, reason) = fault(steps);
        assert!(
            at == line && reason.contains(part),
            "{steps}: line {at}: {reason}"
        );
    }
    let root = "<other/>".parse::<Program>().unwrap_err();
    assert!(root.reason.contains("not a <scenario>"));
}

#[test]
fn labels_may_stand_before_and_behind_and_at_the_end() {
    let read = program(
        "<label id=\"a\"/><nop next=\"end\"/><recv response=\"200\" ontimeout=\"a\" timeout=\"5\"/><label id=\"end\"/>",
    )
    .unwrap();
    assert_eq!(read.steps[0].next.map(|jump| jump.to), Some(2));
    let Kind::Receive(receive) = &read.steps[1].kind else {
        panic!("no receive");
    };
    assert_eq!(receive.on_timeout, Some(0));
    assert_eq!(receive.timeout, Some(Duration::from_millis(5)));
}

/// Both sides of each bound.
#[test]
fn scenarios_are_bounded() {
    let steps = |count: usize| program(&"<nop/>".repeat(count));
    assert_eq!(steps(SIPP_STEPS_MAX).unwrap().step_count(), SIPP_STEPS_MAX);
    assert!(
        steps(SIPP_STEPS_MAX + 1)
            .unwrap_err()
            .reason
            .contains("steps")
    );
    let variables = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let list = names.join(",");
        program(&format!(
            "<nop><action><ereg regexp=\"a\" assign_to=\"{list}\"/></action></nop>"
        ))
    };
    assert!(variables(SIPP_VARIABLES_MAX).is_ok());
    assert!(variables(SIPP_VARIABLES_MAX + 1).is_err());
    let long = format!(
        "<scenario><nop/>{}</scenario>",
        " ".repeat(SIPP_FILE_LEN_MAX)
    );
    assert!(
        long.parse::<Program>()
            .unwrap_err()
            .reason
            .contains("longer than")
    );
}

/// Entities that name each other would grow without end.
#[test]
fn entities_do_not_explode() {
    let mut text = String::from("<!DOCTYPE scenario [<!ENTITY a \"aaaaaaaaaa\">\n");
    for (name, of) in "bcdefghijklm".chars().zip("abcdefghijkl".chars()) {
        text += &format!("<!ENTITY {name} \"{}\">\n", format!("&{of};").repeat(10));
    }
    text += "]><scenario><send>&m;</send></scenario>";
    assert!(text.parse::<Program>().is_err());
}

/// Elements within elements are walked, not climbed into: no stack is deep enough for a file.
#[test]
fn deep_nesting_is_refused_or_read() {
    for depth in [10, 1000, 100_000] {
        let text = format!(
            "<scenario>{}{}</scenario>",
            "<nop>".repeat(depth),
            "</nop>".repeat(depth)
        );
        let _ = text.parse::<Program>();
    }
    let brackets = "[".repeat(100_000);
    assert!(program(&format!("<send>A {brackets}</send>")).is_err());
    let nested = format!(
        "{}{}",
        "[authentication username=".repeat(5000),
        "]".repeat(5000)
    );
    assert!(program(&format!("<send>A {nested}</send>")).is_err());
}

#[test]
fn latin_1_is_read_where_utf_8_is_not() {
    assert_eq!(decoded(b"caf\xe9".to_vec()), "caf\u{e9}");
    assert_eq!(decoded("caf\u{e9}".as_bytes().to_vec()), "caf\u{e9}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text: String) {
        let _ = text.parse::<Program>();
        let _ = program(&text);
    }

    /// Parts that belong together, in any order, cut anywhere.
    #[test]
    fn no_scenario_makes_the_reader_panic(
        parts in prop::collection::vec(prop::sample::select(vec![
            "<send>", "</send>", "<send retrans=\"500\">", "<![CDATA[", "]]>", "INVITE [service] SIP/2.0\n",
            "\n", "[len]", "[last_Via:]", "[", "]", "[$1]", "[field0]", "[authentication username=a password=b]",
            "[branch-9]", "[cseq+1000000]", "<recv response=\"200\"/>", "<recv request=\"ACK\" optional=\"true\" next=\"1\"/>",
            "<label id=\"1\"/>", "<pause/>", "<pause distribution=\"uniform\" min=\"1\" max=\"2\"/>", "<nop>", "</nop>",
            "<action>", "</action>", "<ereg regexp=\"a(b)*\" assign_to=\"1,2\"/>", "<!-- ", " -->", "&amp;", "\\[", "\u{e9}",
        ]), 0..30),
        cut in 0usize..600,
    ) {
        let mut text = format!("<scenario>{}</scenario>", parts.concat());
        let _ = text.parse::<Program>();
        let end = (0..=cut.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        let _ = text.parse::<Program>();
    }
}
