//! Files, environment and flags, resolved into each module's settings.
//!
//! The built-in `config.toml` is at once the documentation, the defaults and the schema: every other layer may only set keys that
//! it has, to values of the type it has. Layers, each over the one before: `config.toml`, a profile, the file of `--config`,
//! `JITAUTH_…` variables, flags. Only [`app`](crate::app), [`cli`](crate::cli) and `main` know this module.
//!
//! **Invariant**: a [`Config`] that exists is consistent. Everything wrong is reported at once, each with its place, and no
//! secret is ever shown.

mod layer;
mod link;
mod problem;
mod reader;
mod relations;
mod resolve;
mod schema;
#[cfg(test)]
mod tests;
mod value;

pub use crate::telemetry::{Budget, Promise};
pub use problem::{Origin, Problem, Problems};

use crate::{broker, facts, http, ledger, pipeline, telemetry};
use layer::Layer;
use reader::Reader;
use resolve::Safety;
use schema::Schema;
use sha2::{Digest, Sha256};
use std::{borrow::Cow, collections::BTreeMap, fmt, path::Path};
use value::Leaves;

/// The complete, commented default.
pub const DEFAULT: &str = include_str!("../../config.toml");

/// The profiles that are built in: name and text.
pub const PROFILES: [(&str, &str); 3] = [
    ("embedded", include_str!("../../profiles/embedded.toml")),
    ("services", include_str!("../../profiles/services.toml")),
    ("production", include_str!("../../profiles/production.toml")),
];

/// Bytes of the digest that a fingerprint shows.
const FINGERPRINT_BYTES: usize = 6;

/// What a configuration is made from. The environment is given, never looked up.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Name of a built-in profile, or path of one.
    pub profile: &'a str,
    /// A file over the profile.
    pub file: Option<&'a Path>,
    /// Environment variables; those that do not begin with `JITAUTH_` are ignored.
    pub environment: &'a BTreeMap<String, String>,
    /// Keys set on the command line.
    pub flags: &'a [Flag],
    /// Processor cores, for what is sized by them.
    pub cores: usize,
}

/// A key set on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag, as in `--log-format`.
    pub name: &'static str,
    /// The key it sets.
    pub key: &'static str,
    /// The value, as text.
    pub value: String,
}

/// Which store owns the money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// One file, one process.
    Sqlite,
    /// A server.
    Postgres,
}

/// A configuration that is complete and fits together. `Debug` shows no secret.
#[derive(Clone)]
pub struct Config {
    /// The profile, as it was named.
    pub profile: String,
    /// Which of the two stores is used.
    pub store: StoreKind,
    /// SQLite, meant when `store` says so.
    pub sqlite: ledger::sqlite::Settings,
    /// PostgreSQL, meant when `store` says so.
    pub postgres: ledger::postgres::Settings,
    /// Facts in this process.
    pub memory: facts::memory::Settings,
    /// How facts in this process are kept fresh.
    pub freshness: facts::invalidator::Settings,
    /// Facts in Redis, where enabled.
    pub redis: Option<facts::redis::Settings>,
    /// RabbitMQ, where enabled.
    pub broker: Option<broker::Settings>,
    /// The HTTP listener, where enabled.
    pub http: Option<http::Settings>,
    /// Lanes, batches, deadlines. `lanes` is resolved: at least 1.
    pub pipeline: pipeline::Settings,
    /// Logging.
    pub log: telemetry::log::Settings,
    /// Latency alerts, and what is kept for reports.
    pub telemetry: telemetry::Settings,
    /// What latency is promised.
    pub promise: Promise,
    safety: Safety,
    effective: Vec<Effective>,
    fingerprint: String,
}

/// One key with the value that won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The key, as in `pipeline.batch_max`.
    pub key: String,
    /// The value as it would be written in a file; `(secret)` in place of one that is set.
    pub shown: String,
    /// Where it was set.
    pub origin: Origin,
}

