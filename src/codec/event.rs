//! Events by which other systems say that a fact has changed. They are hints: what has changed is read from the store.
//!
//! ```json
//! {"version": 1, "type": "card.updated", "card": "crd_0000417", "at": "2026-03-04T10:15:07.112Z"}
//! ```
//!
//! `card.*` names a `card`, `user.*` a `user`, `limits.updated` whose limits they are: one of `card`, `user`, `account`, `program`.
//! `at` may be left out; unknown fields are ignored.

use super::{pan, timestamp};
use crate::domain::{
    facts::Subject,
    ids::{CardToken, ID_BYTES_MAX, UserToken},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Longest event that is looked at, bytes.
pub const EVENT_BYTES_MAX: usize = 4096;

/// What an event is about; its name is the routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A card that was not there before.
    CardIssued,
    /// A card.
    CardUpdated,
    /// A user that was not there before.
    UserCreated,
    /// A user.
    UserUpdated,
    /// Limits of a card, a user, an account or a program.
    LimitsUpdated,
}

impl EventKind {
    /// Every kind.
    pub const ALL: &[Self] = &[Self::CardIssued, Self::CardUpdated, Self::UserCreated, Self::UserUpdated, Self::LimitsUpdated];

    /// The routing key, and the `type` in the body.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CardIssued => "card.issued",
            Self::CardUpdated => "card.updated",
            Self::UserCreated => "user.created",
            Self::UserUpdated => "user.updated",
            Self::LimitsUpdated => "limits.updated",
        }
    }
}

/// A fact has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactEvent {
    /// What happened.
    pub kind: EventKind,
    /// Whose facts.
    pub subject: Subject,
    /// When, by the clock of whoever says so.
    pub at: Option<Timestamp>,
}

/// Why bytes are not an event that tells of a changed fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Longer than [`EVENT_BYTES_MAX`].
    #[error("the event is longer than {EVENT_BYTES_MAX} bytes")]
    TooLong,
    /// Not JSON, or not of this shape.
    #[error("the event is not a JSON object with version, type and a token")]
    Malformed,
    /// Another version than 1.
    #[error("the event has a version that is not known")]
    Version,
    /// A `type` that is not known, or another one than the routing key says.
    #[error("the event's type is not known, or not what its routing key says")]
    Kind,
    /// None, or more than one, of the subjects that its kind has.
    #[error("the event does not name the one card, user, account or program that it is about")]
    Subject,
    /// A token that is none, or that is a card number.
    #[error("the event's token is not a token")]
    Token,
    /// An `at` that is no instant.
    #[error("the event's `at` is not an RFC 3339 instant")]
    Time,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u32,
    r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<String>,
}

