//! A client of the broker: publishes requests, collects responses, reads dead letters.

use super::{PATIENCE, eventually};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::{
    sync::Mutex as AsyncMutex,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// The names of the default topology.
pub(crate) const EXCHANGE: &str = "transactions";
pub(crate) const CREATED: &str = "jit-funding.created";
pub(crate) const REQUESTS: &str = "jit-funding-queue";
pub(crate) const RESPONSES: &str = "jit-funding-responses";
pub(crate) const DEAD_LETTERS: &str = "jit-funding-dlq";

/// How long connecting may take: in lapin it may never end when the broker goes meanwhile.
const CONNECT_MAX: Duration = Duration::from_secs(20);

/// One connection and one channel with confirms. Tasks that share it take turns: lapin mixes up the confirms of a channel on which
/// several publish at once. Lost connections are made anew.
#[derive(Debug)]
pub(crate) struct Amqp {
    url: String,
    link: AsyncMutex<Option<(Connection, Channel)>>,
}

/// A message that was received.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) message_id: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) reply_to: Option<String>,
    /// As text, whatever their type.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn new(delivery: &Delivery) -> Self {
        let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string);
        let properties = &delivery.properties;
        let headers = properties.headers().iter().flat_map(|table| table.inner());
        Self {
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            reply_to: text(properties.reply_to()),
            headers: headers.map(|(name, value)| (name.to_string(), plain(value))).collect(),
            body: delivery.data.clone(),
        }
    }
}

fn plain(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(truth) => truth.to_string(),
        AMQPValue::ShortShortInt(number) => number.to_string(),
        AMQPValue::ShortShortUInt(number) => number.to_string(),
        AMQPValue::ShortInt(number) => number.to_string(),
        AMQPValue::ShortUInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongUInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Timestamp(seconds) => seconds.to_string(),
        other => format!("{other:?}"),
    }
}

impl Amqp {
    pub(crate) async fn connect(url: &str) -> Self {
        let amqp = Self { url: url.to_owned(), link: AsyncMutex::new(None) };
        amqp.channel().await.expect("RabbitMQ answers");
        amqp
    }

    /// The channel, made anew when it was lost.
    pub(crate) async fn channel(&self) -> lapin::Result<Channel> {
        let mut link = self.link.lock().await;
        if let Some((connection, channel)) = &*link
            && connection.status().connected()
        {
            if channel.status().connected() {
                return Ok(channel.clone());
            }
            let channel = in_time(open(connection)).await?;
            *link = link.take().map(|(connection, _)| (connection, channel.clone()));
            return Ok(channel);
        }
        *link = None;
        let (connection, channel) = in_time(async {
            let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
            let channel = open(&connection).await?;
            Ok((connection, channel))
        })
        .await?;
        *link = Some((connection, channel.clone()));
        Ok(channel)
    }

    /// Publishes a request and waits until the broker has it.
    pub(crate) async fn request(&self, body: impl Into<Vec<u8>>, properties: BasicProperties) {
        let confirmation = self.publish(EXCHANGE, CREATED, &body.into(), properties).await;
        assert_eq!(confirmation, Ok(Confirmation::Ack(None)), "the broker takes a request");
    }

    /// Publishes a request through restarts of the broker: again and again until it was confirmed.
    pub(crate) async fn request_surely(&self, body: &[u8], properties: BasicProperties) {
        eventually("a confirmed publish", async || {
            let confirmation = self.publish(EXCHANGE, CREATED, body, properties.clone()).await;
            if confirmation != Ok(Confirmation::Ack(None)) {
                sleep(Duration::from_millis(100)).await;
                return None;
            }
            Some(())
        })
        .await;
    }

