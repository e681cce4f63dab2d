//! The result of a run, as `summary.json` has it. Version 1; a field that changes its meaning makes a new version.
//!
//! Times are whole microseconds unless a name says otherwise, rates are requests a second, instants are RFC 3339 in UTC. What was
//! sent in the warm-up counts for correctness, but not for latency, rate and decisions.
//!
//! | field | what it is |
//! |---|---|
//! | `schema_version` | 1 |
//! | `verdict`, `failures` | `passed` or `failed`, and why: a fault of correctness, or a threshold |
//! | `troubles` | what went wrong with the run itself: what could not be asked at its end, rounds that broke off |
//! | `started_at` | when the measurement began |
//! | `tool` | version, commit, build and command line of what measured |
//! | `scenario` | name, question, every setting, and a digest of what decides the workload: only runs that agree can be compared |
//! | `target` | what was asked, on which store, how durable, under which profile |
//! | `environment` | [`Environment`] |
//! | `rate` | offered, achieved, how late the generator was |
//! | `cpu` | processor time that generator and daemon used |
//! | `requests` | every request accounted for: `sent = answered + lost`, and no answer that nobody asked for |
//! | `decisions`, `reasons` | measured answers by decision, and declines by reason |
//! | `response_time` | from the intended moment of sending: a stall shows in all requests that came in it; what was lost has none |
//! | `service_time` | from the actual sending |
//! | `stages`, `promise` | the daemon's own spans, each graded against the profile's promise, and the verdict on all of them |
//! | `seconds` | per second of the run: offered, answered, percentiles |
//! | `heatmap` | answers per second and latency bucket |
//! | `thresholds` | each with limit, value and whether it passed |
//! | `proof` | what the store says afterwards |
//! | `remains` | what was left in queues of the run's own, and how the daemon ended, if not well |
//! | `warnings` | why the figures may not mean what they seem to |
//! | `ceiling` | the highest rate that was kept up with, where the rate grew or was searched for, with the steps of the search |
//! | `floor` | what the parts can do without us, measured in turn with the daemon |

use super::{
    environment::Environment,
    floor::FloorReport,
    proof::Proof,
    threshold::{Graded, Stat},
};
use crate::telemetry::{Budget, promise::Verdict};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer, V2DeflateSerializer},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the schema.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything about a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `passed` or `failed`.
    pub verdict: String,
    /// Why it failed, a sentence each.
    pub failures: Vec<String>,
    /// What went wrong with the run itself: what could not be asked at its end, rounds that broke off.
    #[serde(default)]
    pub troubles: Vec<String>,
    /// When the measurement began.
    pub started_at: String,
    /// What measured.
    pub tool: Tool,
    /// What was asked.
    pub scenario: ScenarioLine,
    /// Who was asked.
    pub target: TargetLine,
    /// Where.
    pub environment: Environment,
    /// How fast.
    pub rate: Rate,
    /// Processor time, where it was looked at.
    pub cpu: Option<Cpu>,
    /// What became of every request.
    pub requests: Requests,
    /// Answers, by decision.
    pub decisions: BTreeMap<String, u64>,
    /// Declines, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// From the intended moment of sending to the answer.
    pub response_time: Latency,
    /// From the actual sending to the answer.
    pub service_time: Latency,
    /// The daemon's spans, in the order of a decision's life.
    pub stages: Vec<Stage>,
    /// Whether the profile's promise was kept.
    pub promise: Verdict,
    /// Each second of the run, from the start of the warm-up.
    pub seconds: Vec<Second>,
    /// Answers by second and latency.
    pub heatmap: Heatmap,
    /// The highest rate that was kept up with, where the rate grew.
    pub ceiling: Option<Ceiling>,
    /// What had to be true.
    pub thresholds: Vec<Graded>,
    /// What the store says; `None` when it was not looked at.
    pub proof: Option<Proof>,
    /// What a daemon of the run's own left behind.
    #[serde(default)]
    pub remains: Remains,
    /// Why the figures may not mean what they seem to.
    pub warnings: Vec<Warning>,
    /// Floors, where they were measured.
    pub floor: Option<FloorReport>,
}

