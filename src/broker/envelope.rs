//! What surrounds the bytes: properties and headers of answers and of dead letters.

use super::{ticket::Ticket, topology::short};
use crate::{
    codec::{dead_letter::DeadLetterReason, pan, timestamp},
    domain::{decision::Decision, reason::Reason, time::Timestamp},
    pipeline::{Answer, FreshApproval},
    telemetry::{Span, Spans},
};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString},
};
use sha2::{Digest as _, Sha256};
use std::{fmt::Write as _, sync::Arc};
use tokio::time::Instant;

const PERSISTENT: u8 = 2;
/// Original headers are kept up to about this size. All headers of a message must fit into one frame (128 KiB by default),
/// and one that does not would cost us the connection, again and again.
const HEADERS_BYTES_MAX: usize = 32 * 1024;
/// How deep original headers may nest before they are left out.
const HEADERS_NESTING_MAX: usize = 16;
/// The spans in `x-stage-us`: what is known when the answer is sealed.
const STAGES: [Span; 7] = [Span::Decode, Span::User, Span::Card, Span::Limits, Span::Decision, Span::Lane, Span::Commit];
/// Headers that must not be published again: `CC` and `BCC` would route the dead letter to more places, our own work queue
/// among them, and the counter is the broker's.
const HEADERS_DROPPED: [&str; 3] = ["CC", "BCC", "x-delivery-count"];

/// An answer, ready to be published.
pub(super) struct Response {
    pub(super) body: Arc<[u8]>,
    pub(super) properties: BasicProperties,
    /// For an approval that nobody has seen yet.
    pub(super) fresh: Option<FreshApproval>,
    /// For bad input: the reason and detail it is dead-lettered with after the answer.
    pub(super) then: Option<(DeadLetterReason, String)>,
    /// Whether the journal has it: delivered again, the request would get the same bytes.
    pub(super) journaled: bool,
    pub(super) told: Box<Told>,
}

/// What is told about an answer once it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) decision: Decision,
    pub(super) reason: Option<Reason>,
    /// What was measured before it was handed to the publisher.
    pub(super) spans: Spans,
    /// When that was.
    pub(super) at: Instant,
}

/// A dead letter, ready to be published.
pub(super) struct DeadLetter {
    pub(super) reason: DeadLetterReason,
    pub(super) body: Arc<[u8]>,
    pub(super) properties: BasicProperties,
}

/// Wraps an answer for the requester behind `ticket`.
pub(super) fn response(ticket: &Ticket, answer: Answer) -> Response {
    let headers = response_headers(answer.replayed, answer.journaled, &answer.spans);
    let mut properties =
        BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(PERSISTENT).with_headers(headers);
    if let Some(id) = &ticket.about.id {
        properties = properties.with_message_id(id.clone());
    }
    if let Some(correlation) = ticket.correlation() {
        properties = properties.with_correlation_id(correlation);
    }
    let Answer { body, decision, reason, journaled, spans, fresh, .. } = answer;
    let told = Told { decision, reason, spans, at: Instant::now() };
    Response { body, properties, fresh, then: None, journaled, told: Box::new(told) }
}

fn response_headers(replayed: bool, journaled: bool, spans: &Spans) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert("x-replayed".into(), AMQPValue::Boolean(replayed));
    let stages = stages(spans);
    if !stages.is_empty() {
        headers.insert("x-stage-us".into(), text(&stages));
    }
    if !journaled {
        headers.insert("x-final".into(), AMQPValue::Boolean(false));
    }
    headers
}

fn stages(spans: &Spans) -> String {
    let mut line = String::new();
    for (span, us) in STAGES.into_iter().filter_map(|span| spans.get(span).map(|us| (span, us))) {
        let separator = if line.is_empty() { "" } else { ";" };
        // Writing to a String cannot fail.
        write!(line, "{separator}{}={us}", span.name()).unwrap_or_default();
    }
    line
}

/// Wraps a delivery as a dead letter: its body and properties as they came, except for what would harm us or others.
///
/// Card numbers are blotted out of everything. `expiration` and `user_id` move into headers: the one would make the dead
/// letter vanish, the other makes the broker close the channel unless it is our own user.
pub(super) fn dead_letter(delivery: &Delivery, reason: DeadLetterReason, detail: &str, attempts: u32, at: Timestamp) -> DeadLetter {
    let original = &delivery.properties;
    let body = clean(&delivery.data);
    let mut headers = original_headers(original.headers().as_ref());
    if body != delivery.data {
        headers.insert("x-redacted".into(), AMQPValue::Boolean(true));
    }
    for (name, value) in [("x-original-expiration", original.expiration()), ("x-original-user-id", original.user_id())] {
        if let Some(value) = value {
            headers.insert(name.into(), text(clean_short(value).as_str()));
        }
    }
    headers.insert("x-reason".into(), text(reason.name()));
    headers.insert("x-detail".into(), text(detail));
    headers.insert("x-attempts".into(), AMQPValue::LongLongInt(attempts.into()));
    headers.insert("x-original-exchange".into(), text(delivery.exchange.as_str()));
    headers.insert("x-original-routing-key".into(), text(clean_short(&delivery.routing_key).as_str()));
    headers.insert("x-failed-at".into(), text(&timestamp::format(at)));
    headers.insert("x-dlq-id".into(), text(&dead_letter_id(&body, original)));
    DeadLetter { reason, body: body.into(), properties: kept_properties(original).with_headers(headers) }
}

