//! Which kernel this is.

/// The release as `uname -r` prints it.
pub fn release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Major and minor number of the running kernel; `None` if its release does not start with them.
pub fn version() -> Option<(u32, u32)> {
    version_of(&release())
}

/// Major and minor number of a release such as `6.1.0-18-amd64`.
pub fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_starts_with_two_numbers() {
        assert_eq!(version_of("6.18.44-x"), Some((6, 18)));
        assert_eq!(version_of("5.9"), Some((5, 9)));
        assert_eq!(version_of("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version_of("six"), None);
        assert_eq!(version_of(""), None);
        assert!(version().is_some());
    }
}
