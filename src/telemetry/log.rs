//! Logging: JSON off a terminal, readable on one.

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// The log section of the configuration, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How lines look.
    pub format: Format,
    /// A `tracing` filter, such as `info` or `jitauth=debug`. `RUST_LOG` wins over it.
    pub filter: String,
}
