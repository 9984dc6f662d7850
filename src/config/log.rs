//! `[log]`: the SIP Common Log Format.

use std::path::PathBuf;

use super::reader::Reader;

/// What is logged of SIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The file of RFC 6873 lines; `None` = no log.
    pub common: Option<PathBuf>,
    /// One of how many Call-IDs is logged.
    pub sample: u32,
}

impl Log {
    pub(super) fn read(table: Reader<'_>) -> Self {
        let common = table.string("common").filter(|path| !path.is_empty());
        if let Some(path) = common
            && !path.starts_with('/')
        {
            table.fault("common", format!("{path:?}"), "is not an absolute path");
        }
        let log = Self {
            common: common.map(PathBuf::from),
            sample: table.integer("sample", 1..=1_000_000).unwrap_or(1),
        };
        table.finish();
        log
    }
}
