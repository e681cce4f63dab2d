//! Why figures may not mean what they seem to.

use super::{
    environment::Environment,
    proof::Proof,
    scenario::{Arrival, Funds},
    summary::{Latency, Rate, Requests, Warning},
};
use std::collections::BTreeMap;

/// What warnings are made of.
#[derive(Clone, Debug)]
pub struct Circumstances<'a> {
    /// How fast it was.
    pub rate: &'a Rate,
    /// What became of every request.
    pub requests: &'a Requests,
    /// Answers, by decision.
    pub decisions: &'a BTreeMap<String, u64>,
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
    /// What the store says; `None` when it was not looked at.
    pub proof: Option<&'a Proof>,
    /// Whether the run started what decides.
    pub spawned: bool,
    /// How much money the scenario asks for.
    pub funds: Funds,
    /// Whether what decides ended well.
    pub settled: bool,
}

/// Lag above which the generator counts as late, microseconds: as much as the answers take.
const LAG_MAX_US: u64 = 1_000;
/// Share of the processors' time that something else may use.
const BUSY_MAX: f64 = 0.2;
/// Samples above a percentile below which it says little.
pub(super) const SAMPLES_MIN: u64 = 100;

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
        rate.held_back == 0 && lag > LAG_MAX_US && it.arrival != Arrival::Closed,
        "generator_fell_behind",
        format!(
            "the generator fell behind: 1 % of the requests went out more than {lag} µs late; response times include that, so read \
             them as an overload of this machine"
        ),
    );
    let (rarely, slow) = (rate.lag.percentile("p99.9"), it.response.percentile("p99.9"));
    warn(
        rate.held_back == 0 && lag <= LAG_MAX_US && rarely > LAG_MAX_US && rarely * 2 > slow && it.arrival != Arrival::Closed,
        "generator_paused",
        format!(
            "the generator paused: one request in a thousand went out more than {rarely} µs late, which is most of what p99.9 and above show"
        ),
    );
    warn(
        rate.held_back > 0,
        "in_flight_full",
        format!(
            "{} requests were held back because as many were under way as may be: answers came too slowly, and response times include \
             the wait",
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
    warn(
        rate.ran_out,
        "ran_out_of_requests",
        format!("the closed loop had sent all its requests after {} s and was measured until then: raise --rate", rate.measured_s),
    );
    let late = it.requests.late_approvals;
    warn(
        late > 0,
        "late_approvals",
        format!("{late} approvals came when the requester had hung up: their money is held until somebody settles it"),
    );
    let declined = it.decisions.get("declined").copied().unwrap_or(0);
    let decided: u64 = it.decisions.values().sum();
    warn(
        declined * 2 > decided,
        "mostly_declined",
        format!("{declined} of {decided} measured answers are declines, which cost less than approvals: see the reasons"),
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
    let busy = it.environment.busy_before.unwrap_or(0.0);
    warn(
        busy > BUSY_MAX,
        "machine_busy",
        format!("the machine was busy with something else just before the run: {:.0} % of its processors' time", busy * 100.0),
    );
    warn(
        !it.spawned && it.funds == Funds::Plenty,
        "funds_not_applied",
        "the store was used as it is: money and limits may have run out, though the scenario asks for plenty".to_owned(),
    );
    let holds = it.proof.map_or(0, |proof| proof.holds);
    warn(!it.spawned && holds > 0, "holds_remain", format!("{holds} holds of this run stay in the store, and so do its decisions"));
    warn(it.proof.is_none(), "not_proved", "the store was not looked at: nothing is proved about balances and limits".to_owned());
    warn(!it.settled, "not_settled", "what decides did not end in time: the store may have been looked at too early".to_owned());
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    fn check(
        change: impl FnOnce(&mut Rate, &mut Latency, &mut Environment),
        adapt: impl FnOnce(&mut Circumstances<'_>),
        expected: &[&str],
    ) {
        let lag = Latency { count: 1, percentiles_us: BTreeMap::from([("p99".to_owned(), 200)]), ..Latency::default() };
        let mut rate = Rate { offered_per_s: 100.0, achieved_per_s: 100.0, lag, ..Rate::default() };
        let mut response = Latency { count: 2_000_000, ..Latency::default() };
        let mut environment = Environment { cores: 2, busy_before: Some(0.2), ..Environment::default() };
        change(&mut rate, &mut response, &mut environment);
        let (requests, decisions, proof) = (Requests::default(), BTreeMap::new(), Proof { holds: 7, ..Proof::default() });
        let mut it = Circumstances {
            rate: &rate,
            requests: &requests,
            decisions: &decisions,
            response: &response,
            arrival: Arrival::Poisson,
            environment: &environment,
            queue_depth: 0,
            debug_build: false,
            proof: Some(&proof),
            spawned: true,
            funds: Funds::Plenty,
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
        let paused = |us: u64| {
            move |rate: &mut Rate, response: &mut Latency, _: &mut Environment| {
                rate.lag.percentiles_us.insert("p99.9".to_owned(), us);
                response.percentiles_us.insert("p99.9".to_owned(), 100_000);
            }
        };
        check(paused(50_001), |_| (), &["generator_paused"]);
        check(paused(50_000), |_| (), &[]);
        check(|rate, _, _| rate.held_back = 1, |_| (), &["in_flight_full"]);
        check(|rate, _, _| rate.saturated = true, |_| (), &["saturated"]);
        check(lag(9_000), |it| it.arrival = Arrival::Closed, &["closed_loop"]);
        check(|rate, _, _| rate.ran_out = true, |_| (), &["ran_out_of_requests"]);
        check(|_, _, _| (), |it| it.queue_depth = 3, &["queue_not_empty"]);
        check(|_, response, _| response.count = 100_000, |_| (), &["few_samples"]);
        check(|_, _, _| (), |it| it.debug_build = true, &["debug_build"]);
        check(|_, _, environment| environment.busy_before = Some(0.21), |_| (), &["machine_busy"]);
        check(|_, _, _| (), |it| it.proof = None, &["not_proved"]);
        check(|_, _, _| (), |it| it.settled = false, &["not_settled"]);
        check(|_, _, _| (), |it| it.spawned = false, &["funds_not_applied", "holds_remain"]);
        check(|_, _, _| (), |it| (it.spawned, it.funds) = (false, Funds::AsSeeded), &["holds_remain"]);
    }

    #[test]
    fn answers_that_are_late_or_mostly_declines_have_theirs() {
        let (rate, response, environment) = (Rate::default(), Latency { count: 2_000_000, ..Latency::default() }, Environment::default());
        for (late_approvals, approved, declined, expected) in
            [(0, 51, 51, [].as_slice()), (0, 50, 51, &["mostly_declined"]), (1, 1, 0, &["late_approvals"])]
        {
            let requests = Requests { late_approvals, ..Requests::default() };
            let proof = Proof::default();
            let decisions = BTreeMap::from([("approved".to_owned(), approved), ("declined".to_owned(), declined)]);
            let it = Circumstances {
                rate: &rate,
                requests: &requests,
                decisions: &decisions,
                response: &response,
                arrival: Arrival::Poisson,
                environment: &environment,
                queue_depth: 0,
                debug_build: false,
                proof: Some(&proof),
                spawned: true,
                funds: Funds::Plenty,
                settled: true,
            };
            let found = warnings(&it);
            assert_eq!(found.iter().map(|warning| warning.code.as_str()).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn the_first_percentile_with_too_few_samples_is_named() {
        for (count, name) in [(150, "p50"), (9_999, "p99"), (99_999, "p99.9"), (999_999, "p99.99")] {
            let (rate, response, environment) = (Rate::default(), Latency { count, ..Latency::default() }, Environment::default());
            let (requests, decisions, proof) = (Requests::default(), BTreeMap::new(), Proof { holds: 7, ..Proof::default() });
            let it = Circumstances {
                rate: &rate,
                requests: &requests,
                decisions: &decisions,
                response: &response,
                arrival: Arrival::Poisson,
                environment: &environment,
                queue_depth: 0,
                debug_build: false,
                proof: Some(&proof),
                spawned: true,
                funds: Funds::Plenty,
                settled: true,
            };
            let text = warnings(&it).pop().map(|warning| warning.text).unwrap_or_default();
            assert!(text.contains(&format!("above {name}:")), "{count}: {text}");
        }
    }
}
