//! Facts as JSON: the one shape in which the stores hand them out and Redis keeps them.
//!
//! The stores build a [`CardDocument`] in SQL, so a fact is described once and read by one parser, wherever it comes from.
//!
//! ```json
//! {"card":    {"id": 1, "token": "crd_0000001", "version": 7, "user_id": 3, "user": "usr_0000003", "user_version": 2, "account_id": 5,
//!              "currency": "USD", "account_open": true, "program_id": 1, "status": "active", "expires_at": 1893456000000000, "controls": {}},
//!  "user":    {"id": 3, "token": "usr_0000003", "version": 2, "active": true, "kyc_verified": true},
//!  "limits":  {"card_version": 7, "limits": [{"id": 9, "scope": "card", "window": "day", "filter": {}, "cap_amount": 50000, "cap_count": null}]},
//!  "program": {"id": 1, "version": 4, "kind": "personal", "time_zone": "America/New_York", "week_start": "sunday", "kyc_required": true,
//!              "partial_approval": true, "controls": {}, "limits": []}}
//! ```
//!
//! A filter (`controls`, `filter`) names what passes: `{"mccs": {"only": ["5411", "3000-3299"]}, "countries": {"except": ["PRK"]}}`,
//! with the keys `channels`, `countries`, `mccs`, `merchants`; left out means everything.

use super::FactError;
use crate::domain::{
    facts::{Account, Card, CardFile, CardStatus, Program, ProgramKind, User, WeekStart},
    ids::{AccountId, CardId, CardToken, LimitId, MerchantId, ProgramId, UserId, UserToken},
    limits::{Cap, Filter, Limit, Match, MccRange, Scope},
    money::Currency,
    request::{Channel, Country, Mcc},
    time::{Timestamp, Window},
};
use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value},
};
use std::sync::{Arc, LazyLock};

/// Everything about a card.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the example above and of `domain::facts`")]
pub struct CardDocument {
    pub card: CardFacts,
    pub user: UserFacts,
    pub limits: LimitSetFacts,
    pub program: ProgramFacts,
}

#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "see `domain::facts::Card`")]
pub struct CardFacts {
    pub id: i64,
    pub token: String,
    pub version: i64,
    pub user_id: i64,
    pub user: String,
    pub user_version: i64,
    pub account_id: i64,
    pub currency: String,
    pub account_open: bool,
    pub program_id: i64,
    pub status: Status,
    pub expires_at: i64,
    #[serde(default)]
    pub controls: FilterFacts,
}

#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "see `domain::facts::User`")]
pub struct UserFacts {
    pub id: i64,
    pub token: String,
    pub version: i64,
    pub active: bool,
    pub kyc_verified: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the limits of `domain::facts::Card`, with the version of the card that they belong to")]
pub struct LimitSetFacts {
    pub card_version: i64,
    pub limits: Vec<LimitFacts>,
}

#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "see `domain::limits::Limit`")]
pub struct LimitFacts {
    pub id: i64,
    pub scope: ScopeName,
    pub window: WindowName,
    #[serde(default)]
    pub filter: FilterFacts,
    pub cap_amount: Option<i64>,
    pub cap_count: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "see `domain::facts::Program`")]
pub struct ProgramFacts {
    pub id: i64,
    pub version: i64,
    pub kind: KindName,
    pub time_zone: String,
    pub week_start: WeekStartName,
    pub kyc_required: bool,
    pub partial_approval: bool,
    #[serde(default)]
    pub controls: FilterFacts,
    pub limits: Vec<LimitFacts>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "see `domain::limits::Filter`")]
pub struct FilterFacts {
    #[serde(skip_serializing_if = "MatchFacts::is_default")]
    pub channels: MatchFacts,
    #[serde(skip_serializing_if = "MatchFacts::is_default")]
    pub countries: MatchFacts,
    #[serde(skip_serializing_if = "MatchFacts::is_default")]
    pub mccs: MatchFacts,
    #[serde(skip_serializing_if = "MatchFacts::is_default")]
    pub merchants: MatchFacts,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "see `domain::limits::Match`")]
pub struct MatchFacts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

impl MatchFacts {
    fn is_default(&self) -> bool {
        self.only.is_none() && self.except.is_empty()
    }
}

