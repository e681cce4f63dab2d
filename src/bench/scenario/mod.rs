//! What a run asks: a TOML file that opens with the question it answers.
//!
//! The built-in ones are the files in `load/`; a path names one of your own. The reader knows every key. A key that is not
//! given has the default of [`Scenario::default`], which is `load/steady.toml` but for its thresholds.

mod reader;
#[cfg(test)]
mod tests;

pub use reader::Problems;

use super::threshold::Threshold;
use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};

/// The scenarios that are built in: name and text.
pub const BUILT_IN: [(&str, &str); 9] = [
    ("smoke", include_str!("../../../load/smoke.toml")),
    ("steady", include_str!("../../../load/steady.toml")),
    ("burst", include_str!("../../../load/burst.toml")),
    ("ramp", include_str!("../../../load/ramp.toml")),
    ("hot_account", include_str!("../../../load/hot_account.toml")),
    ("cold_cache", include_str!("../../../load/cold_cache.toml")),
    ("duplicates", include_str!("../../../load/duplicates.toml")),
    ("mixed", include_str!("../../../load/mixed.toml")),
    ("ceiling", include_str!("../../../load/ceiling.toml")),
];

/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Requests in one run: what is known about each is kept until the end, some 60 bytes.
pub const REQUESTS_MAX: u64 = 4_000_000;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// At equal distances.
    Constant,
    /// As independent senders do: the distances are exponential.
    Poisson,
    /// The next one when an earlier one is answered, `in_flight_max` at once: how much can be done, not how long it takes.
    Closed,
}

impl Arrival {
    /// The name in files and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
            Self::Closed => "closed",
        }
    }
}

/// What is in the daemon's memory when the first request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As much as a daemon loads by itself, and what the warm-up touches.
    Warm,
    /// Nothing: no warm-up, and a daemon that was just started and told to load nothing.
    Cold,
}

/// How much money and room there is. Only stores that the run makes itself are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Funds {
    /// As `jitauth seed` draws it: accounts run dry and limits are reached.
    AsSeeded,
    /// More than any run spends: limits are checked and counted, and never reached.
    Plenty,
}

/// What a broken promise of the profile means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// The run has failed.
    Fail,
    /// It is told, and no more: the load is one that nothing is promised about.
    Tell,
}

/// A faster stretch that comes again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// Requests a second in it.
    pub rate_per_s: u32,
    /// From the start of one to the start of the next.
    pub every: Duration,
    /// How long one lasts.
    pub length: Duration,
}

/// What is asked, in thousandths of all requests. The rest is a load card's purchase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// An id that was sent before.
    pub replay: u32,
    /// A card nobody has.
    pub unknown_card: u32,
    /// A user who does not own the card.
    pub wrong_user: u32,
    /// Another currency than the account's.
    pub wrong_currency: u32,
    /// One of the test cards, one for each outcome.
    pub test_card: u32,
}

impl Mix {
    /// All of them together, thousandths.
    #[must_use]
    pub const fn sum(&self) -> u32 {
        self.replay + self.unknown_card + self.wrong_user + self.wrong_currency + self.test_card
    }
}

/// Everything about a run but where it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// As it was named.
    pub name: String,
    /// The comment it opens with.
    pub question: String,
    /// Requests a second at the start; for a closed loop, the most there can be.
    pub rate_per_s: u32,
    /// Requests a second at the end, in a straight line from `rate_per_s`.
    pub ramp_to_per_s: Option<u32>,
    /// A faster stretch now and then.
    pub burst: Option<Burst>,
    /// How long is measured.
    pub duration: Duration,
    /// How long the same is sent before, and not measured.
    pub warm_up: Duration,
    /// How requests follow each other.
    pub arrival: Arrival,
    /// Requests without an answer at once. Whoever needs more is not measuring any more, and the run says so.
    pub in_flight_max: u32,
    /// Load cards that are used; they are in the store.
    pub cards: u64,
    /// How uneven their use is: the exponent of Zipf's law; 0 uses all alike.
    pub zipf_exponent: f64,
    /// How many of a hundred requests go to one account.
    pub hot_percent: u32,
    /// What is asked.
    pub mix: Mix,
    /// How many requests lie between a request and its replay, at least.
    pub replay_back_min: u32,
    /// How long the requester says that it waits.
    pub deadline: Duration,
    /// What is in memory at first.
    pub start: Start,
    /// How much money there is.
    pub funds: Funds,
    /// The bound on the 99th percentile that counts as keeping up, for a ceiling.
    pub ceiling_p99: Duration,
    /// What a broken promise of the profile means.
    pub grade: Grade,
    /// What must be true of the result.
    pub thresholds: Vec<Threshold>,
    /// Draws everything that is left to chance.
    pub seed: u64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            question: String::new(),
            rate_per_s: 1_000,
            ramp_to_per_s: None,
            burst: None,
            duration: Duration::from_secs(60),
            warm_up: Duration::from_secs(10),
            arrival: Arrival::Poisson,
            in_flight_max: 1_000,
            cards: 10_000,
            zipf_exponent: 0.6,
            hot_percent: 0,
            mix: Mix { replay: 10, ..Mix::default() },
            replay_back_min: 500,
            deadline: Duration::from_secs(2),
            start: Start::Warm,
            funds: Funds::Plenty,
            ceiling_p99: Duration::from_millis(100),
            grade: Grade::Fail,
            thresholds: Vec::new(),
            seed: 1,
        }
    }
}

