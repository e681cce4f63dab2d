//! What the parts do without us, and how much can be asked for.

use super::super::{format, frame::section, steps};
use crate::bench::{
    floor::FloorReport,
    summary::{Ceiling, CeilingSearch, Latency, Summary},
};
use maud::{Markup, html};

/// The daemon over the floors; nothing where they were not measured.
pub(super) fn floors(it: &Summary) -> Markup {
    html! { @if let Some(floor) = &it.floor { (section("floors", "Against what the parts do without us", &measured(floor))) } }
}

fn measured(floor: &FloorReport) -> Markup {
    let [rounds, slice] = [format::count(floor.rounds.into()), format::plain(floor.slice_s)];
    html! {
        p.note { "Measured in turn with the daemon, " (rounds) " rounds of " (slice) " s each: whatever else the machine did met both. \
                  Ratios mean more than times." }
        @if !floor.ratios.is_empty() {
            table {
                caption { "The daemon over the floors" }
                thead { tr { th scope="col" { "" } th scope="col" { "median" } th scope="col" { "of rounds" } } }
                @for ratio in &floor.ratios {
                    tr {
                        th scope="row" { (ratio.meaning) } td { (format::plain(ratio.value)) }
                        td { (format::plain(ratio.lowest)) " to " (format::plain(ratio.highest)) }
                    }
                }
            }
        }
        table {
            caption { "The floors" }
            thead { tr { th scope="col" { "floor" } th scope="col" { "p50" } th scope="col" { "p99" } th.count scope="col" { "measured" } } }
            @if let Some(echo) = floor.echo.as_ref().filter(|echo| echo.response_time.count > 0) { (row(&format!("broker echo, {} queue", echo.queue_type), &echo.response_time)) }
            @for commits in &floor.commit {
                @let (batch, writers, rate) = (commits.batch, commits.writers, format::rate(commits.decisions_per_s));
                (row(&format!("the store's commit of {batch}, {writers} writers: {rate} decisions/s"), &commits.commit))
            }
            @if let Some(alone) = &floor.commit_alone { (row("the store's commit of one, at a lane's pace", alone)) }
            @for rows in &floor.rows {
                @let (batch, writers, rate) = (rows.batch, rows.writers, format::rate(rows.rows_per_s));
                (row(&format!("plain insert of {batch} rows, {writers} writers: {rate} rows/s"), &rows.commit))
            }
            @if let Some(redis) = &floor.redis { (row("Redis GET", redis)) }
            @if let Some(fsync) = &floor.fsync { (row("4 KiB written and synced", fsync)) }
        }
        @if let Some((rate, reached)) = floor.echo.as_ref().and_then(|echo| Some((echo.ceiling_per_s?, echo.ceiling_reached))) {
            p { "The echo's ceiling" @if reached { ": " } @else { " lies above " } (format::rate(rate)) " a second." }
        }
        @if let Some(lost) = floor.echo.as_ref().map(|echo| echo.lost).filter(|lost| *lost > 0) { p.broken { "✗ The echo lost " (format::count(lost)) " requests." } }
    }
}

fn row(name: &str, latency: &Latency) -> Markup {
    let figure = |percentile: &str| latency.percentiles_us.get(percentile).map_or_else(|| "–".to_owned(), |us| format::time(*us));
    html! { tr { th scope="row" { (name) } td { (figure("p50")) } td { (figure("p99")) } td.count { (format::count(latency.count)) } } }
}

/// The highest rate that was kept up with; nothing where it was not looked for.
pub(super) fn ceiling(it: &Summary) -> Markup {
    html! { @if let Some(ceiling) = &it.ceiling { (section("ceiling", "The highest rate", &found(ceiling))) } }
}

fn found(ceiling: &Ceiling) -> Markup {
    let (rate, bound) = (format::rate(ceiling.rate_per_s), format::time(ceiling.p99_bound_us));
    html! {
        @if ceiling.reached {
            p { strong { (rate) " a second" } " were kept up with while p99 stayed under " (bound) "; more was not." }
        } @else {
            p { "The ceiling lies above " strong { (rate) " a second" } ": p99 stayed under " (bound) " to the end." }
        }
        @if let Some(search) = &ceiling.search { (searched(search, ceiling.p99_bound_us)) }
    }
}

fn searched(search: &CeilingSearch, bound_us: u64) -> Markup {
    let doubts = [
        (!search.confirmed, "the rate was not kept a second time"),
        (search.generator, "requests left late at the next higher rate: what decides may do more"),
        (search.echo_confirmed == Some(false), "the echo did not keep its rate a second time"),
        (search.echo_generator == Some(true), "requests of the echo left late at its next higher rate: it may do more"),
    ];
    let doubts: Vec<&str> = doubts.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text).collect();
    let caption = "A mark is a stretch at one rate, with a queue that was empty before. What is kept stays under the bound, answers what is \
                   offered and loses nothing.";
    html! {
        @if !doubts.is_empty() { ul.warnings { @for doubt in doubts { li { (doubt) } } } }
        @if let Some(figure) = steps::figure("steps-chart", caption, search, bound_us) { (figure) }
    }
}
