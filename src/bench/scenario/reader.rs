//! Scenario files: every key, what it may be, and everything that is wrong at once.

use super::{Arrival, Burst, Flag, Funds, Grade, REQUESTS_MAX, Scenario, Start};
use crate::{
    bench::{schedule, threshold::Threshold},
    seed::ids::CARDS_MAX,
};
use std::{fmt, ops::RangeInclusive, time::Duration};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Everything that is wrong with a scenario, a line each, with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the scenario has {} problem(s)\n  {}", self.0.len(), self.0.join("\n  "))
    }
}

/// Every key there is.
const KEYS: &[&str] = &[
    "rate_per_s",
    "ramp_to_per_s",
    "burst_rate_per_s",
    "burst_every_s",
    "burst_length_s",
    "duration_s",
    "warm_up_s",
    "arrival",
    "in_flight_max",
    "cards",
    "zipf_exponent",
    "hot_percent",
    "mix.replay_permille",
    "mix.unknown_card_permille",
    "mix.wrong_user_permille",
    "mix.wrong_currency_permille",
    "mix.test_card_permille",
    "replay_back_min",
    "deadline_ms",
    "start",
    "funds",
    "ceiling_p99_ms",
    "grade",
    "thresholds",
    "seed",
];

const RATE: RangeInclusive<i64> = 1..=200_000;
const PERMILLE: RangeInclusive<i64> = 0..=1_000;

/// Reads a file's text, then the flags over it.
pub(super) fn read(name: &str, origin: &str, text: &str, flags: &[Flag]) -> Result<Scenario, Problems> {
    let mut reader = Reader { origin, text, draft: Draft::default(), problems: Vec::new() };
    reader.draft.scenario.name = name.to_owned();
    reader.draft.scenario.question = question(text);
    if reader.draft.scenario.question.is_empty() {
        reader.problems.push(format!("{origin}:1: does not open with a comment that says which question it answers"));
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        reader.table("", table.get_ref());
    }
    for error in errors {
        let line = reader.line(error.span().map_or(0, |span| span.start));
        reader.problems.push(format!("{origin}:{line}: {}", error.message()));
    }
    for flag in flags {
        reader.flag(flag);
    }
    if reader.problems.is_empty() {
        reader.problems = reader.draft.relations().into_iter().map(|problem| format!("{origin}: {problem}")).collect();
    }
    if reader.problems.is_empty() { Ok(reader.draft.scenario) } else { Err(Problems(reader.problems)) }
}

/// The comment that a file opens with, as one line.
fn question(text: &str) -> String {
    let comment = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
    comment.collect::<Vec<_>>().join(" ").trim().to_owned()
}

struct Reader<'a> {
    origin: &'a str,
    text: &'a str,
    draft: Draft,
    problems: Vec<String>,
}

#[derive(Default)]
struct Draft {
    scenario: Scenario,
    burst_rate: Option<u32>,
    burst_every: Option<Duration>,
    burst_length: Option<Duration>,
}

impl Reader<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            if let DeValue::Table(inner) = value.get_ref()
                && path == "mix"
            {
                self.table(&path, inner);
                continue;
            }
            let at = if KEYS.contains(&path.as_str()) { value.span().start } else { key.span().start };
            if let Err(problem) = self.draft.set(&path, value) {
                let line = self.line(at);
                self.problems.push(format!("{}:{line}: {problem}", self.origin));
            }
        }
    }

    fn flag(&mut self, flag: &Flag) {
        let text = format!("value = {}", flag.value);
        let (table, errors) = DeTable::parse_recoverable(&text);
        let set = match table.get_ref().get("value").filter(|_| errors.is_empty()) {
            Some(value) => self.draft.set(flag.key, value),
            None => Err(format!("{:?} is no value", flag.value)),
        };
        if let Err(problem) = set {
            self.problems.push(format!("{}: {problem}", flag.name));
        }
    }

    fn line(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or(self.text).matches('\n').count() + 1
    }
}

