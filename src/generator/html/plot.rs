//! Plots over time as inline SVG: lines or stacked areas, axes with round numbers, a legend, and what
//! each second was as a title that browsers show and screen readers read.
//!
//! Colours and line styles are classes (`s0` to `s8`) of the page's style sheet, so that one drawing is
//! right on a light screen, on a dark one and on paper.

use core::fmt::Write as _;

use super::escape::Escaped;

/// Size of the drawing in its own units; the page scales it to its width.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 250.0;
/// Room for the numbers of the axes.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 28.0;
/// Styles in the page's style sheet.
const STYLES: usize = 9;
/// Places that say what they stand for; more would be narrower than a pointer.
const HINTS_MAX: usize = 240;
/// Points drawn: more than there are pixels say nothing.
const POINTS_MAX: usize = 3600;

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Lines from zero.
    Lines,
    /// Lines, each step of ten as high as the next, if the values differ much.
    LogLines,
    /// Areas on top of each other.
    Stacked,
}

/// One line or area.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// For the legend; escaped here.
    pub(super) name: String,
    /// One for each time; `None` where nothing was measured.
    pub(super) values: Vec<Option<f64>>,
    /// Which style of the style sheet.
    pub(super) style: usize,
}

/// A plot.
#[derive(Clone, Debug)]
pub(super) struct Plot<'a> {
    /// Of the page's own: stands in ids.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// For those who cannot see it: what it shows.
    pub(super) description: &'a str,
    /// Of the values: `calls/s`, `ms`.
    pub(super) unit: &'a str,
    pub(super) shape: Shape,
    /// Middle of each time, in seconds.
    pub(super) times: &'a [f64],
    /// End of the axis, in seconds.
    pub(super) lasted: f64,
    pub(super) lines: Vec<Line>,
}

/// The vertical axis.
struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    ticks: Vec<f64>,
}

impl Axis {
    fn of(plot: &Plot<'_>) -> Self {
        let mut high = 0.0f64;
        let mut low = f64::INFINITY;
        if plot.shape == Shape::Stacked {
            for place in 0..plot.times.len() {
                let sum: f64 = plot
                    .lines
                    .iter()
                    .filter_map(|line| value(line, place))
                    .sum();
                high = high.max(sum);
            }
        } else {
            for value in plot.lines.iter().flat_map(|line| &line.values).flatten() {
                high = high.max(*value);
                if *value > 0.0 {
                    low = low.min(*value);
                }
            }
        }
        let is_log = plot.shape == Shape::LogLines && low.is_finite() && high > 30.0 * low;
        if is_log {
            let (from, to) = (low.log10().floor(), high.log10().ceil());
            let steps = whole(to - from).min(20);
            let ticks = (0..=steps).map(|step| 10f64.powf(from + f64::from(step)));
            return Self {
                low: 10f64.powf(from),
                high: 10f64.powf(to),
                is_log,
                ticks: ticks.collect(),
            };
        }
        let high = if high > 0.0 { high } else { 1.0 };
        let step = round_step(high / 4.0);
        let count = whole((high / step).ceil()).clamp(1, 10);
        Self {
            low: 0.0,
            high: step * f64::from(count),
            is_log,
            ticks: (0..=count).map(|place| step * f64::from(place)).collect(),
        }
    }

    fn y(&self, value: f64) -> f64 {
        let share = if self.is_log {
            let floor = value.max(self.low);
            (floor / self.low).log10() / (self.high / self.low).log10()
        } else {
            value / self.high
        };
        TOP + (1.0 - share.clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM)
    }
}

fn value(line: &Line, place: usize) -> Option<f64> {
    line.values.get(place).copied().flatten()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and a number of ticks is small"
)]
fn whole(number: f64) -> u32 {
    number as u32
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|round| *round >= step * 0.999)
        .unwrap_or(step)
}

/// A step of the time axis, in seconds: round in seconds, minutes or hours.
fn round_time(step: f64) -> f64 {
    const STEPS: [f64; 16] = [
        0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
        7200.0,
    ];
    let found = STEPS.into_iter().find(|round| *round >= step);
    found.unwrap_or_else(|| (step / 14_400.0).ceil() * 14_400.0)
}

/// A time of the run: `12 s`, `3:20`, `1:02:00`.
pub(super) fn clock_text(seconds: f64, lasted: f64) -> String {
    if lasted < 180.0 {
        return format!("{} s", plain(seconds));
    }
    let all = whole(seconds.round());
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    if lasted < 3600.0 {
        format!("{minutes}:{seconds:02}")
    } else {
        format!("{hours}:{minutes:02}:{seconds:02}")
    }
}