/// Reads an event that came with `routing_key`.
///
/// # Errors
/// [`EventError`] names what is wrong with it.
pub fn decode(routing_key: &str, body: &[u8]) -> Result<FactEvent, EventError> {
    if body.len() > EVENT_BYTES_MAX {
        return Err(EventError::TooLong);
    }
    // A derived struct takes an array, too.
    if body.first() != Some(&b'{') {
        return Err(EventError::Malformed);
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|_| EventError::Malformed)?;
    if wire.version != 1 {
        return Err(EventError::Version);
    }
    let known = EventKind::ALL.iter().find(|kind| kind.name() == wire.r#type);
    let kind = *known.filter(|kind| kind.name() == routing_key).ok_or(EventError::Kind)?;
    let at = wire.at.as_deref().map(timestamp::parse).transpose().map_err(|_| EventError::Time)?;
    let subject = match (kind, wire.card, wire.user, wire.account, wire.program) {
        (EventKind::CardIssued | EventKind::CardUpdated | EventKind::LimitsUpdated, Some(card), None, None, None) => {
            Subject::Card(CardToken::new(&clean(card)?).map_err(|_| EventError::Token)?)
        }
        (EventKind::UserCreated | EventKind::UserUpdated | EventKind::LimitsUpdated, None, Some(user), None, None) => {
            Subject::User(UserToken::new(&clean(user)?).map_err(|_| EventError::Token)?)
        }
        (EventKind::LimitsUpdated, None, None, Some(account), None) => Subject::Account(clean(account)?),
        (EventKind::LimitsUpdated, None, None, None, Some(program)) => Subject::Program(clean(program)?),
        _ => return Err(EventError::Subject),
    };
    Ok(FactEvent { kind, subject, at })
}

/// Writes an event.
#[must_use]
pub fn encode(event: &FactEvent) -> Vec<u8> {
    let FactEvent { kind, subject, at } = event;
    let named = |whose: fn(&Subject) -> Option<&str>| whose(subject).map(str::to_owned);
    let wire = Wire {
        version: 1,
        r#type: kind.name().to_owned(),
        card: named(|subject| if let Subject::Card(token) = subject { Some(token.as_str()) } else { None }),
        user: named(|subject| if let Subject::User(token) = subject { Some(token.as_str()) } else { None }),
        account: named(|subject| if let Subject::Account(token) = subject { Some(token) } else { None }),
        program: named(|subject| if let Subject::Program(token) = subject { Some(token) } else { None }),
        at: at.map(timestamp::format),
    };
    // Strings and a number: there is nothing in it that could fail.
    serde_json::to_vec(&wire).unwrap_or_default()
}

/// A token that may be looked up and logged: short, and no card number.
fn clean(token: String) -> Result<String, EventError> {
    let sound = !token.is_empty() && token.len() <= ID_BYTES_MAX && !token.contains('\0') && !pan::contains(token.as_bytes());
    if sound { Ok(token) } else { Err(EventError::Token) }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a failed expectation is a failed test")]
mod tests {
    use super::*;

    fn card(token: &str) -> Subject {
        Subject::Card(CardToken::new(token).expect("a token"))
    }

    fn user(token: &str) -> Subject {
        Subject::User(UserToken::new(token).expect("a token"))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let at = Some(Timestamp(1_772_619_307_112_000));
        for (kind, subject, at) in [
            (EventKind::CardIssued, card("crd_1"), at),
            (EventKind::CardUpdated, card("crd_1"), None),
            (EventKind::UserCreated, user("usr_1"), at),
            (EventKind::UserUpdated, user("usr_1"), at),
            (EventKind::LimitsUpdated, card("crd_1"), at),
            (EventKind::LimitsUpdated, user("usr_1"), at),
            (EventKind::LimitsUpdated, Subject::Account("acc_1".to_owned()), at),
            (EventKind::LimitsUpdated, Subject::Program("prg_1".to_owned()), at),
        ] {
            let event = FactEvent { kind, subject, at };
            assert_eq!(decode(kind.name(), &encode(&event)), Ok(event));
        }
    }

    #[test]
    fn what_is_no_event_is_named() {
        let long = format!(r#"{{"version":1,"type":"card.updated","card":"crd_1","note":"{}"}}"#, "x".repeat(EVENT_BYTES_MAX));
        for (key, body, expected) in [
            ("card.updated", r#"{"version":1,"type":"card.updated","card":"crd_1","more":[1]}"#, None),
            ("card.updated", long.as_str(), Some(EventError::TooLong)),
            ("card.updated", "", Some(EventError::Malformed)),
            ("card.updated", r#"[1,"card.updated","crd_1"]"#, Some(EventError::Malformed)),
            ("card.updated", r#"{"version":2,"type":"card.updated","card":"crd_1"}"#, Some(EventError::Version)),
            ("card.updated", r#"{"version":1,"type":"card.deleted","card":"crd_1"}"#, Some(EventError::Kind)),
            ("card.issued", r#"{"version":1,"type":"card.updated","card":"crd_1"}"#, Some(EventError::Kind)),
            ("card.updated", r#"{"version":1,"type":"card.updated","user":"usr_1"}"#, Some(EventError::Subject)),
            ("user.updated", r#"{"version":1,"type":"user.updated","card":"crd_1"}"#, Some(EventError::Subject)),
            ("limits.updated", r#"{"version":1,"type":"limits.updated"}"#, Some(EventError::Subject)),
            ("limits.updated", r#"{"version":1,"type":"limits.updated","card":"crd_1","user":"usr_1"}"#, Some(EventError::Subject)),
            ("card.updated", r#"{"version":1,"type":"card.updated","card":"crd 1"}"#, Some(EventError::Token)),
            ("card.updated", r#"{"version":1,"type":"card.updated","card":"4111111111111111"}"#, Some(EventError::Token)),
            ("limits.updated", r#"{"version":1,"type":"limits.updated","account":"a\u0000b"}"#, Some(EventError::Token)),
            ("card.updated", r#"{"version":1,"type":"card.updated","card":"crd_1","at":"today"}"#, Some(EventError::Time)),
        ] {
            assert_eq!(decode(key, body.as_bytes()).err(), expected, "{key} {body:.80}");
        }
    }
}
