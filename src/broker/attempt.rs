//! One try to publish one parcel, on a channel of its own.

use super::{
    connection::{LOOK_EVERY, Link},
    envelope::Told,
    error::refused_on_channel,
    publisher::{Load, Parcel},
    stamp::stamped,
    ticket::About,
};
use crate::telemetry::{Answered, Recorder, Span, Spans, Telemetry, events::PublishOutcome};
use lapin::{BasicProperties, Channel, ChannelState, Confirmation, ErrorKind, options::BasicPublishOptions, types::ShortString};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// What became of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The broker has it, in a queue.
    Confirmed,
    /// It is certainly in no queue: nothing is bound there, or we may not publish there.
    Returned,
    /// The broker said no (a full queue that rejects), which does not rule out that another queue took it.
    Refused,
    /// Nobody can tell: the broker did not say a word in time. A quorum queue without a majority takes messages like that.
    Unconfirmed,
    /// Nobody can tell: the connection was lost.
    Unknown,
    /// It was not handed over: the channel was gone before.
    NotSent,
}

/// The end of a try.
pub(super) struct Attempted {
    pub(super) parcel: Parcel,
    pub(super) fate: Fate,
    /// The channel, if it can be used again.
    pub(super) channel: Option<Channel>,
}

/// What every try needs.
pub(super) struct Surroundings {
    pub(super) exchange: ShortString,
    pub(super) failed_key: ShortString,
    pub(super) confirm_timeout: Duration,
    pub(super) link: Link,
    pub(super) telemetry: Telemetry,
    pub(super) recorder: Arc<Recorder>,
}

/// Publishes a parcel and waits for what becomes of it.
///
/// Nothing else is in flight on `channel`. That is what makes the outcome this parcel's own: lapin hands a returned message to
/// whichever confirm is completed next, and completes the confirms of one `multiple` ack in no order, so among several in
/// flight a lost answer can look confirmed, and a delivered approval returned.
pub(super) async fn attempt(channel: Channel, mut parcel: Parcel, around: Arc<Surroundings>) -> Attempted {
    if !channel.status().connected() {
        return Attempted { parcel, fate: Fate::NotSent, channel: None };
    }
    let (exchange, key, properties, body) = parcel.addressed(&around);
    let mandatory = parcel.can_be_returned();
    parcel.ticket.about.tries += 1;
    let begun = Instant::now();
    let (mut written, mut confirmed) = (None, None);
    let outcome = {
        let handed_over = async {
            let options = BasicPublishOptions { mandatory, immediate: false };
            let (published, at) = stamped(channel.basic_publish(exchange, key, options, &body, properties)).await;
            let confirm = published?;
            written = Some(at);
            let (outcome, at) = stamped(confirm).await;
            confirmed = Some(at);
            outcome
        };
        tokio::pin!(handed_over);
        let mut until = begun + around.confirm_timeout;
        loop {
            if let Ok(outcome) = timeout_at(until.min(Instant::now() + LOOK_EVERY), &mut handed_over).await {
                break Some(outcome);
            }
            if !channel.status().connected() {
                break Some(Err(ErrorKind::InvalidChannelState(ChannelState::Closed, "lost while it was waited for").into()));
            }
            if Instant::now() >= until {
                parcel.unheard();
                // While the broker does not read from us, what was handed over waits in a buffer and will be sent: sending it
                // again would only add copies.
                if !around.link.blocked() {
                    break None;
                }
                until = Instant::now() + around.confirm_timeout;
            }
        }
    };
    let (fate, told) = judge(outcome);
    if let Some(told) = told {
        around.telemetry.published(told);
    }
    if let (Load::Answer(answer), Some(written)) = (&parcel.load, written) {
        measure(&around, &answer.told, &mut parcel.ticket.about, fate, (written, confirmed.unwrap_or_else(Instant::now)));
    }
    let channel = channel.status().connected().then_some(channel).filter(|_| told != Some(PublishOutcome::Timeout));
    Attempted { parcel, fate, channel }
}

