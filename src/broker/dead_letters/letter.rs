//! A dead letter, read.

use crate::{broker::envelope, codec::timestamp, domain::time::Timestamp};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};

/// What a dead letter says. Card numbers were blotted out when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The header `x-dlq-id`; the same for the same message, however often it fails.
    pub id: String,
    /// The header `x-reason`, or what the broker calls its own reason (`delivery_limit`, `expired`, …); empty when neither is there.
    pub reason: String,
    /// What exactly was wrong.
    pub detail: String,
    /// When it was dead-lettered.
    pub failed_at: Option<Timestamp>,
    /// The message's own id, for an authorization that of the request.
    pub message_id: Option<String>,
    /// How often the answer was tried.
    pub attempts: Option<u64>,
    /// How often the message was sent again from here before.
    pub replays: u64,
    /// Whether something in the body was blotted out.
    pub redacted: bool,
    /// Properties that are set, by name, headers left out.
    pub properties: Vec<(&'static str, String)>,
    /// Headers, by name.
    pub headers: Vec<(String, String)>,
    /// The original body.
    pub body: Vec<u8>,
}

/// Counts how often a message was sent again.
pub(super) const REPLAYS: &str = "x-replays";

impl Letter {
    pub(super) fn read(delivery: &Delivery) -> Self {
        let empty = FieldTable::default();
        let headers = delivery.properties.headers().as_ref().unwrap_or(&empty);
        let text = |name: &str| headers.inner().get(name).map(shown);
        let number = |name: &str| headers.inner().get(name).and_then(number);
        let death = death(headers);
        let died = |name: &str| death.and_then(|table| table.inner().get(name));
        let failed_at = text("x-failed-at").and_then(|text| timestamp::parse(&text).ok());
        Self {
            id: text("x-dlq-id").unwrap_or_else(|| envelope::dead_letter_id(&delivery.data, &delivery.properties)),
            reason: text("x-reason").or_else(|| died("reason").map(shown)).unwrap_or_default(),
            detail: text("x-detail").unwrap_or_default(),
            failed_at: failed_at.or_else(|| died("time").and_then(instant)),
            message_id: delivery.properties.message_id().as_ref().map(ToString::to_string),
            attempts: number("x-attempts"),
            replays: number(REPLAYS).unwrap_or_default(),
            redacted: matches!(headers.inner().get("x-redacted"), Some(AMQPValue::Boolean(true))),
            properties: properties(&delivery.properties),
            headers: headers.into_iter().map(|(name, value)| (name.to_string(), shown(value))).collect(),
            body: delivery.data.clone(),
        }
    }
}

/// What the broker itself says about the last time it dead-lettered the message.
fn death(headers: &FieldTable) -> Option<&FieldTable> {
    match headers.inner().get("x-death")? {
        AMQPValue::FieldArray(deaths) => match deaths.as_slice().first()? {
            AMQPValue::FieldTable(death) => Some(death),
            _ => None,
        },
        _ => None,
    }
}

fn instant(value: &AMQPValue) -> Option<Timestamp> {
    let AMQPValue::Timestamp(seconds) = value else { return None };
    i64::try_from(*seconds).ok()?.checked_mul(1_000_000).map(Timestamp)
}

fn number(value: &AMQPValue) -> Option<u64> {
    match value {
        AMQPValue::ShortShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortShortUInt(number) => Some(u64::from(*number)),
        AMQPValue::ShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortUInt(number) => Some(u64::from(*number)),
        AMQPValue::LongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::LongUInt(number) => Some(u64::from(*number)),
        AMQPValue::LongLongInt(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// A value as a person reads it.
fn shown(value: &AMQPValue) -> String {
    match value {
        AMQPValue::Boolean(truth) => truth.to_string(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::ByteArray(bytes) => format!("{} bytes", bytes.len()),
        AMQPValue::Timestamp(_) => instant(value).map(timestamp::format).unwrap_or_default(),
        AMQPValue::Float(number) => number.to_string(),
        AMQPValue::Double(number) => number.to_string(),
        AMQPValue::ShortShortInt(number) => number.to_string(),
        AMQPValue::ShortInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::FieldArray(values) => {
            let values: Vec<String> = values.as_slice().iter().map(shown).collect();
            format!("[{}]", values.join(", "))
        }
        AMQPValue::FieldTable(table) => {
            let entries: Vec<String> = table.into_iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        AMQPValue::Void => String::new(),
        other => number(other).map_or_else(|| format!("{other:?}"), |number| number.to_string()),
    }
}

fn properties(properties: &BasicProperties) -> Vec<(&'static str, String)> {
    let texts: [(&'static str, &Option<ShortString>); 10] = [
        ("message_id", properties.message_id()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("type", properties.kind()),
        ("app_id", properties.app_id()),
        ("user_id", properties.user_id()),
        ("cluster_id", properties.cluster_id()),
        ("expiration", properties.expiration()),
    ];
    let texts = texts.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value.to_string())));
    let priority = properties.priority().map(|priority| ("priority", priority.to_string()));
    let sent = properties.timestamp().and_then(|seconds| instant(&AMQPValue::Timestamp(seconds)));
    texts.chain(priority).chain(sent.map(|at| ("timestamp", timestamp::format(at)))).collect()
}
