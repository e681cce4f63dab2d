//! When each request is due, worked out before the first is sent.

use super::scenario::{Arrival, REQUESTS_MAX, Scenario};
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Exp1};
use std::time::Duration;

/// A stretch in which the rate goes in a straight line.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    seconds: f64,
    from_per_s: f64,
    to_per_s: f64,
}

impl Stretch {
    fn requests(&self) -> f64 {
        self.seconds * f64::midpoint(self.from_per_s, self.to_per_s)
    }

    /// When, in seconds after its start, so many requests of it are due.
    fn when(&self, requests: f64) -> f64 {
        let slope = (self.to_per_s - self.from_per_s) / self.seconds;
        if slope.abs() < 1e-9 {
            return requests / self.from_per_s;
        }
        // from t + slope t² / 2 = requests
        let root = (self.from_per_s * self.from_per_s + 2.0 * slope * requests).max(0.0).sqrt();
        (root - self.from_per_s) / slope
    }
}

/// The moments at which requests are due, counted from the start of the warm-up. The same scenario makes the same schedule.
///
/// In a closed loop there are none: all are due at once, and there are more of them than can be answered in the time.
#[must_use]
pub fn due_times(scenario: &Scenario) -> Vec<Duration> {
    if scenario.arrival == Arrival::Closed {
        return vec![Duration::ZERO; supply(scenario)];
    }
    let mut rng = StdRng::seed_from_u64(scenario.seed ^ SCHEDULE);
    let mut times = Vec::with_capacity(expected(scenario) as usize + 16);
    // Requests so far, were they divisible; one is due whenever it passes `next`.
    let (mut start, mut before) = (0.0, 0.0);
    let mut next = 0.0;
    for stretch in stretches(scenario) {
        let requests = stretch.requests();
        while next < before + requests {
            times.push(Duration::from_secs_f64(start + stretch.when(next - before)));
            next += if scenario.arrival == Arrival::Poisson { Exp1.sample(&mut rng) } else { 1.0 };
        }
        before += requests;
        start += stretch.seconds;
    }
    times
}

/// How many requests a scenario makes, on average.
#[must_use]
pub fn expected(scenario: &Scenario) -> f64 {
    stretches(scenario).iter().map(Stretch::requests).sum()
}

/// How many requests a closed loop may draw on. Should something be faster than this, the clock stops with the last of them.
fn supply(scenario: &Scenario) -> usize {
    let lasts = (scenario.warm_up + scenario.duration).as_secs_f64();
    let most = (CLOSED_PER_S.max(f64::from(scenario.rate_per_s)) * lasts).min(REQUESTS_MAX as f64);
    most.ceil() as usize
}

/// More decisions a second than a machine makes durable.
pub const CLOSED_PER_S: f64 = 60_000.0;
/// Sets the schedule's chance apart from the traffic's.
const SCHEDULE: u64 = 0x5ced_01e0_u64;

fn stretches(scenario: &Scenario) -> Vec<Stretch> {
    let (rate, duration) = (f64::from(scenario.rate_per_s), scenario.duration.as_secs_f64());
    let mut all = Vec::new();
    if !scenario.warm_up.is_zero() {
        all.push(Stretch { seconds: scenario.warm_up.as_secs_f64(), from_per_s: rate, to_per_s: rate });
    }
    let to = scenario.ramp_to_per_s.map_or(rate, f64::from);
    let at = |time: f64| rate + (to - rate) * time / duration;
    let Some(burst) = scenario.burst else {
        all.push(Stretch { seconds: duration, from_per_s: rate, to_per_s: to });
        return all;
    };
    // A burst ends each period, so that the first seconds show what is usual.
    let (every, length, mut time) = (burst.every.as_secs_f64(), burst.length.as_secs_f64(), 0.0);
    while time < duration {
        let calm = (every - length).min(duration - time);
        all.push(Stretch { seconds: calm, from_per_s: at(time), to_per_s: at(time + calm) });
        time += calm;
        let fast = length.min(duration - time);
        if fast > 0.0 {
            let rate = f64::from(burst.rate_per_s);
            all.push(Stretch { seconds: fast, from_per_s: rate, to_per_s: rate });
        }
        time += length;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scenario::Burst;

    fn scenario(rate_per_s: u32, arrival: Arrival) -> Scenario {
        let second = Duration::from_secs(1);
        Scenario { rate_per_s, arrival, warm_up: second, duration: 9 * second, ..Scenario::default() }
    }

    fn in_second(times: &[Duration], second: u64) -> usize {
        times.iter().filter(|time| time.as_secs() == second).count()
    }

    #[test]
    fn constant_arrivals_have_equal_distances() {
        let times = due_times(&scenario(50, Arrival::Constant));
        assert_eq!(times.len(), 500);
        assert!(times.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(Duration::from_millis(20)) < Duration::from_micros(1)));
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_spread_as_widely_as_chance_does() {
        let times = due_times(&scenario(1_000, Arrival::Poisson));
        assert!(times.len().abs_diff(10_000) < 400, "{}", times.len());
        let distances: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        let variance = distances.iter().map(|distance| (distance - mean).powi(2)).sum::<f64>() / distances.len() as f64;
        // An exponential distribution's deviation is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.1, "{} over {mean}", variance.sqrt());
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(times, due_times(&scenario(1_000, Arrival::Poisson)));
        let other = Scenario { seed: 2, ..scenario(1_000, Arrival::Poisson) };
        assert_ne!(times, due_times(&other));
    }

    #[test]
    fn a_ramp_grows_in_a_straight_line() {
        let times = due_times(&Scenario { ramp_to_per_s: Some(1_000), ..scenario(100, Arrival::Constant) });
        assert_eq!(times.len(), 100 + 9 * 550);
        for (second, expected) in [(0, 100), (1, 150), (5, 550), (9, 950)] {
            assert!(in_second(&times, second).abs_diff(expected) <= 2, "second {second}: {}", in_second(&times, second));
        }
    }

    #[test]
    fn a_burst_comes_again_and_again() {
        let burst = Burst { rate_per_s: 500, every: Duration::from_secs(4), length: Duration::from_secs(1) };
        let times = due_times(&Scenario { burst: Some(burst), ..scenario(100, Arrival::Constant) });
        let counts: Vec<usize> = (0..10).map(|second| (in_second(&times, second) + 5) / 10 * 10).collect();
        assert_eq!(counts, [100, 100, 100, 100, 500, 100, 100, 100, 500, 100], "the warm-up has none");
    }

    #[test]
    fn in_a_closed_loop_everything_is_due_at_once_and_there_is_more_than_enough() {
        for (rate_per_s, seconds, requests) in [(10, 10, 600_000), (100_000, 10, 1_000_000), (10, 3_601, 4_000_000)] {
            let duration = Duration::from_secs(seconds - 1);
            let times = due_times(&Scenario { duration, ..scenario(rate_per_s, Arrival::Closed) });
            assert_eq!((times.len(), times.iter().max()), (requests, Some(&Duration::ZERO)));
        }
    }
}
