//! From what was written down to figures.

use super::{
    pacer::Pace,
    record::{Record, Seen, histogram},
    scenario::{Arrival, Scenario},
    summary::{Ceiling, Heatmap, Latency, Rate, Requests, Second, rounded},
};
use crate::{domain::reason::ReasonClass, telemetry::heat};
use hdrhistogram::{
    AdditionError, Histogram,
    serialization::{Deserializer, Serializer, V2Serializer},
};
use std::{collections::BTreeMap, time::Duration};

/// Seconds on end that a ceiling has to be held.
const CEILING_SECONDS: usize = 3;
/// The share of what is offered that has to be answered as fast as it comes.
const KEPT_UP: f64 = 0.98;
/// Answers that may come a little after the end by chance, however few there are.
const FEW: u64 = 3;

/// Everything that follows from the sendings.
#[derive(Clone, Debug)]
pub struct Measured {
    /// How fast.
    pub rate: Rate,
    /// What became of every request.
    pub requests: Requests,
    /// Answers, by decision.
    pub decisions: BTreeMap<String, u64>,
    /// Declines, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// From the intended moment of sending.
    pub response: Histogram<u64>,
    /// From the actual sending.
    pub service: Histogram<u64>,
    /// How late requests were sent.
    pub lag: Histogram<u64>,
    /// Response times of the requests due in each second, the warm-up included.
    pub by_second: Vec<Packed>,
    /// Each second.
    pub seconds: Vec<Second>,
    /// Answers by second and latency.
    pub heatmap: Heatmap,
    /// The highest rate that was kept up with, where the rate grew: the middle one of all stretches.
    pub ceiling: Option<Ceiling>,
    /// Every stretch of load, in order: one, but where several were [joined](Measured::join).
    pub stretches: Vec<Stretch>,
}

/// Load without a break.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    /// Where its seconds begin among all.
    pub first_second: usize,
    /// When it began, by the wall clock: microseconds since 1970.
    pub began_us: i64,
    /// Its own ceiling.
    pub ceiling: Option<Ceiling>,
}

/// A histogram that takes up little: one of a second is mostly empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed(Vec<u8>);

impl Packed {
    /// Packs it.
    #[must_use]
    pub fn new(times: &Histogram<u64>) -> Self {
        let mut bytes = Vec::new();
        if !times.is_empty() {
            // Fails for histograms that do not fit into memory only.
            V2Serializer::new().serialize(times, &mut bytes).unwrap_or_default();
        }
        Self(bytes)
    }

