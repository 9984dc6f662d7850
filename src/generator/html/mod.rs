//! The report as one HTML page: verdict, plots over time, tables, and how to run it again.
//!
//! The page needs nothing beside itself, no script, no font, no network; a content security policy
//! in its head says so to the browser. It is drawn for a light screen, a dark one and paper. What
//! comes from the network or the command line passes [`Escaped`], without exception.

mod escape;
mod plot;
mod run;

use core::fmt::Write as _;
use std::collections::BTreeMap;

pub(super) use run::Run;

use self::escape::Escaped;
use self::plot::{Line, Plot, Shape, plain, thousands};
use super::report::{Percentiles, Report, percent};
use super::series::{Moment, Timeline};
use super::target::Target;

const STYLE: &str = include_str!("style.css");

/// Moments shorter than this share of the others have no rate worth drawing.
const SHORT: f64 = 0.5;

/// Styles of causes of failure, the strongest first.
const CAUSES: [usize; 7] = [2, 4, 5, 6, 7, 8, 3];

/// The whole page.
pub(super) fn page(report: &Report, target: &Target, run: &Run) -> String {
    let mut out = String::with_capacity(128 * 1024);
    let title = format!("Load report: {} to {}", report.scenario, target.uri());
    // A `String` takes every write.
    let _ = writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"generator\" content=\"viaduct {}\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>",
        env!("CARGO_PKG_VERSION"),
        Escaped(&title)
    );
    write_head(report, target, run, &mut out);
    write_cards(report, &mut out);
    write_plots(&report.timeline, &mut out);
    write_tables(report, &mut out);
    write_run(report, run, &mut out);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn write_head(report: &Report, target: &Target, run: &Run, out: &mut String) {
    let (class, verdict) = if report.failed == 0 {
        ("good", "No call failed".to_owned())
    } else {
        let share = percent(report.failed, report.offered);
        let failed = count(report.failed);
        (
            "bad",
            format!("{failed} calls failed ({})", percentage(share)),
        )
    };
    let (own_class, own) = if report.bottleneck {
        let reasons = report.bottleneck_reasons.join("; ");
        (
            "bad",
            format!("The generator was the bottleneck: {reasons}"),
        )
    } else {
        ("good", "The generator kept up".to_owned())
    };
    let _ = writeln!(
        out,
        "<header>\n<p class=\"brand\">viaduct <span>load report</span></p>\n<h1>{} to <code>{}</code></h1>\n\
         <p class=\"when\">{} calls in {} s, ended {}</p>\n\
         <p class=\"verdicts\"><strong class=\"{class}\">{}</strong> <strong class=\"{own_class}\">{}</strong></p>\n\
         </header>",
        Escaped(&capital(&report.scenario)),
        Escaped(target.uri()),
        count(report.offered),
        plain(report.seconds),
        Escaped(&run.ended),
        Escaped(&verdict),
        Escaped(&own),
    );
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn write_cards(report: &Report, out: &mut String) {
    let latency = &report.setup_ms;
    let most = report
        .timeline
        .moments
        .iter()
        .map(|moment| moment.in_progress);
    let time = |time: f64| match report.answered {
        0 => "–".to_owned(),
        _ => plain(time),
    };
    let cards = [
        ("offered", count(report.offered), "calls"),
        ("answered", count(report.answered), "calls"),
        ("failed", count(report.failed), "calls"),
        ("rate", plain(report.rate), "calls/s"),
        ("set-up p50", time(latency.p50), "ms"),
        ("set-up p99", time(latency.p99), "ms"),
        ("set-up p99.9", time(latency.p999), "ms"),
        ("in progress, most", count(most.max().unwrap_or(0)), "calls"),
    ];
    out.push_str("<dl class=\"cards\">\n");
    for (name, number, unit) in cards {
        let _ = writeln!(
            out,
            "<div><dt>{name}</dt><dd>{number}<span>{unit}</span></dd></div>"
        );
    }
    out.push_str("</dl>\n");
}

fn write_plots(timeline: &Timeline, out: &mut String) {
    let moments = &timeline.moments;
    if moments.is_empty() {
        out.push_str("<p>The run was too short for plots.</p>\n");
        return;
    }
    let step = f64::from(timeline.step);
    // The first one may be all there is, however short.
    let is_drawn = |place: usize, moment: &Moment| place == 0 || moment.seconds >= SHORT * step;
    let drawn: Vec<&Moment> = moments
        .iter()
        .enumerate()
        .filter(|(place, moment)| is_drawn(*place, moment))
        .map(|(_, moment)| moment)
        .collect();
    let times: Vec<f64> = drawn.iter().map(|at| at.at + at.seconds / 2.0).collect();
    let lasted = drawn.last().map_or(step, |last| last.at + last.seconds);
    let line = |name: &str, style, value: &dyn Fn(&Moment) -> Option<f64>| Line {
        name: name.to_owned(),
        values: drawn.iter().map(|moment| value(moment)).collect(),
        style,
    };
    let rate = |name, style, of: &dyn Fn(&Moment) -> u64| {
        line(name, style, &|moment| {
            Some(number(of(moment)) / moment.seconds)
        })
    };
    let latency = |name, style, of: &dyn Fn(&Percentiles) -> f64| {
        line(name, style, &|moment| {
            Some(of(&moment.latency_ms)).filter(|time| *time > 0.0)
        })
    };
    let draw = |id, title, unit, shape, description, lines| {
        let plot = Plot {
            id,
            title,
            description,
            unit,
            shape,
            times: &times,
            lasted,
            lines,
        };
        plot.html()
    };
    out.push_str(&draw(
        "rate",
        "Offered and completed",
        "calls/s",
        Shape::Lines,
        "Calls that were due, that were answered and that failed, in each second of the run.",
        vec![
            rate("answered", 0, &|moment| moment.counts.answered),
            rate("offered", 1, &|moment| moment.counts.offered),
            rate("failed", 2, &|moment| moment.counts.failed),
        ],
    ));
    if moments.iter().any(|moment| moment.latency_ms.max > 0.0) {
        out.push_str(&draw(
            "latency",
            "Set-up time",
            "ms",
            Shape::LogLines,
            "Percentiles of the time from a call's intended start to its answer, in each second of the run.",
            vec![
                latency("p50", 0, &|at| at.p50),
                latency("p90", 3, &|at| at.p90),
                latency("p99", 4, &|at| at.p99),
                latency("p99.9", 2, &|at| at.p999),
            ],
        ));
    } else {
        write_none("latency", "Set-up time", "No call was answered.", out);
    }
    if timeline.causes.is_empty() {
        write_none("failures", "Failures by cause", "None.", out);
    } else {
        let causes = timeline.causes.iter().enumerate();
        let lines = causes.map(|(place, cause)| {
            line(cause, CAUSES[place % CAUSES.len()], &|moment| {
                moment
                    .failures
                    .get(place)
                    .map(|count| number(*count) / moment.seconds)
            })
        });
        out.push_str(&draw(
            "failures",
            "Failures by cause",
            "calls/s",
            Shape::Stacked,
            "Calls that failed in each second of the run, by cause.",
            lines.collect(),
        ));
    }
    out.push_str(&draw(
        "progress",
        "In progress",
        "calls",
        Shape::Lines,
        "Calls in progress at the end of each second of the run.",
        vec![line("in progress", 0, &|moment| {
            Some(number(moment.in_progress))
        })],
    ));
    if moments.iter().any(|moment| moment.counts.resent > 0) {
        out.push_str(&draw(
            "resent",
            "Retransmissions",
            "messages/s",
            Shape::Stacked,
            "Messages that the generator sent again in each second of the run.",
            vec![rate("sent again", 1, &|moment| moment.counts.resent)],
        ));
    }
    if timeline.step > 1 {
        let _ = writeln!(
            out,
            "<p class=\"note\">Each point stands for {} seconds: the run was longer than an hour.</p>",
            timeline.step
        );
    }
}

fn write_none(id: &str, title: &str, text: &str, out: &mut String) {
    let _ = writeln!(
        out,
        "<section class=\"none\" id=\"{id}\"><h2>{title}</h2><p>{text}</p></section>"
    );
}

fn write_tables(report: &Report, out: &mut String) {
    out.push_str("<div class=\"tables\">\n");
    let totals = [
        ("offered", report.offered),
        ("answered", report.answered),
        ("failed", report.failed),
        ("cancelled as planned", report.cancelled),
        ("messages sent again", report.traffic.retransmissions),
        (
            "messages received again",
            report.traffic.retransmissions_seen,
        ),
    ];
    let rows = totals.map(|(name, number)| (name.to_owned(), number));
    write_counts("Totals", "", &rows, None, out);
    write_latencies(report, out);
    let servers: Vec<(String, u64)> = report
        .servers
        .iter()
        .map(|server| (server.name.clone(), server.calls))
        .collect();
    write_counts(
        "Servers",
        "calls answered",
        &servers,
        Some(report.answered),
        out,
    );
    let traffic = &report.traffic;
    let by_kind = [
        ("Failures", "calls", &report.failures),
        ("Requests sent", "", &traffic.requests_sent),
        (
            "Responses received",
            "by status code",
            &traffic.responses_received,
        ),
        ("Requests received", "", &traffic.requests_received),
        ("Responses sent", "by status code", &traffic.responses_sent),
        ("Strays", "messages that fit nothing", &traffic.strays),
    ];
    for (title, note, counts) in by_kind {
        write_counts(title, note, &pairs(counts), None, out);
    }
    write_self_check(report, out);
    out.push_str("</div>\n");
}

fn pairs(counts: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let counts = counts.iter();
    counts.map(|(name, count)| (name.clone(), *count)).collect()
}

/// A table of counts; with `whole` also as shares of it. None without rows.
fn write_counts(
    title: &str,
    note: &str,
    rows: &[(String, u64)],
    whole: Option<u64>,
    out: &mut String,
) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(out, "<section><h2>{title}</h2>");
    if !note.is_empty() {
        let _ = write!(out, "<p class=\"note\">{note}</p>");
    }
    out.push_str("<table>\n");
    for (name, number) in rows {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td>",
            Escaped(name),
            count(*number)
        );
        if let Some(whole) = whole {
            let share = percent(*number, whole);
            let _ = write!(
                out,
                "<td>{}</td><td class=\"bar\"><svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" \
                 aria-hidden=\"true\"><path class=\"area s0\" d=\"M0 0H{:.1}V8H0Z\"/></svg></td>",
                percentage(share),
                share.clamp(0.0, 100.0)
            );
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></section>\n");
}

fn write_latencies(report: &Report, out: &mut String) {
    out.push_str(
        "<section><h2>Latency</h2><p class=\"note\">milliseconds</p><table>\n<tr><td></td>\
         <th scope=\"col\">p50</th><th scope=\"col\">p90</th><th scope=\"col\">p99</th>\
         <th scope=\"col\">p99.9</th><th scope=\"col\">max</th></tr>\n",
    );
    let own = &report.self_check.lateness_ms;
    let named = report.response_times_ms.iter();
    let rows = [("set-up".to_owned(), report.setup_ms)]
        .into_iter()
        .chain(named.map(|(name, times)| (format!("response time {name}"), *times)))
        .chain([("own lateness".to_owned(), *own)]);
    for (name, times) in rows {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", Escaped(&name));
        for time in [times.p50, times.p90, times.p99, times.p999, times.max] {
            let _ = write!(out, "<td>{}</td>", plain(time));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></section>\n");
}

fn write_self_check(report: &Report, out: &mut String) {
    let check = &report.self_check;
    let verdict = if report.bottleneck {
        report.bottleneck_reasons.join("; ")
    } else {
        "kept up".to_owned()
    };
    let rows = [
        ("verdict", verdict),
        (
            "calls started late, p99",
            format!("{} ms", plain(check.lateness_ms.p99)),
        ),
        ("CPU of its thread", percentage(100.0 * check.cpu)),
        (
            "datagrams lost in its own buffer",
            count(check.receive_drops),
        ),
        ("datagrams its kernel refused", count(check.send_refused)),
        ("calls over --max-calls", count(check.limited)),
    ];
    out.push_str(
        "<section><h2>Generator</h2><p class=\"note\">whether it, not the target, set the limit</p><table>\n",
    );
    for (name, text) in rows {
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>",
            Escaped(&text)
        );
    }
    out.push_str("</table></section>\n");
}

fn write_run(report: &Report, run: &Run, out: &mut String) {
    let _ = writeln!(
        out,
        "<footer>\n<h2>How it was made</h2>\n<pre><code>{}</code></pre>\n<p>{}, {} cores, Linux {}; viaduct {}. \
         Calls start by schedule, whatever the target does, and latencies count from the intended time.{}</p>\n\
         </footer>",
        Escaped(&run.command),
        Escaped(&run.cpu),
        run.cores,
        Escaped(&run.kernel),
        env!("CARGO_PKG_VERSION"),
        if report.cancelled > 0 {
            " Calls cancelled as planned have not failed."
        } else {
            ""
        }
    );
}

fn count(number: u64) -> String {
    thousands(&number.to_string())
}

fn percentage(share: f64) -> String {
    // A single failure among millions must not read as none.
    if share > 0.0 && share < 0.1 {
        format!("{share:.4} %")
    } else {
        format!("{share:.1} %")
    }
}

#[expect(clippy::cast_precision_loss, reason = "plots for people")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
