//! What the rules alone cost: an approval under five limits, the longest way through them.
#![expect(clippy::disallowed_methods, reason = "the rules are measured on the real clock")]

use crate::{
    codec::request,
    domain::{
        facts::{Account, Balance, Card, CardFile, CardStatus, Program, ProgramKind, User, WeekStart},
        ids::{AccountId, CardId, LimitId, ProgramId, UserId, UserToken},
        limits::{Cap, CounterKey, Filter, Limit, Match, MccRange, Scope, Used},
        request::{AuthRequest, Channel, Country, Mcc},
        rules::{Position, decide},
        time::{Timestamp, Window, WindowStarts},
    },
};
use foldhash::HashMap;
use std::{hint::black_box, sync::Arc, time::Instant};

const REQUEST: &[u8] =
    br#"{"version": 1, "type": "authorization", "id": "auth-7a31c2f4", "card": "crd_0000417", "amount": "42.50", "currency": "EUR",
 "merchant": {"id": "000000012345678", "mcc": "5812", "country": "NLD"}, "channel": "contactless"}"#;
/// When the windows of the limits began.
pub const STARTS: WindowStarts = WindowStarts { day: Timestamp(300), week: Timestamp(200), month: Timestamp(100) };
/// Later than that.
pub const NOW: Timestamp = Timestamp(1000);
/// Decisions between two looks at the clock.
const BATCH: u32 = 1_000;

/// A request, the card's file with five limits, and the money.
#[derive(Debug)]
pub struct Case {
    /// What is asked.
    pub request: AuthRequest,
    /// What is known.
    pub file: CardFile,
    /// What is there.
    pub book: Book,
}

/// A working copy as a lane keeps it.
#[derive(Debug)]
pub struct Book {
    /// Of the account.
    pub balance: Balance,
    used: HashMap<CounterKey, Used>,
}

impl Position for Book {
    fn balance(&self) -> Balance {
        self.balance
    }
    fn used(&self, key: &CounterKey) -> Used {
        self.used.get(key).copied().unwrap_or_default()
    }
}

impl Case {
    /// The case. `None` would be a fault of this file.
    #[must_use]
    pub fn new() -> Option<Self> {
        let request = request::decode(REQUEST).ok()?.request;
        let file = file(&request)?;
        let counters = file.limits().filter_map(|limit| limit.counter(&file.card, &STARTS));
        let used = counters.map(|key| (key, Used { amount: 5000, count: 3 })).collect();
        Some(Self { request, file, book: Book { balance: Balance { posted: 100_000, held: 5000, floor: 0 }, used } })
    }
}

/// Nanoseconds of one decision, for each of so many batches. Blocks.
pub(super) fn measure(batches: u32) -> Vec<f64> {
    let Some(Case { request, file, book }) = Case::new() else { return Vec::new() };
    let batch = || {
        let began = Instant::now();
        for _ in 0..BATCH {
            black_box(decide(black_box(&request), Some(black_box(&file)), &STARTS, NOW, &book));
        }
        began.elapsed().as_nanos() as f64 / f64::from(BATCH)
    };
    // Once for the caches.
    batch();
    (0..batches).map(|_| batch()).collect()
}

fn limit(id: i64, scope: Scope, window: Window, filter: impl Into<Arc<Filter>>) -> Limit {
    Limit { id: LimitId(id), scope, window, filter: filter.into(), cap_amount: Cap::new(1_000_000), cap_count: Cap::new(1000) }
}

fn file(request: &AuthRequest) -> Option<CardFile> {
    let dining = MccRange { first: Mcc::from_code("5811")?, last: Mcc::from_code("5814")? };
    let dining = Filter { mccs: Match { only: Some(vec![dining]), except: Vec::new() }, ..Filter::default() };
    let controls = Arc::new(Filter {
        channels: Match { only: None, except: vec![Channel::Magstripe] },
        countries: Match { only: None, except: vec![Country::from_code("PRK")?] },
        ..Filter::default()
    });
    let user_token = UserToken::new("usr_0000417").ok()?;
    let limits = vec![
        limit(10, Scope::Card, Window::Transaction, Filter::default()),
        limit(11, Scope::Card, Window::Day, Filter::default()),
        limit(12, Scope::User, Window::Week, Filter::default()),
        limit(13, Scope::Account, Window::Month, dining),
    ];
    let card = Card {
        id: CardId(1),
        token: request.card.clone(),
        version: 1,
        user: UserId(2),
        user_version: 1,
        account: Account { id: AccountId(3), currency: request.amount.currency, open: true },
        program: ProgramId(4),
        status: CardStatus::Active,
        expires: Timestamp(i64::MAX),
        controls: Arc::clone(&controls),
        limits: limits.into(),
    };
    let program = Program {
        id: ProgramId(4),
        version: 1,
        kind: ProgramKind::Personal,
        time_zone: "UTC".into(),
        week_start: WeekStart::Monday,
        kyc_required: true,
        partial_approval: true,
        controls,
        limits: vec![limit(14, Scope::Program, Window::Day, Filter::default())],
    };
    Some(CardFile {
        card: Arc::new(card),
        user: Arc::new(User { id: UserId(2), token: user_token, version: 1, active: true, kyc_verified: true }),
        program: Arc::new(program),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decision::Verdict;

    #[test]
    fn the_case_is_an_approval_under_five_limits_with_a_counter_each_but_one() {
        let case = Case::new();
        let Some(Case { request, file, book }) = case else { unreachable!("the request is valid") };
        assert_eq!((file.limits().count(), book.used.len()), (5, 4), "one limit is of a single transaction");
        let verdict = decide(&request, Some(&file), &STARTS, NOW, &book);
        assert!(matches!(&verdict, Verdict::Approved { amount: 4250, partial: false, charges, .. } if charges.len() == 4), "{verdict:?}");
        assert!(measure(3).iter().all(|ns| *ns > 0.0));
    }
}