/// What is kept of a message's properties: all but headers, expiration and user, without card numbers.
pub(super) fn kept_properties(original: &BasicProperties) -> BasicProperties {
    type Set = fn(BasicProperties, ShortString) -> BasicProperties;
    let texts: [(&Option<ShortString>, Set); 8] = [
        (original.content_type(), BasicProperties::with_content_type),
        (original.content_encoding(), BasicProperties::with_content_encoding),
        (original.correlation_id(), BasicProperties::with_correlation_id),
        (original.reply_to(), BasicProperties::with_reply_to),
        (original.message_id(), BasicProperties::with_message_id),
        (original.kind(), BasicProperties::with_type),
        (original.app_id(), BasicProperties::with_app_id),
        (original.cluster_id(), BasicProperties::with_cluster_id),
    ];
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    for (value, set) in texts {
        if let Some(value) = value {
            properties = set(properties, clean_short(value));
        }
    }
    if let Some(priority) = *original.priority() {
        properties = properties.with_priority(priority);
    }
    if let Some(timestamp) = *original.timestamp() {
        properties = properties.with_timestamp(timestamp);
    }
    properties
}

/// The same for the same delivery, however often it is dead-lettered. Taken from the redacted body: a digest of the original
/// beside the redacted copy would let a card number be guessed back.
pub(super) fn dead_letter_id(clean_body: &[u8], original: &BasicProperties) -> String {
    let mut digest = Sha256::new();
    let message_id = original.message_id().as_ref().map(clean_short);
    let correlation_id = original.correlation_id().as_ref().map(clean_short);
    for part in [message_id.as_ref().map_or("", ShortString::as_str), correlation_id.as_ref().map_or("", ShortString::as_str)] {
        digest.update([u8::try_from(part.len()).unwrap_or(u8::MAX)]);
        digest.update(part);
    }
    digest.update(clean_body);
    digest.finalize()[..16].iter().fold(String::with_capacity(32), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap_or_default();
        hex
    })
}

fn original_headers(original: Option<&FieldTable>) -> FieldTable {
    let Some(original) = original else { return FieldTable::default() };
    let mut room = HEADERS_BYTES_MAX;
    let mut kept = clean_table(original, HEADERS_NESTING_MAX, &mut room).unwrap_or_else(|| {
        let mut note = FieldTable::default();
        note.insert("x-original-headers-dropped".into(), AMQPValue::Boolean(true));
        note
    });
    if HEADERS_DROPPED.iter().any(|name| kept.contains_key(name)) {
        let rest = kept.into_iter().filter(|(name, _)| !HEADERS_DROPPED.contains(&name.as_str()));
        kept = rest.map(|(name, value)| (name.clone(), value.clone())).collect::<std::collections::BTreeMap<_, _>>().into();
    }
    kept
}

/// A copy without card numbers; `None` when it nests too deep or does not fit into `room`, bytes.
fn clean_table(table: &FieldTable, nesting: usize, room: &mut usize) -> Option<FieldTable> {
    let nesting = nesting.checked_sub(1)?;
    let mut copy = FieldTable::default();
    for (name, value) in table {
        *room = room.checked_sub(name.as_str().len() + 1)?;
        copy.insert(clean_short(name), clean_value(value, nesting, room)?);
    }
    Some(copy)
}

fn clean_value(value: &AMQPValue, nesting: usize, room: &mut usize) -> Option<AMQPValue> {
    let size = match value {
        AMQPValue::LongString(text) => text.len(),
        AMQPValue::ByteArray(bytes) => bytes.len(),
        _ => 0,
    };
    *room = room.checked_sub(size + 9)?;
    Some(match value {
        AMQPValue::LongString(text) => AMQPValue::LongString(LongString::from(clean(text.as_bytes()))),
        AMQPValue::ByteArray(bytes) => AMQPValue::ByteArray(clean(bytes.as_slice()).into()),
        AMQPValue::ShortString(text) => AMQPValue::ShortString(clean_short(text)),
        AMQPValue::LongLongInt(number) => clean_number(*number, value),
        AMQPValue::FieldTable(table) => AMQPValue::FieldTable(clean_table(table, nesting, room)?),
        AMQPValue::FieldArray(array) => {
            let nesting = nesting.checked_sub(1)?;
            let mut copy = FieldArray::default();
            for value in array.as_slice() {
                copy.push(clean_value(value, nesting, room)?);
            }
            AMQPValue::FieldArray(copy)
        }
        other => other.clone(),
    })
}

