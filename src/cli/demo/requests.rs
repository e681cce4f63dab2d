//! The traffic, made before it is sent: bodies, and the order they go out in.

use crate::seed::{
    Plan, TEST_CARDS, load,
    test_cards::{MerchantBody, RequestBody},
};
use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Zipf};

/// One request to send: a body, for the first time or again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Index into [`Traffic::bodies`].
    pub(super) body: usize,
    /// Whether this id was sent before.
    pub(super) replay: bool,
}

/// All that will be sent. The same plan makes the same traffic.
#[derive(Debug)]
pub(super) struct Traffic {
    /// One per id; the id is [`id`] of the index.
    pub(super) bodies: Vec<Bytes>,
    /// Sent at a stated rate.
    pub(super) steady: Vec<Item>,
    /// Sent as fast as answers come.
    pub(super) burst: Vec<Item>,
}

/// Every so many requests one is a replay: 2 %.
const REPLAY_EVERY: usize = 50;
/// A replay goes back at least so far, so that its first sending has usually been answered.
const REPLAY_BACK: usize = 500;
/// How uneven the use of cards is: the exponent of Zipf's law. At 0.6 the busiest hundredth of the cards makes a seventh of the traffic.
const ZIPF_EXPONENT: f64 = 0.6;

/// The id of a request in this traffic.
pub(super) fn id(body: usize) -> String {
    format!("demo-{body:07}")
}

/// The index of the request with this id.
pub(super) fn index(id: &str) -> Option<usize> {
    id.strip_prefix("demo-")?.parse().ok()
}

impl Traffic {
    /// Traffic over the cards of `plan`.
    pub(super) fn new(plan: Plan, seed: u64, steady: usize, burst: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let shoppers = Shoppers::new(plan.cards());
        let mut bodies: Vec<Bytes> = Vec::with_capacity(steady + burst);
        let items: Vec<Item> = (0..steady + burst)
            .map(|nth| {
                if nth % REPLAY_EVERY == REPLAY_EVERY - 1 && bodies.len() > REPLAY_BACK {
                    return Item { body: rng.random_range(0..bodies.len() - REPLAY_BACK), replay: true };
                }
                let body = bodies.len();
                bodies.push(shoppers.request(&id(body), &mut rng).into());
                Item { body, replay: false }
            })
            .collect();
        let (steady, burst) = items.split_at(steady);
        Self { bodies, steady: steady.into(), burst: burst.into() }
    }
}

/// Who shops, and where.
struct Shoppers {
    cards: u64,
    popularity: Option<Zipf<f64>>,
}

/// Merchant categories with their share of the traffic in percent.
const CATEGORIES: &[(&str, u32)] =
    &[("5411", 26), ("5812", 20), ("5814", 14), ("5541", 12), ("5999", 10), ("4121", 8), ("5732", 5), ("7011", 3), ("7995", 2)];
/// Countries with their share in percent.
const COUNTRIES: &[(&str, u32)] = &[("USA", 88), ("CAN", 4), ("MEX", 3), ("GBR", 2), ("NLD", 2), ("PRK", 1)];
/// Channels with their share in percent.
const CHANNELS: &[(&str, u32)] = &[("contactless", 38), ("chip", 28), ("ecommerce", 25), ("magstripe", 5), ("atm", 2), ("moto", 2)];
const MERCHANTS: u32 = 400;

impl Shoppers {
    fn new(cards: u64) -> Self {
        // Fails for no cards only; then everybody shops with test cards.
        Self { cards, popularity: Zipf::new(cards as f64, ZIPF_EXPONENT).ok().filter(|_| cards > 0) }
    }

