//! Two states of the program, each measured once or several times, held against each other.
//!
//! A side is a `summary.json`, a directory with one, or a directory of such directories. Of several runs the medians count, and what
//! lies within the runs before is no change: on a machine that others use too, one run tells little.
//!
//! **Invariant**: what cannot be compared is refused with its reason, and a run that answered wrongly is never compared at all.

mod grade;
mod print;
#[cfg(test)]
mod tests;

pub use grade::{Grade, Row, Spread, ToleranceError, Tolerances};
pub use print::{markdown, terminal, verdict};

use super::summary::{SCHEMA_VERSION, Summary, Warning};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeSet, fmt, fs, io, path::Path};

/// Longest file that is read, bytes: a run of hours has no more seconds than fit.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most runs of a side that are read.
const RUNS_MAX: usize = 100;
/// Runs of a side below which chance decides much.
const RUNS_FEW: usize = 3;

/// What was measured before, or after.
#[derive(Clone, Debug)]
pub struct Side {
    /// Where it was read from.
    pub from: String,
    /// Its runs, in the order of their names; at least one.
    pub runs: Vec<Summary>,
}

/// How strict it is.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// How much worse is no regression, by figure.
    pub tolerances: Tolerances,
    /// What nobody notices, microseconds.
    pub min_effect_us: f64,
    /// Compare other workloads, targets and builds too.
    pub force: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// 1; counted apart from that of a summary.
    pub schema_version: u32,
    /// Whether any figure is a regression.
    pub regression: bool,
    /// What was asked, and of whom.
    pub title: String,
    /// What was measured before.
    pub before: Origin,
    /// What was measured after.
    pub after: Origin,
    /// Each figure.
    pub rows: Vec<Row>,
    /// What is different and was compared all the same.
    pub forced: Vec<Difference>,
    /// Why the comparison may not mean what it seems to.
    pub warnings: Vec<Warning>,
}

/// Where a side comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The path that was given.
    pub from: String,
    /// How many runs.
    pub runs: usize,
    /// When the first of them began.
    pub started_at: String,
    /// Version of the program.
    pub version: String,
    /// Its commits, where the builds knew.
    pub commits: BTreeSet<String>,
}

/// A setting with another value on the other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which.
    pub setting: String,
    /// Its value before.
    pub before: String,
    /// Its value after.
    pub after: String,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file or a directory that cannot be read.
    #[error("{path} cannot be read: {error}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// There is none.
    #[error("{0} has no summary.json, and no directory in it has one")]
    Nothing(String),
    /// A file that is something else.
    #[error("{path} is no result of jitauth bench: {why}")]
    Strange {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// Written by another release.
    #[error("{path} has version {found} of the schema; this release reads {SCHEMA_VERSION}")]
    Schema {
        /// Which.
        path: String,
        /// Its version.
        found: String,
    },
    /// A run in which something was lost, doubled or wrong.
    #[error("{path} is of a run that went wrong: {faults}")]
    Wrong {
        /// Which.
        path: String,
        /// What was wrong.
        faults: String,
    },
    /// Something else was measured.
    #[error("these are not the same measurement:{}", listed(.0))]
    Different(Vec<Difference>),
    /// A tolerance that cannot be kept or broken.
    #[error(transparent)]
    Tolerance(#[from] ToleranceError),
}

fn listed(differences: &[Difference]) -> String {
    differences.iter().map(|difference| format!("\n  {difference}")).collect()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} before, {} after", self.setting, self.before, self.after)
    }
}

impl Side {
    /// Reads a side.
    ///
    /// # Errors
    /// [`CompareError`] names the file.
    pub fn read(path: &Path) -> Result<Self, CompareError> {
        let from = path.display().to_string();
        let unreadable = |error| CompareError::Unreadable { path: from.clone(), error };
        let file = path.join("summary.json");
        if !fs::metadata(path).map_err(unreadable)?.is_dir() {
            return Ok(Self { runs: vec![run(path)?], from });
        }
        if file.is_file() {
            return Ok(Self { runs: vec![run(&file)?], from });
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path().join("summary.json");
            if file.is_file() {
                files.push(file);
            }
        }
        files.sort();
        if files.len() > RUNS_MAX {
            return Err(CompareError::Strange { path: from, why: format!("it has more than {RUNS_MAX} runs") });
        }
        let runs = files.iter().map(|file| run(file)).collect::<Result<Vec<_>, _>>()?;
        if runs.is_empty() { Err(CompareError::Nothing(from)) } else { Ok(Self { from, runs }) }
    }

