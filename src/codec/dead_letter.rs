//! Why a message was dead-lettered, by name.

use super::request::DecodeError;
use crate::domain::reason::Reason;

/// Why a message could not be dealt with: the header `x-reason` and the label of the metric. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadLetterReason {
    /// See [`Reason::Malformed`].
    Malformed,
    /// See [`Reason::UnsupportedVersion`].
    UnsupportedVersion,
    /// See [`Reason::InvalidAmount`].
    InvalidAmount,
    /// See [`Reason::InvalidPrecision`].
    InvalidPrecision,
    /// See [`Reason::InvalidCurrency`].
    InvalidCurrency,
    /// See [`Reason::PanPresent`]. The body of such a letter is [redacted](super::pan::redact).
    PanPresent,
    /// `reply_to` names a place that answers may not go to. The request was not decided.
    ReplyToForbidden,
    /// The answer came back: nobody takes messages at `reply_to`.
    ReplyUnroutable,
    /// There is no `reply_to`, and no queue for such answers. The request was not decided.
    NoReplyRoute,
    /// Every attempt failed, and nobody can be told.
    AttemptsExhausted,
}

impl DeadLetterReason {
    /// Every reason.
    pub const ALL: &[Self] = &[
        Self::Malformed,
        Self::UnsupportedVersion,
        Self::InvalidAmount,
        Self::InvalidPrecision,
        Self::InvalidCurrency,
        Self::PanPresent,
        Self::ReplyToForbidden,
        Self::ReplyUnroutable,
        Self::NoReplyRoute,
        Self::AttemptsExhausted,
    ];

    /// The name in headers, metrics and logs; for bad input the same as the decline's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => Reason::Malformed.name(),
            Self::UnsupportedVersion => Reason::UnsupportedVersion.name(),
            Self::InvalidAmount => Reason::InvalidAmount.name(),
            Self::InvalidPrecision => Reason::InvalidPrecision.name(),
            Self::InvalidCurrency => Reason::InvalidCurrency.name(),
            Self::PanPresent => Reason::PanPresent.name(),
            Self::ReplyToForbidden => "reply_to_forbidden",
            Self::ReplyUnroutable => "reply_unroutable",
            Self::NoReplyRoute => "no_reply_route",
            Self::AttemptsExhausted => "attempts_exhausted",
        }
    }

    /// The reason for a letter whose request was refused for its bytes; none for any other reason of a decline.
    #[must_use]
    pub const fn from_input(reason: Reason) -> Option<Self> {
        match reason {
            Reason::Malformed => Some(Self::Malformed),
            Reason::UnsupportedVersion => Some(Self::UnsupportedVersion),
            Reason::InvalidAmount => Some(Self::InvalidAmount),
            Reason::InvalidPrecision => Some(Self::InvalidPrecision),
            Reason::InvalidCurrency => Some(Self::InvalidCurrency),
            Reason::PanPresent => Some(Self::PanPresent),
            _ => None,
        }
    }
}

impl From<&DecodeError> for DeadLetterReason {
    fn from(error: &DecodeError) -> Self {
        Self::from_input(error.reason).unwrap_or(Self::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn letters_for_bad_input_are_named_like_the_decline() {
        for reason in Reason::ALL {
            match DeadLetterReason::from_input(*reason) {
                Some(letter) => assert_eq!(letter.name(), reason.name()),
                None => assert!(*reason >= Reason::DuplicateConflict, "{reason:?}"),
            }
        }
        let names: HashSet<&str> = DeadLetterReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DeadLetterReason::ALL.len());
    }
}
