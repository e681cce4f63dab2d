//! What watches the daemon while it works: alerts, and the intervals behind `/report`.

use crate::{
    config::Config,
    telemetry::{self, Reports, Telemetry, report::About},
};
use tokio::task::JoinHandle;

/// The tasks of the profiler.
pub(super) struct Profiler {
    pub(super) reports: Reports,
    alerts: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

impl Profiler {
    /// Starts them; `store` and `durability` are as the store states them.
    pub(super) fn start(config: &Config, store: &'static str, durability: &str, telemetry: &Telemetry) -> Self {
        let about = About { profile: config.profile.clone(), store, durability: durability.to_owned(), promise: config.promise };
        let reports = Reports::new(about, config.telemetry.report.clone(), telemetry.clone());
        let alerts = tokio::spawn(telemetry::alerts::watch(telemetry.clone()));
        let keeper = tokio::spawn(reports.clone().keep());
        Self { reports, alerts, keeper }
    }

    /// Ends them; what was recorded since the last interval is kept.
    pub(super) async fn finish(self) {
        let Self { reports, alerts, keeper } = self;
        alerts.abort();
        keeper.abort();
        if let Err(error) = tokio::task::spawn_blocking(move || reports.end_interval()).await {
            tracing::error!(event = "interval_failed", %error, "the last interval was not kept; please report this");
        }
    }
}
