//! Sending messages again.

use super::{Filter, Letter, Refusal, Rules, Visited, judge::judge, letter::REPLAYS, tray::Tray};
use crate::{
    broker::{
        BrokerError, Settings,
        attempt::{self, Fate},
        connection, envelope,
        topology::{self, short},
    },
    domain::time::Timestamp,
};
use lapin::{
    BasicProperties, Channel, Connection,
    message::Delivery,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use std::{num::NonZeroU32, time::Duration};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// Headers that we or the broker put on a dead letter, or that must not be published again. What is left was the sender's.
const HEADERS_OF_LETTERS: [&str; 14] = [
    "x-reason",
    "x-detail",
    "x-attempts",
    "x-original-exchange",
    "x-original-routing-key",
    "x-original-expiration",
    "x-original-user-id",
    "x-failed-at",
    "x-dlq-id",
    "x-redacted",
    "x-death",
    "x-delivery-count",
    "CC",
    "BCC",
];

/// What to send again, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// The dead letter queue, one of [`queues`](super::queues).
    pub queue: String,
    /// Which letters.
    pub filter: Filter,
    /// Letters that are sent again, or would be, at most.
    pub limit: u32,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Messages a second, at most.
    pub rate: NonZeroU32,
    /// What may be sent.
    pub rules: Rules,
}

/// What was done with one letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its message is in the work queue again, for the so-manieth time, and the letter is gone.
    Replayed(u64),
    /// It would be sent again, for the so-manieth time.
    WouldReplay(u64),
    /// It stays, by the rules.
    Refused(Refusal),
    /// It could not be sent and stays. Nothing more is tried after that.
    Failed(Failure),
}

/// Why a message could not be sent again, or is not known to have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It went nowhere.
    #[error("no queue takes it; run jitauth topology apply, and see that this user may write to the exchange")]
    Unroutable,
    /// The work queue said no.
    #[error("the work queue refuses it, as a full queue does; let the daemon catch up first")]
    Rejected,
    /// The broker does not take messages at present.
    #[error("the broker has raised a memory or disk alarm and takes no messages; free some, and try again")]
    Blocked,
    /// It may be in the work queue or not. Sending it again is safe: the journal answers a known id with the same bytes.
    #[error("the broker did not say whether it has it; the letter stays, and sending it again later is safe")]
    Unknown,
    /// Its message is in the work queue, and the letter could not be removed: it may come back, and sending it again is safe.
    #[error("sent, but the letter could not be removed; should it still be there, sending it again is safe")]
    NotRemoved,
}

/// Sends the messages of letters to their work queue again, oldest first, one at a time. `told` hears of every letter that the
/// filter means, after the fact.
///
/// # Errors
/// [`BrokerError`] when the broker could not be asked. What was told stands; every other letter is in its queue.
pub async fn replay(
    settings: &Settings,
    order: &Order,
    now: impl Fn() -> Timestamp,
    mut told: impl FnMut(&Letter, &Outcome),
) -> Result<Visited, BrokerError> {
    let key = topology::dead_letter_queues(settings).into_iter().find(|(name, _)| *name == order.queue).map(|(_, key)| key);
    let Some(key) = key else {
        let problem = topology::Problem::Missing;
        return Err(BrokerError::Topology(Box::new(topology::Finding { object: format!("dead letter queue {}", order.queue), problem })));
    };
    let mut tray = Tray::open(settings, &order.queue).await?;
    let mut press = if order.dry_run { None } else { Some(Press::open(settings, key, order.rate).await?) };
    let mut done = 0;
    while done < order.limit
        && let Some(delivery) = tray.next().await?
    {
        let letter = Letter::read(&delivery);
        if !order.filter.matches(&letter) {
            continue;
        }
        let outcome = match (judge(&letter, key == topology::CREATED, &order.rules, now()), &mut press) {
            (Err(refusal), _) => Outcome::Refused(refusal),
            (Ok(_), None) => Outcome::WouldReplay(letter.replays + 1),
            (Ok(_), Some(press)) => {
                press.wait().await;
                // Judged again: it may have become late while it waited for its turn.
                match judge(&letter, key == topology::CREATED, &order.rules, now()) {
                    Err(refusal) => Outcome::Refused(refusal),
                    Ok(body) => match press.send(&delivery, &body, letter.replays + 1).await {
                        Some(failure) => Outcome::Failed(failure),
                        None if tray.remove(&delivery).await => Outcome::Replayed(letter.replays + 1),
                        None => Outcome::Failed(Failure::NotRemoved),
                    },
                }
            }
        };
        told(&letter, &outcome);
        match outcome {
            Outcome::Failed(_) => break,
            Outcome::Replayed(_) | Outcome::WouldReplay(_) => done += 1,
            Outcome::Refused(_) => {}
        }
    }
    let visited = tray.give_back().await;
    if let Some(press) = press {
        press.close().await;
    }
    Ok(visited)
}

