//! Load cards: as many as wanted, each a pure function of its number and the seed.
//!
//! A user and an account carry the number of their first card. Cards come in tens: five consumers of whom the last has two cards
//! (the 5th and the 6th) on one account, then four employees whose cards share a company's account (the 7th to the 10th).
//! A smaller seeding is therefore a prefix of a larger one.

use super::{
    ids,
    programs::{BUSINESS, PERSONAL, PROGRAMS},
    rows::{Account, Card, Limit, User},
};

/// Where a load card belongs, by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of its owner.
    pub user: u64,
    /// Number of its account.
    pub account: u64,
    /// Position of its program in [`PROGRAMS`].
    pub program: usize,
}

/// Where the load card with this number (1 is the first) belongs.
#[must_use]
pub const fn place(number: u64) -> Place {
    match (number - 1) % 10 {
        0..=4 => Place { user: number, account: number, program: PERSONAL },
        5 => Place { user: number - 1, account: number - 1, program: PERSONAL },
        nth => Place { user: number, account: number - (nth - 6), program: BUSINESS },
    }
}

/// The token of a load card.
#[must_use]
pub fn card_token(number: u64) -> String {
    format!("crd_{number:07}")
}

/// The token of a load card's owner, by the owner's number.
#[must_use]
pub fn user_token(number: u64) -> String {
    format!("usr_{number:07}")
}

/// Draws everything about load cards that is left to chance.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    seed: u64,
}

/// 2036-01-01T00:00:00Z, microseconds. Fixed, because a seeding does not depend on the day it is made.
const EXPIRY_FIRST: i64 = 2_082_758_400_000_000;
/// 2025-01-01T00:00:00Z, microseconds.
const EXPIRED: i64 = 1_735_689_600_000_000;
const DAY_US: i64 = 86_400_000_000;

impl Draw {
    /// The draw with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The account with this number, if it is the first card's number on it.
    #[must_use]
    pub fn account(self, number: u64) -> Option<Account> {
        let place = place(number);
        if place.account != number {
            return None;
        }
        let program = &PROGRAMS[place.program].program;
        let closed = place.program == PERSONAL && self.per_mille("account", number) < 2;
        Some(Account {
            id: ids::load(number),
            token: format!("acc_{number:07}"),
            program_id: program.id,
            kind: "cardholder",
            currency: program.currency,
            status: if closed { "closed" } else { "open" },
            posted: self.posted(number, place.program),
            floor: 0,
        })
    }

    /// The user with this number, if it is the user's first card.
    #[must_use]
    pub fn user(self, number: u64) -> Option<User> {
        let place = place(number);
        if place.user != number {
            return None;
        }
        Some(User {
            id: ids::load(number),
            token: user_token(number),
            program_id: PROGRAMS[place.program].program.id,
            status: if self.per_mille("user", number) < 4 { "suspended" } else { "active" },
            kyc: match self.per_mille("kyc", number) {
                0..4 => "pending",
                4 => "rejected",
                _ => "verified",
            },
        })
    }

    /// The card with this number.
    #[must_use]
    pub fn card(self, number: u64) -> Card {
        let place = place(number);
        let expired = self.per_mille("expired", number) < 5;
        Card {
            id: ids::load(number),
            token: card_token(number),
            user_id: ids::load(place.user),
            account_id: ids::load(place.account),
            program_id: PROGRAMS[place.program].program.id,
            status: match self.per_mille("status", number) {
                0..4 => "lost",
                4..7 => "stolen",
                7..15 => "inactive",
                _ => "active",
            },
            expires_at: if expired { EXPIRED } else { EXPIRY_FIRST + DAY_US * self.below("expiry", number, 1_460) },
            controls: match self.per_mille("controls", number) {
                0..30 => r#"{"channels":{"except":["atm","ecommerce"]}}"#,
                30..50 => r#"{"countries":{"only":["USA"]}}"#,
                50..70 => r#"{"mccs":{"except":["7995"]}}"#,
                _ => "{}",
            },
        }
    }

    /// The limits that come with the card of this number: its own, and those of the user and the account that begin with it.
    /// With the three of the program, a typical card has three and a few have more.
    pub fn limits(self, number: u64) -> impl Iterator<Item = Limit> {
        let place = place(number);
        let id = ids::load(number);
        let plain = Limit {
            id: ids::card_limit(number),
            owner: "card",
            owner_id: id,
            scope: "card",
            period: "day",
            filter: r#"{"channels":{"only":["ecommerce"]}}"#,
            cap_amount: Some(20_000),
            cap_count: Some(5),
        };
        let card = (self.below("card limit", number, 8) == 0).then(|| plain.clone());
        let user = (place.user == number && place.program == PERSONAL && self.below("user limit", number, 10) == 0).then(|| Limit {
            id: ids::user_limit(number),
            owner: "user",
            scope: "user",
            period: "week",
            filter: "{}",
            cap_amount: Some(300_000),
            cap_count: None,
            ..plain.clone()
        });
        let account =
            (place.account == number && place.program == BUSINESS && self.below("account limit", number, 4) == 0).then(|| Limit {
                id: ids::account_limit(number),
                owner: "account",
                scope: "account",
                period: "month",
                filter: "{}",
                cap_amount: Some(10_000_000),
                cap_count: None,
                ..plain
            });
        user.into_iter().chain(account).chain(card)
    }

    /// An opening balance: some accounts are nearly empty, most have a month's spending, a few have much. Companies have ten times that.
    fn posted(self, number: u64, program: usize) -> i64 {
        let (least, most) = match self.below("wealth", number, 100) {
            0..10 => (0, 5_000),
            10..40 => (5_000, 50_000),
            40..90 => (50_000, 500_000),
            _ => (500_000, 2_000_000),
        };
        let posted = least + self.below("posted", number, most - least);
        if program == BUSINESS { posted * 10 } else { posted }
    }

    fn per_mille(self, what: &str, number: u64) -> i64 {
        self.below(what, number, 1_000)
    }

    /// An integer in `0..bound`, independent for every `what`. The tiny bias of the remainder does not matter here.
    fn below(self, what: &str, number: u64, bound: i64) -> i64 {
        let salt = what.bytes().fold(self.seed, |salt, byte| mix(salt ^ u64::from(byte)));
        (mix(salt ^ number) % bound.cast_unsigned()).cast_signed()
    }
}

/// The finalizer of splitmix64: every bit of the input sways every bit of the output. Written out so that a seeding stays the same
/// whatever becomes of a library's generator.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
