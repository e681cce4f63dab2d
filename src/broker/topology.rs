//! The exchanges, queues and bindings we rely on: declared by `jitauth topology apply`, looked at before a start.
//!
//! AMQP can declare bindings but not read them. [`check`] therefore says nothing about bindings; what it finds missing or
//! different, and every binding, is put right by [`apply`], which is safe to repeat. A binding that is missing all the same
//! shows as answers and dead letters returned by the broker (`published` with outcome `returned`).

use super::{
    BrokerError, QueueType, Settings, connection,
    error::{amqp_kind, refused_on_channel},
};
use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, ShortString},
};
use std::time::Duration;
use tokio::time::timeout;

/// Routing key of authorization requests.
pub const CREATED: &str = "jit-funding.created";
/// Routing key of answers to requests without `reply_to`.
pub const DECIDED: &str = "jit-funding.decided";
/// Routing key of dead letters of authorization requests.
pub const FAILED: &str = "jit-funding.failed";

const TRANSACTION_CREATED: &str = "transaction.created";
const TRANSACTION_FAILED: &str = "transaction.failed";
const WEBHOOK_CREATED: &str = "transaction.webhook";
const WEBHOOK_FAILED: &str = "webhook.failed";

/// Deliveries of one message before the broker dead-letters it. Only a stop for crash loops: what can be answered is
/// answered, and what cannot is dead-lettered by us on its first delivery.
const DELIVERY_LIMIT: i32 = 20;

/// Something about the broker's topology that is not as it should be, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which exchange or queue.
    pub object: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with an exchange or a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It does not exist.
    Missing,
    /// It exists with other arguments; the broker's words name the first one.
    Differs(String),
    /// It exists, and this user may not look further (the `configure` permission is needed). Not in the way of a start.
    Unverified(String),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let object = &self.object;
        match &self.problem {
            Problem::Missing => write!(f, "{object} does not exist; run `jitauth topology apply`"),
            Problem::Differs(why) => write!(
                f,
                "{object} exists with other arguments: {why}; arguments cannot be changed in place: set broker.queue_type to what is \
                 declared, or drain and delete it, then run `jitauth topology apply`"
            ),
            Problem::Unverified(why) => {
                write!(
                    f,
                    "{object} exists, but its arguments cannot be compared: {why}; run `jitauth topology check` as a user with the configure permission"
                )
            }
        }
    }
}

/// Declares every exchange, queue and binding. Repeating it changes nothing.
///
/// # Errors
/// [`BrokerError::Topology`] when something exists with other arguments; otherwise why the broker could not be asked.
pub async fn apply(settings: &Settings) -> Result<(), BrokerError> {
    let desk = Desk::open(settings).await?;
    for exchange in exchanges(settings) {
        let declared = desk.ask(async |channel| declare_exchange(channel, &exchange, false).await).await?;
        refine(declared, || format!("exchange {exchange}"))?;
    }
    // Dead letter queues come first in the list: no work queue exists for a moment without a place for what fails in it.
    for queue in queues(settings) {
        let declared = desk.ask(async |channel| declare_queue(channel, &queue, false).await).await?;
        refine(declared, || format!("queue {}", queue.name))?;
        desk.ask(async |channel| bind(channel, &queue, &settings.exchange).await).await??;
    }
    desk.close().await;
    Ok(())
}

/// Looks at every exchange and queue without changing anything. Bindings cannot be read over AMQP and are not looked at.
///
/// # Errors
/// Why the broker could not be asked.
pub async fn check(settings: &Settings) -> Result<Vec<Finding>, BrokerError> {
    let desk = Desk::open(settings).await?;
    let mut findings = Vec::new();
    // A full declaration creates nothing here: it is asked for only where the object is, so the broker only compares.
    for exchange in exchanges(settings) {
        let exists = desk.ask(async |channel| declare_exchange(channel, &exchange, true).await).await?;
        let problem = match found(exists)? {
            Some(problem) => Some(problem),
            None => found(desk.ask(async |channel| declare_exchange(channel, &exchange, false).await).await?)?,
        };
        findings.extend(problem.map(|problem| Finding { object: format!("exchange {exchange}"), problem }));
    }
    for queue in queues(settings) {
        let exists = desk.ask(async |channel| declare_queue(channel, &queue, true).await).await?;
        let problem = match found(exists)? {
            Some(problem) => Some(problem),
            None => found(desk.ask(async |channel| declare_queue(channel, &queue, false).await).await?)?,
        };
        findings.extend(problem.map(|problem| Finding { object: format!("queue {}", queue.name), problem }));
    }
    desk.close().await;
    Ok(findings)
}

/// The queues no answer may be sent to.
pub(super) fn work_queues_and_dead_letter_queues(settings: &Settings) -> Vec<String> {
    queues(settings).into_iter().map(|queue| queue.name).filter(|name| *name != settings.response_queue).collect()
}