pub(super) fn judge(outcome: Option<lapin::Result<Confirmation>>) -> (Fate, Option<PublishOutcome>) {
    match outcome {
        Some(Ok(Confirmation::Ack(None))) => (Fate::Confirmed, Some(PublishOutcome::Confirmed)),
        Some(Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)))) => (Fate::Returned, Some(PublishOutcome::Returned)),
        Some(Ok(Confirmation::Nack(None))) => (Fate::Refused, Some(PublishOutcome::Nacked)),
        // The broker checks exchange and permission before it routes.
        Some(Err(error)) if refused_on_channel(&error) => {
            tracing::warn!(event = "publish_refused", %error, "the broker refuses a publish; check exchange and permissions");
            (Fate::Returned, Some(PublishOutcome::Returned))
        }
        None => (Fate::Unconfirmed, Some(PublishOutcome::Timeout)),
        Some(Ok(Confirmation::NotRequested) | Err(_)) => (Fate::Unknown, Some(PublishOutcome::Timeout)),
    }
}

/// Records an answer that was confirmed, and tells of it, or of one that is not confirmed in time, once. All is measured from when it
/// was first written: that it had to be written again is part of how long its confirm took.
fn measure(around: &Surroundings, told: &Told, about: &mut About, fate: Fate, (written, known): (Instant, Instant)) {
    if matches!(fate, Fate::Returned) {
        // It reached nobody: the next try is the first.
        about.written = None;
        return;
    }
    let first = *about.written.get_or_insert(written);
    if fate == Fate::Confirmed {
        around.recorder.record(&after_decision(told, about, first, known));
    }
    if matches!(fate, Fate::Confirmed | Fate::Unconfirmed | Fate::Unknown) && !std::mem::replace(&mut about.told, true) {
        tell(&around.telemetry, told, about, first, known);
    }
}

/// The spans that the publisher measures, of an answer written at one moment whose fate was known at another; the lane has recorded the
/// others.
fn after_decision(told: &Told, about: &About, written: Instant, known: Instant) -> Spans {
    let mut spans = Spans::default();
    spans.set(Span::Publish, written.saturating_duration_since(told.at));
    spans.set(Span::Confirm, known.saturating_duration_since(written));
    spans.set(Span::Total, written.saturating_duration_since(about.received));
    spans
}

/// Tells telemetry of an answer that was written, with all of its spans.
pub(super) fn tell(telemetry: &Telemetry, told: &Told, about: &About, written: Instant, known: Instant) {
    let mut spans = told.spans;
    for (span, us) in after_decision(told, about, written, known).iter() {
        spans.set(span, Duration::from_micros(us.into()));
    }
    let id = about.id.as_ref().map_or("unknown", ShortString::as_str);
    telemetry.answered(&Answered { id, decision: told.decision, reason: told.reason, spans: &spans });
}

impl Parcel {
    /// Whether a return would mean that nobody got it. Direct reply-to is no queue for the broker, which returns what it has just
    /// delivered there: an approval that was heard would be sent again and then taken back.
    fn can_be_returned(&self) -> bool {
        let lossy = self.ticket.about.reply.as_ref().is_some_and(|reply| reply.lossy);
        !(lossy && matches!(self.load, Load::Answer(_)))
    }

    fn addressed(&self, around: &Surroundings) -> (ShortString, ShortString, BasicProperties, Arc<[u8]>) {
        match &self.load {
            Load::Answer(answer) => {
                let (exchange, key) =
                    self.ticket.about.reply.as_ref().map(|reply| (reply.exchange.clone(), reply.key.clone())).unwrap_or_default();
                (exchange, key, answer.properties.clone(), Arc::clone(&answer.body))
            }
            Load::DeadLetter(letter) => {
                (around.exchange.clone(), around.failed_key.clone(), letter.properties.clone(), Arc::clone(&letter.body))
            }
        }
    }
}
