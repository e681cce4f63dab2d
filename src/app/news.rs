//! What other systems say about changed facts, brought to the caches; and our alerts, brought to the broker.

use crate::{
    broker::events::{EventPorts, Outgoing},
    codec::event::FactEvent,
    facts::{change::FactStore, invalidator::Invalidator},
    telemetry::{Telemetry, events::Path},
};
use tokio::sync::mpsc;

/// Events between the broker and the caches. When they are slow, the others wait at the broker.
const EVENTS_WAITING_MAX: usize = 256;
/// Events between us and the broker; an alert that finds no room is in the log only.
const TOLD_WAITING_MAX: usize = 64;

/// The routing key of an alert.
const ALERT_KEY: &str = "latency.alert";

/// The ports of the broker, with the caches and the alerts at the other end.
pub(super) fn ports<S: FactStore>(invalidator: Invalidator<S>, telemetry: &Telemetry) -> EventPorts {
    let (heard, mut events) = mpsc::channel::<FactEvent>(EVENTS_WAITING_MAX);
    let (tell, told) = mpsc::channel(TOLD_WAITING_MAX);
    if let Some(mut alerts) = telemetry.take_alerts() {
        tokio::spawn(async move {
            while let Some(alert) = alerts.recv().await {
                if tell.send(Outgoing { key: ALERT_KEY, body: alert.body }).await.is_err() {
                    return;
                }
            }
        });
    }
    tokio::spawn(async move {
        while let Some(FactEvent { subject, at, .. }) = events.recv().await {
            if invalidator.listens_to(Path::Events) {
                invalidator.said(Path::Events, &subject, at).await;
            }
        }
    });
    EventPorts { heard, told }
}
