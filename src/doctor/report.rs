//! The checks in lines or as JSON.

use core::fmt;

use serde_json::{Value, json};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Slower, or with a risk.
    Warn,
    /// Not to be had.
    Fail,
}

impl Level {
    /// The word at the start of a line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it came out.
    pub level: Level,
    /// What was found.
    pub finding: String,
    /// What viaduct takes instead of what.
    pub fallback: Option<&'static str>,
    /// The one command that mends it: there if and only if something is to mend.
    pub fix: Option<String>,
}

impl Check {
    /// Nothing to mend.
    pub(super) fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            finding: finding.into(),
            fallback: None,
            fix: None,
        }
    }

    /// Something to mend.
    pub(super) fn problem(
        name: &'static str,
        level: Level,
        finding: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            name,
            level,
            finding: finding.into(),
            fallback: None,
            fix: Some(fix.into()),
        }
    }

    /// With what falls back to what.
    pub(super) fn falls(self, fallback: &'static str) -> Self {
        Self {
            fallback: Some(fallback),
            ..self
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level.as_str();
        write!(f, "{level:<4}  {:<13}  {}", self.name, self.finding)?;
        if let Some(fallback) = self.fallback {
            write!(f, " ({fallback})")?;
        }
        if let Some(fix) = &self.fix {
            write!(f, "\n      {:<13}  {fix}", "fix:")?;
        }
        Ok(())
    }
}

/// All checks of an interface.
#[derive(Clone, Debug)]
pub struct Report {
    /// The interface.
    pub interface: String,
    /// The data path that a start would get, as the metrics page names it.
    pub datapath: &'static str,
    /// In the order of looking.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether nothing fails.
    pub fn is_fit(&self) -> bool {
        self.count(Level::Fail) == 0
    }

    fn count(&self, level: Level) -> usize {
        let of_level = |check: &&Check| check.level == level;
        self.checks.iter().filter(of_level).count()
    }

    /// The report for a program.
    pub fn json(&self) -> Value {
        let check = |check: &Check| {
            json!({
                "check": check.name,
                "level": check.level.as_str(),
                "finding": check.finding,
                "fallback": check.fallback,
                "fix": check.fix,
            })
        };
        json!({
            "interface": self.interface,
            "datapath": self.datapath,
            "fit": self.is_fit(),
            "checks": self.checks.iter().map(check).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            writeln!(f, "{check}")?;
        }
        write!(
            f,
            "{}: expect {}; {} ok, {} warn, {} fail",
            self.interface,
            self.datapath,
            self.count(Level::Ok),
            self.count(Level::Warn),
            self.count(Level::Fail),
        )
    }
}
