//! Where and how a report was made: command line, machine, time.

use std::fs;

use crate::journal::rfc3339;
use crate::sys::{clock, cpu, kernel};

/// What a reader needs to run it again.
#[derive(Clone, Debug, Default)]
pub(in crate::generator) struct Run {
    pub(super) command: String,
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
    pub(super) ended: String,
}

impl Run {
    /// Of this process, ending now.
    pub(in crate::generator) fn of_this_process() -> Self {
        let arguments = std::env::args_os().map(|part| part.to_string_lossy().into_owned());
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            command: command_line(arguments),
            cpu: model_name(&cpus).to_owned(),
            cores: cpu::cores().len(),
            kernel: kernel::release(),
            ended: rfc3339(clock::real_nanos()),
        }
    }
}

fn model_name(cpuinfo: &str) -> &str {
    let row = cpuinfo.lines().find(|row| row.starts_with("model name"));
    row.and_then(|row| row.split_once(':'))
        .map_or("unknown", |(_, name)| name.trim())
}

/// The command as a shell takes it; a password is not shown: the page goes from hand to hand.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let mut is_secret = false;
    let words = arguments.map(|word| {
        let shown = if is_secret {
            hidden(&word)
        } else if let Some(credentials) = word.strip_prefix("--auth=") {
            format!("--auth={}", hidden(credentials))
        } else {
            word.clone()
        };
        is_secret = word == "--auth";
        quoted(shown)
    });
    words.collect::<Vec<_>>().join(" ")
}

fn hidden(credentials: &str) -> String {
    let user = credentials.split(':').next().unwrap_or_default();
    format!("{user}:***")
}

fn quoted(word: String) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+[]*".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> String {
        command_line(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn a_command_line_can_be_pasted() {
        let text = line(&["viaduct", "generate", "call", "--name", "it's me", ""]);
        assert_eq!(text, r"viaduct generate call --name 'it'\''s me' ''");
    }

    #[test]
    fn passwords_are_not_shown() {
        let text = line(&["x", "--auth", "alice:secret", "--rate", "5"]);
        assert_eq!(text, "x --auth alice:*** --rate 5");
        assert_eq!(line(&["x", "--auth=alice:se:cret"]), "x --auth=alice:***");
        assert_eq!(line(&["x", "--auth"]), "x --auth");
    }

    #[test]
    fn this_process_knows_where_it_runs() {
        let run = Run::of_this_process();
        assert!(run.cores > 0 && !run.cpu.is_empty() && run.kernel.contains('.'));
        assert!(run.ended.ends_with('Z') && !run.command.is_empty());
        assert_eq!(model_name("x : 1\nmodel name\t: A B\n"), "A B");
        assert_eq!(model_name(""), "unknown");
    }
}
