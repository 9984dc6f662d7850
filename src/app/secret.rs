//! The master secret: from the configuration, or from a file made at first start with mode 0600.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::affinity::Secret;
use crate::config;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("secret file {file}: {error}; set secret.file to a path that viaduct may write, or secret.hex")]
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
    #[error("secret file {file}: is not lines of 64 hexadecimal digits (32 bytes each)")]
    Text {
        /// The file.
        file: PathBuf,
    },
    /// The configuration's text is no secret.
    #[error("secret.hex: is not 64 hexadecimal digits (32 bytes each)")]
    Hex,
    /// The kernel gave no random bytes.
    #[error("no random bytes from the kernel: {0}")]
    Random(getrandom::Error),
}

/// The secrets, the current one first. There is at least one.
///
/// # Errors
/// See [`SecretError`].
pub fn load(source: &config::Secret) -> Result<Vec<Secret>, SecretError> {
    match source {
        config::Secret::Hex(keys) => {
            let secrets = keys.iter().map(|key| Secret::from_hex(key).map_err(|_| SecretError::Hex));
            secrets.collect()
        }
        config::Secret::File(file) => match read(file) {
            Err(SecretError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                make(file)?;
                read(file)
            }
            result => result,
        },
    }
}

fn read(file: &Path) -> Result<Vec<Secret>, SecretError> {
    let io = |error| SecretError::Io { file: file.to_owned(), error };
    let mut handle = OpenOptions::new().read(true).open(file).map_err(io)?;
    let mode = handle.metadata().map_err(io)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Mode { file: file.to_owned(), mode });
    }
    let mut text = String::new();
    handle.read_to_string(&mut text).map_err(io)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets: Result<Vec<Secret>, _> = lines.map(Secret::from_hex).collect();
    match secrets {
        Ok(secrets) if !secrets.is_empty() => Ok(secrets),
        _ => Err(SecretError::Text { file: file.to_owned() }),
    }
}

/// Makes the file whole or not at all: a reader never sees half a secret, and of two first starts
/// at once one wins and both read the same.
fn make(file: &Path) -> Result<(), SecretError> {
    let io = |error| SecretError::Io { file: file.to_owned(), error };
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
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
        let source = config::Secret::File(file.clone());
        assert_eq!(load(&source).unwrap().len(), 1);
        let first = fs::read_to_string(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(load(&source).unwrap().len(), 1);
        assert_eq!(fs::read_to_string(&file).unwrap(), first);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let source = config::Secret::File(file.clone());
        load(&source).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&source), Err(SecretError::Mode { mode: 0o640, .. })));
    }

    #[test]
    fn a_file_that_holds_no_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for text in ["", "abc\n", "zz\n"] {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            let error = load(&config::Secret::File(file.clone()));
            assert!(matches!(error, Err(SecretError::Text { .. })), "{text:?}");
        }
    }
}
