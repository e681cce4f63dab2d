//! The exchange for events: what others say about changed facts comes in, what we say about ourselves goes out.
//!
//! Both are hints that may be lost. A missed change is found by the commit, and a missed alert is in the log and in the metrics. So
//! nothing here waits for confirms, keeps anything back, or stands in the way of an authorization.

use super::{
    BrokerError, Phase, Settings,
    connection::{self, Link, Pauses, address, ask, dial},
    topology::short,
};
use crate::{
    codec::event::{self, EventKind, FactEvent},
    telemetry::Telemetry,
};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Consumer,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

/// Events that wait in our queue at the broker; the oldest give way.
const QUEUE_MESSAGES_MAX: i32 = 10_000;
/// Events here that were not taken yet; the others wait in the queue.
const UNTAKEN_MAX: u16 = 256;
/// The longest pause before listening is tried again where the broker does not let us, though it is there: each try costs a channel of the
/// connection that deliveries come on.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long an event may take to be handed to the socket.
const SEND_MAX: Duration = Duration::from_millis(500);

/// Something to be told to whoever listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The routing key.
    pub key: &'static str,
    /// JSON.
    pub body: Vec<u8>,
}

/// The other ends of what is heard and told.
pub struct EventPorts {
    /// Takes what was heard. When it is full, events wait at the broker.
    pub heard: mpsc::Sender<FactEvent>,
    /// Gives what is to be told.
    pub told: mpsc::Receiver<Outgoing>,
}

/// Tells others that facts have changed, over a connection of its own; confirmed when it returns.
///
/// # Errors
/// Why the broker could not be told.
pub async fn announce(settings: &Settings, events: &[FactEvent]) -> Result<(), BrokerError> {
    let patience = settings.connect_timeout;
    let connection = dial(&address(settings)?, "jitauth announce", patience).await?;
    let exchange = short(&settings.events_exchange);
    let telling = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        for event in events {
            let (key, body) = (event.kind.name(), event::encode(event));
            channel.basic_publish(exchange.clone(), key.into(), BasicPublishOptions::default(), &body, properties(key)).await?.await?;
        }
        Ok(())
    };
    let told = ask(&connection, patience, telling).await;
    let closed = timeout(patience, connection.close(200, "done".into())).await;
    tracing::debug!(event = "broker_connection_closed", clean = matches!(closed, Ok(Ok(()))));
    told
}

/// Hears events until the daemon drains, on a queue that only this process has and that is gone with its connection.
pub(super) async fn listen(
    settings: Settings,
    mut link: Link,
    heard: mpsc::Sender<FactEvent>,
    telemetry: Telemetry,
    mut phase: watch::Receiver<Phase>,
) {
    let (mut pauses, mut refused) = (Pauses::up_to(settings.reconnect_max), Pauses::up_to(REFUSED_PAUSE_MAX));
    loop {
        let connection = tokio::select! { biased;
            () = Phase::Draining.reached(&mut phase) => return,
            connection = link.connection() => connection,
        };
        let since = Instant::now();
        let why = tokio::select! { biased;
            () = Phase::Draining.reached(&mut phase) => return,
            why = hear(&settings, &connection, &heard, &telemetry) => why,
            () = link.lost(&connection) => "the connection was lost".to_owned(),
        };
        telemetry.events_heard(false, &why);
        pauses.held(since);
        refused.held(since);
        let pause = if connection.status().connected() { refused.next() } else { pauses.next() };
        tokio::select! { biased;
            () = Phase::Draining.reached(&mut phase) => return,
            () = sleep(pause) => {}
        }
    }
}

/// Hears events as long as the connection lasts; says why it does not any more.
async fn hear(settings: &Settings, connection: &Connection, heard: &mpsc::Sender<FactEvent>, telemetry: &Telemetry) -> String {
    let (_channel, mut deliveries) = match ask(connection, settings.connect_timeout, open(settings, connection)).await {
        Ok(open) => open,
        Err(error) => return error.to_string(),
    };
    telemetry.events_heard(true, "listening");
    loop {
        match deliveries.next().await {
            Some(Ok(delivery)) => {
                if let Some(event) = read(&delivery, telemetry)
                    && heard.send(event).await.is_err()
                {
                    return "nobody wants events any more".to_owned();
                }
                // Not before it was taken: until then the broker holds the others back.
                if let Err(error) = delivery.acker.ack(BasicAckOptions::default()).await {
                    return error.to_string();
                }
            }
            Some(Err(error)) => return error.to_string(),
            None => return "the broker ended the consumer".to_owned(),
        }
    }
}

async fn open(settings: &Settings, connection: &Connection) -> lapin::Result<(Channel, Consumer)> {
    let channel = connection::channel(connection).await?;
    channel.basic_qos(UNTAKEN_MAX, BasicQosOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(QUEUE_MESSAGES_MAX));
    arguments.insert("x-overflow".into(), AMQPValue::LongString(LongString::from("drop-head")));
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(ShortString::default(), options, arguments).await?.name().clone();
    let exchange = short(&settings.events_exchange);
    for kind in EventKind::ALL {
        let (binding, nothing) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(queue.clone(), exchange.clone(), kind.name().into(), binding, nothing).await?;
    }
    let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(queue, ShortString::default(), options, FieldTable::default()).await?;
    Ok((channel, consumer))
}

fn read(delivery: &Delivery, telemetry: &Telemetry) -> Option<FactEvent> {
    match event::decode(delivery.routing_key.as_str(), &delivery.data) {
        Ok(event) => {
            telemetry.event_received(event.kind.name());
            Some(event)
        }
        Err(error) => {
            telemetry.event_refused(&error.to_string());
            None
        }
    }
}

/// Sends events until the daemon closes. Whatever cannot be sent now is counted and forgotten.
pub(super) async fn tell(
    settings: Settings,
    link: Link,
    mut told: mpsc::Receiver<Outgoing>,
    telemetry: Telemetry,
    mut phase: watch::Receiver<Phase>,
) {
    let exchange = short(&settings.events_exchange);
    let mut channel: Option<Channel> = None;
    loop {
        let event = tokio::select! { biased;
            () = Phase::Closing.reached(&mut phase) => return,
            event = told.recv() => event,
        };
        let Some(event) = event else {
            // Nobody will tell anything any more. To end before the daemon does would look like a fault.
            return Phase::Closing.reached(&mut phase).await;
        };
        let sent = timeout(SEND_MAX, send(&mut channel, &link, &exchange, &event)).await;
        let why = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("not sent within {} ms", SEND_MAX.as_millis())),
        };
        if why.is_some() {
            channel = None;
        }
        telemetry.event_published(event.key, why.as_deref());
    }
}

async fn send(channel: &mut Option<Channel>, link: &Link, exchange: &ShortString, event: &Outgoing) -> Result<(), BrokerError> {
    let state = link.state();
    let connection: Arc<Connection> = state
        .connection
        .filter(|_| !state.blocked)
        .ok_or_else(|| BrokerError::Unreachable("there is no connection that takes messages".to_owned()))?;
    let open = match channel.take().filter(|channel| channel.status().connected()) {
        Some(open) => open,
        None => connection::channel(&connection).await?,
    };
    let open = channel.insert(open);
    let confirm =
        open.basic_publish(exchange.clone(), event.key.into(), BasicPublishOptions::default(), &event.body, properties(event.key)).await?;
    // Without publisher confirms there is nothing to wait for.
    drop(confirm);
    Ok(())
}

fn properties(kind: &str) -> BasicProperties {
    BasicProperties::default().with_content_type("application/json".into()).with_type(short(kind)).with_app_id("jitauth".into())
}
