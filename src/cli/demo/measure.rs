//! What is measured beside the traffic: the disk, and how often the caches had what was asked for.

use super::Error;
use crate::bench::{floor::disk, record::histogram};
use hdrhistogram::Histogram;
use std::{collections::BTreeMap, path::Path};

/// How often the disk is asked.
const SYNCS: usize = 200;

/// How long it takes here to write 4 KiB and have them on the disk, microseconds.
pub(super) fn sync_cost(directory: &Path) -> Result<Histogram<u64>, Error> {
    let mut times = histogram();
    disk::sync_cost(directory, SYNCS, &mut times)?;
    Ok(times)
}

/// How often which tier answered what: `(tier, result)` to a count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CacheCounts(pub(super) BTreeMap<(String, String), u64>);

impl CacheCounts {
    /// Adds the counts of a metrics page. A restarted daemon counts from zero, so the pages of both lives are added.
    pub(super) fn add_page(&mut self, page: &str) {
        for line in page.lines() {
            let Some((labels, value)) = line.strip_prefix("jitauth_cache_requests_total{").and_then(|rest| rest.split_once("} ")) else {
                continue;
            };
            let label = |name: &str| labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'));
            let count: Option<u64> = value.split_ascii_whitespace().next().and_then(|count| count.parse().ok());
            if let (Some(tier), Some(result), Some(count)) = (label("tier"), label("result"), count) {
                *self.0.entry((tier.to_owned(), result.to_owned())).or_default() += count;
            }
        }
    }

    /// Tiers that were asked at all, with hits and requests. A bypassed tier was not asked.
    pub(super) fn tiers(&self) -> Vec<(&str, u64, u64)> {
        let mut tiers: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for ((tier, result), count) in self.0.iter().filter(|((_, result), _)| result != "bypass") {
            let (hits, asked) = tiers.entry(tier).or_default();
            *asked += count;
            *hits += if result == "hit" { *count } else { 0 };
        }
        tiers.into_iter().filter(|(_, (_, asked))| *asked > 0).map(|(tier, (hits, asked))| (tier, hits, asked)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_counts_of_two_lives_add_up() {
        let mut counts = CacheCounts::default();
        counts.add_page("# TYPE jitauth_cache_requests counter\njitauth_cache_requests_total{tier=\"memory\",result=\"hit\"} 90\n");
        counts.add_page(
            "jitauth_cache_requests_total{result=\"hit\",tier=\"memory\"} 5\njitauth_cache_requests_total{tier=\"memory\",result=\"miss\"} 5\n\
             jitauth_cache_requests_total{tier=\"redis\",result=\"bypass\"} 7\njitauth_other{tier=\"memory\",result=\"hit\"} 1\n",
        );
        assert_eq!(counts.tiers(), [("memory", 95, 100)]);
    }
}