/// What measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// `jitauth`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from, where the build knew.
    pub commit: Option<String>,
    /// `release` or `debug`.
    pub build: String,
    /// The command line, where a command was given.
    pub command: Option<String>,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioLine {
    /// Its name.
    pub name: String,
    /// The question it answers.
    pub question: String,
    /// Every setting.
    pub workload: BTreeMap<String, String>,
    /// Twelve hexadecimal digits of the workload and the target's kind.
    pub workload_digest: String,
}

/// Who was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetLine {
    /// `http`, `amqp` or `inproc`.
    pub kind: String,
    /// Whether the run started it, with a store of its own.
    pub spawned: bool,
    /// `postgresql` or `sqlite`; `None` when it is not known.
    pub store: Option<String>,
    /// What survives a power cut, as the store states it.
    pub durability: Option<String>,
    /// `quorum` or `classic`, where a broker is between.
    pub queue_type: Option<String>,
    /// The profile that it is graded against.
    pub profile: String,
    /// Lanes; 0 when it is not known, as of a daemon that runs already.
    pub lanes: usize,
    /// Decisions in one commit, at most; 0 when it is not known.
    pub batch_max: usize,
    /// Digest of the configuration; empty when it is not known.
    pub configuration: String,
    /// `off`: what the run starts uses no Redis, whatever the profile says. `None` when it is not known.
    #[serde(default)]
    pub redis: Option<String>,
}

/// How fast it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Requests that were due, a second of the measurement.
    pub offered_per_s: f64,
    /// Answers, a second from the first request due to the last answer.
    pub achieved_per_s: f64,
    /// Seconds measured.
    pub measured_s: f64,
    /// Whether less was achieved than offered.
    pub saturated: bool,
    /// How late requests were sent; included in the response time.
    pub lag: Latency,
    /// Requests that waited because too many were under way.
    pub held_back: u64,
    /// Whether a closed loop had sent all there was before its time was up; it was measured until then.
    #[serde(default)]
    pub ran_out: bool,
}

/// Processor time from the first request to the last answer, warm-up included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Of the process that measures; in process, what decides is part of it.
    pub generator_s: f64,
    /// Of the daemon, where the run started it.
    pub daemon_s: Option<f64>,
    /// All that there was: cores times the time it took.
    pub available_s: f64,
}

/// What became of every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Handed to the target, warm-up included.
    pub sent: u64,
    /// Of these, answered.
    pub answered: u64,
    /// Due, and never sent: nothing under way came to an end any more.
    pub unsent: u64,
    /// Sent and not answered.
    pub lost: u64,
    /// Answers to requests that had one.
    pub duplicated: u64,
    /// Answers that nobody asked for, that cannot be read, that contradict an earlier one or the request, and refusals.
    pub unexpected: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Declines for reasons of ours: `system_unavailable`, `system_error`, `deadline_exceeded`.
    pub errors: u64,
    /// Approvals that came when the requester had hung up. Later answers with the bytes of an earlier one do not count.
    #[serde(default)]
    pub late_approvals: u64,
    /// Second answers to an id with the same bytes.
    pub replays_identical: u64,
    /// With other bytes.
    pub replays_differing: u64,
    /// Answered after the warm-up.
    pub measured: u64,
    /// Examples of what is unexpected.
    pub examples: Vec<String>,
}

/// A distribution of times, microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Measurements.
    pub count: u64,
    /// Shortest.
    pub min_us: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Standard deviation.
    pub stdev_us: f64,
    /// [`Latency::PERCENTILES`] by name.
    pub percentiles_us: BTreeMap<String, u64>,
    /// Longest.
    pub max_us: u64,
    /// The whole curve: quantile and value, finer towards 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(f64, u64)>,
    /// The histogram itself: HdrHistogram V2, compressed, base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub histogram: String,
}

