//! What is sent, drawn before the first request goes out. The same scenario makes the same traffic.

use super::scenario::{Mix, Scenario};
use crate::{
    codec::money,
    domain::{money::Currency, reason::Reason, time::Timestamp},
    seed::{
        Sample, TEST_CARDS, load,
        test_cards::{MerchantBody, RequestBody},
    },
};
use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Zipf};
use serde::Serialize;

/// The names of a run's requests: a prefix that no other run has, and a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    prefix: String,
}

impl Ids {
    /// Ids that begin with this, and then have a dash and seven digits.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What all of them begin with, the dash included.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}-", self.prefix)
    }

    /// The id of the request with this index.
    #[must_use]
    pub fn id(&self, index: usize) -> String {
        format!("{}-{index:07}", self.prefix)
    }

    /// The index of the request with this id.
    #[must_use]
    pub fn index(&self, id: &str) -> Option<usize> {
        id.strip_prefix(&self.prefix)?.strip_prefix('-')?.parse().ok()
    }
}

/// One request to send: an id, for the first time or again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Index into [`Traffic::requests`].
    pub request: u32,
    /// Whether this id was sent before.
    pub replay: bool,
}

/// Everything that will be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The names of the requests.
    pub ids: Ids,
    /// What is asked, one for each id.
    pub requests: Vec<Ask>,
    /// The order in which it is sent.
    pub items: Vec<Item>,
}

/// What is asked, small: a run has millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Number of the load card, or position of the test card.
    card: u32,
    cents: u32,
    merchant: u16,
    category: u8,
    country: u8,
    channel: u8,
    kind: Kind,
    partial_approval: bool,
}

/// What is special about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// Nobody has the card.
    UnknownCard,
    /// The user does not own it.
    WrongUser,
    /// The account has another currency.
    WrongCurrency,
    /// One of the test cards.
    TestCard,
}

/// What is asked, as the request says it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of a request")]
pub struct Asked {
    pub card: String,
    pub user: String,
    /// Decimal.
    pub amount: String,
    pub currency: &'static str,
    /// The merchant's id.
    pub merchant: String,
    pub mcc: &'static str,
    pub country: &'static str,
    pub channel: &'static str,
    pub partial_approval: bool,
}

impl Asked {
    /// The amount in minor units.
    #[must_use]
    pub fn minor(&self) -> Option<i64> {
        money::parse(&self.amount, Currency::from_code(self.currency)?).ok()
    }
}

/// A body, with what the load's requests have beside those of the test cards.
#[derive(Serialize)]
struct Timed<'a> {
    #[serde(flatten)]
    body: RequestBody<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u32>,
}

impl Traffic {
    /// So many items of this scenario.
    #[must_use]
    pub fn new(scenario: &Scenario, ids: Ids, items: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let shoppers = Shoppers::new(scenario);
        let back = scenario.replay_back_min as usize;
        let mut requests: Vec<Ask> = Vec::with_capacity(items);
        let items = (0..items)
            .map(|_| {
                let replay = rng.random_range(0..1_000) < scenario.mix.replay && requests.len() >= back;
                let request = if replay { replayed(&mut rng, requests.len(), back) } else { requests.len() };
                if !replay {
                    requests.push(shoppers.ask(&mut rng));
                }
                Item { request: u32::try_from(request).unwrap_or(u32::MAX), replay }
            })
            .collect();
        Self { ids, requests, items }
    }

    /// The bytes of a request, sent at a stated moment (or one that the requester does not tell).
    #[must_use]
    pub fn body(&self, item: Item, sent_at: Option<Timestamp>, deadline_ms: Option<u32>) -> Bytes {
        let index = item.request as usize;
        self.requests[index].body(&self.ids.id(index), sent_at, deadline_ms)
    }
}

/// Which request is sent again. Soon after the first time where that is allowed: a sender who repeats itself does not wait long.
fn replayed(rng: &mut StdRng, sent: usize, back: usize) -> usize {
    let newest = sent - back;
    rng.random_range(newest.saturating_sub(20 * back)..=newest)
}

