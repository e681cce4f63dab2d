//! Takes deliveries, for ever: whatever ends a consumer, it is built again.

use super::{
    Phase, Settings,
    acks::Deliveries,
    connection::{self, Link, Pauses, ask},
    reception::Reception,
    topology::short,
};
use crate::{
    pipeline::Intake,
    telemetry::{Telemetry, events::Role},
};
use futures_util::StreamExt;
use lapin::{
    Channel, Connection,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep},
};

pub(super) struct Consumer<I> {
    queue: ShortString,
    prefetch: u16,
    patience: Duration,
    pauses: Pauses,
    link: Link,
    reception: Reception<I>,
    permits: Arc<Semaphore>,
    consuming: Arc<AtomicBool>,
    telemetry: Telemetry,
}

/// Why a consumer ended.
enum Ended {
    /// Because we cancelled it, and all it had was handed in. Its deliveries are still acked on this channel.
    Stopped(Arc<Deliveries>),
    /// For any other reason.
    Lost(String),
}

impl<I: Intake> Consumer<I> {
    pub(super) fn new(
        settings: &Settings,
        link: Link,
        reception: Reception<I>,
        permits: Arc<Semaphore>,
        consuming: Arc<AtomicBool>,
        telemetry: Telemetry,
    ) -> Self {
        Self {
            queue: short(&settings.request_queue),
            prefetch: settings.prefetch.max(1),
            patience: settings.connect_timeout,
            pauses: Pauses::up_to(settings.reconnect_max),
            link,
            reception,
            permits,
            consuming,
            telemetry,
        }
    }

    /// Consumes until the daemon drains; done when everything that was delivered has been handed in. Gives the channel that
    /// has to stay open for the acks.
    pub(super) async fn run(mut self, mut phase: watch::Receiver<Phase>) -> Option<Arc<Deliveries>> {
        loop {
            let connection = tokio::select! { biased;
                () = Phase::Draining.reached(&mut phase) => return None,
                connection = self.link.connection() => connection,
            };
            let (since, mut link) = (Instant::now(), self.link.clone());
            let ended = tokio::select! { biased;
                ended = self.consume(&connection, &mut phase) => ended,
                () = link.lost(&connection) => Ended::Lost("the connection was lost".to_owned()),
            };
            self.consuming.store(false, Ordering::Relaxed);
            match ended {
                Ended::Stopped(channel) => return Some(channel),
                Ended::Lost(why) => self.telemetry.broker_connection(Role::Consumer, false, &why),
            }
            self.link.doubt();
            self.pauses.held(since);
            let pause = sleep(self.pauses.next());
            tokio::select! { biased;
                () = Phase::Draining.reached(&mut phase) => return None,
                () = pause => {}
            }
        }
    }

    async fn consume(&self, connection: &Connection, phase: &mut watch::Receiver<Phase>) -> Ended {
        let (channel, mut deliveries) = match ask(connection, self.patience, self.open(connection)).await {
            Ok(open) => open,
            Err(error) => return Ended::Lost(format!("cannot consume {}: {error}; see `jitauth topology check`", self.queue)),
        };
        self.consuming.store(true, Ordering::Relaxed);
        self.telemetry.broker_connection(Role::Consumer, true, "consuming");
        let mut cancelled = false;
        loop {
            tokio::select! { biased;
                () = Phase::Draining.reached(phase), if !cancelled => {
                    cancelled = true;
                    self.consuming.store(false, Ordering::Relaxed);
                    if !self.cancel(connection, channel.channel(), deliveries.tag()).await {
                        return Ended::Stopped(channel);
                    }
                }
                delivery = deliveries.next() => {
                    let received = Instant::now();
                    match delivery {
                        Some(Ok(delivery)) => {
                            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return Ended::Stopped(channel) };
                            // A delivery of a channel that is gone comes again: to decide it now would answer it twice.
                            if delivery.acker.usable() {
                                self.reception.receive(delivery, received, permit, &channel);
                            }
                        }
                        // After an error the stream would stay silent for ever.
                        Some(Err(error)) => return Ended::Lost(error.to_string()),
                        None if cancelled => return Ended::Stopped(channel),
                        None => return Ended::Lost(format!("the broker ended the consumer: is queue {} gone?", self.queue)),
                    }
                }
            }
        }
    }

    async fn open(&self, connection: &Connection) -> lapin::Result<(Arc<Deliveries>, lapin::Consumer)> {
        let channel = connection::channel(connection).await?;
        // Never global: quorum queues refuse it.
        channel.basic_qos(self.prefetch, BasicQosOptions { global: false }).await?;
        let consumer = channel.basic_consume(self.queue.clone(), short(""), BasicConsumeOptions::default(), FieldTable::default()).await?;
        Ok((Arc::new(Deliveries::new(channel)), consumer))
    }

    /// Asks for no more deliveries. What has arrived already is still handed in; then the stream ends.
    async fn cancel(&self, connection: &Connection, channel: &Channel, tag: ShortString) -> bool {
        ask(connection, self.patience, channel.basic_cancel(tag, BasicCancelOptions::default())).await.is_ok()
    }
}