/// One of the daemon's spans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub span: String,
    /// `answers` when each answer told it, `report` when the daemon was asked afterwards.
    pub source: String,
    /// What time a report is about, from and to; answers are about the measured requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stretch: Option<(String, String)>,
    /// How long it took.
    pub latency: Latency,
    /// What the profile promises.
    pub budget: Option<Budget>,
    /// Whether that was kept.
    pub verdict: Option<Verdict>,
}

/// A second of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// Counted from the start of the warm-up.
    pub second: u64,
    /// Whether it counts.
    pub measured: bool,
    /// Requests due in it.
    pub offered: u64,
    /// Answers given in it.
    pub answered: u64,
    /// Of the requests due in it: declined for reasons of ours.
    pub errors: u64,
    /// Of the requests due in it: never answered.
    pub lost: u64,
    /// Median response time of the requests due in it.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Longest.
    pub max_us: u64,
}

/// Answers by second and latency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heatmap {
    /// Upper bounds of the buckets, microseconds; the last bucket has none.
    pub bounds_us: Vec<u64>,
    /// For each second of [`Summary::seconds`], how many of the requests due in it fall into each bucket.
    pub rows: Vec<Vec<u64>>,
}

/// The highest rate that was kept up with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Requests a second, over the best three seconds on end.
    pub rate_per_s: f64,
    /// The bound on the 99th percentile that counts as keeping up.
    pub p99_bound_us: u64,
    /// Whether the bound was passed at all: if not, the ceiling is higher.
    pub reached: bool,
    /// How it was searched for, where `bench ceiling` did. Then speeds in the summary are those of the step that was kept last, and
    /// requests are those of all steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<CeilingSearch>,
}

/// The search for a ceiling, step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CeilingSearch {
    /// Whether the rate was kept a second time.
    pub confirmed: bool,
    /// Whether requests left late at the next higher rate: then what decides may do more.
    pub generator: bool,
    /// [`CeilingSearch::confirmed`] of the broker's echo, where one is between.
    pub echo_confirmed: Option<bool>,
    /// [`CeilingSearch::generator`] of the broker's echo.
    pub echo_generator: Option<bool>,
    /// In the order they were taken: of the daemon and of the echo in turn.
    pub steps: Vec<CeilingStep>,
}

/// A stretch at one rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CeilingStep {
    /// `daemon` (or the pipeline in this process), or `echo`.
    pub of: String,
    /// Requests offered a second.
    pub rate_per_s: u32,
    /// Answers a second.
    pub achieved_per_s: f64,
    /// Median response time.
    pub p50_us: u64,
    /// 99th percentile of the response time.
    pub p99_us: u64,
    /// Of the service time: from the actual sending.
    pub service_p99_us: u64,
    /// Of how late requests were sent.
    pub lag_p99_us: u64,
    /// Requests without an answer.
    pub lost: u64,
    /// Declines for reasons of ours.
    pub errors: u64,
    /// Whether it was kept up with.
    pub kept: bool,
    /// Why not.
    pub why: Option<String>,
}

impl CeilingStep {
    /// The step in a line, for people.
    #[must_use]
    pub fn told(&self) -> String {
        let why = self.why.as_ref().map_or_else(|| "kept".to_owned(), |why| format!("not kept: {why}"));
        let millis = |us: u64| format!("{}.{}", us / 1_000, us % 1_000 / 100);
        format!("{} at {} a second: p50 {} ms, p99 {} ms, {why}", self.of, self.rate_per_s, millis(self.p50_us), millis(self.p99_us))
    }
}

/// What a daemon of the run's own left behind. There should be nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remains {
    /// Messages by queue, where there are any: requests that nobody took, dead letters, answers that nobody asked for.
    pub queues: BTreeMap<String, u64>,
    /// How it ended, if not well, with the end of its log.
    pub ended: Option<String>,
}

