//! The page of a run.

mod ending;
mod floors;

use super::{
    bars::{self, SpanBar},
    format,
    frame::{Key, Mood, counts, keys, page, section, verdict},
    heatmap,
    moments::{Moment, Moments},
    percentiles::{self, Bound, Curve},
    rate,
};
use crate::bench::{
    summary::{Latency, Summary},
    threshold::Graded,
};
use crate::telemetry::{Span, promise::Verdict};
use maud::{Markup, html};

/// The page of a run, beside the run before it.
#[must_use]
pub fn report(it: &Summary, previous: Option<&Summary>) -> String {
    let moments = moments(it);
    let body = html! {
        (head(it))
        (latency(it, previous))
        (over_time(it, &moments))
        (spans(it))
        (floors::floors(it))
        (floors::ceiling(it))
        (decided(it))
        (ending::accounts(it))
        (ending::circumstances(it))
    };
    page(&format!("{} over {}: {}", it.scenario.name, it.target.kind, it.verdict), &body)
}

fn head(it: &Summary) -> Markup {
    let (count, speed) = (format::count(it.response_time.count), format::rate(it.rate.achieved_per_s));
    let (mood, word, sentence) = if it.passed() {
        (Mood::Good, "Passed", format!("{count} answers, {speed} a second, every request accounted for."))
    } else {
        (Mood::Bad, "Failed", format!("{count} answers, {speed} a second."))
    };
    html! {
        header {
            p.over { "jitauth bench · " (format::instant(&it.started_at)) @if !it.environment.host.is_empty() { " · " (it.environment.host) } }
            h1 { (it.scenario.name) " over " (place(it)) }
            p.question { (it.scenario.question) }
        }
        section id="verdict" aria-label="Verdict" {
            (verdict(mood, word, &sentence))
            @if !it.failures.is_empty() { ul.faults { @for failure in &it.failures { li { (failure) } } } }
            (keys(&key_figures(it)))
            (thresholds(&it.thresholds))
            @if !it.warnings.is_empty() {
                h3 { "What speaks against these figures" }
                ul.warnings { @for warning in &it.warnings { li { (warning.text) } } }
            }
        }
    }
}

/// What was asked: edge, queues, store.
fn place(it: &Summary) -> String {
    let target = &it.target;
    let queue = target.queue_type.as_ref().map(|queue| format!(", {queue} queues")).unwrap_or_default();
    let store = target.store.as_ref().map(|store| format!(", {store}")).unwrap_or_default();
    format!("{}{queue}{store}{}", target.kind, if target.spawned { "" } else { ", a running daemon" })
}

fn key_figures(it: &Summary) -> Vec<Key> {
    let (response, requests) = (&it.response_time, &it.requests);
    let time = |name: &'static str, percentile: &str| {
        let us = response.percentiles_us.get(percentile).copied();
        let service = it.service_time.percentiles_us.get(percentile).map(|us| format!("{} from sending", format::time(*us)));
        Key { name, value: us.map_or_else(|| "–".to_owned(), format::time), remark: service.unwrap_or_default() }
    };
    let lost = requests.lost + requests.duplicated + requests.unexpected + requests.unsent;
    let promise = match it.promise {
        Verdict::Kept => "✓ kept",
        Verdict::Broken => "✗ broken",
        Verdict::TooFew => "not graded",
    };
    let accounts = format!("{} sent, {} answered", format::count(requests.sent), format::count(requests.answered));
    vec![
        time("response time, median", "p50"),
        time("response time, p99", "p99"),
        time("response time, p99.9", "p99.9"),
        Key {
            name: "achieved a second",
            value: format::rate(it.rate.achieved_per_s),
            remark: format!("{} offered, for {} s", format::rate(it.rate.offered_per_s), format::plain(it.rate.measured_s)),
        },
        Key { name: "lost, doubled, wrong", value: format::count(lost), remark: accounts },
        Key { name: "promised latencies", value: promise.to_owned(), remark: format!("profile {}", it.target.profile) },
    ]
}

