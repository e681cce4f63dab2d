//! The keys that exist and their types: those of the built-in `config.toml`.

use super::value::Value;
use std::collections::BTreeMap;

/// Keys whose values are never shown.
const SECRETS: [&str; 4] = ["postgres.url", "redis.url", "broker.url", "http.token"];

/// How alike a key must be to be suggested, from 0 to 1.
const ALIKE_MIN: f64 = 0.8;

/// Whether the value of `key` must not be shown.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// The environment variable that sets `key`.
pub(super) fn variable_of(key: &str) -> String {
    format!("JITAUTH_{}", key.replace('.', "__").to_uppercase())
}

/// The keys that exist, each with its default.
pub(super) struct Schema {
    defaults: BTreeMap<String, Value>,
}

impl Schema {
    pub(super) fn new(defaults: BTreeMap<String, Value>) -> Self {
        Self { defaults }
    }

    /// The default of `key`, whose type every other value of it must have.
    pub(super) fn default_of(&self, key: &str) -> Option<&Value> {
        self.defaults.get(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.defaults.keys().map(String::as_str)
    }

    /// Whether keys begin with `path` and a dot.
    pub(super) fn is_section(&self, path: &str) -> bool {
        self.keys().any(|key| is_within(key, path))
    }

    /// The key or section that `path` may have meant.
    pub(super) fn nearest(&self, path: &str) -> Option<&str> {
        let name = last(path);
        let same_name = |key: &&str| last(key) == name;
        let mut homonyms = self.keys().filter(same_name);
        if let (Some(only), None) = (homonyms.next(), homonyms.next()) {
            return Some(only);
        }
        let sections = self.keys().flat_map(|key| key.match_indices('.').map(|(dot, _)| &key[..dot]));
        most_alike(path, self.keys().chain(sections))
    }
}

/// The candidate most like `name`, if any is alike enough.
pub(super) fn most_alike<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn is_within(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