    /// Most requests are what people do; a few in a hundred show the rest of the reasons.
    fn request(&self, id: &str, rng: &mut StdRng) -> String {
        let Some(number) = self.popularity.map(|zipf| self.number(zipf.sample(rng))) else {
            return test_card(id, rng);
        };
        let owner = load::user_token(load::place(number).user);
        match rng.random_range(0..1_000) {
            0..40 => test_card(id, rng),
            40..48 => load_card(id, &format!("crd_unknown_{number:07}"), &owner, "USD", rng),
            48..54 => load_card(id, &load::card_token(number), "usr_somebody_else", "USD", rng),
            54..60 => load_card(id, &load::card_token(number), &owner, "EUR", rng),
            _ => load_card(id, &load::card_token(number), &owner, "USD", rng),
        }
    }

    /// The card with this popularity. Ranks are spread over the numbers, so that neither kind of program has all the busy cards.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is a whole number from 1 to the number of cards")]
    fn number(&self, rank: f64) -> u64 {
        (rank as u64).wrapping_mul(7_919) % self.cards + 1
    }
}

fn test_card(id: &str, rng: &mut StdRng) -> String {
    TEST_CARDS[rng.random_range(0..TEST_CARDS.len())].request(id)
}

fn load_card(id: &str, card: &str, user: &str, currency: &str, rng: &mut StdRng) -> String {
    let cents = cents(rng);
    let merchant = format!("{:015}", rng.random_range(1..=MERCHANTS));
    let amount = format!("{}.{:02}", cents / 100, cents % 100);
    let mut body = RequestBody::new(id, card, user, &TEST_CARDS[0].sample);
    body.amount = &amount;
    body.currency = currency;
    body.merchant = MerchantBody { id: &merchant, mcc: pick(CATEGORIES, rng), country: pick(COUNTRIES, rng) };
    body.channel = pick(CHANNELS, rng);
    body.partial_approval = rng.random_range(0..10) == 0;
    body.to_json()
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

fn pick(shares: &[(&'static str, u32)], rng: &mut StdRng) -> &'static str {
    let mut left = rng.random_range(0..100);
    for (value, share) in shares {
        if left < *share {
            return value;
        }
        left -= share;
    }
    shares[0].0
}

#[cfg(test)]
mod tests {
    #![expect(clippy::expect_used, reason = "tests")]

    use super::*;
    use crate::{seed::simulation::Simulation, domain::decision::Decision};
    use std::collections::BTreeMap;

    fn traffic() -> Traffic {
        Traffic::new(Plan::new(10_000, 1), 1, 10_000, 40_000)
    }

    #[test]
    fn the_same_plan_makes_the_same_traffic_and_one_in_fifty_is_a_replay() {
        let (one, other) = (traffic(), traffic());
        assert_eq!((&one.bodies, &one.steady, &one.burst), (&other.bodies, &other.steady, &other.burst));
        let items: Vec<Item> = one.steady.iter().chain(&one.burst).copied().collect();
        let replays = items.iter().filter(|item| item.replay).count();
        assert!((980..=1_000).contains(&replays), "{replays}");
        let mut sent = 0;
        for item in items {
            assert!(if item.replay { item.body < sent } else { item.body == sent }, "{item:?} after {sent}");
            sent += usize::from(!item.replay);
        }
        assert_eq!(index(&id(42)), Some(42));
    }

    #[test]
    fn at_least_one_in_ten_is_declined_over_at_least_eight_reasons() {
        let traffic = traffic();
        let mut simulation = Simulation::new(Plan::new(10_000, 1));
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for body in &traffic.bodies {
            let (decision, reason) = simulation.decide(str::from_utf8(body).expect("JSON is text"));
            *reasons.entry(reason.map_or(decision.name(), |reason| reason.name())).or_default() += 1;
        }
        let approved = reasons[Decision::Approved.name()] + reasons[Decision::PartiallyApproved.name()];
        let declined = traffic.bodies.len() - approved;
        assert!(reasons.len() >= 10, "{reasons:?}");
        assert!((10..=30).contains(&(declined * 100 / traffic.bodies.len())), "{reasons:?}");
    }
}
