//! Typed reading of leaves. An error is noted, and reading goes on with a value in range, so that all errors come out at once.

use super::{
    problem::Problem,
    schema::is_secret,
    value::{Leaf, Leaves, Value},
};
use std::{fmt::Display, ops::RangeInclusive, time::Duration};

/// Reads leaves and collects what is wrong with them.
pub(super) struct Reader<'a> {
    leaves: &'a Leaves,
    pub(super) problems: Vec<Problem>,
    #[cfg(test)]
    pub(super) read: std::collections::BTreeSet<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(leaves: &'a Leaves) -> Self {
        Self {
            leaves,
            problems: Vec::new(),
            #[cfg(test)]
            read: std::collections::BTreeSet::new(),
        }
    }

    /// A whole number within `range`, whose bounds exist because of `why`.
    pub(super) fn whole<T>(&mut self, key: &str, range: RangeInclusive<T>, why: &str) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let Some(leaf) = self.leaf(key) else { return *range.start() };
        let value = if let Value::Whole(number) = leaf.value { T::try_from(number).ok() } else { None };
        match value.filter(|value| range.contains(value)) {
            Some(value) => value,
            None => {
                let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
                self.refuse(key, &format!("must be {} to {}{why}", range.start(), range.end()));
                *range.start()
            }
        }
    }

    pub(super) fn millis(&mut self, key: &str, range: RangeInclusive<u64>, why: &str) -> Duration {
        Duration::from_millis(self.whole(key, range, why))
    }

    pub(super) fn seconds(&mut self, key: &str, range: RangeInclusive<u64>, why: &str) -> Duration {
        Duration::from_secs(self.whole(key, range, why))
    }

    pub(super) fn flag(&mut self, key: &str) -> bool {
        matches!(self.leaf(key), Some(Leaf { value: Value::Flag(true), .. }))
    }

    pub(super) fn text(&mut self, key: &str) -> String {
        match self.leaf(key) {
            Some(Leaf { value: Value::Text(text), .. }) => text.clone(),
            _ => String::new(),
        }
    }

    pub(super) fn list(&mut self, key: &str) -> Vec<String> {
        match self.leaf(key) {
            Some(Leaf { value: Value::List(items), .. }) => items.clone(),
            _ => Vec::new(),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, first: (&str, T), others: &[(&str, T)]) -> T {
        let text = self.text(key);
        let all = || std::iter::once(&first).chain(others);
        if let Some((_, value)) = all().find(|(word, _)| *word == text) {
            return *value;
        }
        let words: Vec<String> = all().map(|(word, _)| format!("{word:?}")).collect();
        self.refuse(key, &format!("must be {}", words.join(" or ")));
        first.1
    }

    /// Notes that the value of `key` is not acceptable; `must` says what it has to be.
    pub(super) fn refuse(&mut self, key: &str, must: &str) {
        let Some(leaf) = self.leaves.get(key) else { return };
        let text = if is_secret(key) { format!("{key} {must}") } else { format!("{key} is {}; {must}", leaf.value.shown()) };
        self.problems.push(Problem::at(&leaf.origin, text));
    }

    /// The schema has every key that is read, which a test makes sure of; so a leaf that is not there is a bug of ours.
    fn leaf(&mut self, key: &str) -> Option<&'a Leaf> {
        #[cfg(test)]
        self.read.insert(key.to_owned());
        let leaf = self.leaves.get(key);
        if leaf.is_none() {
            self.problems.push(Problem::general(format!("{key} is missing from the built-in config.toml")));
        }
        leaf
    }
}