fn thresholds(all: &[Graded]) -> Markup {
    let figure = |value: f64, unit: &str| match unit {
        "us" => format::time(value.max(0.0).round() as u64),
        "%" => format!("{} %", format::plain(value)),
        unit => format!("{}{unit}", format::plain(value)),
    };
    html! {
        @if !all.is_empty() {
            h3 { "What had to be true" }
            table {
                thead { tr { th scope="col" { "threshold" } th scope="col" { "measured" } th scope="col" { "limit" } th scope="col" { "" } } }
                @for graded in all {
                    tr {
                        th scope="row" { code { (graded.threshold) } }
                        td { (graded.value.map_or_else(|| "not measured".to_owned(), |value| figure(value, &graded.unit))) }
                        td { (figure(graded.limit, &graded.unit)) }
                        td { @if graded.passed { span.kept { "✓ kept" } } @else { span.broken { "✗ broken" } } }
                    }
                }
            }
        }
    }
}

fn latency(it: &Summary, previous: Option<&Summary>) -> Markup {
    let before = previous.map(|previous| &previous.response_time).filter(|latency| latency.count > 0);
    let mut curves = vec![curve("response time", "response", &it.response_time), curve("service time", "service", &it.service_time)];
    curves.extend(before.map(|latency| curve("response time, previous run", "previous", latency)));
    let caption = "Response time counts from the moment a request was due, so that a stall shows in every request it held up; service time \
                   counts from its sending. Higher is slower.";
    let figure = percentiles::figure("latency-chart", caption, &curves, &bounds(it));
    let body = html! {
        @if let Some(figure) = figure { (figure) (percentile_table(it, before)) } @else { p { "Nothing was answered." } }
        @if let Some(previous) = previous { p.note { (beside(it, previous)) } }
    };
    section("latency", "How long an answer takes", &body)
}

/// What the run before was, and whether it can be compared.
fn beside(it: &Summary, previous: &Summary) -> String {
    let tool = &previous.tool;
    let commit = tool.commit.as_ref().map(|commit| format!(" at {commit}")).unwrap_or_default();
    let what = format!(
        "The previous run began at {} with jitauth {}{commit} ({} build)",
        format::instant(&previous.started_at),
        tool.version,
        tool.build
    );
    let (now, before) = (&it.scenario.workload_digest, &previous.scenario.workload_digest);
    if now == before {
        format!("{what}, under the same workload.")
    } else {
        format!("{what}, under ANOTHER workload ({before}, not {now}): the two cannot be compared.")
    }
}

fn curve(name: &str, class: &'static str, latency: &Latency) -> Curve {
    let points = if latency.curve.is_empty() {
        let known = Latency::PERCENTILES.iter().filter_map(|(name, quantile)| Some((*quantile, *latency.percentiles_us.get(*name)?)));
        std::iter::once((0.0, latency.min_us)).chain(known).chain([(1.0, latency.max_us)]).collect()
    } else {
        latency.curve.clone()
    };
    Curve { name: name.to_owned(), class, count: latency.count, points }
}

/// Thresholds on response times, and what the profile promises about the whole of a decision.
fn bounds(it: &Summary) -> Vec<Bound> {
    let mut bounds: Vec<Bound> = it.thresholds.iter().filter_map(limit).collect();
    let total = it.stages.iter().find(|stage| stage.span == Span::Total.name());
    bounds.extend(total.and_then(|stage| stage.budget).map(|budget| Bound {
        name: format!("promised by profile {}, in the daemon", it.target.profile),
        class: "promise",
        steps: vec![(0.5, budget.p50_us), (0.95, budget.p95_us), (0.99, budget.p99_us)],
    }));
    bounds
}

/// A threshold that a response time must stay below.
fn limit(graded: &Graded) -> Option<Bound> {
    let (metric, _) = graded.threshold.split_once('<').filter(|_| graded.unit == "us")?;
    let metric = metric.trim();
    let metric = metric.strip_prefix("response_time.").unwrap_or(metric);
    let known = Latency::PERCENTILES.iter().find(|(name, _)| *name == metric).map(|(_, quantile)| *quantile);
    let quantile = known.or_else(|| (metric == "max").then_some(1.0))?;
    let name = format!("{} {}", graded.threshold, if graded.passed { "✓" } else { "✗" });
    Some(Bound { name, class: "limit", steps: vec![(quantile, graded.limit.max(0.0).round() as u64)] })
}