/// The dead letter queues, each with the routing key that leads to its work queue; that of authorizations first.
pub(super) fn dead_letter_queues(settings: &Settings) -> [(String, &'static str); 3] {
    [
        (settings.dead_letter_queue.clone(), CREATED),
        (dead(&settings.transaction_queue), TRANSACTION_CREATED),
        (dead(&settings.webhook_queue), WEBHOOK_CREATED),
    ]
}

/// An AMQP short string; a longer text is cut, and then names nothing that exists.
pub(super) fn short(text: &str) -> ShortString {
    ShortString::try_new(&text[..text.floor_char_boundary(255)]).unwrap_or_default()
}

struct Queue {
    name: String,
    key: &'static str,
    arguments: FieldTable,
}

fn exchanges(settings: &Settings) -> [String; 2] {
    [settings.exchange.clone(), settings.events_exchange.clone()]
}

fn queues(settings: &Settings) -> Vec<Queue> {
    let dead_letters = |name: String, key| Queue { name, key, arguments: dead_letter_arguments(settings) };
    let work = |name: &str, key, failed| Queue { name: name.to_owned(), key, arguments: work_arguments(settings, failed) };
    vec![
        dead_letters(settings.dead_letter_queue.clone(), FAILED),
        dead_letters(dead(&settings.transaction_queue), TRANSACTION_FAILED),
        dead_letters(dead(&settings.webhook_queue), WEBHOOK_FAILED),
        Queue { name: settings.response_queue.clone(), key: DECIDED, arguments: queue_type(settings) },
        work(&settings.request_queue, CREATED, FAILED),
        work(&settings.transaction_queue, TRANSACTION_CREATED, TRANSACTION_FAILED),
        work(&settings.webhook_queue, WEBHOOK_CREATED, WEBHOOK_FAILED),
    ]
}

fn dead(name: &str) -> String {
    format!("{name}-dlq")
}

/// A quorum queue drops a message after a number of deliveries (by default 20, from RabbitMQ 4 on), and every look at a dead letter
/// is one. With a limit it also puts what comes back where it was, and not at the end.
fn dead_letter_arguments(settings: &Settings) -> FieldTable {
    let mut arguments = queue_type(settings);
    if settings.queue_type == QueueType::Quorum {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(i32::MAX));
    }
    arguments
}

fn queue_type(settings: &Settings) -> FieldTable {
    let name = match settings.queue_type {
        QueueType::Quorum => "quorum",
        QueueType::Classic => "classic",
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text(name));
    arguments
}

fn work_arguments(settings: &Settings, failed: &str) -> FieldTable {
    let mut arguments = queue_type(settings);
    arguments.insert("x-dead-letter-exchange".into(), text(&settings.exchange));
    arguments.insert("x-dead-letter-routing-key".into(), text(failed));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    if settings.queue_type == QueueType::Quorum {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    }
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// A connection for questions, each asked on a channel of its own: the broker closes a channel to say no.
struct Desk {
    connection: Connection,
    patience: Duration,
}

impl Desk {
    async fn open(settings: &Settings) -> Result<Self, BrokerError> {
        let patience = settings.connect_timeout;
        let connection = connection::dial(&connection::address(settings)?, "jitauth topology", patience).await?;
        Ok(Self { connection, patience })
    }

    async fn ask(&self, question: impl AsyncFnOnce(&Channel) -> lapin::Result<()>) -> Result<lapin::Result<()>, BrokerError> {
        let asking = async {
            let channel = self.connection.create_channel().await?;
            let answer = question(&channel).await;
            if channel.status().connected() {
                channel.close(200, "done".into()).await?;
            }
            Ok(answer)
        };
        connection::ask(&self.connection, self.patience, asking).await
    }

    async fn close(self) {
        let closed = timeout(self.patience, self.connection.close(200, "done".into())).await;
        tracing::debug!(event = "broker_connection_closed", clean = matches!(closed, Ok(Ok(()))));
    }
}

async fn declare_exchange(channel: &Channel, name: &str, passive: bool) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(short(name), ExchangeKind::Topic, options, FieldTable::default()).await
}

async fn declare_queue(channel: &Channel, queue: &Queue, passive: bool) -> lapin::Result<()> {
    let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(short(&queue.name), options, queue.arguments.clone()).await.map(drop)
}

async fn bind(channel: &Channel, queue: &Queue, exchange: &str) -> lapin::Result<()> {
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(short(&queue.name), short(exchange), queue.key.into(), options, arguments).await
}

/// What a declaration tells about an object; errors that tell nothing about it stay errors.
fn found(declared: lapin::Result<()>) -> Result<Option<Problem>, BrokerError> {
    let Err(error) = declared else { return Ok(None) };
    match amqp_kind(&error) {
        Some(AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)) => Ok(Some(Problem::Missing)),
        Some(AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::RESOURCELOCKED)) => {
            Ok(Some(Problem::Differs(error.to_string())))
        }
        Some(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)) => Ok(Some(Problem::Unverified(error.to_string()))),
        _ => Err(error.into()),
    }
}

/// Names the object in an error of [`apply`].
fn refine(declared: lapin::Result<()>, object: impl FnOnce() -> String) -> Result<(), BrokerError> {
    match declared {
        Ok(()) => Ok(()),
        Err(error) if refused_on_channel(&error) => match amqp_kind(&error) {
            Some(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)) => Err(error.into()),
            _ => Err(BrokerError::Topology(Box::new(Finding { object: object(), problem: Problem::Differs(error.to_string()) }))),
        },
        Err(error) => Err(error.into()),
    }
}
