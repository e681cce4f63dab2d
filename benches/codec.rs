//! What bytes cost: reading the request of the contract, writing a response.

use criterion::{Criterion, criterion_group, criterion_main};
use jitauth::{
    codec::{pan, request, response},
    domain::{decision::Decision, hold::HoldId, money::Currency, time::Timestamp},
};
use std::hint::black_box;

const REQUEST: &[u8] = br#"{"version": 1, "type": "authorization", "id": "auth-7a31c2f4", "card": "crd_0000417", "user": "usr_0000417",
 "amount": "42.50", "currency": "EUR",
 "merchant": {"id": "000000012345678", "name": "CAFE DE ROOS", "mcc": "5812", "city": "AMSTERDAM", "country": "NLD"},
 "channel": "contactless", "partial_approval": false, "sent_at": "2026-03-04T10:15:07.112Z", "deadline_ms": 3000}"#;

fn codec(criterion: &mut Criterion) {
    criterion.bench_function("codec/decode", |bencher| bencher.iter(|| request::decode(black_box(REQUEST))));
    criterion.bench_function("codec/contains_pan", |bencher| bencher.iter(|| pan::contains(black_box(REQUEST))));
    let id = request::decode(REQUEST).ok().map(|decoded| decoded.request.id);
    let hold = HoldId::new("hld_01KBA0C0Q0T3R5N8ZJ4W2X9V7M");
    let response = response::Response {
        id: id.as_ref(),
        decision: Decision::Approved,
        reason: None,
        approved: 4250,
        currency: Currency::from_code("EUR"),
        available: Some(43_250),
        hold: Some(&hold),
        decided_at: Timestamp(1_772_619_307_114_000),
    };
    criterion.bench_function("codec/encode", |bencher| bencher.iter(|| response::encode(black_box(&response))));
}

criterion_group!(benches, codec);
criterion_main!(benches);