    /// As it was.
    #[must_use]
    pub fn unpack(&self) -> Histogram<u64> {
        Deserializer::new().deserialize(&mut self.0.as_slice()).unwrap_or_else(|_| histogram())
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Works it out.
#[must_use]
pub fn measure(scenario: &Scenario, record: &Record, pace: &Pace) -> Measured {
    let mut sums = Sums::new(scenario.arrival == Arrival::Closed);
    for seen in record.seen() {
        sums.add(&seen);
        sums.late_approvals += u64::from(is_late_approval(scenario, &seen));
    }
    sums.turn_to(usize::MAX);
    let totals = record.totals();
    let requests = Requests {
        sent: totals.sent,
        answered: totals.answered,
        unsent: sums.unsent,
        lost: sums.lost,
        duplicated: totals.duplicated,
        unexpected: totals.unexpected,
        retries: totals.retries,
        errors: sums.errors,
        late_approvals: sums.late_approvals,
        replays_identical: totals.identical,
        replays_differing: totals.differing,
        measured: sums.response.len(),
        examples: record.examples(),
    };
    let ceiling = scenario.ramp_to_per_s.and_then(|_| ceiling(scenario, &sums.seconds));
    Measured {
        rate: rate(scenario, pace, &sums),
        requests,
        stretches: vec![Stretch { first_second: 0, began_us: pace.began_us, ceiling: ceiling.clone() }],
        ceiling,
        decisions: sums.decisions,
        reasons: sums.reasons,
        response: sums.response,
        service: sums.service,
        lag: sums.lag,
        by_second: sums.by_second,
        seconds: sums.seconds,
        heatmap: Heatmap { bounds_us: sums.heat_bounds, rows: sums.heat_rows },
    }
}

impl Measured {
    /// Adds a later stretch of the same load: distributions and counts are joined, rates are the mean, seconds follow each other.
    ///
    /// # Errors
    /// Histograms with other bounds, of which there are none here.
    pub fn join(&mut self, later: &Self) -> Result<(), AdditionError> {
        for (sum, more) in [(&mut self.response, &later.response), (&mut self.service, &later.service), (&mut self.lag, &later.lag)] {
            sum.add(more)?;
        }
        let (sum, more) = (&mut self.rate, &later.rate);
        let whole = sum.measured_s + more.measured_s;
        let mean = |one: f64, other: f64| rounded((one * sum.measured_s + other * more.measured_s) / whole, 1);
        let (offered, achieved) = (mean(sum.offered_per_s, more.offered_per_s), mean(sum.achieved_per_s, more.achieved_per_s));
        self.rate = Rate {
            offered_per_s: offered,
            achieved_per_s: achieved,
            measured_s: whole,
            saturated: sum.saturated || more.saturated,
            lag: Latency::figures(&self.lag),
            held_back: sum.held_back + more.held_back,
            ran_out: sum.ran_out || more.ran_out,
        };
        self.requests.join(&later.requests);
        for (sum, more) in [(&mut self.decisions, &later.decisions), (&mut self.reasons, &later.reasons)] {
            for (name, count) in more {
                *sum.entry(name.clone()).or_default() += count;
            }
        }
        let before = self.seconds.len();
        self.seconds.extend(later.seconds.iter().map(|second| Second { second: before as u64 + second.second, ..second.clone() }));
        let later_stretches = later.stretches.iter().cloned();
        self.stretches.extend(later_stretches.map(|stretch| Stretch { first_second: before + stretch.first_second, ..stretch }));
        self.by_second.extend(later.by_second.iter().cloned());
        self.heatmap.rows.extend(later.heatmap.rows.iter().cloned());
        self.ceiling = middle(&self.stretches);
        Ok(())
    }
}

/// The median of the stretches' ceilings; `None` if one has none. It is reached if all of them were.
fn middle(stretches: &[Stretch]) -> Option<Ceiling> {
    let ceilings: Vec<&Ceiling> = stretches.iter().map(|stretch| stretch.ceiling.as_ref()).collect::<Option<_>>()?;
    let rates: Vec<f64> = ceilings.iter().map(|ceiling| ceiling.rate_per_s).collect();
    let reached = ceilings.iter().all(|ceiling| ceiling.reached);
    Some(Ceiling { rate_per_s: rounded(median(&rates)?, 1), reached, ..(*ceilings.first()?).clone() })
}

/// The middle value, or what is between the two in the middle.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[half - 1], upper) })
}

struct Sums {
    closed: bool,
    response: Histogram<u64>,
    service: Histogram<u64>,
    lag: Histogram<u64>,
    by_second: Vec<Packed>,
    /// The second that is being counted, and its response times.
    current: (usize, Histogram<u64>),
    heat_bounds: Vec<u64>,
    heat_rows: Vec<Vec<u64>>,
    seconds: Vec<Second>,
    decisions: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
    offered: u64,
    lost: u64,
    errors: u64,
    late_approvals: u64,
    unsent: u64,
    /// When each answer came, the warm-up's too, microseconds from the start.
    answered_us: Vec<u64>,
}

impl Sums {
    fn new(closed: bool) -> Self {
        Self {
            closed,
            response: histogram(),
            service: histogram(),
            lag: histogram(),
            by_second: Vec::new(),
            current: (0, histogram()),
            heat_bounds: heat::bounds_us(),
            heat_rows: Vec::new(),
            seconds: Vec::new(),
            decisions: BTreeMap::new(),
            reasons: BTreeMap::new(),
            offered: 0,
            lost: 0,
            errors: 0,
            late_approvals: 0,
            unsent: 0,
            answered_us: Vec::new(),
        }
    }

    fn add(&mut self, seen: &Seen) {
        let Some(lag_us) = seen.lag_us else { return self.unsent(seen) };
        let due_us = u64::try_from(seen.due.as_micros()).unwrap_or(u64::MAX);
        let system = seen.outcome.and_then(super::record::Outcome::reason).is_some_and(|reason| reason.class() == ReasonClass::System);
        let second = self.second(seen);
        second.offered += 1;
        second.errors += u64::from(system);
        second.lost += u64::from(seen.response_us.is_none());
        self.lost += u64::from(seen.response_us.is_none());
        self.errors += u64::from(system);
        if seen.measured {
            self.offered += 1;
            self.lag.saturating_record(u64::from(lag_us));
        }
        let Some(response_us) = seen.response_us.map(u64::from) else { return };
        let second = usize::try_from(due_us / 1_000_000).unwrap_or(0);
        self.turn_to(second);
        self.current.1.saturating_record(response_us);
        let answered = usize::try_from((due_us + response_us) / 1_000_000).unwrap_or(0);
        self.grow(answered);
        self.seconds[answered].answered += 1;
        self.answered_us.push(due_us + response_us);
        if seen.measured {
            self.response.saturating_record(response_us);
            self.service.saturating_record(response_us.saturating_sub(u64::from(lag_us)));
            if let Some(outcome) = seen.outcome {
                *self.decisions.entry(outcome.decision().name().to_owned()).or_default() += 1;
                if let Some(reason) = outcome.reason() {
                    *self.reasons.entry(reason.name().to_owned()).or_default() += 1;
                }
            }
        }
    }