/// Publishes one message at a time. It has a connection of its own: the broker stops reading from one that publishes while it is
/// short of memory, and then could not be told what is settled.
struct Press {
    connection: Connection,
    channel: Channel,
    exchange: ShortString,
    key: ShortString,
    patience: Duration,
    confirm_timeout: Duration,
    turns: Interval,
}

impl Press {
    async fn open(settings: &Settings, key: &'static str, rate: NonZeroU32) -> Result<Self, BrokerError> {
        let patience = settings.connect_timeout;
        let connection = connection::dial(&connection::address(settings)?, "jitauth dlq replay", patience).await?;
        let opening = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        let channel = connection::ask(&connection, patience, opening).await?;
        let mut turns = interval(Duration::from_secs(1) / rate.get());
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            connection,
            channel,
            exchange: short(&settings.exchange),
            key: key.into(),
            patience,
            confirm_timeout: settings.confirm_timeout,
            turns,
        })
    }

    async fn wait(&mut self) {
        self.turns.tick().await;
    }

    /// Publishes and waits for the confirm. Nothing else is in flight on the channel: that makes the outcome this message's own.
    async fn send(&self, delivery: &Delivery, body: &[u8], nth: u64) -> Option<Failure> {
        if self.connection.status().blocked() {
            return Some(Failure::Blocked);
        }
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = original(&delivery.properties, nth);
        let publishing = async {
            let confirm = self.channel.basic_publish(self.exchange.clone(), self.key.clone(), options, body, properties).await?;
            confirm.await
        };
        match attempt::judge(timeout(self.confirm_timeout, publishing).await.ok()).0 {
            Fate::Confirmed => None,
            Fate::Returned => Some(Failure::Unroutable),
            Fate::Refused => Some(Failure::Rejected),
            Fate::Unconfirmed | Fate::Unknown | Fate::NotSent => Some(Failure::Unknown),
        }
    }

    async fn close(self) {
        let closed = timeout(self.patience, self.connection.close(200, "done".into())).await;
        tracing::debug!(event = "broker_connection_closed", clean = matches!(closed, Ok(Ok(()))));
    }
}

/// The properties as the sender set them, as far as the letter still has them, and the count. Expiration and user stay away as
/// they did in the letter: the deadline says how long the message is good for, and the broker wants our own user or none.
fn original(properties: &BasicProperties, nth: u64) -> BasicProperties {
    let empty = FieldTable::default();
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().as_ref().unwrap_or(&empty) {
        let of_letter = HEADERS_OF_LETTERS.contains(&name.as_str());
        let of_broker = ["x-first-death-", "x-last-death-"].iter().any(|prefix| name.as_str().starts_with(prefix));
        if !(of_letter || of_broker) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers.insert(REPLAYS.into(), AMQPValue::LongLongInt(i64::try_from(nth).unwrap_or(i64::MAX)));
    envelope::kept_properties(properties).with_headers(headers)
}