/// A key set on the command line, which wins over the file.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag, as in `--rate`.
    pub name: &'static str,
    /// The key it sets, as in `rate_per_s`.
    pub key: &'static str,
    /// Its value, as TOML.
    pub value: String,
}

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Neither built in nor a file.
    #[error("there is no scenario {name:?}, and no file of that name; built in are {}", names())]
    Unknown {
        /// As it was asked for.
        name: String,
    },
    /// A file that cannot be read.
    #[error("the scenario {path} cannot be read: {error}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Everything that is wrong with it.
    #[error("{0}")]
    Wrong(#[from] Problems),
}

impl Scenario {
    /// The scenario with this name, or in the file at this path, with flags over it.
    ///
    /// # Errors
    /// [`ScenarioError`], with everything that is wrong at once.
    pub fn load(name: &str, flags: &[Flag]) -> Result<Self, ScenarioError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Ok(reader::read(name, &format!("built-in {name}.toml"), text, flags)?);
        }
        let path = Path::new(name);
        let size = match fs::metadata(path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ScenarioError::Unknown { name: name.to_owned() }),
            Err(error) => return Err(ScenarioError::Unreadable { path: name.to_owned(), error }),
        };
        let unreadable = |error| ScenarioError::Unreadable { path: name.to_owned(), error };
        if size > FILE_BYTES_MAX {
            return Err(unreadable(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"))));
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let stem = path.file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned());
        Ok(reader::read(&stem, name, &text, flags)?)
    }

    /// Everything that decides what is sent, as `key = value`: two runs with the same have the same workload.
    #[must_use]
    pub fn workload(&self) -> BTreeMap<String, String> {
        let mix = &self.mix;
        let burst = self.burst.map(|burst| format!("{}/s for {:?} every {:?}", burst.rate_per_s, burst.length, burst.every));
        [
            ("rate_per_s", self.rate_per_s.to_string()),
            ("ramp_to_per_s", self.ramp_to_per_s.map_or_else(|| "none".to_owned(), |rate| rate.to_string())),
            ("burst", burst.unwrap_or_else(|| "none".to_owned())),
            ("duration_s", self.duration.as_secs_f64().to_string()),
            ("warm_up_s", self.warm_up.as_secs_f64().to_string()),
            ("arrival", self.arrival.name().to_owned()),
            ("in_flight_max", self.in_flight_max.to_string()),
            ("cards", self.cards.to_string()),
            ("zipf_exponent", self.zipf_exponent.to_string()),
            ("hot_percent", self.hot_percent.to_string()),
            ("mix.replay_permille", mix.replay.to_string()),
            ("mix.unknown_card_permille", mix.unknown_card.to_string()),
            ("mix.wrong_user_permille", mix.wrong_user.to_string()),
            ("mix.wrong_currency_permille", mix.wrong_currency.to_string()),
            ("mix.test_card_permille", mix.test_card.to_string()),
            ("replay_back_min", self.replay_back_min.to_string()),
            ("deadline_ms", self.deadline.as_millis().to_string()),
            ("start", if self.start == Start::Warm { "warm" } else { "cold" }.to_owned()),
            ("funds", if self.funds == Funds::Plenty { "plenty" } else { "as_seeded" }.to_owned()),
            ("seed", self.seed.to_string()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }
}

fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}
