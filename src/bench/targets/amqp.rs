//! A daemon behind RabbitMQ: requests go to its exchange, answers come to a queue of the run's own.
//!
//! One connection publishes, another takes answers, as with a processor. Lost connections are not made again: a run through an
//! outage of the broker would measure the outage. What was not confirmed or not answered by then is lost, and the run says so.
#![expect(clippy::disallowed_methods, reason = "the load is measured from outside, on the real clock")]

use super::{Parcel, Target, stages::spans};
use crate::{
    bench::record::{Record, Reply, Seat},
    telemetry::Spans,
};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
    uri::AMQPUri,
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// How long connecting and declaring may take, each.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages survive a restart of the broker.
const PERSISTENT: u8 = 2;

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Route {
    /// Exchange.
    pub exchange: String,
    /// Routing key.
    pub key: String,
}

/// Why the broker cannot be used. Never quotes its URL.
#[derive(Debug, thiserror::Error)]
pub enum AmqpError {
    /// `broker.url` is not understood.
    #[error("broker.url is not understood")]
    Address,
    /// No answer in time.
    #[error("RabbitMQ does not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// What lapin says.
    #[error("RabbitMQ: {0}")]
    Broker(#[from] lapin::Error),
}

/// The load's side of the broker.
pub struct Amqp {
    outbox: mpsc::Sender<Parcel>,
    tasks: [JoinHandle<()>; 2],
    /// Closed when it is dropped, with the queue for answers.
    _connections: [Connection; 2],
}

/// What is waited for, by number of the sending, and where answers to nobody are noted.
#[derive(Default)]
struct Waiting {
    seats: Mutex<HashMap<usize, Seat>>,
    record: OnceLock<Arc<Record>>,
}

impl Amqp {
    /// Connects, and declares a queue for answers. `record` is what the sendings are noted in.
    ///
    /// # Errors
    /// [`AmqpError`].
    pub async fn connect(url: &str, route: Route, record: Arc<Record>, in_flight_max: u32) -> Result<Self, AmqpError> {
        let (publishing, consuming) = (dial(url, "jitauth bench publish").await?, dial(url, "jitauth bench consume").await?);
        let waiting = Arc::new(Waiting { record: OnceLock::from(record), ..Waiting::default() });
        let opening = async {
            let replies = consuming.create_channel().await?;
            let (queue, consumer) = reply_queue(&replies).await?;
            let requests = publishing.create_channel().await?;
            requests.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, lapin::Error>((queue, consumer, requests))
        };
        let (queue, consumer, requests) = timeout(PATIENCE, opening).await.map_err(|_| AmqpError::Silent)??;
        // Every parcel has a place among those under way, so there is always room.
        let (outbox, parcels) = mpsc::channel(in_flight_max as usize);
        let publisher = Publisher { channel: requests, route, reply_to: queue, waiting: Arc::clone(&waiting) };
        let tasks = [tokio::spawn(publisher.run(parcels)), tokio::spawn(hear(consumer, waiting))];
        Ok(Self { outbox, tasks, _connections: [publishing, consuming] })
    }
}

impl Target for Amqp {
    fn send(&self, parcel: Parcel) {
        if let Err(refused) = self.outbox.try_send(parcel) {
            // The publisher is gone with its connection: what is not sent stays unanswered.
            drop(refused);
        }
    }
}

impl Drop for Amqp {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Connects once.
///
/// # Errors
/// [`AmqpError`].
pub async fn dial(url: &str, name: &str) -> Result<Connection, AmqpError> {
    let uri: AMQPUri = url.parse().map_err(|_quotes_the_url: String| AmqpError::Address)?;
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    Ok(timeout(PATIENCE, Connection::connect_uri(uri, properties)).await.map_err(|_| AmqpError::Silent)??)
}

/// An AMQP short string; a longer text is cut, and then names nothing that exists.
#[must_use]
pub fn short(text: &str) -> ShortString {
    ShortString::try_new(&text[..text.floor_char_boundary(255)]).unwrap_or_default()
}

/// A queue that is gone with its connection, and its consumer. Answers are acknowledged as they are delivered: who measures keeps
/// nothing that could be lost.
pub(in crate::bench) async fn reply_queue(channel: &Channel) -> lapin::Result<(ShortString, Consumer)> {
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), own, FieldTable::default()).await?.name().clone();
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await?;
    Ok((queue, consumer))
}

