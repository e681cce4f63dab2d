//! From figures to places on the page.

/// Maps figures to places, in a straight line or by their logarithm. What lies outside is drawn at the edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    log: bool,
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

/// Steps within a decade that people read well.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];

impl Scale {
    /// From `from` at `start` to `to` at `end`, in a straight line.
    pub(super) fn linear(from: f64, to: f64, start: f64, end: f64) -> Self {
        let to = if to > from { to } else { from + 1.0 };
        Self { log: false, from, to, start, end }
    }

    /// The same by the logarithm.
    pub(super) fn log(from: f64, to: f64, start: f64, end: f64) -> Self {
        let from = from.max(1e-9);
        let to = if to > from { to } else { from * 2.0 };
        Self { log: true, from, to, start, end }
    }

    /// The same, widened so that it begins and ends at figures that people read well.
    pub(super) fn wide_log(from: f64, to: f64, start: f64, end: f64) -> Self {
        Self::log(step_below(from), step_above(to), start, end)
    }

    /// Where a figure lies.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        let share =
            if self.log { (value / self.from).ln() / (self.to / self.from).ln() } else { (value - self.from) / (self.to - self.from) };
        self.start + share * (self.end - self.start)
    }

    /// Figures for the axis, `max` of them at most, or two.
    pub(super) fn ticks(&self, max: usize) -> Vec<f64> {
        let max = max.max(2);
        if !self.log {
            return self.linear_ticks(max);
        }
        let every_step = log_ticks(self.from, self.to, &STEPS);
        if every_step.len() <= max {
            return every_step;
        }
        let decades = log_ticks(self.from, self.to, &STEPS[..1]);
        let ticks = if decades.len() < 2 { every_step } else { decades };
        let stride = ticks.len().div_ceil(max);
        ticks.into_iter().step_by(stride).collect()
    }

    fn linear_ticks(&self, max: usize) -> Vec<f64> {
        let step = step_above((self.to - self.from) / (max - 1).max(1) as f64);
        let first = (self.from / step).ceil();
        let steps = ((self.to / step) - first + 1e-9).floor().max(0.0) as usize;
        (0..=steps).map(|at| (first + at as f64) * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten, above `value` or equal to it.
pub(super) fn step_above(value: f64) -> f64 {
    let decade = decade(value);
    let above = STEPS.into_iter().map(|step| step * decade).find(|step| *step >= value * (1.0 - 1e-9));
    above.unwrap_or(decade * 10.0)
}

/// 1, 2 or 5 times a power of ten, below `value` or equal to it.
fn step_below(value: f64) -> f64 {
    let decade = decade(value);
    STEPS.into_iter().rev().map(|step| step * decade).find(|step| *step <= value * (1.0 + 1e-9)).unwrap_or(decade)
}

fn decade(value: f64) -> f64 {
    10_f64.powf((value.max(1e-9).log10() + 1e-9).floor())
}

fn log_ticks(from: f64, to: f64, steps: &[f64]) -> Vec<f64> {
    let mut ticks = Vec::new();
    let mut decade = decade(from);
    while decade <= to * (1.0 + 1e-9) {
        ticks.extend(steps.iter().map(|step| step * decade).filter(|tick| *tick >= from * (1.0 - 1e-9) && *tick <= to * (1.0 + 1e-9)));
        decade *= 10.0;
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_lie_where_they_belong() {
        let linear = Scale::linear(0.0, 200.0, 10.0, 110.0);
        let log = Scale::wide_log(11.0, 900.0, 100.0, 0.0);
        let empty = Scale::linear(0.0, 0.0, 0.0, 10.0);
        let point = Scale::log(100.0, 100.0, 0.0, 10.0);
        for (scale, value, expected) in [
            (linear, 0.0, 10.0),
            (linear, 50.0, 35.0),
            (linear, 200.0, 110.0),
            (linear, 999.0, 110.0),
            (linear, -1.0, 10.0),
            (log, 10.0, 100.0),
            (log, 100.0, 50.0),
            (log, 1_000.0, 0.0),
            (log, 0.0, 100.0),
            (empty, 0.0, 0.0),
            (point, 100.0, 0.0),
            (point, 200.0, 10.0),
        ] {
            let found = scale.at(value);
            assert!((found - expected).abs() < 1e-6, "{scale:?} {value}: {found}, not {expected}");
        }
    }

    fn check(scale: Scale, max: usize, expected: &[f64]) {
        let found = scale.ticks(max);
        let near =
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0).abs() < 1e-6);
        assert!(near || (found.first() == Some(&0.0) && found[1..] == expected[1..]), "{scale:?}: {found:?}, not {expected:?}");
    }

    #[test]
    fn axes_have_round_figures_and_few() {
        check(Scale::linear(0.0, 103.0, 0.0, 1.0), 6, &[0.0, 50.0, 100.0]);
        check(Scale::linear(0.0, 100.0, 0.0, 1.0), 6, &[0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        check(Scale::linear(0.0, 3.0, 0.0, 1.0), 4, &[0.0, 1.0, 2.0, 3.0]);
        check(Scale::wide_log(90.0, 9_000.0, 0.0, 1.0), 9, &[50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0]);
        check(Scale::wide_log(90.0, 9_000.0, 0.0, 1.0), 5, &[100.0, 1_000.0, 10_000.0]);
        check(Scale::log(1.0, 1e8, 0.0, 1.0), 5, &[1.0, 100.0, 1e4, 1e6, 1e8]);
        check(Scale::log(200.0, 500.0, 0.0, 1.0), 2, &[200.0, 500.0]);
        check(Scale::log(1.5, 7.0, 0.0, 1.0), 1, &[2.0, 5.0]);
        check(Scale::log(95.0, 600.0, 0.0, 1.0), 2, &[100.0, 500.0]);
    }

    #[test]
    fn no_scale_has_more_ticks_than_it_has_room_for() {
        for exponent in 0..8 {
            for max in 2..12 {
                let to = 3.0 * 10_f64.powi(exponent);
                for scale in [Scale::linear(0.0, to, 0.0, 1.0), Scale::log(1.0, to, 0.0, 1.0)] {
                    let ticks = scale.ticks(max);
                    assert!(ticks.len() <= max && !ticks.is_empty(), "{scale:?} {max}: {ticks:?}");
                }
            }
        }
    }
}
