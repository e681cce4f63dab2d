//! What a broker says about itself, for a person who asks whether it is set up well.

use super::{
    BrokerError, Settings, connection,
    error::refused_on_channel,
    topology::{self, Finding, short},
};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    protocol::{AMQPClass, connection::AMQPMethod, parse_class},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How a client of AMQP 0-9-1 says hello.
const HELLO: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// A frame's head: kind, channel, length.
const FRAME_HEAD_BYTES: usize = 7;
/// The largest greeting that is read.
const GREETING_BYTES_MAX: usize = 64 * 1024;
/// Routing key of a message that tells whether we may publish. Nothing is bound to it, so it goes nowhere.
const PROBE: &str = "jitauth.doctor";

/// What a broker says.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Its name and version, as in `RabbitMQ 3.13.7`; `None` where it could not be told.
    pub version: Option<String>,
    /// Whether a memory or disk alarm keeps it from taking messages.
    pub blocked: bool,
    /// Why this user may not publish to `broker.exchange`, where that is so.
    pub publishing: Option<String>,
    /// Letters that wait in `broker.dead_letter_queue`; `None` where it does not exist.
    pub dead_letters: Option<u32>,
    /// What is wrong with exchanges and queues.
    pub topology: Vec<Finding>,
}

/// Asks the broker about itself. Leaves nothing behind.
///
/// # Errors
/// Why the broker could not be asked.
pub async fn inspect(settings: &Settings) -> Result<Inspection, BrokerError> {
    let patience = settings.connect_timeout;
    let address = connection::address(settings)?;
    let plain = address.scheme == lapin::uri::AMQPScheme::AMQP;
    let place = (address.authority.host.clone(), address.authority.port);
    let connection = connection::dial(&address, "jitauth doctor", patience).await?;
    let topology = topology::check(settings).await?;
    let publishing = connection::ask(&connection, patience, async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let (exchange, options) = (short(&settings.exchange), BasicPublishOptions::default());
        let confirm = channel.basic_publish(exchange, PROBE.into(), options, b"", BasicProperties::default()).await;
        Ok(match confirm {
            Ok(confirm) => confirm.await.map(drop),
            Err(error) => Err(error),
        })
    })
    .await?;
    let publishing = match publishing {
        Err(error) if refused_on_channel(&error) => Some(error.to_string()),
        other => other.map(|()| None)?,
    };
    let dead_letters = connection::ask(&connection, patience, async {
        let channel = connection.create_channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(short(&settings.dead_letter_queue), passive, FieldTable::default()).await;
        Ok(declared.ok().map(|queue| queue.message_count()))
    })
    .await?;
    let blocked = connection.status().blocked();
    let closed = timeout(patience, connection.close(200, "done".into())).await;
    tracing::debug!(event = "broker_connection_closed", clean = matches!(closed, Ok(Ok(()))));
    // lapin keeps what the broker says about itself to itself. Over TLS it stays unsaid.
    let version = if plain { timeout(patience, greeting(&place.0, place.1)).await.ok().flatten() } else { None };
    Ok(Inspection { version, blocked, publishing, dead_letters, topology })
}

/// Says hello as a client, and reads who answers.
async fn greeting(host: &str, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    stream.write_all(HELLO).await.ok()?;
    let mut head = [0; FRAME_HEAD_BYTES];
    stream.read_exact(&mut head).await.ok()?;
    let length = usize::try_from(u32::from_be_bytes([head[3], head[4], head[5], head[6]])).ok()?;
    let mut payload = vec![0; Some(length).filter(|length| *length <= GREETING_BYTES_MAX)?];
    stream.read_exact(&mut payload).await.ok()?;
    name_and_version(&payload)
}

fn name_and_version(payload: &[u8]) -> Option<String> {
    let (_, AMQPClass::Connection(AMQPMethod::Start(start))) = parse_class(payload).ok()? else { return None };
    let text = |name: &str| match start.server_properties.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        _ => None,
    };
    Some(format!("{} {}", text("product")?, text("version")?))
}
