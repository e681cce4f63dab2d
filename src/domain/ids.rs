//! Names of things: what a processor sends (text, checked) and what the store keys by (integers).

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// Longest id that is accepted, in bytes.
pub const ID_BYTES_MAX: usize = 64;
/// Longest id that is kept where it is named; with its length and what tells it from a longer one it fills three words.
const SHORT_BYTES_MAX: usize = 22;

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

/// The text of an id. Short ones need no allocation: there are millions of them in memory, and several in every message.
#[derive(Clone)]
enum Text {
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Arc<str>),
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(text) => text.as_bytes(),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            // It was a text when it was copied here, so it still is one.
            Self::Short { .. } => str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        match (u8::try_from(text.len()), bytes.get_mut(..text.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short { length, bytes }
            }
            _ => Self::Long(text.into()),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

fn checked(text: &str) -> Result<Text, IdError> {
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
        pub struct $name(Text);

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
                self.0.as_str()
            }

            /// Bytes of it that stand elsewhere, because it is too long to stand where it is named.
            #[must_use]
            pub fn elsewhere(&self) -> usize {
                match &self.0 {
                    Text::Short { .. } => 0,
                    Text::Long(text) => text.len(),
                }
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
            f.write_str(self.as_str())
        }
    })* };
}
plain_debug!(RequestId UserToken MerchantId);

impl fmt::Debug for CardToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.as_str();
        write!(f, "***{}", &text[text.len().saturating_sub(4)..])
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
    use std::hash::DefaultHasher;

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
    fn ids_of_any_length_read_compare_and_hash_as_their_text() {
        let texts: Vec<String> = (1..=ID_BYTES_MAX).flat_map(|length| ["a".repeat(length), "b".repeat(length)]).collect();
        let hash = |value: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            value(&mut hasher);
            hasher.finish()
        };
        for one in &texts {
            let id = MerchantId::new(one).expect("valid");
            assert_eq!((id.as_str(), format!("{id:?}")), (one.as_str(), one.clone()));
            assert_eq!(hash(&|hasher| id.hash(hasher)), hash(&|hasher| one.as_bytes().hash(hasher)), "{one}");
            for other in &texts {
                assert_eq!(id.cmp(&MerchantId::new(other).expect("valid")), one.cmp(other), "{one} {other}");
            }
        }
        assert_eq!(size_of::<MerchantId>(), 24, "as long as a vector, and without one");
    }

    #[test]
    fn a_card_token_prints_redacted() {
        let token = CardToken::new("crd_0000417").expect("valid");
        assert_eq!(format!("{token:?}"), "***0417");
    }
}
