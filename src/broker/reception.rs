//! From a delivery to a job, or to an answer that says why not.

use super::{
    acks::Deliveries,
    envelope,
    publisher::{Load, Parcel, Wall},
    reply::ReplyRule,
    ticket::{About, Ticket},
};
use crate::{
    codec::{
        dead_letter::DeadLetterReason,
        pan,
        request::{self, DecodeError, Decoded},
        response,
    },
    domain::{decision::Decision, reason::Reason, time::Timestamp},
    pipeline::{Answer, Intake, Job, deadline::deadline},
    telemetry::{Span, Spans, Telemetry},
};
use lapin::{BasicProperties, message::Delivery, types::ShortString};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

/// Deals with deliveries as they come. Never waits.
pub(super) struct Reception<I> {
    pub(super) intake: I,
    pub(super) reply_rule: ReplyRule,
    pub(super) deadline_default: Duration,
    pub(super) deadline_reserve: Duration,
    pub(super) wall: Wall,
    pub(super) outbox: mpsc::Sender<Parcel>,
    pub(super) telemetry: Telemetry,
}

impl<I: Intake> Reception<I> {
    pub(super) fn receive(&self, delivery: Delivery, received: Instant, permit: OwnedSemaphorePermit, channel: &Arc<Deliveries>) {
        self.telemetry.received(delivery.redelivered);
        let wall = (self.wall)();
        let decoded = decode(&delivery);
        let mut spans = Spans::default();
        spans.set(Span::Decode, received.elapsed());
        let (sent_at, deadline_ms) = decoded.as_ref().map_or((None, None), |decoded| (decoded.sent_at, decoded.deadline_ms));
        let (deadline, ahead, queued) = deadline(received, wall, sent_at, deadline_ms, self.deadline_default, self.deadline_reserve);
        if let Some(ahead) = ahead {
            self.telemetry.clock_skewed(ahead);
        }
        if let Some(queued) = queued {
            spans.set(Span::Queue, queued);
        }
        let reply = self.reply_rule.address(delivery.properties.reply_to().as_ref().map(ShortString::as_str)).ok();
        let id = match &decoded {
            Ok(decoded) => Some(&decoded.request.id),
            Err(error) => error.id.as_ref(),
        };
        let id = id.and_then(|id| ShortString::try_new(id.as_str()).ok());
        let about = About { reply, id, received, deadline, tries: 0, unconfirmed: 0, written: None, told: false, given_up: false };
        let ticket = Ticket::new(delivery, Arc::clone(channel), permit, about, self.outbox.clone(), self.telemetry.clone());
        match decoded {
            Err(error) => self.refuse(ticket, &error, spans, wall),
            Ok(decoded) => self.submit(ticket, decoded, spans, wall),
        }
    }

    fn submit(&self, ticket: Ticket, decoded: Decoded, spans: Spans, wall: Timestamp) {
        if decoded.unknown_fields > 0 {
            self.telemetry.unknown_fields(decoded.unknown_fields);
        }
        let About { received, deadline, .. } = ticket.about;
        let Some(reply) = &ticket.about.reply else {
            let detail = "reply_to names a queue that answers may not be sent to; see broker.reply_to_allowed";
            let letter = ticket.dead_letter(DeadLetterReason::ReplyToForbidden, detail, wall);
            return ticket.send(Load::DeadLetter(letter));
        };
        let (lossy_reply, redelivered) = (reply.lossy, ticket.redelivered());
        let requester = Box::new(ticket);
        self.intake.submit(Job { request: decoded.request, received, deadline, spans, lossy_reply, redelivered, requester });
    }

    /// Bad input is answered where it can be, and dead-lettered in any case.
    fn refuse(&self, ticket: Ticket, error: &DecodeError, spans: Spans, wall: Timestamp) {
        self.telemetry.invalid_input(error.reason, &error.detail);
        let reason = DeadLetterReason::from(error);
        if ticket.about.reply.is_none() {
            let letter = ticket.dead_letter(reason, &error.detail, wall);
            return ticket.send(Load::DeadLetter(letter));
        }
        let body = response::encode(&response::Response {
            id: error.id.as_ref(),
            decision: Decision::Declined,
            reason: Some(error.reason),
            approved: 0,
            currency: error.currency,
            available: None,
            hold: None,
            decided_at: wall,
        });
        let answer = Answer {
            body: body.into(),
            decision: Decision::Declined,
            reason: Some(error.reason),
            replayed: false,
            journaled: false,
            spans,
            fresh: None,
        };
        let mut load = envelope::response(&ticket, answer);
        load.then = Some((reason, error.detail.clone()));
        ticket.send(Load::Answer(load));
    }
}

fn decode(delivery: &Delivery) -> Result<Decoded, DecodeError> {
    let decoded = request::decode(&delivery.data)?;
    match unreadable(&delivery.properties) {
        None => Ok(decoded),
        Some((reason, detail)) => Err(DecodeError {
            reason,
            detail: detail.to_owned(),
            id: Some(decoded.request.id),
            currency: Some(decoded.request.amount.currency),
        }),
    }
}

/// What the properties say about the body that contradicts our contract. Saying nothing is fine.
fn unreadable(properties: &BasicProperties) -> Option<(Reason, &'static str)> {
    let correlation = properties.correlation_id().as_ref().map_or("", ShortString::as_str);
    if pan::contains(correlation.as_bytes()) {
        return Some((Reason::PanPresent, "pan_present: correlation_id holds a card number"));
    }
    let media = properties.content_type().as_ref().map_or("", ShortString::as_str);
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !(media.is_empty() || media == "application/json" || media == "text/json" || media.ends_with("+json")) {
        return Some((Reason::Malformed, "content_type is not JSON"));
    }
    let encoding = properties.content_encoding().as_ref().map_or("", ShortString::as_str).trim().to_ascii_lowercase();
    let plain = matches!(encoding.as_str(), "" | "identity" | "utf-8" | "utf8" | "binary");
    (!plain).then_some((Reason::Malformed, "content_encoding is not plain"))
}