    fn origin(&self) -> Origin {
        let first = self.runs.first();
        Origin {
            from: self.from.clone(),
            runs: self.runs.len(),
            started_at: first.map_or_else(String::new, |run| run.started_at.clone()),
            version: first.map_or_else(String::new, |run| run.tool.version.clone()),
            commits: self.runs.iter().filter_map(|run| run.tool.commit.clone()).collect(),
        }
    }
}

/// Reads a result in which nothing went wrong.
fn run(path: &Path) -> Result<Summary, CompareError> {
    let name = path.display().to_string();
    let unreadable = |error| CompareError::Unreadable { path: name.clone(), error };
    let strange = |why: String| CompareError::Strange { path: name.clone(), why };
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(strange(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    let value: Value = serde_json::from_slice(&fs::read(path).map_err(unreadable)?).map_err(|error| strange(error.to_string()))?;
    match value.get("schema_version") {
        None => return Err(strange("it has no schema_version".to_owned())),
        Some(version) if *version != SCHEMA_VERSION => {
            return Err(CompareError::Schema { path: name, found: version.to_string() });
        }
        Some(_) => {}
    }
    let summary: Summary = serde_json::from_value(value).map_err(|error| strange(error.to_string()))?;
    let faults = summary.faults();
    if faults.is_empty() { Ok(summary) } else { Err(CompareError::Wrong { path: name, faults: faults.join("; ") }) }
}

/// Holds the sides against each other.
///
/// # Errors
/// [`CompareError::Different`] unless forced, and tolerances for figures that there are none of.
pub fn compare(before: &Side, after: &Side, settings: &Settings) -> Result<Comparison, CompareError> {
    let Some(first) = before.runs.first() else { return Err(CompareError::Nothing(before.from.clone())) };
    let mut forced: Vec<Difference> = Vec::new();
    for other in before.runs.iter().chain(&after.runs).skip(1) {
        for difference in differences(first, other) {
            if !forced.contains(&difference) {
                forced.push(difference);
            }
        }
    }
    if !forced.is_empty() && !settings.force {
        return Err(CompareError::Different(forced));
    }
    let graded = grade::rows(before, after, settings)?;
    let mut warnings = circumstances(before, after);
    warnings.extend(graded.one_sided.iter().map(|figure| warning("one_sided", format!("{figure} was not measured in every run"))));
    Ok(Comparison {
        schema_version: 1,
        regression: graded.rows.iter().any(|row| row.grade == Grade::Regression),
        title: title(first),
        before: before.origin(),
        after: after.origin(),
        rows: graded.rows,
        forced,
        warnings,
    })
}

/// What makes figures of two runs incomparable.
fn differences(before: &Summary, after: &Summary) -> Vec<Difference> {
    let told = |text: &Option<String>| text.clone().unwrap_or_else(|| "not known".to_owned());
    let daemon = |it: &Summary| if it.target.spawned { "started for the run" } else { "ran already" }.to_owned();
    let bound = |it: &Summary| it.ceiling.as_ref().map_or_else(|| "none".to_owned(), |ceiling| format!("{} µs", ceiling.p99_bound_us));
    let (one, other) = (&before.scenario.workload, &after.scenario.workload);
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let mut pairs: Vec<(String, String, String)> =
        keys.into_iter().map(|key| (key.clone(), told(&one.get(key).cloned()), told(&other.get(key).cloned()))).collect();
    let of = |name: &str, value: &dyn Fn(&Summary) -> String| (name.to_owned(), value(before), value(after));
    pairs.extend([
        of("target", &|it| it.target.kind.clone()),
        of("store", &|it| told(&it.target.store)),
        of("queue type", &|it| told(&it.target.queue_type)),
        of("durability", &|it| told(&it.target.durability)),
        of("daemon", &daemon),
        of("build", &|it| it.tool.build.clone()),
        of("bound of the ceiling's p99", &bound),
    ]);
    pairs.retain(|(_, before, after)| before != after);
    if pairs.is_empty() && before.scenario.workload_digest != after.scenario.workload_digest {
        pairs.push(of("workload digest", &|it| it.scenario.workload_digest.clone()));
    }
    pairs.into_iter().map(|(setting, before, after)| Difference { setting, before, after }).collect()
}

/// What may explain a change, beside the program.
fn circumstances(before: &Side, after: &Side) -> Vec<Warning> {
    let told = |value: Option<String>| value.unwrap_or_else(|| "not known".to_owned());
    let values = |side: &Side, value: &dyn Fn(&Summary) -> String| -> String {
        let all: BTreeSet<String> = side.runs.iter().map(value).collect();
        all.into_iter().collect::<Vec<_>>().join(" and ")
    };
    let mut warnings = Vec::new();
    let machine = |it: &Summary| {
        let it = &it.environment;
        format!("{} ({}, {} cores, {} MiB, Linux {})", it.host, it.cpu, it.cores, it.memory_mib, it.kernel)
    };
    type Value<'a> = (&'a str, &'a str, &'a dyn Fn(&Summary) -> String);
    let compared: [Value<'_>; 9] = [
        ("machine", "the machine", &machine),
        ("governor", "how clock frequencies are chosen", &|it| told(it.environment.governor.clone())),
        ("profile", "the profile", &|it| it.target.profile.clone()),
        ("configuration", "the configuration", &|it| it.target.configuration.clone()),
        ("lanes", "lanes and decisions in a commit", &|it| format!("{} and {}", it.target.lanes, it.target.batch_max)),
        ("store_version", "the store's version", &|it| told(it.environment.store.clone())),
        ("broker_version", "the broker's version", &|it| told(it.environment.broker.clone())),
        ("redis_version", "Redis's version", &|it| told(it.environment.redis.clone())),
        ("floor", "the floors' rounds", &|it| told(it.floor.as_ref().map(|floor| format!("{} of {} s", floor.rounds, floor.slice_s)))),
    ];
    for (code, what, value) in compared {
        let (one, other) = (values(before, value), values(after, value));
        if one != other {
            warnings.push(warning(code, format!("{what}: {one} before, {other} after")));
        }
    }
    for (when, side) in [("before", before), ("after", after)] {
        warnings.extend(carried(when, side));
    }
    let fewest = before.runs.len().min(after.runs.len());
    if fewest < RUNS_FEW {
        let text = format!(
            "a side has {fewest} of the {RUNS_FEW} runs or more that tell a change from chance: measure both in turn, \
             each into directories of its own (before/1, after/1, before/2, …), and compare before after"
        );
        warnings.push(warning("few_runs", text));
    }
    warnings
}

/// Warnings that the runs themselves carry. Too few samples are seen to figure by figure.
fn carried(when: &str, side: &Side) -> Vec<Warning> {
    let mut found: Vec<(&Warning, usize)> = Vec::new();
    for each in side.runs.iter().flat_map(|run| &run.warnings).filter(|each| each.code != "few_samples") {
        match found.iter_mut().find(|(known, _)| known.code == each.code) {
            Some((_, count)) => *count += 1,
            None => found.push((each, 1)),
        }
    }
    let text = |each: &Warning, count: usize| format!("{when}, {count} of {} runs: {}", side.runs.len(), each.text);
    found.into_iter().map(|(each, count)| warning(&each.code, text(each, count))).collect()
}

fn warning(code: &str, text: String) -> Warning {
    Warning { code: code.to_owned(), text }
}

fn title(it: &Summary) -> String {
    let target = &it.target;
    let named = [target.queue_type.as_ref().map(|queue| format!("{queue} queues")), target.store.clone()];
    let rest: String = named.into_iter().flatten().map(|part| format!(", {part}")).collect();
    format!("{} over {}{rest}", it.scenario.name, target.kind)
}
