//! What a decision costs: an approval under five limits, the longest way through the rules.

use criterion::{Criterion, criterion_group, criterion_main};
use jitauth::{
    bench::figures::decide::{Case, NOW, STARTS},
    domain::rules::decide,
};
use std::hint::black_box;

fn decisions(criterion: &mut Criterion) {
    let Some(Case { request, file, mut book }) = Case::new() else { unreachable!("the request of the bench is valid") };
    criterion.bench_function("decide/approved_under_5_limits", |bencher| {
        bencher.iter(|| decide(black_box(&request), Some(black_box(&file)), &STARTS, NOW, &book));
    });
    book.balance.held = 100_000;
    criterion.bench_function("decide/declined_over_funds", |bencher| {
        bencher.iter(|| decide(black_box(&request), Some(black_box(&file)), &STARTS, NOW, &book));
    });
}

criterion_group!(benches, decisions);
criterion_main!(benches);