impl Ask {
    /// What is special about it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether less would do.
    #[must_use]
    pub fn may_be_partial(&self) -> bool {
        if self.kind == Kind::TestCard { TEST_CARDS[self.card as usize].sample.partial_approval } else { self.partial_approval }
    }

    /// What it says on the wire, but for id and time.
    #[must_use]
    pub fn asked(&self) -> Asked {
        if self.kind == Kind::TestCard {
            let card = &TEST_CARDS[self.card as usize];
            let Sample { amount, currency, merchant, mcc, country, channel, partial_approval, .. } = card.sample;
            let (amount, merchant) = (amount.to_owned(), merchant.to_owned());
            return Asked {
                card: card.token(),
                user: card.user_token(),
                amount,
                currency,
                merchant,
                mcc,
                country,
                channel,
                partial_approval,
            };
        }
        let number = u64::from(self.card);
        Asked {
            card: if self.kind == Kind::UnknownCard { format!("crd_unknown_{number:07}") } else { load::card_token(number) },
            user: if self.kind == Kind::WrongUser { "usr_somebody_else".to_owned() } else { load::user_token(load::place(number).user) },
            amount: format!("{}.{:02}", self.cents / 100, self.cents % 100),
            currency: if self.kind == Kind::WrongCurrency { "EUR" } else { "USD" },
            merchant: format!("{:015}", self.merchant),
            mcc: CATEGORIES[usize::from(self.category)].0,
            country: COUNTRIES[usize::from(self.country)].0,
            channel: CHANNELS[usize::from(self.channel)].0,
            partial_approval: self.partial_approval,
        }
    }

    /// Why it is declined whatever the money is: known of some kinds, without a look into the store.
    #[must_use]
    pub fn refusal(&self) -> Option<Reason> {
        match self.kind {
            Kind::UnknownCard => Some(Reason::CardNotFound),
            Kind::TestCard => {
                // From the limit of a transaction on it depends on what limits and accounts have.
                TEST_CARDS[self.card as usize].sample.reason.filter(|reason| *reason < Reason::TransactionLimit)
            }
            Kind::Plain | Kind::WrongUser | Kind::WrongCurrency => None,
        }
    }

    fn body(&self, id: &str, sent_at: Option<Timestamp>, deadline_ms: Option<u32>) -> Bytes {
        let (asked, sent_at) = (self.asked(), sent_at.and_then(written));
        let mut body = RequestBody::new(id, &asked.card, &asked.user, &TEST_CARDS[0].sample);
        (body.amount, body.currency, body.channel) = (&asked.amount, asked.currency, asked.channel);
        body.merchant = MerchantBody { id: &asked.merchant, mcc: asked.mcc, country: asked.country };
        body.partial_approval = asked.partial_approval;
        // Strings and integers always have a JSON form; an empty body would be declined as malformed.
        serde_json::to_vec(&Timed { body, sent_at: sent_at.as_deref(), deadline_ms }).unwrap_or_default().into()
    }
}

/// To the microsecond: the daemon tells the wait in the queue by it.
fn written(sent_at: Timestamp) -> Option<String> {
    jiff::Timestamp::from_microsecond(sent_at.0).ok().map(|instant| instant.to_string())
}

/// Who shops, and where.
struct Shoppers {
    cards: u64,
    popularity: Option<Zipf<f64>>,
    hot_percent: u32,
    mix: Mix,
}

/// How far apart cards of neighbouring ranks are.
const STRIDES: [u64; 2] = [7_919, 7_907];
/// Merchant categories with their share of the traffic in percent.
const CATEGORIES: &[(&str, u32)] =
    &[("5411", 26), ("5812", 20), ("5814", 14), ("5541", 12), ("5999", 10), ("4121", 8), ("5732", 5), ("7011", 3), ("7995", 2)];
