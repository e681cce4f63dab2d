//! The end: nothing new comes in, and everything in flight is answered, confirmed and acked.

use super::{AppError, systemd::Systemd};
use crate::{
    broker::Broker,
    ledger::Store,
    pipeline::{Pipeline, Running},
    telemetry::Telemetry,
};
use std::time::Duration;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// What runs, and has to be ended in order.
pub(super) struct Parts<S> {
    pub(super) pipeline: Pipeline<S>,
    pub(super) running: Running,
    pub(super) broker: Option<Broker>,
    pub(super) http: Option<Http>,
    pub(super) telemetry: Telemetry,
}

/// The HTTP edge at work.
pub(super) struct Http {
    pub(super) address: String,
    pub(super) stop: oneshot::Sender<()>,
    pub(super) task: JoinHandle<()>,
}

impl<S: Store> Parts<S> {
    /// Stops intake, lets everything in flight be answered, confirmed and acked, and says what became of it all.
    pub(super) async fn drain(self, drain_timeout: Duration, mut systemd: Systemd) -> Result<(), AppError> {
        let Self { pipeline, running, broker, http, telemetry } = self;
        tracing::info!(event = "draining", in_flight = pipeline.in_flight(), "no new requests are taken");
        let until = Instant::now() + drain_timeout;
        let watched = pipeline.clone();
        let drained = timeout_at(until, async {
            if let Some(broker) = &broker {
                broker.stop_intake().await;
            }
            if let Some(Http { stop, task, .. }) = http {
                // The server may have ended by itself; then there is nothing to stop.
                let _ended_before = stop.send(()).is_err();
                drop(task.await);
            }
            pipeline.idle().await;
            if let Some(broker) = broker {
                broker.drained().await;
                broker.close().await;
            }
            running.finish().await;
        });
        let drained = tokio::select! {
            biased;
            drained = drained => drained,
            never = systemd.draining(until, || watched.in_flight()) => match never {},
        };
        let tally = telemetry.tally();
        tracing::info!(event = "drained", complete = drained.is_ok(), in_flight = watched.in_flight(), %tally, "ended");
        drained.map_err(|_| AppError::DrainTimedOut {
            what: format!(
                "{} requests were still in flight after {} ms; what was not acked is delivered again",
                watched.in_flight(),
                drain_timeout.as_millis()
            ),
        })
    }
}