/// Declares an enum of names and its two-way translation to a domain enum.
macro_rules! names {
    ($(#[$doc:meta])* $facts:ident <=> $domain:ident { $($variant:ident),* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[expect(missing_docs, reason = "the variants are those of the domain type")]
        pub enum $facts { $($variant),* }

        impl From<$facts> for $domain {
            fn from(name: $facts) -> Self {
                match name { $($facts::$variant => Self::$variant),* }
            }
        }

        impl From<$domain> for $facts {
            fn from(value: $domain) -> Self {
                match value { $($domain::$variant => Self::$variant),* }
            }
        }
    };
}
names! {
    /// A card's status by name.
    Status <=> CardStatus { Active, Inactive, Lost, Stolen }
}
names! {
    /// A limit's scope by name.
    ScopeName <=> Scope { Card, User, Account, Program }
}
names! {
    /// A limit's window by name.
    WindowName <=> Window { Transaction, Day, Week, Month, Lifetime }
}
names! {
    /// A program's kind by name.
    KindName <=> ProgramKind { Business, Personal }
}
names! {
    /// A first day of the week by name.
    WeekStartName <=> WeekStart { Monday, Sunday, Saturday }
}

fn malformed(what: &'static str) -> impl Fn() -> FactError {
    move || FactError::Malformed(what.to_owned())
}

impl CardDocument {
    /// Reads a document.
    ///
    /// # Errors
    /// [`FactError::Malformed`] when the text is not one, or a value in it is out of its range.
    pub fn parse(json: &[u8]) -> Result<CardFile, FactError> {
        let document: Self = parse(json)?;
        document.try_into()
    }
}

/// Reads one part of a document (a card, a user, …) as Redis keeps it.
///
/// # Errors
/// [`FactError::Malformed`] when the text is not one.
pub fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, FactError> {
    serde_json::from_slice(json).map_err(|error| FactError::Malformed(error.to_string()))
}

/// Reads a name (`card`, `week`, `business`, …) as documents write it.
#[must_use]
pub fn named<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    let text: value::StrDeserializer<'a, value::Error> = text.into_deserializer();
    T::deserialize(text).ok()
}

/// The way back of [`named`].
#[must_use]
pub fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

impl TryFrom<CardDocument> for CardFile {
    type Error = FactError;

    fn try_from(document: CardDocument) -> Result<Self, FactError> {
        let limits: LimitSet = document.limits.try_into()?;
        let card = OwnedCard::try_from(document.card)?.with(limits).ok_or_else(malformed("limits.card_version"))?;
        Ok(Self { card: Arc::new(card), user: Arc::new(document.user.try_into()?), program: Arc::new(document.program.try_into()?) })
    }
}

/// What a card's own document tells: the card without its limits, and whose it is.
#[derive(Clone, Debug)]
pub struct OwnedCard {
    card: Card,
    /// The owner's public token.
    pub owner: UserToken,
}

/// What the document of a card's limits tells.
#[derive(Clone, Debug)]
pub struct LimitSet {
    /// The card version that the limits belong to.
    pub card_version: i64,
    limits: Box<[Limit]>,
}

impl OwnedCard {
    /// The version of the card.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.card.version
    }

    /// The card with its limits; `None` when they are those of another version of the card.
    #[must_use]
    pub fn with(self, set: LimitSet) -> Option<Card> {
        (set.card_version == self.card.version).then_some(Card { limits: set.limits, ..self.card })
    }
}

impl TryFrom<CardFacts> for OwnedCard {
    type Error = FactError;

    fn try_from(facts: CardFacts) -> Result<Self, FactError> {
        let owner = UserToken::new(&facts.user).map_err(|_| malformed("card.user")())?;
        let card = Card {
            id: CardId(facts.id),
            token: CardToken::new(&facts.token).map_err(|_| malformed("card.token")())?,
            version: facts.version,
            user: UserId(facts.user_id),
            user_version: facts.user_version,
            account: Account {
                id: AccountId(facts.account_id),
                currency: Currency::from_code(&facts.currency).ok_or_else(malformed("card.currency"))?,
                open: facts.account_open,
            },
            program: ProgramId(facts.program_id),
            status: facts.status.into(),
            expires: Timestamp(facts.expires_at),
            controls: facts.controls.shared()?,
            limits: Box::default(),
        };
        Ok(Self { card, owner })
    }
}

impl TryFrom<UserFacts> for User {
    type Error = FactError;

    fn try_from(facts: UserFacts) -> Result<Self, FactError> {
        Ok(Self {
            id: UserId(facts.id),
            token: UserToken::new(&facts.token).map_err(|_| malformed("user.token")())?,
            version: facts.version,
            active: facts.active,
            kyc_verified: facts.kyc_verified,
        })
    }
}

impl TryFrom<LimitSetFacts> for LimitSet {
    type Error = FactError;

    fn try_from(facts: LimitSetFacts) -> Result<Self, FactError> {
        Ok(Self { card_version: facts.card_version, limits: limits(facts.limits)?.into() })
    }
}

impl TryFrom<ProgramFacts> for Program {
    type Error = FactError;

    fn try_from(facts: ProgramFacts) -> Result<Self, FactError> {
        Ok(Self {
            id: ProgramId(facts.id),
            version: facts.version,
            kind: facts.kind.into(),
            time_zone: facts.time_zone.into(),
            week_start: facts.week_start.into(),
            kyc_required: facts.kyc_required,
            partial_approval: facts.partial_approval,
            controls: facts.controls.shared()?,
            limits: limits(facts.limits)?,
        })
    }
}

fn limits(facts: Vec<LimitFacts>) -> Result<Vec<Limit>, FactError> {
    facts.into_iter().map(Limit::try_from).collect()
}

impl TryFrom<LimitFacts> for Limit {
    type Error = FactError;

