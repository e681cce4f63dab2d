//! What an operator may set about SQLite.

use std::{path::PathBuf, time::Duration};

/// The sqlite section of the configuration, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database file; created when missing.
    pub path: PathBuf,
    /// Connections that read facts.
    pub readers: u32,
    /// How long a commit waits for a lock that another process holds.
    pub busy_timeout: Duration,
    /// Pages in the write-ahead log before a checkpoint moves them.
    pub autocheckpoint_pages: u32,
}
