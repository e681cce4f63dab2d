use super::*;
use crate::bench::{
    floor::{Commits, Rows},
    measure::Stretch,
    record::histogram,
    summary::{Ceiling, Heatmap, Rate, Requests},
};
use std::collections::BTreeMap;

fn latency(count: u64, p50: u64, p99: u64) -> Latency {
    let percentiles = [("p50".to_owned(), p50), ("p99".to_owned(), p99)];
    Latency { count, percentiles_us: percentiles.into(), ..Latency::default() }
}

/// Floors that all took as long.
pub(in crate::bench) fn floor(p50: u64, p99: u64) -> FloorReport {
    let latency = latency(100, p50, p99);
    let echo = Echo {
        queue_type: "quorum".to_owned(),
        rate: Rate::default(),
        response_time: latency.clone(),
        service_time: latency.clone(),
        ceiling_per_s: Some(4_000.0),
        ceiling_reached: true,
        lost: 0,
    };
    let commit = [(1, 900.0), (64, 1_000.0)];
    let commit = commit.map(|(batch, decisions_per_s)| Commits { batch, writers: 1, decisions_per_s, refused: 0, commit: latency.clone() });
    let rows = vec![Rows { batch: 64, writers: 1, rows_per_s: 199.0, commit: latency.clone() }];
    FloorReport {
        rounds: 1,
        slice_s: 1.0,
        echo: Some(echo),
        commit: commit.into(),
        commit_alone: Some(latency.clone()),
        rows,
        redis: None,
        fsync: Some(latency),
        ratios: Vec::new(),
    }
}

fn measured(ceiling: Option<Ceiling>) -> Measured {
    Measured {
        rate: Rate::default(),
        requests: Requests::default(),
        decisions: BTreeMap::new(),
        reasons: BTreeMap::new(),
        response: histogram(),
        service: histogram(),
        lag: histogram(),
        by_second: Vec::new(),
        seconds: Vec::new(),
        heatmap: Heatmap::default(),
        stretches: vec![Stretch { first_second: 0, began_us: 0, ceiling: ceiling.clone() }],
        ceiling,
    }
}

/// A round in which the daemon took so long, and the echo half of it.
fn round(p50: u64, p99: u64, achieved_per_s: f64) -> Round {
    let figures = |p50, p99| Figures { response: latency(2_000, p50, p99), commit: latency(2_000, p50, p99), achieved_per_s };
    Round { daemon: figures(p50, p99), echo: Some(figures(p50 / 2, p99 / 2)), commits_per_s: vec![100.0, 1_000.0] }
}

fn check(floor: &FloorReport, rounds: &[Round], arrival: Arrival, expected: &[(&str, f64, f64, f64)]) {
    let ceiling = Ceiling { rate_per_s: 3_000.0, p99_bound_us: 1, reached: true, search: None };
    let told = ratios(floor, rounds, &measured(Some(ceiling)), arrival);
    let told: Vec<_> = told.iter().map(|it| (it.name.as_str(), it.value, it.lowest, it.highest)).collect();
    assert_eq!(told, expected);
}

const CEILING: (&str, f64, f64, f64) = ("ceiling_to_echo", 0.75, 0.75, 0.75);

#[test]
fn ratios_are_the_median_of_the_rounds() {
    let rounds = [round(1_000, 8_000, 500.0), round(1_200, 8_000, 600.0), round(5_000, 8_000, 900.0)];
    let p99 = ("p99_to_echo", 2.0, 2.0, 2.0);
    check(
        &floor(600, 6_000),
        &rounds,
        Arrival::Poisson,
        &[("p50_over_echo_us", 600.0, 500.0, 2_500.0), p99, CEILING, ("commit_p50_to_floor", 2.0, 1.667, 8.333)],
    );
    check(
        &floor(600, 6_000),
        &rounds,
        Arrival::Closed,
        &[("p50_over_echo_us", 600.0, 500.0, 2_500.0), p99, CEILING, ("decisions_to_commits", 0.6, 0.5, 0.9)],
    );
    let found = ratios(&floor(600, 6_000), &rounds, &measured(None), Arrival::Closed);
    assert!(found.iter().any(|ratio| ratio.meaning.contains("64 in a group")), "{found:?}");
}

#[test]
fn nothing_is_told_against_what_was_not_measured_or_measured_badly() {
    let rounds = [round(1_000, 8_000, 500.0)];
    let commit = ("commit_p50_to_floor", 1.667, 1.667, 1.667);
    let few = Round { echo: Some(Figures { response: latency(900, 1, 1), ..Figures::default() }), ..round(1_000, 8_000, 1.0) };
    let p50 = ("p50_over_echo_us", 999.0, 999.0, 999.0);
    check(&floor(600, 6_000), &[few], Arrival::Poisson, &[p50, CEILING, commit]);
    let none = Round { echo: Some(Figures::default()), ..round(1_000, 8_000, 1.0) };
    check(&floor(600, 6_000), &[none], Arrival::Poisson, &[CEILING, commit]);
    check(&floor(0, 0), &rounds, Arrival::Poisson, &[("p50_over_echo_us", 500.0, 500.0, 500.0), ("p99_to_echo", 2.0, 2.0, 2.0), CEILING]);
    let echo = |change: fn(&mut Echo)| {
        let mut floor = floor(600, 6_000);
        floor.echo.iter_mut().for_each(change);
        floor
    };
    for (changed, code) in [
        (echo(|echo| echo.rate.held_back = 1), "echo_generator_fell_behind"),
        (echo(|echo| echo.rate.lag = latency(100, 0, 1_001)), "echo_generator_fell_behind"),
        (echo(|echo| echo.rate.saturated = true), "echo_saturated"),
    ] {
        check(&changed, &rounds, Arrival::Poisson, &[CEILING, commit]);
        assert_eq!(codes(&changed), [code]);
    }
    check(&echo(|echo| echo.ceiling_reached = false), &[], Arrival::Closed, &[]);
    let lost = echo(|echo| echo.lost = 1);
    check(&lost, &rounds, Arrival::Poisson, &[commit]);
    assert_eq!(codes(&lost), ["echo_lost"]);
}

fn codes(floor: &FloorReport) -> Vec<String> {
    warnings(floor).into_iter().map(|warning| warning.code).collect()
}

#[test]
fn a_floor_that_is_above_what_stands_on_it_is_warned_of() {
    let told = |name: &str, value| {
        let ratio = Ratio { name: name.to_owned(), value, lowest: value, highest: value, meaning: String::new() };
        codes(&FloorReport { ratios: vec![ratio], ..floor(600, 6_000) })
    };
    for (name, value, warned) in [
        ("p50_over_echo_us", -1.0, true),
        ("p50_over_echo_us", 300.0, false),
        ("p99_to_echo", 0.5, true),
        ("p99_to_echo", 0.95, false),
        ("commit_p50_to_floor", 0.08, true),
        ("decisions_to_commits", 1.05, false),
        ("decisions_to_commits", 1.2, true),
        ("ceiling_to_echo", 1.24, false),
    ] {
        assert_eq!(told(name, value), if warned { vec!["floor_disturbed"] } else { vec![] }, "{name} {value}");
    }
    let mut fast = floor(600, 6_000);
    fast.fsync = Some(latency(100, 3, 9));
    fast.commit[0].refused = 7;
    assert_eq!(codes(&fast), ["fsync_without_a_disk", "commits_refused"]);
}
