//! RabbitMQ, by way of lapin: takes deliveries, publishes responses, and acks last.
//!
//! **Invariant**: a delivery is acked only after its response, or its dead letter, was confirmed by the broker.

mod acks;
mod attempt;
mod attempts;
mod connection;
mod consumer;
pub mod dead_letters;
mod envelope;
mod error;
pub mod events;
mod inspect;
mod publisher;
mod reception;
mod reply;
mod settings;
mod stamp;
#[cfg(test)]
mod tests;
mod ticket;
pub mod topology;

pub use error::BrokerError;
pub use inspect::{Inspection, inspect};
pub use settings::{QueueType, Settings};

use crate::{
    domain::time::Timestamp,
    pipeline::Intake,
    telemetry::{Telemetry, events::Role},
};
use connection::Link;
use events::EventPorts;
use futures_util::future::BoxFuture;
use publisher::Publisher;
use reception::Reception;
use reply::ReplyRule;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// How long acks are given to take effect. A quorum queue keeps some of a burst back in the broker's channel for a moment, and
/// forgets them with the channel: what was acked would be delivered again.
const ACKS_EFFECTIVE: Duration = Duration::from_millis(250);
/// How long the parts may take to end once they were told to.
const END_MAX: Duration = Duration::from_secs(3);

/// What the broker edge is built into.
pub struct Wiring<I> {
    /// Where requests go.
    pub intake: I,
    /// What happens is told here.
    pub telemetry: Telemetry,
    /// The wall clock.
    pub wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Deadline of a request that names none.
    pub deadline_default: Duration,
    /// Taken off every deadline for the way back.
    pub deadline_reserve: Duration,
    /// What is heard from and told to the exchange for events.
    pub events: EventPorts,
    /// Deliveries are taken once this is ready. Publishing, and events, do not wait for it.
    pub begin: BoxFuture<'static, ()>,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Closing,
}

impl Phase {
    /// Resolves once this phase, or a later one, has come.
    async fn reached(self, phase: &mut watch::Receiver<Phase>) {
        // An error means that the Broker was dropped, which is an end as well.
        let _reached_or_dropped = phase.wait_for(|now| *now >= self).await.is_ok();
    }
}

/// The broker edge, at work: two connections, a consumer and a publisher, each built again for ever.
pub struct Broker {
    phase: watch::Sender<Phase>,
    permits: Arc<Semaphore>,
    prefetch: u32,
    consuming: Arc<AtomicBool>,
    publishing: Arc<AtomicBool>,
    consumer: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    consumed: watch::Receiver<bool>,
}

impl Broker {
    /// Starts to connect and to consume, in the background; [`Broker::ready`] tells when it does. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`BrokerError::Address`] when the URL cannot be used. Everything else is tried again for ever.
    pub fn start<I: Intake>(settings: &Settings, wiring: Wiring<I>) -> Result<Self, BrokerError> {
        let Wiring { intake, telemetry, wall, deadline_default, deadline_reserve, events, begin } = wiring;
        let (phase, phases) = watch::channel(Phase::Running);
        let prefetch = settings.prefetch.max(1);
        let permits = Arc::new(Semaphore::new(usize::from(prefetch)));
        // Every unsettled delivery has a permit and at most one parcel here, so a parcel always finds room.
        let (outbox, parcels) = mpsc::channel(usize::from(prefetch));
        let (consume_link, keep_consuming) = Link::new(Role::Consumer, settings, telemetry.clone(), phases.clone())?;
        let (publish_link, keep_publishing) = Link::new(Role::Publisher, settings, telemetry.clone(), phases.clone())?;
        let (consuming, publishing) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let hearing = events::listen(settings.clone(), consume_link.clone(), events.heard, telemetry.clone(), phases.clone());
        let telling = events::tell(settings.clone(), publish_link.clone(), events.told, telemetry.clone(), phases.clone());
        let around = publisher::surroundings(settings, publish_link, telemetry.clone());
        let publisher = Publisher::new(settings, around, Arc::clone(&wall), parcels, Arc::clone(&publishing));
        let reception = Reception {
            intake,
            reply_rule: ReplyRule::new(settings),
            deadline_default,
            deadline_reserve,
            wall,
            outbox,
            telemetry: telemetry.clone(),
        };
        let consumer = consumer::Consumer::new(settings, consume_link, reception, Arc::clone(&permits), Arc::clone(&consuming), telemetry);
        let (done, consumed) = watch::channel(false);
        let consumer_phases = phases.clone();
        Ok(Self {
            phase,
            permits,
            prefetch: prefetch.into(),
            consuming,
            publishing,
            others: vec![
                tokio::spawn(keep_consuming),
                tokio::spawn(keep_publishing),
                tokio::spawn(publisher.run(phases)),
                tokio::spawn(hearing),
                tokio::spawn(telling),
            ],
            consumer: Some(tokio::spawn(async move {
                let mut draining = consumer_phases.clone();
                let channel = tokio::select! { biased;
                    () = Phase::Draining.reached(&mut draining) => None,
                    () = begin => consumer.run(consumer_phases.clone()).await,
                };
                done.send_replace(true);
                let mut phases = consumer_phases;
                Phase::Closing.reached(&mut phases).await;
                drop(channel);
            })),
            consumed,
        })
    }

    /// Whether deliveries are taken and answers can be published. Goes false on a loss and true again by itself.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.consuming.load(Ordering::Relaxed) && self.publishing.load(Ordering::Relaxed)
    }

    /// Whether a part of the edge has ended before it was told to, which none does but by a panic: a bug. What was delivered comes
    /// again once the process has ended.
    #[must_use]
    pub fn broken(&self) -> bool {
        *self.phase.borrow() == Phase::Running && self.consumer.iter().chain(&self.others).any(JoinHandle::is_finished)
    }

    /// Takes no new deliveries from now on. Done when all that had arrived was handed to the intake.
    pub async fn stop_intake(&self) {
        self.phase.send_if_modified(|phase| {
            let earlier = *phase < Phase::Draining;
            if earlier {
                *phase = Phase::Draining;
            }
            earlier
        });
        // An error means that the consumer has ended otherwise.
        let _done_or_gone = self.consumed.clone().wait_for(|done| *done).await.is_ok();
    }

    /// Resolves when every delivery that was taken is settled: answered or dead-lettered, confirmed and acked, or left for
    /// the broker to deliver again. To be called after [`Broker::stop_intake`], or it would wait for a moment of silence.
    pub async fn drained(&self) {
        let _all_back_or_closed = self.permits.acquire_many(self.prefetch).await.is_ok();
    }

    /// Ends the connections. What is unsettled stays unacknowledged and is delivered again; approvals that were not handed
    /// over are taken back, those in flight count as unheard.
    pub async fn close(mut self) {
        sleep(ACKS_EFFECTIVE).await;
        self.phase.send_replace(Phase::Closing);
        for task in self.consumer.take().into_iter().chain(std::mem::take(&mut self.others)) {
            let abort = task.abort_handle();
            if timeout(END_MAX, task).await.is_err() {
                tracing::warn!(event = "broker_task_stuck", "a part of the broker edge did not end and is cut off");
                abort.abort();
            }
        }
    }
}
