//! Which figures there are, and whether one has become worse.

use super::{CompareError, Settings, Side};
use crate::bench::{
    floor::ratios,
    summary::{Latency, Summary, rounded},
    warning::SAMPLES_MIN,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// How much worse a time may be by default, percent.
const TIME_TOLERANCE: f64 = 10.0;
/// How much lower a rate.
const RATE_TOLERANCE: f64 = 5.0;
/// How many more of a hundred answers may be declined for reasons of ours.
const SHARE_TOLERANCE: f64 = 0.1;

/// What a figure is counted in, and with it which way is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Microseconds; more is worse.
    Us,
    /// A second; less is worse.
    PerS,
    /// Percent of the answers; more is worse.
    Percent,
    /// A time over a floor's; more is worse.
    TimeRatio,
    /// A rate over a floor's; less is worse.
    RateRatio,
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Worse than tolerated, by more than nobody notices, and beyond what the runs before spread over.
    Regression,
    /// Better by as much.
    Better,
    /// Neither.
    Same,
    /// It would be a regression or better, but for the spread of the runs before.
    Spread,
    /// Too few requests lie above the percentile.
    TooFew,
    /// Not graded: its ratio to the floor is.
    Told,
}

/// A figure of one side: its median over the runs, and between what it was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

/// A figure on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name, as in a threshold; a ratio's ends in what it is a ratio to.
    pub figure: String,
    /// What it is counted in.
    pub unit: Unit,
    /// Before.
    pub before: Spread,
    /// After.
    pub after: Spread,
    /// Of the median before, percent; `None` where that is 0.
    pub change_percent: Option<f64>,
    /// How much worse is tolerated: percent of the median before, or of the answers.
    pub tolerance_percent: f64,
    /// What became of it.
    pub grade: Grade,
}

/// How much worse a figure may be, by its name; those that are not named have a default. What is said of a figure goes for its ratio.
#[derive(Clone, Debug, Default)]
pub struct Tolerances(BTreeMap<String, f64>);

/// Why a tolerance means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToleranceError {
    /// It cannot be read.
    #[error("the tolerance {0:?} is not written as in p99=10%")]
    Unread(String),
    /// There is no such figure here.
    #[error("a tolerance is about {name:?}, which these results have no figure of; they have {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
}

impl Tolerances {
    /// Adds one, as in `p99=10%`.
    ///
    /// # Errors
    /// [`ToleranceError::Unread`].
    pub fn add(&mut self, text: &str) -> Result<(), ToleranceError> {
        let unread = || ToleranceError::Unread(text.to_owned());
        let (name, percent) = text.split_once('=').ok_or_else(unread)?;
        let percent = percent.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let percent = percent.filter(|percent| percent.is_finite() && *percent >= 0.0).ok_or_else(unread)?;
        self.0.insert(name.trim().to_owned(), percent);
        Ok(())
    }

    fn of(&self, figure: &Figure) -> f64 {
        let given = self.0.get(&figure.name).or_else(|| self.0.get(figure.instead_of.as_ref()?));
        given.copied().unwrap_or(match figure.unit {
            Unit::Us | Unit::TimeRatio => TIME_TOLERANCE,
            Unit::PerS | Unit::RateRatio => RATE_TOLERANCE,
            Unit::Percent => SHARE_TOLERANCE,
        })
    }
}

/// A figure of one run.
struct Figure {
    name: String,
    unit: Unit,
    value: f64,
    /// Requests above the percentile; `None` where it is none.
    above: Option<f64>,
    /// What a ratio is one to, microseconds.
    floor_us: f64,
    /// The figure that this is the ratio of.
    instead_of: Option<String>,
}

/// Each figure that every run has, and the names of the others.
pub(super) struct Graded {
    pub(super) rows: Vec<Row>,
    pub(super) one_sided: Vec<String>,
}

pub(super) fn rows(before: &Side, after: &Side, settings: &Settings) -> Result<Graded, CompareError> {
    let all = |side: &Side| -> Vec<Vec<Figure>> { side.runs.iter().map(figures).collect() };
    let (before, after) = (all(before), all(after));
    let mut names: Vec<&String> = Vec::new();
    for figure in before.iter().chain(&after).flatten() {
        if !names.contains(&&figure.name) {
            names.push(&figure.name);
        }
    }
    let of = |runs: &'_ [Vec<Figure>], name: &str| -> Option<Vec<usize>> {
        runs.iter().map(|run| run.iter().position(|figure| figure.name == name)).collect()
    };
    let mut graded = Graded { rows: Vec::new(), one_sided: Vec::new() };
    let mut replaced = Vec::new();
    for name in names {
        let (Some(one), Some(other)) = (of(&before, name), of(&after, name)) else {
            graded.one_sided.push(name.clone());
            continue;
        };
        let one: Vec<&Figure> = before.iter().zip(one).map(|(run, at)| &run[at]).collect();
        let other: Vec<&Figure> = after.iter().zip(other).map(|(run, at)| &run[at]).collect();
        replaced.extend(one[0].instead_of.clone());
        graded.rows.push(row(&one, &other, settings));
    }
    for row in graded.rows.iter_mut().filter(|row| replaced.contains(&row.figure)) {
        row.grade = Grade::Told;
    }
    let known: Vec<&str> = graded.rows.iter().map(|row| row.figure.as_str()).collect();
    match settings.tolerances.0.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(ToleranceError::Unknown { name: name.clone(), known: known.join(", ") }.into()),
        None => Ok(graded),
    }
}