/// Countries with their share in percent.
const COUNTRIES: &[(&str, u32)] = &[("USA", 88), ("CAN", 4), ("MEX", 3), ("GBR", 2), ("NLD", 2), ("PRK", 1)];
/// Channels with their share in percent.
const CHANNELS: &[(&str, u32)] = &[("contactless", 38), ("chip", 28), ("ecommerce", 25), ("magstripe", 5), ("atm", 2), ("moto", 2)];
const MERCHANTS: u16 = 400;
/// The number of the card that a hot account's load goes to: a consumer's, the only one on its account.
const HOT_CARD: u64 = 1;

impl Shoppers {
    fn new(scenario: &Scenario) -> Self {
        let Scenario { cards, zipf_exponent, hot_percent, mix, .. } = *scenario;
        // Fails for no cards only, which a scenario cannot have.
        Self { cards, popularity: Zipf::new(cards as f64, zipf_exponent).ok(), hot_percent, mix }
    }

    fn ask(&self, rng: &mut StdRng) -> Ask {
        let kind = self.kind(rng);
        let number = match kind {
            Kind::TestCard => return Ask { card: below(rng, TEST_CARDS.len()), ..Ask::of(kind, rng) },
            _ if rng.random_range(0..100) < self.hot_percent => HOT_CARD,
            _ => self.popularity.map_or(1, |zipf| self.number(zipf.sample(rng))),
        };
        Ask { card: u32::try_from(number).unwrap_or(u32::MAX), ..Ask::of(kind, rng) }
    }

    fn kind(&self, rng: &mut StdRng) -> Kind {
        // Replays are drawn before: what is left is the rest of the thousand.
        let mut left = rng.random_range(0..(1_000 - self.mix.replay).max(1));
        for (share, kind) in [
            (self.mix.test_card, Kind::TestCard),
            (self.mix.unknown_card, Kind::UnknownCard),
            (self.mix.wrong_user, Kind::WrongUser),
            (self.mix.wrong_currency, Kind::WrongCurrency),
        ] {
            if left < share {
                return kind;
            }
            left -= share;
        }
        Kind::Plain
    }

    /// The card with this popularity. Ranks are spread over the numbers, so that neither kind of program has all the busy cards.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is a whole number from 1 to the number of cards")]
    fn number(&self, rank: f64) -> u64 {
        // Both are prime, and their product is above any number of cards: one of them shares no divisor with it, so that no two ranks
        // have the same card.
        let stride = if self.cards.is_multiple_of(STRIDES[0]) { STRIDES[1] } else { STRIDES[0] };
        (rank as u64).wrapping_mul(stride) % self.cards + 1
    }
}

impl Ask {
    fn of(kind: Kind, rng: &mut StdRng) -> Self {
        Self {
            card: 0,
            cents: cents(rng),
            merchant: rng.random_range(1..=MERCHANTS),
            category: pick(CATEGORIES, rng),
            country: pick(COUNTRIES, rng),
            channel: pick(CHANNELS, rng),
            kind,
            partial_approval: rng.random_range(0..10) == 0,
        }
    }
}

fn below(rng: &mut StdRng, bound: usize) -> u32 {
    u32::try_from(rng.random_range(0..bound)).unwrap_or(0)
}

/// An amount: mostly small change, now and then a large purchase.
fn cents(rng: &mut StdRng) -> u32 {
    match rng.random_range(0..100) {
        0..60 => rng.random_range(150..4_000),
        60..90 => rng.random_range(4_000..15_000),
        90..99 => rng.random_range(15_000..80_000),
        _ => rng.random_range(80_000..300_000),
    }
}

fn pick(shares: &[(&'static str, u32)], rng: &mut StdRng) -> u8 {
    let mut left = rng.random_range(0..100);
    for (index, (_, share)) in (0_u8..).zip(shares) {
        if left < *share {
            return index;
        }
        left -= share;
    }
    0
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
