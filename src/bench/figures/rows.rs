//! What has to be reached: the table, as data.

use serde::{Deserialize, Serialize};

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// A word for machines and for `--only`.
    pub name: &'static str,
    /// What it is, for people.
    pub figure: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// Which way is better.
    pub better: Better,
    /// What no change may fall short of.
    pub must: f64,
    /// What is wanted.
    pub aim: f64,
    /// The measurement that tells it.
    pub group: Group,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Milliseconds more than something else.
    MoreMs,
    /// A quotient.
    Ratio,
    /// A second.
    PerS,
    /// Nanoseconds.
    Ns,
    /// Microseconds.
    Us,
    /// Bytes.
    Bytes,
    /// Seconds.
    S,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// As little as can be.
    Lower,
    /// As much as can be.
    Higher,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A daemon behind quorum queues and the broker's echo, in turn.
    SteadyQuorum,
    /// The same with classic queues.
    SteadyClassic,
    /// The ceilings of both, with quorum queues.
    CeilingQuorum,
    /// With classic queues.
    CeilingClassic,
    /// The pipeline on SQLite, as fast as it can, and the store without us, in turn.
    Sqlite,
    /// The same on PostgreSQL.
    Postgres,
    /// The rules alone.
    Decide,
    /// The pipeline at a moderate rate.
    Gather,
    /// Few cards and very many: the pipeline on both in turn, and daemons that start on them.
    Cards,
    /// One hot account and even use, in turn.
    Hot,
}

impl Group {
    /// All, in the order they are measured.
    pub const ALL: [Self; 10] = [
        Self::SteadyQuorum,
        Self::SteadyClassic,
        Self::CeilingQuorum,
        Self::CeilingClassic,
        Self::Sqlite,
        Self::Postgres,
        Self::Decide,
        Self::Gather,
        Self::Cards,
        Self::Hot,
    ];
}

const fn row(name: &'static str, figure: &'static str, (unit, better): (Unit, Better), (must, aim): (f64, f64), group: Group) -> Row {
    Row { name, figure, unit, better, must, aim, group }
}

const LESS_MS: (Unit, Better) = (Unit::MoreMs, Better::Lower);
const LESS_RATIO: (Unit, Better) = (Unit::Ratio, Better::Lower);
const MORE_RATIO: (Unit, Better) = (Unit::Ratio, Better::Higher);
const MORE_PER_S: (Unit, Better) = (Unit::PerS, Better::Higher);

/// The table.
pub const ROWS: [Row; 15] = [
    row("amqp_p50_quorum", "AMQP, 1,000/s, quorum queues: p50 over the echo's p50", LESS_MS, (1.2, 0.6), Group::SteadyQuorum),
    row("amqp_p50_classic", "AMQP, 1,000/s, classic queues: p50 over the echo's p50", LESS_MS, (1.2, 0.6), Group::SteadyClassic),
    row("amqp_p99_quorum", "AMQP, 1,000/s, quorum queues: p99 to the echo's p99", LESS_RATIO, (1.5, 1.0), Group::SteadyQuorum),
    row("amqp_p99_classic", "AMQP, 1,000/s, classic queues: p99 to the echo's p99", LESS_RATIO, (1.5, 1.0), Group::SteadyClassic),
    row(
        "amqp_ceiling_quorum",
        "AMQP, quorum queues: ceiling (p99 under 100 ms, nothing lost) to the echo's",
        MORE_RATIO,
        (0.75, 0.95),
        Group::CeilingQuorum,
    ),
    row("amqp_ceiling_classic", "AMQP, classic queues: ceiling to the echo's", MORE_RATIO, (0.75, 0.95), Group::CeilingClassic),
    row("sqlite", "in process, durable SQLite, three limits active: decisions a second", MORE_PER_S, (15_000.0, 40_000.0), Group::Sqlite),
    row(
        "postgres",
        "in process, durable PostgreSQL, two lanes, three limits active: decisions a second",
        MORE_PER_S,
        (20_000.0, 40_000.0),
        Group::Postgres,
    ),
    row(
        "postgres_to_floor",
        "in process, durable PostgreSQL: decisions a second to the store's group commits without us",
        MORE_RATIO,
        (0.7, 0.9),
        Group::Postgres,
    ),
    row("decide", "decide with five limits", (Unit::Ns, Better::Lower), (500.0, 200.0), Group::Decide),
    row("gather", "warm gather and decision, p99", (Unit::Us, Better::Lower), (50.0, 10.0), Group::Gather),
    row("cards_cost", "cost of a decision at 1,000,000 cards to that at 1,000", LESS_RATIO, (1.3, 1.1), Group::Cards),
    row("card_memory", "memory of a warm card with its limits", (Unit::Bytes, Better::Lower), (700.0, 400.0), Group::Cards),
    row("warm_start", "warm start with 1,000,000 cards from PostgreSQL", (Unit::S, Better::Lower), (20.0, 8.0), Group::Cards),
    row("hot_account", "hot account (90 % of the load on one): throughput to that of even use", MORE_RATIO, (0.7, 0.95), Group::Hot),
];

/// How a figure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// What is wanted is reached.
    Aim,
    /// What must be is kept.
    Must,
    /// It falls short.
    Short,
    /// There is no figure.
    NotMeasured,
}

impl Row {
    /// How a figure of this row stands.
    #[must_use]
    pub fn standing(&self, value: Option<f64>) -> Standing {
        let Some(value) = value.filter(|value| value.is_finite()) else { return Standing::NotMeasured };
        let reaches = |bound: f64| match self.better {
            Better::Lower => value <= bound,
            Better::Higher => value >= bound,
        };
        match (reaches(self.aim), reaches(self.must)) {
            (true, _) => Standing::Aim,
            (false, true) => Standing::Must,
            (false, false) => Standing::Short,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_bound_that_is_met_exactly_is_reached() {
        let check = |name: &str, value: Option<f64>, expected: Standing| {
            let row = ROWS.iter().find(|row| row.name == name);
            assert_eq!(row.map(|row| row.standing(value)), Some(expected), "{name} {value:?}");
        };
        check("decide", Some(200.0), Standing::Aim);
        check("decide", Some(201.0), Standing::Must);
        check("decide", Some(500.0), Standing::Must);
        check("decide", Some(501.0), Standing::Short);
        check("hot_account", Some(0.95), Standing::Aim);
        check("hot_account", Some(0.94), Standing::Must);
        check("hot_account", Some(0.69), Standing::Short);
        check("hot_account", None, Standing::NotMeasured);
        check("hot_account", Some(f64::NAN), Standing::NotMeasured);
        check("hot_account", Some(f64::INFINITY), Standing::NotMeasured);
    }

    #[test]
    fn every_row_has_a_name_of_its_own_and_aims_higher_than_it_must() {
        let names: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        for row in &ROWS {
            assert_eq!(row.standing(Some(row.aim)), Standing::Aim, "{}", row.name);
            assert_eq!(row.standing(Some(row.must)), Standing::Must, "{}", row.name);
            assert!(Group::ALL.contains(&row.group), "{}", row.name);
        }
        assert!(Group::ALL.iter().all(|group| ROWS.iter().any(|row| row.group == *group)), "every measurement tells something");
    }
}
