//! Decisions as people and programs read them.

use crate::{
    cli::table::{plain, table},
    domain::reason::Reason,
    telemetry::Span,
};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json, value::RawValue};
use std::{collections::BTreeMap, time::Duration};

const BAR_WIDTH: u64 = 40;

/// A decision and what is known about its way.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    /// The response, byte for byte.
    pub(super) body: Vec<u8>,
    pub(super) replayed: bool,
    pub(super) journaled: bool,
    /// Microseconds per span.
    pub(super) stages: Vec<(Span, u64)>,
    /// There and back.
    pub(super) took: Duration,
}

impl Answered {
    pub(super) fn json(&self) -> String {
        let stages: Map<String, Value> = self.stages.iter().map(|(span, us)| (span.name().to_owned(), json!(us))).collect();
        let head = json!({"replayed": self.replayed, "journaled": self.journaled, "stages_us": stages, "took_us": micros(self.took)});
        let head = head.to_string();
        // The response as it is: a number or a string must not be written in another way.
        let response: Box<RawValue> = serde_json::from_slice(&self.body).unwrap_or_else(|_| RawValue::NULL.to_owned());
        format!("{{\"response\":{response},{}\n", &head[1..])
    }

    pub(super) fn text(&self) -> String {
        let response: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let field = |name: &str| response[name].as_str().map(plain);
        let decision = field("decision").unwrap_or_else(|| "unreadable".to_owned());
        let code = field("response_code").unwrap_or_else(|| "?".to_owned());
        let why = field("reason").map_or_else(String::new, |reason| format!(": {reason}"));
        let currency = field("currency").unwrap_or_default();
        let amount = |name: &str| field(name).map_or_else(|| "-".to_owned(), |amount| format!("{amount} {currency}"));
        let journal = match (self.replayed, self.journaled) {
            (true, _) => "answered before; these are the same bytes",
            (false, true) => "journaled",
            (false, false) => "not journaled; it may be decided anew",
        };
        let mut text = format!("{}{why} (response code {code})\n\n", decision.replace('_', " ").to_uppercase());
        for (name, value) in [
            ("id", field("id").unwrap_or_else(|| "-".to_owned())),
            ("approved", amount("approved_amount")),
            ("available", amount("available")),
            ("hold", field("hold").unwrap_or_else(|| "-".to_owned())),
            ("decided at", field("decided_at").unwrap_or_else(|| "-".to_owned())),
            ("journal", journal.to_owned()),
            ("took", shown(micros(self.took))),
        ] {
            text.push_str(&format!("  {name:<10}  {value}\n"));
        }
        if !self.stages.is_empty() {
            let longest = self.stages.iter().map(|(_, us)| *us).max().unwrap_or_default();
            let rows: Vec<_> = self.stages.iter().map(|(span, us)| [format!("  {}", span.name()), shown(*us), bar(*us, longest)]).collect();
            text.push_str(&format!("\n{}", table(["  STAGE", "TIME", ""], &[1], &rows)));
        }
        text
    }
}

/// Many decisions, summed up.
#[derive(Debug)]
pub(super) struct Summary {
    outcomes: BTreeMap<String, u64>,
    replayed: u64,
    took: Histogram<u64>,
    stages: BTreeMap<Span, Histogram<u64>>,
}

impl Default for Summary {
    fn default() -> Self {
        Self { outcomes: BTreeMap::new(), replayed: 0, took: histogram(), stages: BTreeMap::new() }
    }
}

impl Summary {
    pub(super) fn add(&mut self, answered: &Answered) {
        let response: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
        let outcome = response["reason"].as_str().or_else(|| response["decision"].as_str()).unwrap_or("unreadable");
        *self.outcomes.entry(plain(outcome)).or_default() += 1;
        self.replayed += u64::from(answered.replayed);
        self.took.saturating_record(micros(answered.took));
        for (span, us) in &answered.stages {
            self.stages.entry(*span).or_insert_with(histogram).saturating_record(*us);
        }
    }

    pub(super) fn text(&self) -> String {
        let all = self.took.len();
        let outcomes: Vec<_> = self
            .outcomes
            .iter()
            .map(|(outcome, count)| {
                let code = Reason::ALL.iter().find(|reason| reason.name() == outcome).map_or("", |reason| reason.response_code());
                [outcome.clone(), code.to_owned(), count.to_string(), bar(*count, all)]
            })
            .collect();
        let row = |name: &str, times: &Histogram<u64>| {
            let at = |quantile| shown(times.value_at_quantile(quantile));
            [name.to_owned(), at(0.5), at(0.95), at(0.99), shown(times.max())]
        };
        let mut times: Vec<_> = self.stages.iter().map(|(span, times)| row(span.name(), times)).collect();
        times.push(row("there and back", &self.took));
        let outcomes = table(["OUTCOME", "CODE", "COUNT", ""], &[2], &outcomes);
        let times = table(["STAGE", "P50", "P95", "P99", "MAX"], &[1, 2, 3, 4], &times);
        format!("{all} authorizations, {} answered before\n\n{outcomes}\n{times}", self.replayed)
    }

    pub(super) fn json(&self) -> String {
        let times = |times: &Histogram<u64>| {
            json!({
                "p50": times.value_at_quantile(0.5), "p95": times.value_at_quantile(0.95), "p99": times.value_at_quantile(0.99),
                "max": times.max(),
            })
        };
        let stages: Map<String, Value> = self.stages.iter().map(|(span, all)| (span.name().to_owned(), times(all))).collect();
        let (requests, took) = (self.took.len(), times(&self.took));
        let value =
            json!({"requests": requests, "outcomes": self.outcomes, "replayed": self.replayed, "took_us": took, "stages_us": stages});
        format!("{value}\n")
    }
}

/// From 1 µs to two minutes: deadlines end after one.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).unwrap_or_else(|error| unreachable!("these bounds are good: {error}"))
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds below a millisecond, milliseconds above.
fn shown(us: u64) -> String {
    if us < 1_000 { format!("{us} µs") } else { format!("{}.{} ms", us / 1_000, us % 1_000 / 100) }
}

fn bar(part: u64, whole: u64) -> String {
    "#".repeat(usize::try_from((part * BAR_WIDTH).div_ceil(whole.max(1))).unwrap_or_default())
}
