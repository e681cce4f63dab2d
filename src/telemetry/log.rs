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

/// Stands in until the real one is merged.
#[derive(Debug)]
pub struct LogGuard;

/// Stands in until the real one is merged.
///
/// # Errors
/// When another subscriber was installed first.
pub fn init(settings: &Settings) -> Result<LogGuard, String> {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.filter).map_err(|error| error.to_string())?;
    tracing_subscriber::fmt().json().with_env_filter(filter).try_init().map_err(|error| error.to_string())?;
    Ok(LogGuard)
}
