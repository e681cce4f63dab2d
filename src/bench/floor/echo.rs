//! What the broker takes for itself: a requester's load on a queue whose consumer only publishes an answer, waits for the confirm and
//! acks, with the queue type, persistence, prefetch and sizes of the daemon's.

use crate::{
    bench::targets::amqp::{AmqpError, dial, short},
    broker::{self, QueueType},
    codec::response::{self, Response},
    domain::{decision::Decision, money::Currency, time::Timestamp},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::task::JoinHandle;

/// Messages survive a restart of the broker.
const PERSISTENT: u8 = 2;
/// As the daemon's answers have it.
const STAGES: &str = "decode=12;user=1;card=3;limits=1;decision=4;lane=40;commit=1200";

/// The echo, at work until it is dropped.
pub(super) struct Echo {
    task: JoinHandle<()>,
    /// Two, like the daemon's.
    _connections: [Connection; 2],
}

impl Echo {
    /// Declares the queue and begins to answer.
    pub(super) async fn start(settings: &broker::Settings, queue: &str) -> Result<Self, AmqpError> {
        let (consuming, publishing) = (dial(&settings.url, "jitauth bench echo").await?, dial(&settings.url, "jitauth bench echo").await?);
        let requests = consuming.create_channel().await?;
        let mut arguments = FieldTable::default();
        let kind = match settings.queue_type {
            QueueType::Quorum => "quorum",
            QueueType::Classic => "classic",
        };
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        requests.queue_declare(short(queue), QueueDeclareOptions::durable(), arguments).await?;
        requests.basic_qos(settings.prefetch, BasicQosOptions::default()).await?;
        let consumer = requests.basic_consume(short(queue), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
        let answers = publishing.create_channel().await?;
        answers.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { task: tokio::spawn(answer(consumer, answers)), _connections: [consuming, publishing] })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Confirm = BoxFuture<'static, (Delivery, lapin::Result<Confirmation>)>;
type Ack = BoxFuture<'static, lapin::Result<bool>>;

/// One task publishes, like the daemon's: lapin mixes up the confirms of a shared channel.
async fn answer(mut requests: Consumer, answers: Channel) {
    let body = body();
    let mut confirms: FuturesUnordered<Confirm> = FuturesUnordered::new();
    let mut acks: FuturesUnordered<Ack> = FuturesUnordered::new();
    loop {
        tokio::select! { biased;
            Some(_) = acks.next(), if !acks.is_empty() => {}
            Some((delivery, confirmed)) = confirms.next(), if !confirms.is_empty() => {
                // What was not confirmed stays unacknowledged: the requester counts it as lost.
                if matches!(confirmed, Ok(Confirmation::Ack(None))) {
                    acks.push(async move { delivery.ack(BasicAckOptions::default()).await }.boxed());
                }
            }
            delivery = requests.next() => match delivery {
                Some(Ok(delivery)) => if let Some(confirm) = publish(&answers, delivery, &body).await { confirms.push(confirm) },
                _ => return,
            },
        }
    }
}

async fn publish(answers: &Channel, delivery: Delivery, body: &[u8]) -> Option<Confirm> {
    let reply_to = delivery.properties.reply_to().clone()?;
    let mut headers = FieldTable::default();
    headers.insert("x-replayed".into(), AMQPValue::Boolean(false));
    headers.insert("x-stage-us".into(), AMQPValue::LongString(STAGES.into()));
    let mut properties =
        BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(PERSISTENT).with_headers(headers);
    if let Some(correlation) = delivery.properties.correlation_id() {
        properties = properties.with_correlation_id(correlation.clone());
    }
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm = answers.basic_publish("".into(), reply_to, options, body, properties).await.ok()?;
    Some(async move { (delivery, confirm.await) }.boxed())
}

/// An answer as long as the daemon's.
fn body() -> Vec<u8> {
    response::encode(&Response {
        id: None,
        decision: Decision::Approved,
        reason: None,
        approved: 4_250,
        currency: Currency::from_code("USD"),
        available: Some(100_000_043_250),
        hold: None,
        decided_at: Timestamp(1_772_619_307_114_000),
    })
}