impl Config {
    /// Reads, checks and resolves all layers.
    ///
    /// # Errors
    /// Everything that is wrong, at once. How values relate is only checked when each is right by itself.
    pub fn load(sources: &Sources<'_>) -> Result<Self, Problems> {
        let (leaves, mut problems) = merged(sources);
        let mut reader = Reader::new(&leaves);
        let mut config = resolve::resolve(&mut reader, sources.profile, sources.cores);
        problems.extend(reader.problems);
        Problems::check(problems)?;
        Problems::check(relations::check(&config, &leaves))?;
        config.effective = effective(&leaves);
        config.fingerprint = fingerprint(&config.effective);
        Ok(config)
    }

    /// Every key with the value that won and where it was set, sorted by key.
    #[must_use]
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// Twelve hexadecimal digits that are the same for the same effective values, secrets left out. For logs and reports.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.effective.iter().map(|it| (&it.key, &it.shown));
        f.debug_struct("Config")
            .field("profile", &self.profile)
            .field("fingerprint", &self.fingerprint)
            .field("values", &values.collect::<BTreeMap<_, _>>())
            .finish_non_exhaustive()
    }
}

/// All layers laid over each other, and what is wrong with any of them. A layer that cannot be parsed is left out.
fn merged(sources: &Sources<'_>) -> (Leaves, Vec<Problem>) {
    let default = Layer::document("built-in config.toml", DEFAULT, None);
    let schema = Schema::new(default.values.iter().map(|(key, value, _)| (key.clone(), value.clone())).collect());
    let layers = [
        default,
        profile(sources.profile, &schema),
        sources.file.map_or_else(Layer::default, |path| file(path, &schema)),
        Layer::environment(sources.environment, &schema),
        Layer::flags(sources.flags, &schema),
    ];
    let (mut leaves, mut problems) = (Leaves::new(), Vec::new());
    for (index, mut layer) in layers.into_iter().enumerate() {
        problems.append(&mut layer.problems);
        layer.lay_over(&mut leaves, index);
    }
    (leaves, problems)
}

fn profile(name: &str, schema: &Schema) -> Layer {
    if let Some((name, text)) = PROFILES.iter().find(|(known, _)| *known == name) {
        return Layer::document(&format!("built-in profiles/{name}.toml"), text, Some(schema));
    }
    if name.contains(std::path::is_separator) || name.ends_with(".toml") {
        return file(Path::new(name), schema);
    }
    let known = PROFILES.map(|(name, _)| name);
    let meant = schema::most_alike(name, known.into_iter()).map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    let text = format!("no profile is named {name:?}{meant} (there are {}, or give the path of a .toml file)", known.join(", "));
    Layer { values: Vec::new(), problems: vec![Problem::general(text)] }
}

fn file(path: &Path, schema: &Schema) -> Layer {
    let name: Cow<'_, str> = path.to_string_lossy();
    match layer::read_file(path) {
        Ok(text) => Layer::document(&name, &text, Some(schema)),
        Err(error) => Layer { values: Vec::new(), problems: vec![Problem::general(format!("cannot read {name}: {error}"))] },
    }
}

fn effective(leaves: &Leaves) -> Vec<Effective> {
    let one = |(key, leaf): (&String, &value::Leaf)| Effective {
        key: key.clone(),
        // An empty one is none, and that nobody is asked for a token must show.
        shown: if schema::is_secret(key) && !leaf.value.is_empty() { "(secret)".to_owned() } else { leaf.value.shown() },
        origin: leaf.origin.clone(),
    };
    leaves.iter().map(one).collect()
}

fn fingerprint(effective: &[Effective]) -> String {
    let mut hash = Sha256::new();
    for Effective { key, shown, .. } in effective.iter().filter(|one| !schema::is_secret(&one.key)) {
        hash.update(format!("{key}={shown}\n"));
    }
    hash.finalize().iter().take(FINGERPRINT_BYTES).map(|byte| format!("{byte:02x}")).collect()
}
