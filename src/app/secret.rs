//! The master secret: from the configuration, or from a file made at first start with mode 0600.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::affinity::{self, KeyId, KeyRing, Keys, Secret};
use crate::config::{self, SecretSource};

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    /// The file cannot be read or made.
    #[error(
        "secret file {file}: {error}; set secret.file to a path that viaduct may write, or secret.hex"
    )]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others than the owner may read the file.
    #[error("secret file {file} has mode {mode:04o}: others may read it; chmod 600 {file}")]
    Mode {
        /// The file.
        file: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The text is no secret.
    #[error("{text}: {error}")]
    Text {
        /// Where the text stands.
        text: String,
        /// What is wrong with it.
        error: affinity::SecretError,
    },
    /// A key id is taken or too large.
    #[error("secret.tokens: id {0} is taken or above 15")]
    KeyId(u8),
    /// No new secret could be made.
    #[error("cannot make a secret: {0}")]
    Random(affinity::SecretError),
}

/// The keys of a configuration.
///
/// # Errors
/// See [`SecretError`].
pub(super) fn keys(config: &config::Secret) -> Result<Keys, SecretError> {
    with_master(&master(&config.master)?, config)
}

/// Keys for looking at what would be decided, and where their secret is from.
pub(super) struct Looking {
    pub(super) keys: Arc<Keys>,
    pub(super) origin: String,
    /// Whether the secret could not be read.
    pub(super) is_stand_in: bool,
}

/// Stands in for a secret that cannot be read: everybody has it, so it keeps nothing, and every run
/// of a look has the same.
const STAND_IN: &[u8; 32] = b"viaduct: a secret of no secrecy.";

/// The keys of a configuration, without making a secret file that is not there. Where the secret
/// cannot be read a stand-in takes its place: choices then differ from those of a running viaduct,
/// shares do not.
pub(super) fn for_looking(config: &config::Secret) -> Looking {
    let existing = match &config.master {
        SecretSource::Hex(_) => master(&config.master),
        SecretSource::File(file) => read(file),
    };
    let keys = existing.and_then(|master| with_master(&master, config));
    match keys {
        Ok(keys) => Looking {
            keys: Arc::new(keys),
            is_stand_in: false,
            origin: match &config.master {
                SecretSource::Hex(_) => "that of the configuration".to_owned(),
                SecretSource::File(file) => format!("that of {}", file.display()),
            },
        },
        Err(error) => Looking {
            origin: format!(
                "a stand-in ({}): servers chosen are not those of the running viaduct, shares are \
                 the same in expectation",
                match error {
                    // What the error says beyond that is for who serves.
                    SecretError::Io { file, error } => {
                        format!("secret file {}: {error}", file.display())
                    }
                    other => other.to_string(),
                }
            ),
            keys: Arc::new(Keys::new(&stand_in())),
            is_stand_in: true,
        },
    }
}

fn stand_in() -> Secret {
    match Secret::from_bytes(*STAND_IN) {
        Ok(secret) => secret,
        Err(_) => unreachable!("its letters differ"),
    }
}

fn with_master(master: &Secret, config: &config::Secret) -> Result<Keys, SecretError> {
    let mut tokens = config.tokens.iter().map(|token| {
        let id = KeyId::new(token.id).ok_or(SecretError::KeyId(token.id))?;
        let secret = Secret::from_hex(&token.hex).map_err(|error| SecretError::Text {
            text: format!("secret.tokens, id {}", token.id),
            error,
        })?;
        Ok((id, secret))
    });
    let Some(current) = tokens.next() else {
        return Ok(Keys::new(master));
    };
    let (id, secret) = current?;
    let mut ring = KeyRing::new(id, secret);
    for token in tokens {
        let (id, secret) = token?;
        if !ring.add(id, secret) {
            return Err(SecretError::KeyId(id.number()));
        }
    }
    // Without configured secrets the master secret makes the tokens, under id 0. It goes on opening
    // these, so that the first rotation loses no dialog; a configured id 0 has precedence.
    let _is_new = ring.add(KeyId::default(), master.clone());
    Ok(Keys::with_ring(master, &ring))
}

fn master(source: &SecretSource) -> Result<Secret, SecretError> {
    match source {
        SecretSource::Hex(hex) => Secret::from_hex(hex).map_err(|error| SecretError::Text {
            text: "secret.hex".to_owned(),
            error,
        }),
        SecretSource::File(file) => match read(file) {
            Err(SecretError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                make(file)?;
                read(file)
            }
            result => result,
        },
    }
}

fn read(file: &Path) -> Result<Secret, SecretError> {
    let io = |error| SecretError::Io {
        file: file.to_owned(),
        error,
    };
    let mut handle = OpenOptions::new().read(true).open(file).map_err(io)?;
    let mode = handle.metadata().map_err(io)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Mode {
            file: file.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    handle.read_to_string(&mut text).map_err(io)?;
    Secret::from_hex(&text).map_err(|error| SecretError::Text {
        text: format!("secret file {}", file.display()),
        error,
    })
}

/// Makes the file whole or not at all: a reader never sees half a secret, and of two first starts
/// at once one wins and both read the same.
fn make(file: &Path) -> Result<(), SecretError> {
    let io = |error| SecretError::Io {
        file: file.to_owned(),
        error,
    };
    let text = Secret::generate().map_err(SecretError::Random)?.to_hex();
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    let temporary = file.with_extension(format!("new-{}", std::process::id()));
    let mut handle = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io)?;
    let written = writeln!(handle, "{text}").and_then(|()| handle.sync_all());
    let linked = written.and_then(|()| match fs::hard_link(&temporary, file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    });
    let removed = fs::remove_file(&temporary);
    linked.and(removed).map_err(io)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_with_mode_0600() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sub/secret");
        let source = SecretSource::File(file.clone());
        let first = master(&source).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(master(&source).unwrap() == first);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn looking_makes_no_file_and_says_when_a_stand_in_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let secret = config::Secret {
            master: SecretSource::File(file.clone()),
            tokens: vec![],
        };
        let (first, second) = (for_looking(&secret), for_looking(&secret));
        assert!(first.origin.starts_with("a stand-in (secret file "));
        assert!(!file.exists());
        assert_eq!(first.keys.table_seed(), second.keys.table_seed());

        let made = keys(&secret).unwrap();
        let read = for_looking(&secret);
        assert!(read.origin.starts_with("that of /"), "{}", read.origin);
        assert_eq!(read.keys.table_seed(), made.table_seed());
        assert_ne!(read.keys.table_seed(), first.keys.table_seed());
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let source = SecretSource::File(file.clone());
        master(&source).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            master(&source),
            Err(SecretError::Mode { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_file_that_holds_no_secret_is_refused_and_not_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for text in ["", "abc\n", "hunter2\n"] {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            let error = master(&SecretSource::File(file.clone())).unwrap_err();
            assert!(matches!(error, SecretError::Text { .. }), "{text:?}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
