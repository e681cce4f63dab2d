//! Why figures may not mean what they seem to.

use super::{
    environment::Environment,
    scenario::Arrival,
    summary::{Latency, Rate, Warning},
};

/// What warnings are made of.
#[derive(Clone, Debug)]
pub struct Circumstances<'a> {
    /// How fast it was.
    pub rate: &'a Rate,
    /// Response times.
    pub response: &'a Latency,
    /// How requests followed each other.
    pub arrival: Arrival,
    /// Where.
    pub environment: &'a Environment,
    /// Messages left in the request queue.
    pub queue_depth: u32,
    /// Whether what measured was built for debugging.
    pub debug_build: bool,
    /// Whether the store was looked at.
    pub proved: bool,
    /// Whether what decides ended well.
    pub settled: bool,
}

/// Lag above which the generator counts as late, microseconds: as much as the answers take.
const LAG_MAX_US: u64 = 1_000;
/// Samples above a percentile below which it says little.
const SAMPLES_MIN: u64 = 100;

/// All that apply.
#[must_use]
pub fn warnings(it: &Circumstances<'_>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |applies: bool, code: &str, text: String| {
        if applies {
            warnings.push(Warning { code: code.to_owned(), text });
        }
    };
    let (rate, lag) = (it.rate, it.rate.lag.percentile("p99"));
    warn(
        rate.held_back > 0 || (lag > LAG_MAX_US && it.arrival != Arrival::Closed),
        "generator_fell_behind",
        format!(
            "the generator fell behind: 1 % of the requests went out more than {lag} µs late and {} were held back; response times \
             include that, so read them as an overload of this machine",
            rate.held_back
        ),
    );
    warn(
        rate.saturated && it.arrival != Arrival::Closed,
        "saturated",
        format!(
            "{} requests a second were offered and {} answered: response times grow with the length of the run",
            rate.offered_per_s, rate.achieved_per_s
        ),
    );
    warn(
        it.arrival == Arrival::Closed,
        "closed_loop",
        "the loop was closed: whoever waits sends nothing, so that a stall hides behind the requests it holds up".to_owned(),
    );
    warn(it.queue_depth > 0, "queue_not_empty", format!("{} requests were left in the queue at the end", it.queue_depth));
    let few = |(_, quantile): &&(&str, f64)| (it.response.count as f64 * (1.0 - quantile)) < SAMPLES_MIN as f64;
    let first = Latency::PERCENTILES.iter().find(few);
    warn(
        first.is_some(),
        "few_samples",
        format!(
            "fewer than {SAMPLES_MIN} of {} answers lie above {}: from there on the percentiles are single requests",
            it.response.count,
            first.map_or("", |(name, _)| *name)
        ),
    );
    warn(it.debug_build, "debug_build", "a debug build was measured: build with --release".to_owned());
    let (load, cores) = (it.environment.load_before.unwrap_or(0.0), it.environment.cores);
    warn(load > cores as f64 * 0.5, "machine_busy", format!("the machine was busy before the run: load {load} on {cores} cores"));
    warn(!it.proved, "not_proved", "the store was not looked at: nothing is proved about balances and limits".to_owned());
    warn(!it.settled, "not_settled", "what decides did not end in time: the store may have been looked at too early".to_owned());
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn check(
        change: impl FnOnce(&mut Rate, &mut Latency, &mut Environment),
        adapt: impl FnOnce(&mut Circumstances<'_>),
        expected: &[&str],
    ) {
        let lag = Latency { count: 1, percentiles_us: BTreeMap::from([("p99".to_owned(), 200)]), ..Latency::default() };
        let mut rate = Rate { offered_per_s: 100.0, achieved_per_s: 100.0, lag, ..Rate::default() };
        let mut response = Latency { count: 2_000_000, ..Latency::default() };
        let mut environment = Environment { cores: 2, load_before: Some(0.5), ..Environment::default() };
        change(&mut rate, &mut response, &mut environment);
        let mut it = Circumstances {
            rate: &rate,
            response: &response,
            arrival: Arrival::Poisson,
            environment: &environment,
            queue_depth: 0,
            debug_build: false,
            proved: true,
            settled: true,
        };
        adapt(&mut it);
        let found = warnings(&it);
        assert_eq!(found.iter().map(|warning| warning.code.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn each_circumstance_has_its_warning() {
        let lag = |us: u64| {
            move |rate: &mut Rate, _: &mut Latency, _: &mut Environment| {
                rate.lag.percentiles_us.insert("p99".to_owned(), us);
            }
        };
        check(|_, _, _| (), |_| (), &[]);
        check(lag(1_001), |_| (), &["generator_fell_behind"]);
        check(lag(1_000), |_| (), &[]);
        check(|rate, _, _| rate.held_back = 1, |_| (), &["generator_fell_behind"]);
        check(|rate, _, _| rate.saturated = true, |_| (), &["saturated"]);
        check(lag(9_000), |it| it.arrival = Arrival::Closed, &["closed_loop"]);
        check(|_, _, _| (), |it| it.queue_depth = 3, &["queue_not_empty"]);
        check(|_, response, _| response.count = 100_000, |_| (), &["few_samples"]);
        check(|_, _, _| (), |it| it.debug_build = true, &["debug_build"]);
        check(|_, _, environment| environment.load_before = Some(1.5), |_| (), &["machine_busy"]);
        check(|_, _, _| (), |it| it.proved = false, &["not_proved"]);
        check(|_, _, _| (), |it| it.settled = false, &["not_settled"]);
    }

    #[test]
    fn the_first_percentile_with_too_few_samples_is_named() {
        for (count, name) in [(150, "p50"), (9_999, "p99"), (99_999, "p99.9"), (999_999, "p99.99")] {
            let (rate, response, environment) = (Rate::default(), Latency { count, ..Latency::default() }, Environment::default());
            let it = Circumstances {
                rate: &rate,
                response: &response,
                arrival: Arrival::Poisson,
                environment: &environment,
                queue_depth: 0,
                debug_build: false,
                proved: true,
                settled: true,
            };
            let text = warnings(&it).pop().map(|warning| warning.text).unwrap_or_default();
            assert!(text.contains(&format!("above {name}:")), "{count}: {text}");
        }
    }
}
