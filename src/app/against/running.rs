//! The configuration of a running viaduct: from its file or from itself.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::admin::client;
use crate::config::{Config, SecretSource};

/// What runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) config: Config,
    /// Whether its secrets are placeholders.
    pub(super) is_redacted: bool,
}

/// Reads `from`: a control socket is asked, anything else is a file.
pub(super) fn running(from: &Path) -> Result<Running, String> {
    let is_socket = fs::metadata(from).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        let config = Config::load(from).map_err(|error| error.to_string())?;
        return Ok(Running {
            config,
            is_redacted: false,
        });
    }
    let answer = client::get(from, "/config").and_then(client::Answer::text);
    let text = answer.map_err(|error| error.to_string())?;
    let config =
        Config::parse_redacted(&text).map_err(|error| format!("{}: {error}", from.display()))?;
    Ok(Running {
        config,
        is_redacted: true,
    })
}

impl Running {
    /// Puts the secrets of `new` where the running configuration has hidden ones, so that they do
    /// not look changed.
    pub(super) fn take_secrets(&mut self, new: &Config) {
        let (hidden, shown) = (&mut self.config.secret, &new.secret);
        if let (SecretSource::Hex(hidden), SecretSource::Hex(shown)) =
            (&mut hidden.master, &shown.master)
        {
            hidden.clone_from(shown);
        }
        for token in &mut hidden.tokens {
            if let Some(shown) = shown.tokens.iter().find(|shown| shown.id == token.id) {
                token.hex.clone_from(&shown.hex);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::redact;

    #[test]
    fn hidden_secrets_do_not_look_changed_and_others_do() {
        let farm = "[[listeners]]\nname = \"c\"\naddress = \"198.18.0.1:5060\"\n[[pools]]\n\
                    name = \"f\"\nservers = [{ name = \"s\", address = \"198.18.1.1:5060\" }]\n";
        let hex = |byte: u8| {
            (0..32)
                .map(|n| format!("{:02x}", byte ^ n))
                .collect::<String>()
        };
        let text = |id| {
            let (master, token) = (hex(1), hex(2));
            format!(
                "{farm}[secret]\nhex = \"{master}\"\n[[secret.tokens]]\nid = {id}\n\
                 hex = \"{token}\"\n"
            )
        };
        let new = Config::parse(&text(3)).unwrap();
        let of = |text: &str| Running {
            config: Config::parse_redacted(&redact(text).unwrap()).unwrap(),
            is_redacted: true,
        };
        let mut same = of(&text(3));
        assert!(same.config.secret != new.secret);
        same.take_secrets(&new);
        assert!(same.config.secret == new.secret);
        let mut other_id = of(&text(4));
        other_id.take_secrets(&new);
        assert!(other_id.config.secret != new.secret);
        let mut in_a_file = of(farm);
        in_a_file.take_secrets(&new);
        assert!(in_a_file.config.secret != new.secret);
    }
}