fn clean_number(number: i64, value: &AMQPValue) -> AMQPValue {
    let digits = number.to_string();
    if pan::contains(digits.as_bytes()) { AMQPValue::LongString(pan::redact(digits.as_bytes()).into()) } else { value.clone() }
}

fn clean(bytes: &[u8]) -> Vec<u8> {
    if pan::contains(bytes) { pan::redact(bytes) } else { bytes.to_vec() }
}

fn clean_short(text: &ShortString) -> ShortString {
    if pan::contains(text.as_str().as_bytes()) {
        short(&String::from_utf8_lossy(&pan::redact(text.as_str().as_bytes())))
    } else {
        text.clone()
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test says what it expects")]
mod tests {
    use super::*;
    use std::time::Duration;

    const PAN: &str = "4111111111111111";

    fn letter(body: &[u8], properties: BasicProperties) -> DeadLetter {
        let mut delivery = Delivery::mock(1, "transactions".into(), "jit-funding.created".into(), false, body.to_vec());
        delivery.properties = properties;
        dead_letter(&delivery, DeadLetterReason::Malformed, "detail", 1, Timestamp(0))
    }

    fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in entries {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    #[test]
    fn stages_are_written_in_the_order_of_life() {
        let mut spans = Spans::default();
        for (span, us) in [(Span::Commit, 640), (Span::User, 3), (Span::Queue, 9), (Span::Decode, 5), (Span::Card, 2)] {
            spans.set(span, Duration::from_micros(us));
        }
        assert_eq!(stages(&spans), "decode=5;user=3;card=2;commit=640");
        assert_eq!(stages(&Spans::default()), "");
    }

    #[test]
    fn a_dead_letter_holds_no_card_number_anywhere() {
        let nested = table(&[("note", text(PAN)), ("raw", AMQPValue::ByteArray(PAN.as_bytes().into()))]);
        let headers = table(&[
            ("pan", text(PAN)),
            (PAN, AMQPValue::Boolean(true)),
            ("number", AMQPValue::LongLongInt(PAN.parse().expect("a number"))),
            ("nested", AMQPValue::FieldTable(nested)),
            ("list", AMQPValue::FieldArray(vec![text(PAN)].into())),
        ]);
        let properties = BasicProperties::default()
            .with_message_id(PAN.into())
            .with_correlation_id(PAN.into())
            .with_type(PAN.into())
            .with_app_id(PAN.into())
            .with_user_id(PAN.into())
            .with_headers(headers);
        let letter = letter(format!("{{\"card\":\"{PAN}\"}}").as_bytes(), properties);
        assert!(!String::from_utf8_lossy(&letter.body).contains(PAN));
        let shown = format!("{:?}", letter.properties);
        let as_bytes = format!("{:?}", PAN.as_bytes());
        assert!(!shown.contains(PAN) && !shown.contains(as_bytes.trim_matches(['[', ']'])), "{shown}");
    }

    #[test]
    fn headers_that_could_not_be_sent_are_left_out() {
        let mut deep = FieldTable::default();
        for _ in 0..HEADERS_NESTING_MAX {
            deep = table(&[("deeper", AMQPValue::FieldTable(deep))]);
        }
        let wide = table(&[("wide", text(&"x".repeat(HEADERS_BYTES_MAX)))]);
        for (headers, kept) in [(deep, false), (wide, false), (table(&[("fits", text("y"))]), true)] {
            let letter = letter(b"", BasicProperties::default().with_headers(headers));
            let headers = letter.properties.headers().clone().expect("headers");
            assert_eq!(headers.contains_key("x-original-headers-dropped"), !kept, "{headers:?}");
            assert!(headers.contains_key("x-reason"));
        }
    }

    #[test]
    fn a_dead_letter_has_the_same_id_each_time_and_another_one_otherwise() {
        let id = |body: &[u8], message: &str, correlation: &str| {
            let properties = BasicProperties::default().with_message_id(message.into()).with_correlation_id(correlation.into());
            let letter = letter(body, properties);
            letter.properties.headers().clone().and_then(|headers| headers.inner().get("x-dlq-id").cloned()).expect("an id")
        };
        assert_eq!(id(b"body", "m", "c"), id(b"body", "m", "c"));
        for (body, message, correlation) in [(&b"other"[..], "m", "c"), (b"body", "n", "c"), (b"body", "m", "d"), (b"body", "mc", "")] {
            assert_ne!(id(body, message, correlation), id(b"body", "m", "c"), "{message} {correlation}");
        }
    }
}