/// A number for people: three digits that count, thousands apart.
pub(super) fn plain(number: f64) -> String {
    let size = number.abs();
    let text = if size >= 100.0 || (size - size.round()).abs() < 1e-9 {
        format!("{number:.0}")
    } else if size >= 10.0 {
        format!("{number:.1}")
    } else if size >= 1.0 {
        format!("{number:.2}")
    } else {
        format!("{number:.3}")
    };
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    thousands(&text)
}

/// Commas between thousands of the digits before the point.
pub(super) fn thousands(text: &str) -> String {
    let (digits, rest) = match text.find('.') {
        Some(point) => text.split_at(point),
        None => (text, ""),
    };
    let mut out = String::with_capacity(text.len() + 4);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

impl Plot<'_> {
    fn x(&self, seconds: f64) -> f64 {
        let share = seconds / self.lasted.max(f64::MIN_POSITIVE);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// The figure: heading, legend, drawing.
    pub(super) fn html(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        let (id, unit) = (self.id, self.unit);
        // A `String` takes every write.
        let _ = write!(
            out,
            "<figure id=\"{id}\">\n<figcaption><h2>{}</h2><span class=\"unit\">{unit}</span>",
            Escaped(self.title)
        );
        out.push_str("<ul class=\"legend\">");
        for line in &self.lines {
            let _ = write!(
                out,
                "<li><svg viewBox=\"0 0 24 10\" width=\"24\" height=\"10\" aria-hidden=\"true\">\
                 <path class=\"{} s{}\" d=\"{}\"/></svg>{}</li>",
                self.class(),
                line.style % STYLES,
                match self.shape {
                    Shape::Stacked => "M0 1H24V9H0Z",
                    _ => "M0 5H24",
                },
                Escaped(&line.name)
            );
        }
        out.push_str("</ul></figcaption>\n");
        let _ = writeln!(
            out,
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\">\n<title id=\"{id}-t\">{}</title>\n\
             <desc id=\"{id}-d\">{}</desc>",
            Escaped(self.title),
            Escaped(self.description)
        );
        let axis = Axis::of(self);
        self.write_axes(&axis, &mut out);
        match self.shape {
            Shape::Stacked => self.write_areas(&axis, &mut out),
            _ => self.write_lines(&axis, &mut out),
        }
        self.write_hints(&mut out);
        out.push_str("</svg>\n</figure>\n");
        out
    }

    fn class(&self) -> &'static str {
        match self.shape {
            Shape::Stacked => "area",
            _ => "line",
        }
    }

    fn write_axes(&self, axis: &Axis, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in &axis.ticks {
            let y = axis.y(*tick);
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                plain(*tick)
            );
        }
        let step = round_time(self.lasted / 9.0);
        let count = whole(self.lasted / step).min(60);
        for place in 0..=count {
            let seconds = step * f64::from(place);
            let x = self.x(seconds);
            let _ = writeln!(
                out,
                "<path class=\"grid\" d=\"M{x:.1} {bottom}v5\"/>\
                 <text class=\"x\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 20.0,
                clock_text(seconds, self.lasted)
            );
        }
    }

    fn write_lines(&self, axis: &Axis, out: &mut String) {
        // The first line is drawn last, on top.
        for line in self.lines.iter().rev() {
            let mut path = String::new();
            let mut is_open = false;
            let mut alone = String::new();
            let places = self.times.len().min(POINTS_MAX);
            for (place, time) in self.times.iter().take(places).enumerate() {
                let Some(height) = value(line, place) else {
                    is_open = false;
                    continue;
                };
                let (x, y) = (self.x(*time), axis.y(height));
                let has_next = value(line, place + 1).is_some();
                if !is_open && !has_next {
                    // No neighbour to draw a line to.
                    let style = line.style % STYLES;
                    let _ = writeln!(
                        alone,
                        "<circle class=\"dot s{style}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
                    );
                }
                let _ = write!(path, "{}{x:.1} {y:.1}", if is_open { 'L' } else { 'M' });
                is_open = true;
            }
            let style = line.style % STYLES;
            let _ = write!(out, "<path class=\"line s{style}\" d=\"{path}\"/>\n{alone}");
        }
    }

    /// Columns on top of each other: a failure belongs to its second, not to a slope between two.
    fn write_areas(&self, axis: &Axis, out: &mut String) {
        let mut base = vec![0.0; self.times.len()];
        let half = self.half_width();
        for line in &self.lines {
            let mut path = String::new();
            for (place, (time, below)) in self.times.iter().zip(&mut base).enumerate() {
                let height = value(line, place).unwrap_or(0.0);
                if height <= 0.0 {
                    continue;
                }
                let (left, right) = (self.x(time - half), self.x(time + half));
                let (bottom, top) = (axis.y(*below), axis.y(*below + height));
                let width = (right - left).max(1.0);
                // A thin gap tells neighbours apart where there is room for it.
                let width = if width > 4.0 { width - 1.0 } else { width };
                let _ = write!(
                    path,
                    "M{left:.1} {bottom:.1}V{top:.1}h{width:.1}V{bottom:.1}Z"
                );
                *below += height;
            }
            let style = line.style % STYLES;
            let _ = writeln!(out, "<path class=\"area s{style}\" d=\"{path}\"/>");
        }
    }

    fn half_width(&self) -> f64 {
        match self.times {
            [first, second, ..] => (second - first) / 2.0,
            _ => self.lasted / 2.0,
        }
    }

    fn write_hints(&self, out: &mut String) {
        let stride = self.times.len().div_ceil(HINTS_MAX).max(1);
        #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
        let width = 2.0 * self.half_width() * stride as f64;
        for (place, time) in self.times.iter().enumerate().step_by(stride) {
            let from = time - self.half_width();
            let (left, right) = (self.x(from), self.x(from + width));
            let mut text = clock_text(from.max(0.0), self.lasted);
            for line in &self.lines {
                if let Some(value) = value(line, place) {
                    let _ = write!(text, "\n{} {}", line.name, plain(value));
                }
            }
            let _ = writeln!(
                out,
                "<rect class=\"hint\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\">\
                 <title>{}</title></rect>",
                (right - left).max(0.5),
                HEIGHT - TOP - BOTTOM,
                Escaped(&text)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plot(shape: Shape, values: &[Option<f64>]) -> String {
        let times: Vec<f64> = (0u32..)
            .take(values.len())
            .map(|n| f64::from(n) + 0.5)
            .collect();
        let plot = Plot {
            id: "p",
            title: "T <b>",
            description: "D",
            unit: "ms",
            shape,
            times: &times,
            lasted: times.last().map_or(1.0, |last| last + 0.5),
            lines: vec![Line {
                name: "a&b".to_owned(),
                values: values.to_vec(),
                style: 3,
            }],
        };
        plot.html()
    }

    #[test]
    fn numbers_are_for_people() {
        for (number, text) in [
            (0.0, "0"),
            (0.125, "0.125"),
            (9.5, "9.5"),
            (12.34, "12.3"),
            (1000.0, "1,000"),
            (1_234_567.8, "1,234,568"),
            (-1234.0, "-1,234"),
            (-123.0, "-123"),
        ] {
            assert_eq!(plain(number), text);
        }
        assert_eq!(clock_text(0.5, 10.0), "0.5 s");
        assert_eq!(clock_text(90.0, 600.0), "1:30");
        assert_eq!(clock_text(3700.0, 7200.0), "1:01:40");
    }

    #[test]
    fn steps_are_round_and_large_enough() {
        for (step, round) in [
            (0.3, 0.5),
            (1.0, 1.0),
            (13.0, 20.0),
            (260.0, 500.0),
            (7e5, 1e6),
        ] {
            assert!((round_step(step) / round - 1.0f64).abs() < 1e-9, "{step}");
        }
        assert!((round_time(4.0) - 5.0).abs() < 1e-9);
        assert!((round_time(100_000.0) - 100_800.0).abs() < 1e-9);
    }

    /// Both ends of the axis: nothing to see, and one value alone.
    #[test]
    fn empty_and_single_values_are_drawn() {
        for shape in [Shape::Lines, Shape::LogLines, Shape::Stacked] {
            assert!(plot(shape, &[]).contains("<svg"));
            let one = plot(shape, &[Some(7.0)]);
            assert!(one.contains(if shape == Shape::Stacked {
                "area s3"
            } else {
                "<circle"
            }));
            let gap = plot(shape, &[Some(1.0), None, Some(3.0), Some(4.0)]);
            assert!(!gap.contains("NaN"));
        }
        let html = plot(Shape::Lines, &[Some(1.0), Some(2.0)]);
        assert!(html.contains("T &lt;b&gt;") && html.contains("a&amp;b"));
    }

    proptest! {
        /// Whatever was measured, every coordinate lies in the drawing and is a number.
        #[test]
        fn coordinates_stay_inside(
            values in prop::collection::vec(prop::option::of(0.0f64..1e12), 0..50),
            log: bool,
        ) {
            let html = plot(if log { Shape::LogLines } else { Shape::Stacked }, &values);
            prop_assert!(!html.contains("NaN") && !html.contains("inf"));
            for path in html.split(" d=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                for number in path.split(|c: char| c.is_ascii_alphabetic() || c == ' ') {
                    let number: f64 = number.parse().unwrap_or(0.0);
                    prop_assert!((0.0..=WIDTH).contains(&number), "{path}");
                }
            }
        }
    }
}
