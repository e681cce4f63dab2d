//! An authorization request, checked: whatever is in here has a valid shape.

use super::{
    ids::{CardToken, MerchantId, RequestId, UserToken},
    money::Money,
};
use std::fmt;

/// How the card met the merchant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Channel {
    /// Chip inserted.
    Chip,
    /// Chip or phone tapped.
    Contactless,
    /// Magnetic stripe.
    Magstripe,
    /// Keyed in by the merchant.
    Manual,
    /// Online.
    Ecommerce,
    /// Mail or telephone order.
    Moto,
    /// Cash machine.
    Atm,
    /// Anything else.
    Other,
}

impl Channel {
    /// Every channel.
    pub const ALL: &[Self] =
        &[Self::Chip, Self::Contactless, Self::Magstripe, Self::Manual, Self::Ecommerce, Self::Moto, Self::Atm, Self::Other];

    /// The name on the wire and in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chip => "chip",
            Self::Contactless => "contactless",
            Self::Magstripe => "magstripe",
            Self::Manual => "manual",
            Self::Ecommerce => "ecommerce",
            Self::Moto => "moto",
            Self::Atm => "atm",
            Self::Other => "other",
        }
    }

    /// The channel with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|channel| channel.name() == name)
    }
}

/// A merchant category code (ISO 18245): four digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mcc(u16);

impl Mcc {
    /// Parses exactly four digits.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        (code.len() == 4 && code.bytes().all(|b| b.is_ascii_digit())).then(|| code.parse().ok().map(Self)).flatten()
    }

    /// The number without its leading zeros.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Mcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}", self.0)
    }
}

impl fmt::Debug for Mcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A country by its ISO 3166-1 alpha-3 code. The shape is checked, not the list: countries come and go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 3]);

impl Country {
    /// Parses three upper-case letters.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        let bytes: [u8; 3] = code.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_uppercase).then_some(Self(bytes))
    }

    /// The alpha-3 code.
    #[must_use]
    pub fn code(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Where the money would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merchant {
    /// The acquirer's id of the merchant.
    pub id: MerchantId,
    /// Merchant category code.
    pub mcc: Mcc,
    /// Where the merchant is.
    pub country: Country,
}

/// Fingerprint of the material fields (`type, card, amount, currency, merchant.id`): a replay has the same one.
pub type Digest = [u8; 16];

/// A request to authorize spending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRequest {
    /// The processor's id: one decision is made for it, whatever happens.
    pub id: RequestId,
    /// Fingerprint of what may not change under the same id.
    pub digest: Digest,
    /// The card.
    pub card: CardToken,
    /// The cardholder, where the processor names one.
    pub user: Option<UserToken>,
    /// Above zero, at most [`super::money::AMOUNT_MINOR_MAX`].
    pub amount: Money,
    /// The merchant.
    pub merchant: Merchant,
    /// How the card met the merchant.
    pub channel: Channel,
    /// Whether the merchant's terminal can take less than it asked for.
    pub partial_approval: bool,
}