fn row(before: &[&Figure], after: &[&Figure], settings: &Settings) -> Row {
    let figure = before[0];
    let (one, other) = (spread(before), spread(after));
    let tolerance_percent = settings.tolerances.of(figure);
    let falls = matches!(figure.unit, Unit::PerS | Unit::RateRatio);
    let worse = if falls { one.median - other.median } else { other.median - one.median };
    let tolerated = if figure.unit == Unit::Percent { tolerance_percent } else { one.median * tolerance_percent / 100.0 };
    let noticed_us = match figure.unit {
        Unit::Us => worse.abs(),
        Unit::TimeRatio => worse.abs() * median(before.iter().map(|figure| figure.floor_us).collect()),
        Unit::PerS | Unit::RateRatio | Unit::Percent => f64::INFINITY,
    };
    let few = |figure: &&&Figure| figure.above.is_some_and(|above| above < SAMPLES_MIN as f64);
    // One run has no spread: then there is only the tolerance.
    let beyond = before.len() == 1 || other.median > one.max || other.median < one.min;
    let grade = match (worse.abs() > tolerated && noticed_us > settings.min_effect_us, beyond) {
        _ if before.iter().chain(after).any(|figure| few(&figure)) => Grade::TooFew,
        (false, _) => Grade::Same,
        (true, false) => Grade::Spread,
        (true, true) if worse > 0.0 => Grade::Regression,
        (true, true) => Grade::Better,
    };
    let change = (other.median - one.median) / one.median * 100.0;
    Row {
        figure: figure.name.clone(),
        unit: figure.unit,
        before: one,
        after: other,
        change_percent: change.is_finite().then(|| rounded(change, 1)),
        tolerance_percent,
        grade,
    }
}

fn spread(runs: &[&Figure]) -> Spread {
    let values: Vec<f64> = runs.iter().map(|figure| figure.value).collect();
    let (min, max) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| (min.min(*value), max.max(*value)));
    Spread { median: rounded(median(values), 4), min, max }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Everything that is compared of one run, in the order it is shown.
fn figures(it: &Summary) -> Vec<Figure> {
    let mut all = Vec::new();
    // A search ends at another rate each time: its times are those of that rate, and its errors those of the rates above.
    if it.ceiling.as_ref().is_none_or(|ceiling| ceiling.search.is_none()) {
        // Against an echo that was disturbed everything looks better: its times are graded as they are then.
        let echo = it.floor.as_ref().and_then(|floor| floor.echo.as_ref()).filter(|echo| ratios::is_floor(echo));
        times(&mut all, "", &it.response_time, echo.map(|echo| &echo.response_time));
        times(&mut all, "service_time.", &it.service_time, echo.map(|echo| &echo.service_time));
        all.push(plain("achieved", it.rate.achieved_per_s, Unit::PerS, None));
        all.push(plain("errors", it.requests.errors as f64 * 100.0 / it.requests.answered as f64, Unit::Percent, None));
        stages(&mut all, it);
    }
    all.extend(it.ceiling.as_ref().map(|ceiling| plain("ceiling", ceiling.rate_per_s, Unit::PerS, None)));
    for ratio in it.floor.iter().flat_map(|floor| &floor.ratios) {
        match ratio.name.as_str() {
            name @ "ceiling_to_echo" => all.push(plain(name, ratio.value, Unit::RateRatio, Some("ceiling"))),
            name @ ("decisions_to_rows" | "decisions_to_commits") => all.push(plain(name, ratio.value, Unit::RateRatio, Some("achieved"))),
            _ => {}
        }
    }
    all.retain(|figure| figure.value.is_finite());
    all
}

/// A figure that is no percentile.
fn plain(name: &str, value: f64, unit: Unit, instead_of: Option<&str>) -> Figure {
    Figure { name: name.to_owned(), unit, value, above: None, floor_us: 0.0, instead_of: instead_of.map(str::to_owned) }
}

/// The 99th percentile of each of the daemon's spans; that of the commit with its ratio to one decision's alone.
fn stages(all: &mut Vec<Figure>, it: &Summary) {
    let alone = it.floor.as_ref().and_then(|floor| floor.commit_alone.as_ref());
    for stage in &it.stages {
        let floor = alone.filter(|_| stage.span == "commit");
        let p99: BTreeMap<String, u64> =
            stage.latency.percentiles_us.iter().filter(|(name, _)| *name == "p99").map(|(name, us)| (name.clone(), *us)).collect();
        let latency = Latency { count: stage.latency.count, percentiles_us: p99, ..Latency::default() };
        times(all, &format!("{}.", stage.span), &latency, floor);
    }
}

/// The percentiles of a distribution, each with its ratio to the floor's.
fn times(all: &mut Vec<Figure>, prefix: &str, times: &Latency, floor: Option<&Latency>) {
    if times.count == 0 {
        return;
    }
    for (percentile, quantile) in Latency::PERCENTILES {
        let Some(us) = times.percentiles_us.get(percentile) else { continue };
        let (name, value) = (format!("{prefix}{percentile}"), *us as f64);
        let above = times.count as f64 * (1.0 - quantile);
        let floor = floor.and_then(|floor| Some((floor.count, *floor.percentiles_us.get(percentile)?))).filter(|(_, us)| *us > 0);
        all.push(Figure { name: name.clone(), unit: Unit::Us, value, above: Some(above), floor_us: 0.0, instead_of: None });
        if let Some((count, floor_us)) = floor {
            let (floor_us, above) = (floor_us as f64, above.min(count as f64 * (1.0 - quantile)));
            let ratio = rounded(value / floor_us, 4);
            let unit = Unit::TimeRatio;
            all.push(Figure { name: format!("{name}_to_floor"), unit, value: ratio, above: Some(above), floor_us, instead_of: Some(name) });
        }
    }
}
