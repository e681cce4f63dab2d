//! What an operator may set about reports.

use std::{path::PathBuf, time::Duration};

/// The report section of the configuration, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long an interval is.
    pub interval: Duration,
    /// Intervals kept in memory.
    pub kept_max: usize,
    /// Where intervals are kept on disk; `None` for memory only.
    pub directory: Option<PathBuf>,
    /// A file is closed when it is larger, bytes.
    pub file_bytes_max: u64,
    /// Files that are older are removed.
    pub keep: Duration,
    /// All files together, bytes; the oldest are removed above it.
    pub directory_bytes_max: u64,
    /// Slowest decisions kept of each interval.
    pub slowest_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            kept_max: 360,
            directory: None,
            file_bytes_max: 64 << 20,
            keep: Duration::from_secs(7 * 86_400),
            directory_bytes_max: 1 << 30,
            slowest_max: 16,
        }
    }
}
