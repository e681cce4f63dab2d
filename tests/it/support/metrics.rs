//! What a daemon says about itself at `/metrics`.

use super::http::Http;
use std::collections::BTreeMap;

/// One reading: the value of every sample by its name with its labels, as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub(crate) async fn of(http: &Http) -> Self {
        Self::read(&http.get("/metrics").await.expect("metrics").text())
    }

    /// Reads the text of a scrape.
    pub(crate) fn read(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("not a number: {line}")))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).map(sample).collect())
    }

    /// A sample that is always there: `jitauth_cache_requests_total{tier="memory",result="hit"}`.
    pub(crate) fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no sample {name}"))
    }

    /// All samples of a family together.
    pub(crate) fn sum(&self, family: &str) -> f64 {
        let of_family = |name: &&String| name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        let found: Vec<_> = self.0.keys().filter(of_family).collect();
        assert!(!found.is_empty(), "no family {family}");
        found.into_iter().map(|name| self.0[name]).sum()
    }

    /// Look-ups of facts that a tier answered in this way.
    pub(crate) fn cache(&self, tier: &str, result: &str) -> f64 {
        self.get(&format!("jitauth_cache_requests_total{{tier=\"{tier}\",result=\"{result}\"}}"))
    }

    /// Commits that ended in this way.
    pub(crate) fn commits(&self, outcome: &str) -> f64 {
        self.get(&format!("jitauth_db_transactions_total{{outcome=\"{outcome}\"}}"))
    }
}