/// Why figures may not mean what they seem to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// A word for machines.
    pub code: String,
    /// A sentence for people.
    pub text: String,
}

impl Requests {
    /// Adds those of another stretch.
    pub fn join(&mut self, more: &Self) {
        self.sent += more.sent;
        self.answered += more.answered;
        self.unsent += more.unsent;
        self.lost += more.lost;
        self.duplicated += more.duplicated;
        self.unexpected += more.unexpected;
        self.retries += more.retries;
        self.errors += more.errors;
        self.late_approvals += more.late_approvals;
        self.replays_identical += more.replays_identical;
        self.replays_differing += more.replays_differing;
        self.measured += more.measured;
        self.examples.extend(more.examples.iter().cloned());
    }
}

impl Latency {
    /// The percentiles that are told, by name and quantile.
    pub const PERCENTILES: [(&'static str, f64); 7] =
        [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

    /// Figures, curve and histogram.
    #[must_use]
    pub fn whole(times: &Histogram<u64>) -> Self {
        let steps = times.iter_quantiles(5).map(|step| (rounded(step.quantile_iterated_to(), 7), step.value_iterated_to()));
        let mut bytes = Vec::new();
        // Writing to memory fails for histograms that do not fit into it only.
        let histogram = V2DeflateSerializer::new().serialize(times, &mut bytes).map(|_| STANDARD.encode(&bytes)).unwrap_or_default();
        Self { curve: steps.collect(), histogram, ..Self::figures(times) }
    }

    /// Figures only.
    #[must_use]
    pub fn figures(times: &Histogram<u64>) -> Self {
        if times.is_empty() {
            return Self::default();
        }
        Self {
            count: times.len(),
            min_us: times.min(),
            mean_us: rounded(times.mean(), 1),
            stdev_us: rounded(times.stdev(), 1),
            percentiles_us: Self::PERCENTILES.map(|(name, quantile)| (name.to_owned(), times.value_at_quantile(quantile))).into(),
            max_us: times.max(),
            ..Self::default()
        }
    }

    /// A percentile by name; 0 when nothing was measured.
    #[must_use]
    pub fn percentile(&self, name: &str) -> u64 {
        self.percentiles_us.get(name).copied().unwrap_or(0)
    }

    /// A figure; `None` when nothing was measured.
    #[must_use]
    pub fn stat(&self, stat: Stat) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        Some(match stat {
            Stat::Min => self.min_us as f64,
            Stat::Mean => self.mean_us,
            Stat::Max => self.max_us as f64,
            Stat::Percentile(position) => *self.percentiles_us.get(Self::PERCENTILES[position].0)? as f64,
        })
    }
}

impl Summary {
    /// Whether everything is right and every threshold holds.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// What is wrong though nothing was asked about speed: these make a run fail however fast it was.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let requests = &self.requests;
        let mut faults: Vec<String> = [
            (requests.lost, "requests had no answer"),
            (requests.duplicated, "requests had more than one answer"),
            (requests.unexpected, "answers were not what was asked for"),
            (requests.unsent, "requests could not be sent"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        if requests.answered == 0 {
            faults.push("nothing was answered".to_owned());
        } else if requests.measured == 0 {
            faults.push("nothing was answered after the warm-up, so that nothing was measured".to_owned());
        }
        faults.extend(self.remains.queues.iter().map(|(queue, count)| format!("{count} messages were left in {queue}")));
        faults.extend(self.remains.ended.clone());
        if let Some(proof) = &self.proof {
            if proof.decisions == 0 {
                faults.push("the store has no decision of this run: it is not the store of this daemon".to_owned());
            }
            faults.extend(proof.faults().map(|(what, count)| format!("the store: {count} {what}")));
        }
        faults.extend(self.troubles.iter().cloned());
        faults
    }
}

pub(super) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
#[path = "summary_tests.rs"]
pub(crate) mod tests;
