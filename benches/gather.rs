//! What a warm request costs before its commit: its card's file out of memory, and the decision on it.

use criterion::{Criterion, criterion_group, criterion_main};
use jitauth::{
    codec::request,
    domain::{
        facts::{Balance, CardFile},
        ids::CardToken,
        limits::{CounterKey, Used},
        request::AuthRequest,
        rules::{Position, decide},
        time::{Timestamp, WindowStarts},
    },
    facts::{
        FactError, FactSource,
        document::CardDocument,
        memory::{self, Memory},
        tiered::FactTiers,
    },
    telemetry::{Spans, Telemetry},
};
use std::{hint::black_box, time::Duration};

const CARDS: u32 = 100_000;
const STARTS: WindowStarts = WindowStarts { day: Timestamp(300), week: Timestamp(200), month: Timestamp(100) };

/// A store that has every card: three limits bear on each.
struct Source;

impl FactSource for Source {
    async fn fetch(&self, card: &CardToken) -> Result<Option<CardFile>, FactError> {
        let id: i64 = card.as_str().trim_start_matches("crd_").parse().map_err(|_| FactError::Malformed("token".to_owned()))?;
        let json = format!(
            r#"{{"card": {{"id": {id}, "token": "{token}", "version": {id}, "user_id": {id}, "user": "usr_{id}", "user_version": 2, "account_id": {id},
                "currency": "EUR", "account_open": true, "program_id": 1, "status": "active", "expires_at": 4102444800000000, "controls": {{}}}},
               "user": {{"id": {id}, "token": "usr_{id}", "version": 2, "active": true, "kyc_verified": true}},
               "limits": {{"card_version": {id}, "limits": [{{"id": {id}, "scope": "card", "window": "day", "cap_amount": 5000000, "cap_count": null}}]}},
               "program": {{"id": 1, "version": 4, "kind": "personal", "time_zone": "UTC", "week_start": "monday", "kyc_required": true,
                "partial_approval": true, "limits": [{{"id": 900000, "scope": "card", "window": "transaction", "cap_amount": 500000, "cap_count": null}},
                  {{"id": 900001, "scope": "card", "window": "month", "cap_amount": 50000000, "cap_count": 1000}}]}}}}"#,
            token = card.as_str()
        );
        CardDocument::parse(json.as_bytes()).map(Some)
    }
}

/// Plenty of money, nothing spent.
struct Plenty;

impl Position for Plenty {
    fn balance(&self) -> Balance {
        Balance { posted: 1_000_000_000, held: 0, floor: 0 }
    }
    fn used(&self, _: &CounterKey) -> Used {
        Used::default()
    }
}

fn ask(card: u32) -> Option<AuthRequest> {
    let body = format!(
        r#"{{"version": 1, "type": "authorization", "id": "auth-{card}", "card": "crd_{card}", "amount": "42.50", "currency": "EUR",
            "merchant": {{"id": "000000012345678", "mcc": "5812", "country": "NLD"}}, "channel": "contactless"}}"#
    );
    request::decode(body.as_bytes()).ok().map(|decoded| decoded.request)
}

fn gather(criterion: &mut Criterion) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let settings = memory::Settings { bytes_max: 1 << 30, ttl: Duration::from_secs(3600), absent_ttl: Duration::from_secs(1) };
    let tiers = FactTiers::new(Memory::new(settings), None, Source, Telemetry::default());
    let requests: Vec<AuthRequest> = (1..=CARDS).filter_map(ask).collect();
    runtime.block_on(async {
        for request in &requests {
            drop(tiers.lookup(&request.card).await);
        }
    });
    // A stride that is prime to the number of cards visits them all, in an order that no cache line likes.
    let mut at = 0;
    criterion.bench_function("warm gather and decision, 100,000 cards", |bencher| {
        bencher.iter(|| {
            at = (at + 76_543) % requests.len();
            let request = &requests[at];
            let found = tiers.peek(&request.card, &mut Spans::default());
            decide(request, black_box(found.flatten().as_ref()), &STARTS, Timestamp(301), &Plenty)
        });
    });
}

criterion_group!(benches, gather);
criterion_main!(benches);