fn percentile_table(it: &Summary, before: Option<&Latency>) -> Markup {
    let figure = |latency: &Latency, name: &str| latency.percentiles_us.get(name).map_or_else(|| "–".to_owned(), |us| format::time(*us));
    let row = |name: &str, response: String, service: String, previous: Option<(u64, u64)>| {
        html! {
            tr {
                th scope="row" { (name) } td { (response) } td { (service) }
                @if let Some((now, before)) = previous { td { (format::time(before)) } td { (format::change(now, before)) } }
            }
        }
    };
    let (response, service) = (&it.response_time, &it.service_time);
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "" } th scope="col" { "response time" } th scope="col" { "service time" }
                    @if before.is_some() { th scope="col" { "previous" } th scope="col" { "change" } }
                }
            }
            (row("shortest", format::time(response.min_us), format::time(service.min_us), before.map(|before| (response.min_us, before.min_us))))
            @for (name, _) in Latency::PERCENTILES {
                (row(name, figure(response, name), figure(service, name), before.map(|before| (response.percentile(name), before.percentile(name)))))
            }
            (row("longest", format::time(response.max_us), format::time(service.max_us), before.map(|before| (response.max_us, before.max_us))))
        }
    }
}

fn moments(it: &Summary) -> Moments {
    let all = it.seconds.iter().enumerate().map(|(at, second)| Moment {
        at_s: second.second as f64,
        lasts_s: 1.0,
        measured: second.measured,
        offered: Some(second.offered),
        answered: second.answered,
        failed: second.errors + second.lost,
        p50_us: second.p50_us,
        p99_us: second.p99_us,
        max_us: second.max_us,
        buckets: it.heatmap.rows.get(at).cloned().unwrap_or_default(),
    });
    Moments { all: all.collect(), bounds_us: it.heatmap.bounds_us.clone(), clock: None }
}

fn over_time(it: &Summary, moments: &Moments) -> Markup {
    let lag = it.rate.lag.percentile("p99");
    let caption = format!(
        "Requests that were due, and answers that came, second by second. The generator sent 99 % of the requests within {} of the moment \
         they were due; {} were held back because too many were under way.",
        format::time(lag),
        format::count(it.rate.held_back)
    );
    let heat = "Each cell counts the answers of one second, by how long they took; the second is that in which a request was due.";
    html! {
        @if let Some(figure) = rate::figure("rate-chart", &caption, moments) { (section("rate", "Offered and achieved", &figure)) }
        @if let Some(figure) = heatmap::figure("heatmap-chart", heat, moments) { (section("heatmap", "Latency over time", &figure)) }
    }
}

fn spans(it: &Summary) -> Markup {
    let bars: Vec<SpanBar> = it
        .stages
        .iter()
        .map(|stage| SpanBar {
            span: stage.span.clone(),
            count: stage.latency.count,
            p50_us: stage.latency.percentile("p50"),
            p95_us: stage.latency.percentile("p95"),
            p99_us: stage.latency.percentile("p99"),
            budget: stage.budget,
            verdict: stage.verdict,
        })
        .collect();
    let caption = format!(
        "The daemon's own clock, span by span, in the order of a decision's life. A mark is what profile {} promises for p50, p95 and p99.",
        it.target.profile
    );
    html! { @if let Some(figure) = bars::figure("spans-chart", &caption, &bars) { (section("spans", "Where the time goes", &figure)) } }
}

fn decided(it: &Summary) -> Markup {
    let body = html! {
        (counts("Answers by decision, warm-up not included", &format::most_first(&it.decisions)))
        (counts("Declines by reason", &format::most_first(&it.reasons)))
        @if it.decisions.is_empty() { p { "Nothing was decided." } }
    };
    section("decisions", "Decisions and reasons", &body)
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