/// The only task that publishes on its channel: lapin mixes up the confirms of a shared one.
struct Publisher {
    channel: Channel,
    route: Route,
    reply_to: ShortString,
    waiting: Arc<Waiting>,
}

type Confirm = BoxFuture<'static, (usize, lapin::Result<Confirmation>)>;

impl Publisher {
    async fn run(self, mut parcels: mpsc::Receiver<Parcel>) {
        let mut confirms: FuturesUnordered<Confirm> = FuturesUnordered::new();
        loop {
            tokio::select! { biased;
                Some((nth, confirmed)) = confirms.next(), if !confirms.is_empty() => self.waiting.confirmed(nth, confirmed),
                parcel = parcels.recv() => match parcel {
                    Some(parcel) => if let Some(confirm) = self.publish(parcel).await { confirms.push(confirm) },
                    None => break,
                },
            }
        }
        while let Some((nth, confirmed)) = confirms.next().await {
            self.waiting.confirmed(nth, confirmed);
        }
    }

    async fn publish(&self, parcel: Parcel) -> Option<Confirm> {
        let Parcel { body, seat } = parcel;
        let nth = seat.nth();
        seat.sent(Instant::now());
        // Before it goes out: the answer may be back before this task runs again.
        self.waiting.seats.lock().insert(nth, seat);
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_correlation_id(short(&nth.to_string()))
            .with_reply_to(self.reply_to.clone());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (short(&self.route.exchange), short(&self.route.key));
        match self.channel.basic_publish(exchange, key, options, &body, properties).await {
            Ok(confirm) => Some(Box::pin(async move { (nth, confirm.await) })),
            Err(error) => {
                self.waiting.confirmed(nth, Err(error));
                None
            }
        }
    }
}

impl Waiting {
    /// A request that the broker did not take will not be answered. One whose connection broke may be.
    fn confirmed(&self, nth: usize, confirmed: lapin::Result<Confirmation>) {
        let why = match confirmed {
            Ok(Confirmation::Ack(None)) | Err(_) => return,
            Ok(Confirmation::Ack(Some(_))) => "no queue takes it: run jitauth topology apply",
            Ok(_) => "the broker does not take it",
        };
        if let Some(seat) = self.seats.lock().remove(&nth) {
            seat.refused(|| why.to_owned());
        }
    }

    fn heard(&self, delivery: &Delivery) {
        let now = Instant::now();
        let reply = reply(delivery);
        let nth = delivery.properties.correlation_id().as_ref().and_then(|text| text.as_str().parse().ok());
        let seat = nth.and_then(|nth| self.seats.lock().remove(&nth));
        match (seat, self.record.get()) {
            (Some(seat), _) => seat.answered(now, reply),
            (None, Some(record)) => record.answered_again(nth, reply),
            (None, None) => {}
        }
    }
}

async fn hear(mut consumer: Consumer, waiting: Arc<Waiting>) {
    while let Some(Ok(delivery)) = consumer.next().await {
        waiting.heard(&delivery);
    }
}

fn reply(delivery: &Delivery) -> Reply<'_> {
    let header = |name: &str| delivery.properties.headers().as_ref().and_then(|table| table.inner().get(name));
    let spans = match header("x-stage-us") {
        Some(AMQPValue::LongString(text)) => spans(text.as_bytes()),
        _ => Spans::default(),
    };
    let journaled = !matches!(header("x-final"), Some(AMQPValue::Boolean(false)));
    Reply { body: &delivery.data, journaled, spans }
}
