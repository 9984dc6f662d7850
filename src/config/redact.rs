//! The text of a configuration without its secrets, for showing.

use toml::{Table, Value};

use super::reader::Faults;
use super::{Config, ConfigError, read};

/// What stands in the place of a secret.
pub const REDACTED: &str = "redacted";

/// Digits of a secret in hexadecimal.
const HEX_LEN: usize = 64;

/// `text` with every run of 64 or more hexadecimal digits replaced, in values and in comments.
///
/// `None` if a secret is written in a form that this does not reach (escapes, a line break inside):
/// such a text is not to be shown.
pub fn redact(text: &str) -> Option<String> {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if run >= HEX_LEN {
            shown.push_str(REDACTED);
        } else {
            shown.push_str(&rest[..run]);
        }
        rest = &rest[run..];
        let other = rest
            .find(|c: char| c.is_ascii_hexdigit())
            .unwrap_or(rest.len());
        shown.push_str(&rest[..other]);
        rest = &rest[other..];
    }
    let mut table: Table = shown.parse().ok()?;
    let mut clean = true;
    each_hex(&mut table, |hex| clean &= hex.as_str() == Some(REDACTED));
    clean.then_some(shown)
}

/// Calls `visit` on every value that holds a secret.
fn each_hex(table: &mut Table, mut visit: impl FnMut(&mut Value)) {
    let Some(Value::Table(secret)) = table.get_mut("secret") else {
        return;
    };
    if let Some(hex) = secret.get_mut("hex") {
        visit(hex);
    }
    let Some(Value::Array(tokens)) = secret.get_mut("tokens") else {
        return;
    };
    for token in tokens {
        if let Some(hex) = token.as_table_mut().and_then(|token| token.get_mut("hex")) {
            visit(hex);
        }
    }
}

impl Config {
    /// Checks a text from [`redact`]. The configuration is whole but for its secrets, which are
    /// placeholders: good for comparing, never for serving.
    ///
    /// # Errors
    /// Every fault found.
    pub fn parse_redacted(text: &str) -> Result<Self, ConfigError> {
        let failed = |faults| ConfigError { file: None, faults };
        let mut table = read::table(text).map_err(failed)?;
        each_hex(&mut table, |hex| {
            if hex.as_str() == Some(REDACTED) {
                *hex = Value::String("0123456789abcdef".repeat(HEX_LEN / 16));
            }
        });
        read::checked(&table, Faults::default()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FARM: &str = r#"
        [[listeners]]
        name = "clients"
        address = "198.18.0.1:5060"
        [[pools]]
        name = "farm"
        servers = [{ name = "s1", address = "198.18.1.11:5060" }]
    "#;

    fn secret(byte: u8) -> String {
        (0..32).map(|n| format!("{:02x}", byte ^ n)).collect()
    }

    #[test]
    fn no_digit_of_a_secret_is_shown_and_the_rest_is_as_written() {
        let (master, token, old) = (secret(1), secret(0x40), secret(0x80).to_uppercase());
        let text = format!(
            "# é old: {old}\n{FARM}\n[secret]\nhex = \"{master}\" # mine\n\
             [[secret.tokens]]\nid = 3\nhex = '{token}'\n"
        );
        assert!(Config::parse(&text).is_ok());
        let shown = redact(&text).unwrap();
        for secret in [&master, &token, &old] {
            assert!(!shown.contains(&secret[..16]), "{shown}");
            assert!(!shown.contains(&secret[48..]), "{shown}");
        }
        assert!(shown.starts_with("# é old: redacted\n"));
        assert!(shown.contains(FARM));
        assert!(shown.contains("hex = \"redacted\" # mine"));
        assert!(shown.contains("id = 3\nhex = 'redacted'"));
    }

    #[test]
    fn a_secret_in_an_odd_form_keeps_the_text_from_being_shown() {
        let master = secret(1);
        let (front, back) = master.split_at(20);
        let broken = format!("{FARM}\n[secret]\nhex = \"\"\"{front}\\\n{back}\"\"\"\n");
        assert!(Config::parse(&broken).is_ok());
        assert_eq!(redact(&broken), None);
        let escaped = format!("{FARM}\n[secret]\nhex = \"\\u0030{}\"\n", &master[1..]);
        assert!(Config::parse(&escaped).is_ok());
        assert_eq!(redact(&escaped), None);
    }

    #[test]
    fn what_is_shown_reads_as_the_configuration_it_is() {
        let text = format!(
            "{FARM}\n[secret]\nhex = \"{}\"\n[[secret.tokens]]\nid = 3\nhex = \"{}\"\n",
            secret(1),
            secret(2)
        );
        let shown = redact(&text).unwrap();
        assert!(
            Config::parse(&shown).is_err(),
            "a placeholder must not serve"
        );
        let mut read = Config::parse_redacted(&shown).unwrap();
        let original = Config::parse(&text).unwrap();
        assert_ne!(read.secret, original.secret);
        read.secret = original.secret.clone();
        assert_eq!(read, original);
        let unchanged = redact(FARM).unwrap();
        assert_eq!(unchanged, FARM);
        assert!(Config::parse_redacted(&unchanged.replace("clients", "")).is_err());
    }
}
