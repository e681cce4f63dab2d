//! What it costs a lane to record one decision.

use criterion::{Criterion, criterion_group, criterion_main};
use jitauth::telemetry::{Span, Spans, Telemetry, events::CacheResult, events::Tier};
use std::{hint::black_box, time::Duration};

fn recorder(criterion: &mut Criterion) {
    let telemetry = Telemetry::default();
    let recorder = telemetry.recorder();
    let mut spans = Spans::default();
    for (span, us) in [
        (Span::Queue, 900),
        (Span::Decode, 2),
        (Span::User, 3),
        (Span::Card, 2),
        (Span::Limits, 4),
        (Span::Decision, 1),
        (Span::Lane, 350),
        (Span::Commit, 640),
    ] {
        spans.set(span, Duration::from_micros(us));
    }
    criterion.bench_function("record the spans of a decision", |bencher| bencher.iter(|| recorder.record(black_box(&spans))));
    criterion.bench_function("count a cache hit", |bencher| bencher.iter(|| telemetry.cache(black_box(Tier::Memory), CacheResult::Hit)));
    criterion.bench_function("read all spans", |bencher| bencher.iter(|| telemetry.report()));
}

criterion_group!(benches, recorder);
criterion_main!(benches);
