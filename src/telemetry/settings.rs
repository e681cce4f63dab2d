//! What an operator may set about telemetry, besides the log.

use super::{alerts, report};

/// The alerts and report sections of the configuration, resolved.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// When latency alerts are raised.
    pub alerts: alerts::Settings,
    /// What is kept for `/report`.
    pub report: report::Settings,
}
