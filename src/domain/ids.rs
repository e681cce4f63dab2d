//! Names of things: what a processor sends (text, checked) and what the store keys by (integers).

use std::{fmt, sync::Arc};

/// Longest id that is accepted, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// No characters at all.
    Empty,
    /// More than [`ID_BYTES_MAX`] bytes.
    TooLong,
    /// A byte outside `[A-Za-z0-9_.:-]`: no NUL that a store would refuse, nothing that could forge a log line.
    Forbidden,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::TooLong => "is longer than 64 bytes",
            Self::Forbidden => "has a character outside A-Z a-z 0-9 _ . : -",
        })
    }
}

fn checked(text: &str) -> Result<Arc<str>, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong);
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-')) {
        return Err(IdError::Forbidden);
    }
    Ok(text.into())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks length and characters.
            ///
            /// # Errors
            /// [`IdError`] names what is wrong with the text.
            pub fn new(text: &str) -> Result<Self, IdError> {
                checked(text).map(Self)
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// The processor's id of one request; the idempotency key.
    RequestId
}
text_id! {
    /// A card's token. Never a card number; even so it prints redacted.
    CardToken
}
text_id! {
    /// A user's (cardholder's) token.
    UserToken
}
text_id! {
    /// The acquirer's id of a merchant (card acceptor id code, ISO 8583 field 42).
    MerchantId
}

macro_rules! plain_debug {
    ($($name:ident)*) => { $(impl fmt::Debug for $name {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    })* };
}
plain_debug!(RequestId UserToken MerchantId);

impl fmt::Debug for CardToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = self.0.len().saturating_sub(4);
        write!(f, "***{}", &self.0[tail..])
    }
}

macro_rules! row_id {
    ($($(#[$doc:meta])* $name:ident)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub i64);
    )* };
}
row_id! {
    /// The store's key of a card.
    CardId
    /// The store's key of a user.
    UserId
    /// The store's key of an account.
    AccountId
    /// The store's key of a card program.
    ProgramId
    /// The store's key of a spending limit.
    LimitId
}

#[cfg(test)]
mod tests {
    #![expect(clippy::expect_used, reason = "a failed expectation is a failed test")]
    use super::*;

    #[test]
    fn ids_accept_the_allow_list_only() {
        let longest = "a".repeat(ID_BYTES_MAX);
        let longer = "a".repeat(ID_BYTES_MAX + 1);
        for (text, expected) in [
            ("auth-7a31c2f4", None),
            ("A.b_c:9-", None),
            (longest.as_str(), None),
            ("", Some(IdError::Empty)),
            (longer.as_str(), Some(IdError::TooLong)),
            ("a b", Some(IdError::Forbidden)),
            ("a\0", Some(IdError::Forbidden)),
            ("a\n", Some(IdError::Forbidden)),
            ("é", Some(IdError::Forbidden)),
            ("a/b", Some(IdError::Forbidden)),
        ] {
            assert_eq!(RequestId::new(text).err(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_card_token_prints_redacted() {
        let token = CardToken::new("crd_0000417").expect("valid");
        assert_eq!(format!("{token:?}"), "***0417");
    }
}