    /// Publishes persistently and mandatorily, and gives what the broker said.
    pub(crate) async fn publish(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<Confirmation, String> {
        let channel = self.channel().await.map_err(|error| error.to_string())?;
        let _turn = self.link.lock().await;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish =
            async { channel.basic_publish(exchange.into(), key.into(), options, body, properties.with_delivery_mode(2)).await?.await };
        timeout(Duration::from_secs(10), publish).await.map_err(|_| "no confirm".to_owned())?.map_err(|error| error.to_string())
    }

    /// Takes one message from a queue, if there is one.
    pub(crate) async fn take(&self, queue: &str) -> Option<Message> {
        let channel = self.channel().await.expect("RabbitMQ answers");
        let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.expect("the queue exists")?;
        Some(Message::new(&got.delivery))
    }

    /// Waits for the next message of a queue and takes it.
    pub(crate) async fn next(&self, queue: &str) -> Message {
        eventually(&format!("a message in {queue}"), async || self.take(queue).await).await
    }

    /// Messages that are ready in a queue; those in work are not among them.
    pub(crate) async fn depth(&self, queue: &str) -> u32 {
        let channel = self.channel().await.expect("RabbitMQ answers");
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), passive, FieldTable::default()).await.expect("the queue exists").message_count()
    }

    /// Collects what arrives in a queue from now on, which is made when it does not exist.
    pub(crate) async fn collect(&self, queue: &str) -> Mailbox {
        let mailbox = Arc::new(Mutex::new(Vec::new()));
        let (url, name, into) = (self.url.clone(), queue.to_owned(), Arc::clone(&mailbox));
        self.declare(queue).await;
        let task = tokio::spawn(async move {
            loop {
                // Ends when the connection is lost, and is then begun anew: what was not acked comes again.
                let _lost = consume(&url, &name, &into).await;
                sleep(Duration::from_millis(100)).await;
            }
        });
        Mailbox { messages: mailbox, task }
    }

    async fn declare(&self, queue: &str) {
        let channel = self.channel().await.expect("RabbitMQ answers");
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        if channel.queue_declare(queue.into(), passive, FieldTable::default()).await.is_err() {
            let channel = self.channel().await.expect("RabbitMQ answers");
            channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default()).await.expect("a new queue");
        }
    }
}

async fn in_time<T>(work: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    timeout(CONNECT_MAX, work).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

async fn open(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

async fn consume(url: &str, queue: &str, into: &Mutex<Vec<Message>>) -> lapin::Result<()> {
    let (_connection, _channel, mut consumer) = in_time(async {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let consumer = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
        Ok((connection, channel, consumer))
    })
    .await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        into.lock().push(Message::new(&delivery));
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

/// What arrived in a queue, in order. A message may be there twice when the connection was lost in between.
#[derive(Debug)]
pub(crate) struct Mailbox {
    messages: Arc<Mutex<Vec<Message>>>,
    task: JoinHandle<()>,
}

impl Mailbox {
    /// Everything that arrived so far for a message id.
    pub(crate) fn all_for(&self, id: &str) -> Vec<Message> {
        self.messages.lock().iter().filter(|message| message.message_id.as_deref() == Some(id)).cloned().collect()
    }

    /// Everything that arrived so far.
    pub(crate) fn all(&self) -> Vec<Message> {
        self.messages.lock().clone()
    }

    /// How many messages arrived so far.
    pub(crate) fn count(&self) -> usize {
        self.messages.lock().len()
    }

    /// Waits for the first message with this id.
    pub(crate) async fn response(&self, id: &str) -> Message {
        eventually(&format!("a response to {id}"), async || self.all_for(id).into_iter().next()).await
    }

    /// Waits until a message arrived for each of the ids; panics with those missing after [`PATIENCE`].
    pub(crate) async fn responses(&self, ids: &[String]) {
        let missing = || {
            let messages = self.messages.lock();
            let known: std::collections::BTreeSet<_> = messages.iter().filter_map(|message| message.message_id.as_deref()).collect();
            ids.iter().filter(|id| !known.contains(id.as_str())).cloned().collect::<Vec<_>>()
        };
        let all = async {
            while !missing().is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(PATIENCE, all).await.is_ok(), "no response to {:?}", missing());
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}
