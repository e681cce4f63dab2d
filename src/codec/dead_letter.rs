//! Why a message was dead-lettered, by name.

use super::request::DecodeError;
use crate::domain::reason::Reason;

/// Why a message was dead-lettered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadLetterReason {
    /// The body is not a request.
    Malformed,
    /// A version that is not spoken here.
    UnsupportedVersion,
    /// The amount is not acceptable.
    InvalidAmount,
    /// More decimals than the currency has.
    InvalidPrecision,
    /// Not a currency in use.
    InvalidCurrency,
    /// A card number where a token belongs.
    PanPresent,
    /// `reply_to` names an address that is not allowed.
    ReplyToForbidden,
    /// No queue takes the answer.
    ReplyUnroutable,
}

impl DeadLetterReason {
    /// The name in `x-reason` and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnsupportedVersion => "unsupported_version",
            Self::InvalidAmount => "invalid_amount",
            Self::InvalidPrecision => "invalid_precision",
            Self::InvalidCurrency => "invalid_currency",
            Self::PanPresent => "pan_present",
            Self::ReplyToForbidden => "reply_to_forbidden",
            Self::ReplyUnroutable => "reply_unroutable",
        }
    }
}

impl From<&DecodeError> for DeadLetterReason {
    fn from(error: &DecodeError) -> Self {
        match error.reason {
            Reason::UnsupportedVersion => Self::UnsupportedVersion,
            Reason::InvalidAmount => Self::InvalidAmount,
            Reason::InvalidPrecision => Self::InvalidPrecision,
            Reason::InvalidCurrency => Self::InvalidCurrency,
            Reason::PanPresent => Self::PanPresent,
            _ => Self::Malformed,
        }
    }
}
