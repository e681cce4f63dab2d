//! Whether a letter's message may be sent again, and with which body.

use super::{Letter, REPLAYS_MAX};
use crate::{
    codec::{
        dead_letter::DeadLetterReason,
        request::{self, Decoded},
        timestamp,
    },
    domain::{reason::Reason, time::Timestamp},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

/// What a replay goes by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Counted from now, for every authorization that is sent again; `None` keeps what each says.
    pub deadline_ms: Option<u32>,
    /// Deadline of a request that names none.
    pub deadline_default: Duration,
    /// Taken off every deadline for the way back.
    pub deadline_reserve: Duration,
}

/// Why a letter stays where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its bytes are no request; it was answered when it came, and the same bytes would be refused again.
    Input(String),
    /// A card number was blotted out of it: what was sent is not there any more.
    Redacted,
    /// It was sent again as often as may be.
    TooOften,
    /// Its requester stopped listening, this long ago.
    Stale(Duration),
    /// Nothing tells until when its requester listens.
    NoDeadline,
}

impl Refusal {
    /// One word for machines.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Redacted => "redacted",
            Self::TooOften => "too_often",
            Self::Stale(_) => "stale",
            Self::NoDeadline => "no_deadline",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(reason) => write!(f, "{reason}: its bytes would be refused again"),
            Self::Redacted => f.write_str("a card number was blotted out of it; have it sent again by its sender"),
            Self::TooOften => write!(f, "sent again {REPLAYS_MAX} times already; mend the cause, then have its sender send it"),
            Self::Stale(ago) => write!(f, "its deadline passed {} ago; --deadline-ms gives it a new one", rounded(*ago)),
            Self::NoDeadline => f.write_str("nothing tells its deadline; --deadline-ms gives it one"),
        }
    }
}

/// A duration in its largest whole unit, for people.
fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The body to send again at `now`, or why it is not sent. Letters of the life cycle have no deadline.
pub(super) fn judge<'a>(letter: &'a Letter, authorization: bool, rules: &Rules, now: Timestamp) -> Result<Cow<'a, [u8]>, Refusal> {
    if letter.redacted || letter.reason == DeadLetterReason::PanPresent.name() {
        return Err(Refusal::Redacted);
    }
    if let Some(reason) = input_reason(&letter.reason) {
        return Err(Refusal::Input(reason.name().to_owned()));
    }
    if letter.replays >= REPLAYS_MAX {
        return Err(Refusal::TooOften);
    }
    if !authorization {
        return Ok(Cow::Borrowed(&letter.body));
    }
    let decoded = request::decode(&letter.body).map_err(|error| Refusal::Input(error.reason.name().to_owned()))?;
    if let Some(deadline_ms) = rules.deadline_ms {
        return with_deadline(&letter.body, deadline_ms, now).map(Cow::Owned).ok_or(Refusal::Input("malformed".to_owned()));
    }
    let deadline = deadline(letter, &decoded, rules).ok_or(Refusal::NoDeadline)?;
    match u64::try_from(now.0.saturating_sub(deadline.0)) {
        Ok(past) => Err(Refusal::Stale(Duration::from_micros(past))),
        Err(_still_ahead) => Ok(Cow::Borrowed(&letter.body)),
    }
}

fn input_reason(name: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.name() == name && DeadLetterReason::from_input(*reason).is_some())
}

/// Until when somebody listens. A request that does not say when it was sent, or says it was sent after it failed, was sent before
/// it failed.
fn deadline(letter: &Letter, decoded: &Decoded, rules: &Rules) -> Option<Timestamp> {
    let sent = match (decoded.sent_at, letter.failed_at) {
        (Some(sent), Some(failed)) => Some(sent.min(failed)),
        (sent, failed) => sent.or(failed),
    }?;
    let patience = decoded.deadline_ms.map_or(rules.deadline_default, |ms| Duration::from_millis(u64::from(ms)));
    let patience = patience.saturating_sub(rules.deadline_reserve);
    Some(Timestamp(sent.0.saturating_add(i64::try_from(patience.as_micros()).unwrap_or(i64::MAX))))
}

/// The same request, sent now. Every other value keeps its bytes; the material fields, and with them the answer that a known id
/// gets, stay the same.
fn with_deadline(body: &[u8], deadline_ms: u32, now: Timestamp) -> Option<Vec<u8>> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).ok()?;
    fields.insert("sent_at".to_owned(), RawValue::from_string(format!("\"{}\"", timestamp::format(now))).ok()?);
    fields.insert("deadline_ms".to_owned(), RawValue::from_string(deadline_ms.to_string()).ok()?);
    serde_json::to_vec(&fields).ok()
}