impl Draft {
    fn set(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<(), String> {
        let to = &mut self.scenario;
        let found = Found { key, value: value.get_ref() };
        match key {
            "rate_per_s" => to.rate_per_s = found.whole(RATE)?,
            "ramp_to_per_s" => to.ramp_to_per_s = Some(found.whole(RATE)?),
            "burst_rate_per_s" => self.burst_rate = Some(found.whole(RATE)?),
            "burst_every_s" => self.burst_every = Some(found.seconds(1..=3_600)?),
            "burst_length_s" => self.burst_length = Some(found.seconds(1..=3_600)?),
            "duration_s" => to.duration = found.seconds(1..=3_600)?,
            "warm_up_s" => to.warm_up = found.seconds(0..=600)?,
            "arrival" => to.arrival = found.one_of(&[Arrival::Constant, Arrival::Poisson, Arrival::Closed].map(|it| (it.name(), it)))?,
            "in_flight_max" => to.in_flight_max = found.whole(1..=20_000)?,
            "cards" => to.cards = found.whole(1..=CARDS_MAX.cast_signed())?,
            "zipf_exponent" => to.zipf_exponent = found.real(0.0..=3.0)?,
            "hot_percent" => to.hot_percent = found.whole(0..=100)?,
            "mix.replay_permille" => to.mix.replay = found.whole(PERMILLE)?,
            "mix.unknown_card_permille" => to.mix.unknown_card = found.whole(PERMILLE)?,
            "mix.wrong_user_permille" => to.mix.wrong_user = found.whole(PERMILLE)?,
            "mix.wrong_currency_permille" => to.mix.wrong_currency = found.whole(PERMILLE)?,
            "mix.test_card_permille" => to.mix.test_card = found.whole(PERMILLE)?,
            "replay_back_min" => to.replay_back_min = found.whole(1..=100_000)?,
            "deadline_ms" => to.deadline = Duration::from_millis(found.whole(100..=60_000)?),
            "start" => to.start = found.one_of(&[("warm", Start::Warm), ("cold", Start::Cold)])?,
            "funds" => to.funds = found.one_of(&[("plenty", Funds::Plenty), ("as_seeded", Funds::AsSeeded)])?,
            "ceiling_p99_ms" => to.ceiling_p99 = Duration::from_millis(found.whole(1..=60_000)?),
            "grade" => to.grade = found.one_of(&[("fail", Grade::Fail), ("tell", Grade::Tell)])?,
            "thresholds" => to.thresholds = found.thresholds()?,
            "seed" => to.seed = found.whole(0..=i64::MAX)?,
            _ => return Err(unknown(key)),
        }
        Ok(())
    }

    /// What is wrong though each value is right by itself.
    fn relations(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        match (self.burst_rate, self.burst_every, self.burst_length) {
            (None, None, None) => {}
            (Some(rate_per_s), Some(every), Some(length)) if length < every => {
                self.scenario.burst = Some(Burst { rate_per_s, every, length });
            }
            (Some(_), Some(_), Some(_)) => problems.push("burst_length_s must be less than burst_every_s".to_owned()),
            _ => problems.push("burst_rate_per_s, burst_every_s and burst_length_s belong together: give all three or none".to_owned()),
        }
        let it = &self.scenario;
        if it.mix.sum() > 1_000 {
            problems.push(format!("the shares of mix add up to {} thousandths, more than everything", it.mix.sum()));
        }
        if it.arrival == Arrival::Closed && (it.ramp_to_per_s.is_some() || it.burst.is_some()) {
            problems.push("arrival is closed, so there is no rate to ramp or to burst".to_owned());
        }
        if it.start == Start::Cold && !it.warm_up.is_zero() {
            problems.push("start is cold, so warm_up_s must be 0".to_owned());
        }
        if it.burst.is_some_and(|burst| burst.every > it.duration) {
            problems.push("duration_s must be at least burst_every_s: a burst ends each period, so that none would come".to_owned());
        }
        let requests = schedule::expected(it);
        if requests > REQUESTS_MAX as f64 {
            problems.push(format!("makes {requests:.0} requests, more than the {REQUESTS_MAX} of one run: lower the rate or the duration"));
        }
        problems
    }
}

fn unknown(key: &str) -> String {
    let alike = KEYS.iter().map(|known| (strsim::damerau_levenshtein(key, known), known)).min();
    match alike {
        Some((distance, known)) if distance <= 3 => format!("{key} is no key of a scenario; did you mean {known}?"),
        _ => format!("{key} is no key of a scenario; there are {}", KEYS.join(", ")),
    }
}

/// A value under its key.
struct Found<'a> {
    key: &'a str,
    value: &'a DeValue<'a>,
}

impl Found<'_> {
    fn integer(&self) -> Option<i64> {
        match self.value {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        }
    }

    fn whole<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Result<T, String> {
        let wrong = || format!("{} must be a whole number from {} to {}", self.key, range.start(), range.end());
        let number = self.integer().filter(|number| range.contains(number)).ok_or_else(wrong)?;
        T::try_from(number).map_err(|_| wrong())
    }

    fn seconds(&self, range: RangeInclusive<i64>) -> Result<Duration, String> {
        Ok(Duration::from_secs(self.whole(range)?))
    }

    fn real(&self, range: RangeInclusive<f64>) -> Result<f64, String> {
        let number = match self.value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => self.integer().map(|number| number as f64),
        };
        let wrong = || format!("{} must be a number from {} to {}", self.key, range.start(), range.end());
        number.filter(|number| range.contains(number)).ok_or_else(wrong)
    }

    fn one_of<T: Copy>(&self, values: &[(&str, T)]) -> Result<T, String> {
        let found = values.iter().find(|(name, _)| self.value.as_str() == Some(name));
        let names = || values.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.map(|(_, value)| *value).ok_or_else(|| format!("{} must be one of: {}", self.key, names()))
    }

    fn thresholds(&self) -> Result<Vec<Threshold>, String> {
        let DeValue::Array(items) = self.value else { return Err("thresholds must be a list of texts".to_owned()) };
        let read = |item: &Spanned<DeValue<'_>>| match item.get_ref().as_str() {
            Some(text) => Threshold::parse(text).map_err(|error| error.to_string()),
            None => Err("thresholds must be a list of texts".to_owned()),
        };
        let (good, wrong): (Vec<_>, Vec<_>) = items.iter().map(read).partition(Result::is_ok);
        let wrong: Vec<String> = wrong.into_iter().filter_map(Result::err).collect();
        if wrong.is_empty() { Ok(good.into_iter().filter_map(Result::ok).collect()) } else { Err(wrong.join("; ")) }
    }
}
