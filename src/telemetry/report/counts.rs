//! What was counted, as reports tell it.

use crate::{
    domain::reason::Reason,
    telemetry::{
        labels::{CacheResult, Cause, Level, Tier},
        metrics::Metrics,
    },
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counts of a stretch of time. What was not counted is left out of the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Decisions that were approvals of all that was asked for.
    pub approved: u64,
    /// Decisions that were approvals of a part.
    pub partially_approved: u64,
    /// Declines, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Requests answered from the journal, conflicts included.
    pub replayed: u64,
    /// Look-ups of facts, by tier and what it answered.
    pub caches: BTreeMap<String, BTreeMap<String, u64>>,
    /// Alerts raised, by level.
    pub alerts: BTreeMap<String, u64>,
}

impl Counts {
    /// Everything counted since start.
    pub(in crate::telemetry) fn of(metrics: &Metrics) -> Self {
        let row = |row| metrics.authorizations.get(row);
        let reasons = Reason::ALL.iter().enumerate().map(|(place, reason)| (reason.name().to_owned(), row(2 + place)));
        let cache = |tier: Tier, result: CacheResult| metrics.cache_requests.get(tier as usize * CacheResult::ALL.len() + result as usize);
        let results = |tier: Tier| some(CacheResult::ALL.iter().map(|result| (result.name().to_owned(), cache(tier, *result))));
        let alerts = |level: Level| {
            let row = |cause: &Cause| metrics.latency_alerts.get(level as usize * Cause::ALL.len() + *cause as usize);
            Cause::ALL.iter().map(row).sum::<u64>()
        };
        Self {
            approved: row(0),
            partially_approved: row(1),
            reasons: some(reasons),
            replayed: metrics.duplicates.total(),
            caches: Tier::ALL.iter().map(|tier| (tier.name().to_owned(), results(*tier))).filter(|(_, asked)| !asked.is_empty()).collect(),
            alerts: some(Level::ALL.iter().map(|level| (level.name().to_owned(), alerts(*level)))),
        }
    }

    /// What came on top of `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut more = Self {
            approved: self.approved.saturating_sub(before.approved),
            partially_approved: self.partially_approved.saturating_sub(before.partially_approved),
            reasons: less(&self.reasons, Some(&before.reasons)),
            replayed: self.replayed.saturating_sub(before.replayed),
            caches: self.caches.iter().map(|(tier, asked)| (tier.clone(), less(asked, before.caches.get(tier)))).collect(),
            alerts: less(&self.alerts, Some(&before.alerts)),
        };
        more.caches.retain(|_, asked| !asked.is_empty());
        more
    }

    pub(super) fn add(&mut self, other: &Self) {
        let sum = |mine: &mut u64, theirs: u64| *mine = mine.saturating_add(theirs);
        sum(&mut self.approved, other.approved);
        sum(&mut self.partially_approved, other.partially_approved);
        sum(&mut self.replayed, other.replayed);
        more(&mut self.reasons, &other.reasons);
        more(&mut self.alerts, &other.alerts);
        for (tier, asked) in &other.caches {
            more(self.caches.entry(tier.clone()).or_default(), asked);
        }
    }

    /// Decisions, replays not included.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.reasons.values().fold(self.approved.saturating_add(self.partially_approved), |sum, count| sum.saturating_add(*count))
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

type Named = BTreeMap<String, u64>;

fn some(all: impl Iterator<Item = (String, u64)>) -> Named {
    all.filter(|(_, count)| *count > 0).collect()
}

fn less(now: &Named, before: Option<&Named>) -> Named {
    let earlier = |name: &str| before.and_then(|before| before.get(name)).copied().unwrap_or(0);
    some(now.iter().map(|(name, count)| (name.clone(), count.saturating_sub(earlier(name)))))
}

fn more(mine: &mut Named, theirs: &Named) {
    for (name, count) in theirs {
        let mine = mine.entry(name.clone()).or_default();
        *mine = mine.saturating_add(*count);
    }
}
