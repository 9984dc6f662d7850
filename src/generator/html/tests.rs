//! The page of hostile, empty and long reports.

use super::*;
use crate::generator::report::{SelfCheck, ServerShare, Traffic};
use crate::generator::series::Series;
use crate::generator::stats::{CallerStats, Failure};
use crate::sip::Method;
use crate::time::{Duration, Instant};

const HOSTILE: &str = "</td><script>alert(1)</script><img src=http://x.example/>\"'&";

fn timeline(seconds: u64) -> Timeline {
    let start = Instant::from_nanos(1_000_000_000);
    let mut stats = CallerStats::new(start);
    let mut now = start;
    for second in 0..seconds {
        for call in 0..50 {
            stats.offered += 1;
            stats.answer(Duration::from_micros(300 + 7 * call + second));
        }
        if second % 7 == 3 {
            stats.fail(Failure::Timeout(Method::Invite));
            stats.fail(Failure::Status(Method::Invite, 503));
        }
        now += Duration::from_secs(1);
        stats.tick(now, 9);
    }
    stats.series.timeline(now)
}

fn report(timeline: Timeline) -> Report {
    Report {
        scenario: "call".to_owned(),
        offered: 1_234_567,
        answered: 1_234_560,
        failed: 7,
        servers: vec![ServerShare {
            name: HOSTILE.to_owned(),
            calls: 617_280,
        }],
        failures: [(HOSTILE.to_owned(), 7)].into(),
        traffic: Traffic {
            strays: [(HOSTILE.to_owned(), 1)].into(),
            ..Traffic::default()
        },
        bottleneck: true,
        bottleneck_reasons: vec![HOSTILE.to_owned()],
        self_check: SelfCheck::default(),
        timeline,
        ..Report::default()
    }
}

fn made(report: &Report) -> String {
    let target: Target = "sip:a&b@127.0.0.1:5060".parse().unwrap();
    let run = Run {
        command: HOSTILE.to_owned(),
        cpu: HOSTILE.to_owned(),
        ..Run::default()
    };
    page(report, &target, &run)
}

/// Every element is closed in its order, and none is there that this module does not write.
fn assert_well_formed(html: &str) {
    const VOID: [&str; 2] = ["meta", "!DOCTYPE"];
    let mut open = Vec::new();
    for tag in html.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/', '\n'])
            .next()
            .unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        assert!(
            !["script", "img", "link", "iframe", "object"].contains(&name),
            "{tag}"
        );
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_says_what_the_report_says() {
    let html = made(&report(timeline(30)));
    assert_well_formed(&html);
    for text in [
        "1,234,567",
        "7 calls failed",
        "invite_timeout",
        "invite_503",
        "50.0 %",
    ] {
        assert!(html.contains(text), "{text}");
    }
    for id in ["rate", "latency", "failures", "progress"] {
        assert!(html.contains(&format!("<figure id=\"{id}\">")), "{id}");
    }
}

/// Names come from the network, the command from a shell: neither becomes markup.
#[test]
fn nothing_from_outside_becomes_markup() {
    let html = made(&report(timeline(3)));
    assert_well_formed(&html);
    assert!(!html.contains("<script") && !html.contains("<img"));
    assert_eq!(html.matches("&lt;script&gt;").count(), 7);
    assert!(html.contains("sip:a&amp;b@127.0.0.1:5060"));
}

/// A page that fetches nothing names nothing to fetch.
#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let mut plain = report(timeline(3));
    plain.servers.clear();
    plain.failures.clear();
    plain.traffic = Traffic::default();
    plain.bottleneck_reasons.clear();
    let target: Target = "sip:127.0.0.1".parse().unwrap();
    let html = page(&plain, &target, &Run::default());
    for word in ["http://", "https://", "url(", "@import", "src=", "href="] {
        assert!(!html.contains(word), "{word}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn a_run_of_nothing_has_a_page() {
    let html = made(&Report::default());
    assert_well_formed(&html);
    assert!(html.contains("too short for plots") && html.contains("No call failed"));
}

/// Both sides of the bound: every second is drawn, and beyond it the page stays small.
#[test]
fn a_long_run_makes_no_endless_page() {
    let hour = made(&report(timeline(3599)));
    assert!(hour.len() < 2_000_000, "{}", hour.len());
    assert!(!hour.contains("Each point stands for"));
    let day = made(&report(timeline(20_000)));
    assert!(day.len() < 2_000_000, "{}", day.len());
    assert!(day.contains("Each point stands for 8 seconds"));
}

#[test]
fn a_share_below_a_tenth_of_a_percent_is_not_zero() {
    assert_eq!(percentage(0.0), "0.0 %");
    assert_eq!(percentage(0.0001), "0.0001 %");
    assert_eq!(percentage(12.34), "12.3 %");
    let start = Instant::from_nanos(1);
    assert!(Series::new(start).timeline(start).moments.is_empty());
}
