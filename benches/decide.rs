//! What a decision costs: an approval under five limits, the longest way through the rules.

use criterion::{Criterion, criterion_group, criterion_main};
use foldhash::HashMap;
use jitauth::{
    codec::request,
    domain::{
        facts::{Account, Balance, Card, CardFile, CardStatus, LimitSet, Program, ProgramKind, User, WeekStart},
        ids::{AccountId, CardId, LimitId, ProgramId, UserId, UserToken},
        limits::{CounterKey, Filter, Limit, Match, MccRange, Scope, Used},
        request::{AuthRequest, Channel, Country, Mcc},
        rules::{Position, decide},
        time::{Timestamp, Window, WindowStarts},
    },
};
use std::{hint::black_box, sync::Arc};

const REQUEST: &[u8] =
    br#"{"version": 1, "type": "authorization", "id": "auth-7a31c2f4", "card": "crd_0000417", "amount": "42.50", "currency": "EUR",
 "merchant": {"id": "000000012345678", "mcc": "5812", "country": "NLD"}, "channel": "contactless"}"#;
const STARTS: WindowStarts = WindowStarts { day: Timestamp(300), week: Timestamp(200), month: Timestamp(100) };

/// A working copy as a lane keeps it.
struct Book {
    balance: Balance,
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

fn limit(id: i64, scope: Scope, window: Window, filter: impl Into<Arc<Filter>>) -> Limit {
    Limit { id: LimitId(id), scope, window, filter: filter.into(), cap_amount: Some(1_000_000), cap_count: Some(1000) }
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
    let card = Card {
        id: CardId(1),
        token: request.card.clone(),
        version: 1,
        user: UserId(2),
        user_token: user_token.clone(),
        user_version: 1,
        account: Account { id: AccountId(3), currency: request.amount.currency, open: true },
        program: ProgramId(4),
        status: CardStatus::Active,
        expires: Timestamp(i64::MAX),
        controls: Arc::clone(&controls),
    };
    let limits = vec![
        limit(10, Scope::Card, Window::Transaction, Filter::default()),
        limit(11, Scope::Card, Window::Day, Filter::default()),
        limit(12, Scope::User, Window::Week, Filter::default()),
        limit(13, Scope::Account, Window::Month, dining),
    ];
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
        limits: Arc::new(LimitSet { card_version: 1, limits: limits.into() }),
        program: Arc::new(program),
    })
}

fn decisions(criterion: &mut Criterion) {
    let request = request::decode(REQUEST).map(|decoded| decoded.request);
    let Some((request, file)) = request.ok().and_then(|request| Some((request.clone(), file(&request)?))) else {
        unreachable!("the request of the bench is valid")
    };
    let counters = file.limits().filter_map(|limit| limit.counter(&file.card, &STARTS));
    let used = counters.map(|key| (key, Used { amount: 5000, count: 3 })).collect();
    let mut book = Book { balance: Balance { posted: 100_000, held: 5000, floor: 0 }, used };
    let now = Timestamp(1000);
    criterion.bench_function("decide/approved_under_5_limits", |bencher| {
        bencher.iter(|| decide(black_box(&request), Some(black_box(&file)), &STARTS, now, &book));
    });
    book.balance.held = 100_000;
    criterion.bench_function("decide/declined_over_funds", |bencher| {
        bencher.iter(|| decide(black_box(&request), Some(black_box(&file)), &STARTS, now, &book));
    });
}

criterion_group!(benches, decisions);
criterion_main!(benches);
