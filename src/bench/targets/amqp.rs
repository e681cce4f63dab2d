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
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
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
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

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

/// How often it is looked at what the broker has confirmed. Nobody waits for that, and a thread that is woken for each confirm takes time
/// from what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The load's side of the broker.
pub struct Amqp {
    publisher: Arc<Mutex<Publisher>>,
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
    pub async fn connect(url: &str, route: Route, record: Arc<Record>) -> Result<Self, AmqpError> {
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
        let publisher =
            Publisher { channel: requests, route, reply_to: queue, waiting: Arc::clone(&waiting), confirms: FuturesUnordered::new() };
        let publisher = Arc::new(Mutex::new(publisher));
        let tasks = [tokio::spawn(look(Arc::clone(&publisher))), tokio::spawn(hear(consumer, waiting))];
        Ok(Self { publisher, tasks, _connections: [publishing, consuming] })
    }
}

impl Target for Amqp {
    fn send(&self, parcel: Parcel) {
        self.publisher.lock().publish(parcel);
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

/// Everything that publishes on its channel: lapin mixes up the confirms of a shared one.
struct Publisher {
    channel: Channel,
    route: Route,
    reply_to: ShortString,
    waiting: Arc<Waiting>,
    /// One for each request that no confirm was seen of, which is looked for every few milliseconds; an answer does not wait for it.
    confirms: FuturesUnordered<Confirm>,
}

type Confirm = BoxFuture<'static, (usize, lapin::Result<Confirmation>)>;

impl Publisher {
    /// Hands a request to the connection. It is on its way when this returns.
    fn publish(&mut self, parcel: Parcel) {
        let Parcel { body, seat } = parcel;
        let nth = seat.nth();
        seat.sent(Instant::now());
        // Before it goes out: the answer may be back before anything else is done here.
        self.waiting.seats.lock().insert(nth, seat);
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_correlation_id(short(&nth.to_string()))
            .with_reply_to(self.reply_to.clone());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (short(&self.route.exchange), short(&self.route.key));
        let channel = self.channel.clone();
        let mut confirm: Confirm = Box::pin(async move {
            match channel.basic_publish(exchange, key, options, &body, properties).await {
                Ok(confirm) => (nth, confirm.await),
                Err(error) => (nth, Err(error)),
            }
        });
        match confirm.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => self.confirms.push(confirm),
            Poll::Ready((nth, confirmed)) => self.waiting.confirmed(nth, confirmed),
        }
    }

    /// Notes what was confirmed meanwhile.
    fn look(&mut self) {
        while let Poll::Ready(Some((nth, confirmed))) = self.confirms.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
            self.waiting.confirmed(nth, confirmed);
        }
    }
}

async fn look(publisher: Arc<Mutex<Publisher>>) {
    loop {
        sleep(LOOK_EVERY).await;
        publisher.lock().look();
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
