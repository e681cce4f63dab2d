//! Which rate to try next: doubling until one is not kept up with, then halving the distance, then once more for certainty.

use std::collections::BTreeSet;

/// The search ends when the lowest rate that failed is at most this much above the highest that did not, percent.
const RESOLUTION_PERCENT: u32 = 5;
/// The lowest rate that is tried.
const RATE_MIN: u32 = 8;

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was kept up with.
    Kept,
    /// It was not, though nearly: chance may have done it.
    Nearly,
    /// It was not.
    Broken,
}

/// A search for the highest rate that is kept up with.
#[derive(Clone, Debug)]
pub(super) struct Search {
    rate: u32,
    rate_max: u32,
    kept: BTreeSet<u32>,
    broken: Option<u32>,
    /// Whether this rate was nearly kept once already.
    again: bool,
    /// Whether this rate was kept before, and is tried for certainty.
    confirming: bool,
    ended: bool,
    confirmed: bool,
}

impl Search {
    /// A search that begins at a rate.
    pub(super) fn new(first: u32, rate_max: u32) -> Self {
        let rate = first.clamp(RATE_MIN, rate_max.max(RATE_MIN));
        Self { rate, rate_max, kept: BTreeSet::new(), broken: None, again: false, confirming: false, ended: false, confirmed: false }
    }

    /// The rate to try; `None` when the search is over.
    pub(super) fn next(&self) -> Option<u32> {
        (!self.ended).then_some(self.rate)
    }

    /// The highest rate that was kept up with, as far as is known.
    pub(super) fn found(&self) -> Option<u32> {
        self.below_broken().last().copied()
    }

    /// Whether it was kept up with twice.
    pub(super) const fn confirmed(&self) -> bool {
        self.confirmed
    }

    /// The lowest rate that was not kept up with.
    pub(super) const fn broken(&self) -> Option<u32> {
        self.broken
    }

    /// Notes how [`Search::next`] went.
    pub(super) fn heard(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Kept if self.confirming => {
                (self.confirmed, self.ended) = (true, true);
                return;
            }
            Outcome::Kept => {
                self.kept.insert(self.rate);
            }
            Outcome::Nearly if !self.again => {
                self.again = true;
                return;
            }
            Outcome::Nearly | Outcome::Broken => self.broken = Some(self.rate),
        }
        (self.again, self.confirming) = (false, false);
        self.choose();
    }

    fn choose(&mut self) {
        match (self.found(), self.broken) {
            (Some(kept), None) if kept < self.rate_max => self.rate = kept.saturating_mul(2).min(self.rate_max),
            (Some(kept), Some(broken)) if broken - kept > (kept * RESOLUTION_PERCENT / 100).max(1) => self.rate = kept.midpoint(broken),
            (Some(kept), _) => (self.rate, self.confirming) = (kept, true),
            (None, Some(broken)) if broken > RATE_MIN => self.rate = (broken / 2).max(RATE_MIN),
            (None, _) => self.ended = true,
        }
    }

    /// Rates that were kept up with. What was once kept above one that was not does not count.
    fn below_broken(&self) -> impl Iterator<Item = &u32> {
        self.kept.range(..self.broken.unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates that are tried when everything up to `ceiling` is kept, and what is found.
    fn tried(first: u32, rate_max: u32, ceiling: u32) -> (Vec<u32>, Search) {
        let mut search = Search::new(first, rate_max);
        let mut rates = Vec::new();
        while let Some(rate) = search.next() {
            assert!(rates.len() < 60, "{rates:?}");
            rates.push(rate);
            search.heard(if rate <= ceiling { Outcome::Kept } else { Outcome::Broken });
        }
        (rates, search)
    }

    #[test]
    fn it_doubles_then_halves_the_distance_then_confirms() {
        let check = |first, rate_max, ceiling, rates: &[u32], found, broken, confirmed| {
            let (tried, search) = tried(first, rate_max, ceiling);
            assert_eq!((tried.as_slice(), search.found()), (rates, found), "{first} {rate_max} {ceiling}");
            assert_eq!((search.broken(), search.confirmed()), (broken, confirmed), "{first} {rate_max} {ceiling}");
        };
        check(500, 100_000, 3_300, &[500, 1_000, 2_000, 4_000, 3_000, 3_500, 3_250, 3_375, 3_250], Some(3_250), Some(3_375), true);
        check(1_000, 100_000, 300, &[1_000, 500, 250, 375, 312, 281, 296, 304, 296], Some(296), Some(304), true);
        check(500, 3_000, 9_000, &[500, 1_000, 2_000, 3_000, 3_000], Some(3_000), None, true);
        check(500, 3_000, 0, &[500, 250, 125, 62, 31, 15, 8], None, Some(8), false);
        check(1, 100, 8, &[8, 16, 12, 10, 9, 8], Some(8), Some(9), true);
        check(5_000, 100, 100, &[100, 100], Some(100), None, true);
    }

    #[test]
    fn it_finds_the_ceiling_wherever_it_is() {
        for ceiling in (8..60_000).step_by(97) {
            let (rates, search) = tried(500, 100_000, ceiling);
            let (found, broken) = (search.found().unwrap_or(0), search.broken().unwrap_or(0));
            assert!(found <= ceiling && ceiling < broken && broken - found <= (found / 20).max(1), "{ceiling}: {found} {broken}");
            assert!(rates.len() <= 22, "{ceiling}: {rates:?}");
        }
    }

    #[test]
    fn what_is_nearly_kept_is_tried_once_more_and_what_is_not_confirmed_is_lowered() {
        use Outcome::{Broken, Kept, Nearly};
        let mut search = Search::new(1_000, 2_000);
        let mut rates = Vec::new();
        for outcome in [Kept, Nearly, Kept, Broken, Kept, Nearly, Nearly, Kept, Kept] {
            rates.extend(search.next());
            search.heard(outcome);
        }
        // 2,000 is not confirmed; between 1,000 and there 1,500 is kept and 1,750 is not, not even nearly twice.
        assert_eq!(rates, [1_000, 2_000, 2_000, 2_000, 1_500, 1_750, 1_750, 1_625, 1_687]);
        assert_eq!((search.found(), search.broken(), search.confirmed()), (Some(1_687), Some(1_750), false));
        assert_eq!(search.next(), Some(1_687), "to be confirmed");
    }
}