    /// Due, and never sent, whoever is to blame. In a closed loop there is always more than can be sent, and what is due is known.
    fn unsent(&mut self, seen: &Seen) {
        if !self.closed || !seen.due.is_zero() {
            self.unsent += 1;
            self.second(seen).offered += 1;
            self.offered += u64::from(seen.measured);
        }
    }

    fn second(&mut self, seen: &Seen) -> &mut Second {
        let at = usize::try_from(seen.due.as_secs()).unwrap_or(0);
        self.grow(at);
        let second = &mut self.seconds[at];
        second.measured |= seen.measured;
        second
    }

    fn grow(&mut self, to: usize) {
        while self.seconds.len() <= to {
            self.seconds.push(Second { second: self.seconds.len() as u64, ..Second::default() });
            self.by_second.push(Packed::default());
            self.heat_rows.push(vec![0; self.heat_bounds.len() + 1]);
        }
    }

    /// Packs what was counted of a second, and goes on with another one. They come in order, so each is packed once.
    fn turn_to(&mut self, next: usize) {
        let (at, times) = (self.current.0, &mut self.current.1);
        if at == next {
            return;
        }
        if let Some(second) = self.seconds.get_mut(at) {
            second.p50_us = times.value_at_quantile(0.5);
            second.p99_us = times.value_at_quantile(0.99);
            second.max_us = times.max();
            self.heat_rows[at] = heat::row(times, &self.heat_bounds);
            self.by_second[at] = Packed::new(times);
        }
        *times = self.by_second.get(next).map_or_else(histogram, Packed::unpack);
        self.current.0 = next;
    }
}

/// Whether it approves what nobody waits for any more. The bytes of an earlier answer are sent again however late it is.
fn is_late_approval(scenario: &Scenario, seen: &Seen) -> bool {
    let (Some(response_us), Some(lag_us)) = (seen.response_us, seen.lag_us) else { return false };
    // In a closed loop a request does not say when it was sent: its time counts from when it is there.
    let waited_us = if scenario.arrival == Arrival::Closed { response_us.saturating_sub(lag_us) } else { response_us };
    let approved = seen.outcome.is_some_and(super::record::Outcome::holds);
    approved && !seen.again && Duration::from_micros(u64::from(waited_us)) > scenario.deadline
}

fn rate(scenario: &Scenario, pace: &Pace, sums: &Sums) -> Rate {
    let measured_s = match pace.ran_out {
        true => pace.sending.saturating_sub(scenario.warm_up).as_secs_f64().clamp(1e-6, scenario.duration.as_secs_f64()),
        false => scenario.duration.as_secs_f64(),
    };
    // Who keeps up answers at the rate that is offered, as much later as an answer takes; in a closed loop, as soon as it is asked.
    let median_us = sums.response.lowest_equivalent(sums.response.value_at_quantile(0.5));
    let takes_us = if sums.closed { 0 } else { median_us };
    let from_us = u64::try_from(scenario.warm_up.as_micros()).unwrap_or(u64::MAX).saturating_add(takes_us);
    let to_us = from_us.saturating_add((measured_s * 1e6) as u64);
    let answered = sums.answered_us.iter().filter(|at| (from_us..to_us).contains(at)).count() as u64;
    let (offered, achieved) = (sums.offered as f64 / measured_s, answered as f64 / measured_s);
    Rate {
        offered_per_s: rounded(offered, 1),
        achieved_per_s: rounded(achieved, 1),
        measured_s,
        saturated: achieved < offered * KEPT_UP && sums.offered.saturating_sub(answered) > FEW,
        lag: Latency::figures(&sums.lag),
        held_back: pace.held_back,
        ran_out: pace.ran_out,
    }
}

/// The best rate that was answered over some seconds on end while the 99th percentile stayed below the bound and nothing was lost.
/// A ramp that has left the ceiling behind does not come back to it: what is good after the first bad second does not count.
fn ceiling(scenario: &Scenario, seconds: &[Second]) -> Option<Ceiling> {
    let bound = u64::try_from(scenario.ceiling_p99.as_micros()).unwrap_or(u64::MAX);
    let measured: Vec<&Second> = seconds.iter().filter(|second| second.measured).collect();
    let good = |window: &&[&Second]| {
        let slow = window.iter().filter(|second| second.p99_us >= bound).count();
        let wrong = window.iter().any(|second| second.lost > 0 || second.errors > 0);
        // One slow second, a checkpoint for instance, is not the ceiling. One with requests that were lost or turned away is.
        slow * 2 < window.len() && !wrong
    };
    let kept = measured.windows(CEILING_SECONDS).take_while(good).last();
    let best = kept.map(|window| window.iter().map(|second| second.answered).sum::<u64>() as f64 / window.len() as f64);
    let reached = !measured.windows(CEILING_SECONDS).all(|window| good(&window));
    (measured.len() >= CEILING_SECONDS).then(|| Ceiling {
        rate_per_s: rounded(best.unwrap_or(0.0), 1),
        p99_bound_us: bound,
        reached,
        search: None,
    })
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