    fn try_from(facts: LimitFacts) -> Result<Self, FactError> {
        Ok(Self {
            id: LimitId(facts.id),
            scope: facts.scope.into(),
            window: facts.window.into(),
            filter: facts.filter.shared()?,
            cap_amount: cap(facts.cap_amount)?,
            cap_count: cap(facts.cap_count)?,
        })
    }
}

fn cap(most: Option<i64>) -> Result<Option<Cap>, FactError> {
    most.map(|most| Cap::new(most).ok_or_else(malformed("limits.cap"))).transpose()
}

impl FilterFacts {
    /// The filter, and for one that lets everything pass the one that all such facts share.
    ///
    /// # Errors
    /// [`FactError::Malformed`] when a value in it is none.
    pub fn shared(self) -> Result<Arc<Filter>, FactError> {
        static EVERYTHING: LazyLock<Arc<Filter>> = LazyLock::new(Arc::default);
        if self == Self::default() {
            return Ok(Arc::clone(&EVERYTHING));
        }
        self.try_into().map(Arc::new)
    }
}

impl TryFrom<FilterFacts> for Filter {
    type Error = FactError;

    fn try_from(facts: FilterFacts) -> Result<Self, FactError> {
        Ok(Self {
            channels: facts.channels.read(Channel::from_name, "channels")?,
            countries: facts.countries.read(Country::from_code, "countries")?,
            mccs: facts.mccs.read(mcc_range, "mccs")?,
            merchants: facts.merchants.read(|text| MerchantId::new(text).ok(), "merchants")?,
        })
    }
}

impl MatchFacts {
    fn read<T>(self, value: impl Fn(&str) -> Option<T>, what: &'static str) -> Result<Match<T>, FactError> {
        let all = |texts: Vec<String>| -> Result<Vec<T>, FactError> {
            texts.iter().map(|text| value(text).ok_or_else(malformed(what))).collect()
        };
        Ok(Match { only: self.only.map(&all).transpose()?, except: all(self.except)? })
    }
}

/// `5411` or `3000-3299`.
fn mcc_range(text: &str) -> Option<MccRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (Mcc::from_code(first)?, Mcc::from_code(last)?);
    (first <= last).then_some(MccRange { first, last })
}

/// The way back, for Redis.
impl From<&CardFile> for CardFacts {
    fn from(CardFile { card, user, .. }: &CardFile) -> Self {
        Self {
            id: card.id.0,
            token: card.token.as_str().to_owned(),
            version: card.version,
            user_id: card.user.0,
            user: user.token.as_str().to_owned(),
            user_version: card.user_version,
            account_id: card.account.id.0,
            currency: card.account.currency.code().to_owned(),
            account_open: card.account.open,
            program_id: card.program.0,
            status: card.status.into(),
            expires_at: card.expires.0,
            controls: (&*card.controls).into(),
        }
    }
}

impl From<&User> for UserFacts {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.0,
            token: user.token.as_str().to_owned(),
            version: user.version,
            active: user.active,
            kyc_verified: user.kyc_verified,
        }
    }
}

impl From<&Card> for LimitSetFacts {
    fn from(card: &Card) -> Self {
        Self { card_version: card.version, limits: card.limits.iter().map(LimitFacts::from).collect() }
    }
}

impl From<&Program> for ProgramFacts {
    fn from(program: &Program) -> Self {
        Self {
            id: program.id.0,
            version: program.version,
            kind: program.kind.into(),
            time_zone: program.time_zone.to_string(),
            week_start: program.week_start.into(),
            kyc_required: program.kyc_required,
            partial_approval: program.partial_approval,
            controls: (&*program.controls).into(),
            limits: program.limits.iter().map(LimitFacts::from).collect(),
        }
    }
}

impl From<&Limit> for LimitFacts {
    fn from(limit: &Limit) -> Self {
        Self {
            id: limit.id.0,
            scope: limit.scope.into(),
            window: limit.window.into(),
            filter: (&*limit.filter).into(),
            cap_amount: limit.cap_amount.map(Cap::get),
            cap_count: limit.cap_count.map(Cap::get),
        }
    }
}

impl From<&Filter> for FilterFacts {
    fn from(filter: &Filter) -> Self {
        Self {
            channels: MatchFacts::write(&filter.channels, |channel| channel.name().to_owned()),
            countries: MatchFacts::write(&filter.countries, |country| country.code().to_owned()),
            mccs: MatchFacts::write(&filter.mccs, |range| {
                if range.first == range.last { range.first.to_string() } else { format!("{}-{}", range.first, range.last) }
            }),
            merchants: MatchFacts::write(&filter.merchants, |merchant| merchant.as_str().to_owned()),
        }
    }
}

impl MatchFacts {
    fn write<T>(matched: &Match<T>, text: impl Fn(&T) -> String) -> Self {
        Self {
            only: matched.only.as_ref().map(|only| only.iter().map(&text).collect()),
            except: matched.except.iter().map(&text).collect(),
        }
    }
}
