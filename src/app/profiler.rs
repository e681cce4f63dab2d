//! What watches the daemon while it works: alerts, and the intervals behind `/report`.

use crate::{
    config::Config,
    telemetry::{self, Reports, Telemetry, report::About},
};
use std::time::Duration;
use tokio::{task::JoinHandle, time::timeout};

/// How long the end waits for the last interval to be written. A disk that hangs must not keep a drained daemon from its end.
const LAST_INTERVAL_MAX: Duration = Duration::from_secs(2);

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
        match timeout(LAST_INTERVAL_MAX, tokio::task::spawn_blocking(move || reports.end_interval())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(event = "interval_failed", %error, "the last interval was not kept; please report this"),
            Err(_) => tracing::warn!(event = "interval_not_written", "the disk does not take the last interval; look at report.directory"),
        }
    }
}
