//! Letters taken out of their queue for a while.

use super::{VISITS_MAX, Visited};
use crate::broker::{
    BrokerError, Settings, connection,
    error::amqp_kind,
    topology::{Finding, Problem, short},
};
use futures_util::StreamExt;
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{FieldTable, ShortString},
};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long acks are given to take effect before the channel goes: a quorum queue keeps some of them back in the broker's channel
/// for a moment, and forgets them with it.
const SETTLED: Duration = Duration::from_millis(250);
/// How long letters may take to be back in their queue. They come back anyway; this is only for whoever looks right after us.
const BACK_MAX: Duration = Duration::from_millis(500);
/// How often the queue is asked whether it has everything back.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long to wait for a letter that should be there. Somebody else may have taken it meanwhile.
const NEXT_MAX: Duration = Duration::from_secs(3);

/// A connection that has letters delivered and holds them unacknowledged.
///
/// All of them are taken, however many are looked at, by one consumer, and they come back when its channel is closed. That is what
/// keeps their order: a quorum queue puts what comes back behind what came back before, so a part that was taken alone would end up
/// behind the rest. After `basic.get` letters would come back shuffled, and a `nack` sends them to the end of a quorum queue without
/// a delivery limit.
pub(super) struct Tray {
    connection: Connection,
    channel: Channel,
    /// None when there is nothing to take. Lives as long as the channel: without it, letters would come back another way.
    letters: Option<Consumer>,
    queue: ShortString,
    patience: Duration,
    visited: Visited,
    visits_max: u32,
    /// Letters that were acknowledged.
    removed: u32,
}

impl Tray {
    /// Has all letters delivered, up to [`VISITS_MAX`].
    pub(super) async fn open(settings: &Settings, queue: &str) -> Result<Self, BrokerError> {
        let patience = settings.connect_timeout;
        let connection = connection::dial(&connection::address(settings)?, "jitauth dlq", patience).await?;
        let name = short(queue);
        let opening = async {
            let channel = connection.create_channel().await?;
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let declared = channel.queue_declare(name.clone(), passive, FieldTable::default()).await;
            let ready = match declared {
                Ok(declared) => declared.message_count(),
                Err(error) => return Ok(Err(error)),
            };
            let visits_max = ready.min(VISITS_MAX);
            let letters = match u16::try_from(visits_max) {
                Ok(0) => None,
                prefetch => {
                    channel.basic_qos(prefetch.unwrap_or(u16::MAX), BasicQosOptions::default()).await?;
                    let (options, nothing) = (BasicConsumeOptions::default(), FieldTable::default());
                    Some(channel.basic_consume(name.clone(), ShortString::default(), options, nothing).await?)
                }
            };
            Ok(Ok((channel, letters, ready, visits_max)))
        };
        let (channel, letters, ready, visits_max) =
            connection::ask(&connection, patience, opening).await?.map_err(|error| match amqp_kind(&error) {
                Some(AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)) => {
                    BrokerError::Topology(Box::new(Finding { object: format!("queue {queue}"), problem: Problem::Missing }))
                }
                _ => error.into(),
            })?;
        let visited = Visited { ready, seen: 0 };
        Ok(Self { connection, channel, letters, queue: name, patience, visited, visits_max, removed: 0 })
    }

    /// The next letter. What arrives while we look is left for another time: it may be a letter that we have just sent again.
    pub(super) async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        let Some(letters) = self.letters.as_mut().filter(|_| self.visited.seen < self.visits_max) else { return Ok(None) };
        match timeout(NEXT_MAX, letters.next()).await {
            Ok(Some(delivery)) => {
                self.visited.seen += 1;
                Ok(Some(delivery?))
            }
            Ok(None) => Err(BrokerError::Unreachable("the connection was lost".into())),
            Err(_) if self.connection.status().connected() => Ok(None),
            Err(_) => Err(BrokerError::Unreachable("the connection was lost".into())),
        }
    }

    /// Removes a letter from its queue for good. Says whether the broker was told.
    pub(super) async fn remove(&mut self, letter: &Delivery) -> bool {
        self.removed += 1;
        matches!(timeout(self.patience, letter.ack(BasicAckOptions::default())).await, Ok(Ok(true)))
    }

    /// Puts back what was not acknowledged.
    pub(super) async fn give_back(self) -> Visited {
        if self.removed > 0 {
            sleep(SETTLED).await;
        }
        // Whatever goes wrong here, the broker puts everything back when the connection ends.
        let given = timeout(self.patience, self.channel.close(200, "done".into())).await;
        let back = timeout(BACK_MAX, self.until_all_are_back()).await;
        let closed = timeout(self.patience, self.connection.close(200, "done".into())).await;
        let (given, back, closed) = (matches!(given, Ok(Ok(()))), back.is_ok(), matches!(closed, Ok(Ok(()))));
        tracing::debug!(event = "dead_letters_given_back", given, back, closed);
        self.visited
    }

    /// Whoever looks next should find the letters in their place, and not still on their way.
    async fn until_all_are_back(&self) -> lapin::Result<()> {
        let expected = self.visited.ready.saturating_sub(self.removed);
        let channel = self.connection.create_channel().await?;
        loop {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            if channel.queue_declare(self.queue.clone(), passive, FieldTable::default()).await?.message_count() >= expected {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}
