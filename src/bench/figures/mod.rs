//! Every figure that has to be reached, measured by one command and written down as a table: `rows` says what, `measure` how.
//!
//! What a row needs and the environment does not have is said in the row instead of a figure. So is what went wrong: a run in which
//! something was lost or not proved has no figures.

mod board;
mod contest;
pub mod decide;
mod measure;
mod rows;

pub use board::{BEGIN, Board, END, Figure, IntoError, chosen};
pub use rows::{Better, Group, ROWS, Row, Standing, Unit};

use super::{
    Error, Request, Step,
    environment::Environment,
    floor::Ratio,
    scratch::Location,
    summary::{Tool, rounded},
};
use std::{collections::BTreeMap, time::Duration};

/// What is measured, and on what.
pub struct Order {
    /// The rows.
    pub rows: Vec<&'static Row>,
    /// How long and how many.
    pub sizes: Sizes,
    /// A request with everything but scenario, target and store.
    pub request: Request,
    /// How a SQLite file is opened.
    pub sqlite: Location,
    /// The server for databases of the run's own; `None` where the configuration is not about PostgreSQL.
    pub postgres: Option<Location>,
    /// Where Redis is.
    pub redis: Option<String>,
    /// What was typed.
    pub command: String,
}

/// How long and how many.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Short, to see that everything can be measured.
    pub quick: bool,
    /// Turns of each.
    pub rounds: u32,
    /// Of a daemon and of the echo, all turns together.
    pub steady: Duration,
    /// Of one turn as fast as it can be.
    pub closed: Duration,
    /// Before each of these.
    pub warm_up: Duration,
    /// Of the pipeline at a moderate rate.
    pub gather: Duration,
    /// One step of a ceiling.
    pub step: Duration,
    /// Steps of a ceiling.
    pub steps_max: u32,
    /// Cards in most stores.
    pub cards: u64,
    /// Very many cards.
    pub cards_many: u64,
    /// Few cards.
    pub cards_few: u64,
    /// Starts of a daemon.
    pub starts: u32,
    /// Batches of decisions.
    pub batches: u32,
}

impl Sizes {
    /// As long as it takes for the figures to mean something.
    pub const WHOLE: Self = Self {
        quick: false,
        rounds: 3,
        steady: Duration::from_secs(60),
        closed: Duration::from_secs(8),
        warm_up: Duration::from_secs(2),
        gather: Duration::from_secs(30),
        step: Duration::from_secs(5),
        steps_max: 20,
        cards: 10_000,
        cards_many: 1_000_000,
        cards_few: 1_000,
        starts: 3,
        batches: 500,
    };

    /// As short as can be.
    pub const QUICK: Self = Self {
        quick: true,
        rounds: 1,
        steady: Duration::from_secs(1),
        closed: Duration::from_secs(1),
        warm_up: Duration::ZERO,
        gather: Duration::from_secs(1),
        step: Duration::from_secs(1),
        steps_max: 2,
        cards: 200,
        cards_many: 2_000,
        cards_few: 200,
        starts: 1,
        batches: 20,
    };
}

/// What a measurement told about its rows, by name.
#[derive(Debug, Default)]
struct Told {
    figures: BTreeMap<&'static str, (f64, Vec<f64>)>,
    /// How it was measured, and what speaks against it: of every row.
    notes: Vec<String>,
    versions: BTreeMap<&'static str, String>,
    durability: Option<(String, String)>,
}

impl Told {
    /// Of a run that left something behind, or nothing.
    fn left(left: &[String]) -> Self {
        let notes = if left.is_empty() { Vec::new() } else { vec![format!("left behind: {}", left.join(", "))] };
        Self { notes, ..Self::default() }
    }

    /// The ratio to a floor, with the lowest and the highest of its turns, divided by something.
    fn ratio(&mut self, name: &'static str, ratio: Option<&Ratio>, by: f64) {
        if let Some(Ratio { value, lowest, highest, .. }) = ratio {
            self.figure(name, value / by, vec![lowest / by, highest / by]);
        }
    }

    /// A figure with those of the turns that it is the median of.
    fn figure(&mut self, name: &'static str, value: f64, turns: Vec<f64>) {
        self.figures.insert(name, (value, turns));
    }

    /// The median of turns.
    fn median(&mut self, name: &'static str, turns: Vec<f64>) {
        self.figure(name, median(turns.clone()), turns);
    }
}

/// Why a measurement has no figures.
#[derive(Debug, thiserror::Error)]
enum Without {
    /// The environment has not what it needs.
    #[error("{0}")]
    Needs(&'static str),
    /// Something was lost, wrong or not proved.
    #[error("the run went wrong: {0}")]
    Wrong(String),
    /// It came to no end.
    #[error("{0}")]
    Failed(#[from] Error),
}

/// Measures the rows, one measurement after the other.
///
/// # Errors
/// Ctrl-C and SIGTERM. Whatever else goes wrong is told in its rows.
pub async fn run(order: &Order, mut step: impl FnMut(Step<'_>)) -> Result<Board, Error> {
    let started_at = now();
    let environment = Environment::look();
    let mut board = Board {
        schema_version: 1,
        meaningful: !order.sizes.quick && !cfg!(debug_assertions),
        started_at,
        command: order.command.clone(),
        tool: Tool::this(),
        rustc: option_env!("BUILD_RUSTC").map(str::to_owned),
        environment,
        versions: BTreeMap::new(),
        durability: BTreeMap::new(),
        figures: order.rows.iter().map(|row| Figure::of(row)).collect(),
    };
    for group in Group::ALL {
        let rows: Vec<&Row> = order.rows.iter().copied().filter(|row| row.group == group).collect();
        let Some(first) = rows.first() else { continue };
        step(Step::Note(&format!("measuring: {}", first.figure)));
        let told = match measure::group(group, order, &mut step).await {
            Ok(told) => told,
            Err(Without::Failed(error)) if interrupted(&error) => return Err(error),
            // What follows is the end of a daemon's log, which has no place in a table.
            Err(without) => Told { notes: without.to_string().lines().next().map(str::to_owned).into_iter().collect(), ..Told::default() },
        };
        step(Step::Done);
        enter(&mut board, &rows, told);
    }
    Ok(board)
}

/// Whether somebody wants it to end.
fn interrupted(error: &Error) -> bool {
    match error {
        Error::Interrupted => true,
        Error::Left { error, .. } => interrupted(error),
        _ => false,
    }
}

fn enter(board: &mut Board, rows: &[&Row], told: Told) {
    for row in rows {
        let Some(figure) = board.figures.iter_mut().find(|figure| figure.name == row.name) else { continue };
        if let Some((value, turns)) = told.figures.get(row.name).filter(|(value, _)| value.is_finite()) {
            figure.value = Some(rounded(*value, 3));
            figure.turns = turns.iter().map(|turn| rounded(*turn, 3)).collect();
        } else if told.notes.is_empty() {
            figure.notes.push("there was nothing to tell it from".to_owned());
        }
        figure.standing = row.standing(figure.value);
        figure.notes.extend(told.notes.iter().cloned());
    }
    board.durability.extend(told.durability);
    board.versions.extend(told.versions.into_iter().map(|(name, version)| (name.to_owned(), version)));
}

#[expect(clippy::disallowed_methods, reason = "the day of the measurement is told")]
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
