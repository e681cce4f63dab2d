//! What the broker takes for itself: a requester's load on a queue whose consumer only publishes an answer, waits for the confirm and
//! acks. Everything else is as with the daemon: a process of its own, exchange, queue and its arguments, persistence, prefetch, sizes.

use crate::{
    bench::{
        spawn::leash,
        targets::amqp::{AmqpError, dial, short},
    },
    broker,
    codec::response::{self, Response},
    domain::{decision::Decision, hold::HoldId, ids::RequestId, money::Currency, time::Timestamp},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};

/// Messages survive a restart of the broker.
const PERSISTENT: u8 = 2;
/// As the daemon's answers have it.
const STAGES: &str = "decode=12;user=1;card=3;limits=1;decision=4;lane=40;commit=1200";

/// As long as the id of a request of the bench, and as a hold's.
const ID: &str = "bench-19a2b3c4d5ex12345.0-0000000";
const HOLD: &str = "hld_01JA2B3C4D5E6F7G8H9JAKBMCN";

/// The echo, connected.
pub struct Echo {
    requests: Consumer,
    answers: Channel,
    /// Two, like the daemon's.
    _connections: [Connection; 2],
}

impl Echo {
    /// Connects to the queue that a daemon with these settings would consume.
    ///
    /// # Errors
    /// [`AmqpError`].
    pub async fn start(settings: &broker::Settings) -> Result<Self, AmqpError> {
        let (consuming, publishing) = (dial(&settings.url, "jitauth bench echo").await?, dial(&settings.url, "jitauth bench echo").await?);
        let channel = consuming.create_channel().await?;
        channel.basic_qos(settings.prefetch, BasicQosOptions::default()).await?;
        let queue = short(&settings.request_queue);
        let requests = channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await?;
        let answers = publishing.create_channel().await?;
        answers.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { requests, answers, _connections: [consuming, publishing] })
    }

    /// Answers until the queue is gone, or whoever started us.
    pub async fn run(self) {
        tokio::select! {
            () = answer(self.requests, self.answers) => {}
            _gone = leash() => {}
        }
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
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers)
        .with_message_id(ID.into());
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
        id: RequestId::new(ID).ok().as_ref(),
        decision: Decision::Approved,
        reason: None,
        approved: 4_250,
        currency: Currency::from_code("USD"),
        available: Some(100_000_043_250),
        hold: Some(&HoldId::new(HOLD)),
        decided_at: Timestamp(1_772_619_307_114_000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_the_daemons() {
        let text = String::from_utf8_lossy(&body()).into_owned();
        assert!(text.contains(ID) && text.contains(HOLD) && !text.contains(":null,\"hold\""), "{text}");
        assert_eq!(text.matches("null").count(), 1, "only a reason is missing: {text}");
    }
}
