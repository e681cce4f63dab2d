//! A comparison for people: on a terminal, and in Markdown.

use super::{Comparison, Grade, Origin, Row, grade::Unit};
use indicatif::HumanCount;
use std::io::{self, Write};

/// Prints it for a terminal.
///
/// # Errors
/// The reader is gone.
pub fn terminal(out: &mut impl Write, it: &Comparison) -> io::Result<()> {
    writeln!(out, "{}\n", it.title)?;
    writeln!(out, "before  {}", origin(&it.before))?;
    writeln!(out, "after   {}\n", origin(&it.after))?;
    writeln!(out, "  {:<26} {:>24} {:>24} {:>9} {:>10}", "figure", "before", "after", "change", "tolerated")?;
    for row in &it.rows {
        let (before, after) = (value(row, true), value(row, false));
        let line = format!("  {:<26} {before:>24} {after:>24} {:>9} {:>10}  {}", named(row), change(row), tolerance(row), grade(row.grade));
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out, "\nTimes in µs. Medians, with the least and the most of several runs.")?;
    for difference in &it.forced {
        writeln!(out, "Forced: {difference}")?;
    }
    for warning in &it.warnings {
        writeln!(out, "Warning: {}", warning.text)?;
    }
    writeln!(out, "\n{}", verdict(it))
}

/// Writes it as Markdown.
///
/// # Errors
/// The writer failed.
pub fn markdown(out: &mut impl Write, it: &Comparison) -> io::Result<()> {
    writeln!(out, "# {}: {}\n", it.title, if it.regression { "regression" } else { "no regression" })?;
    writeln!(out, "- before: {}\n- after: {}", origin(&it.before), origin(&it.after))?;
    for difference in &it.forced {
        writeln!(out, "- **forced**: {difference}")?;
    }
    for warning in &it.warnings {
        writeln!(out, "- {}", warning.text)?;
    }
    writeln!(out, "\n| figure | before | after | change | tolerated | |\n|---|--:|--:|--:|--:|---|")?;
    for row in &it.rows {
        let (before, after) = (value(row, true), value(row, false));
        let grade = match row.grade {
            Grade::Regression => "**regression**",
            other => grade(other),
        };
        writeln!(out, "| {} | {before} | {after} | {} | {} | {grade} |", named(row), change(row), tolerance(row))?;
    }
    writeln!(out, "\nTimes in µs. Medians, with the least and the most of several runs. {}", verdict(it))
}

/// What it comes to, in a sentence.
#[must_use]
pub fn verdict(it: &Comparison) -> String {
    let worse: Vec<&str> = it.rows.iter().filter(|row| row.grade == Grade::Regression).map(|row| row.figure.as_str()).collect();
    let graded = it.rows.iter().filter(|row| !matches!(row.grade, Grade::Told | Grade::TooFew)).count();
    if worse.is_empty() { format!("No regression in {graded} figures.") } else { format!("REGRESSION: {}", worse.join(", ")) }
}

fn origin(it: &Origin) -> String {
    let commits = it.commits.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
    let commits = if commits.is_empty() { String::new() } else { format!(", commit {commits}") };
    let runs = if it.runs == 1 { "1 run".to_owned() } else { format!("{} runs", it.runs) };
    format!("{}: {runs} from {}, jitauth {}{commits}", it.from, it.started_at, it.version)
}

fn named(row: &Row) -> String {
    match row.unit {
        Unit::PerS => format!("{} a second", row.figure),
        Unit::Percent => format!("{}, % of answers", row.figure),
        Unit::Us | Unit::TimeRatio | Unit::RateRatio => row.figure.clone(),
    }
}

fn value(row: &Row, before: bool) -> String {
    let it = if before { row.before } else { row.after };
    let written = |value: f64| match row.unit {
        Unit::Us => HumanCount(value.round().max(0.0) as u64).to_string(),
        Unit::PerS => {
            format!("{}.{}", HumanCount((value.max(0.0) * 10.0).round() as u64 / 10), (value.max(0.0) * 10.0).round() as u64 % 10)
        }
        Unit::Percent | Unit::TimeRatio | Unit::RateRatio => format!("{value:.3}"),
    };
    // Compared as they are written: of one run there is nothing to tell beside its value.
    let (least, most) = (written(it.min), written(it.max));
    if least == most { written(it.median) } else { format!("{} ({least} to {most})", written(it.median)) }
}

fn change(row: &Row) -> String {
    row.change_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:+.1} %"))
}

fn tolerance(row: &Row) -> String {
    match row.unit {
        Unit::Percent => format!("{} points", row.tolerance_percent),
        _ => format!("{} %", row.tolerance_percent),
    }
}

const fn grade(grade: Grade) -> &'static str {
    match grade {
        Grade::Regression => "REGRESSION",
        Grade::Better => "better",
        Grade::Same => "same",
        Grade::Spread => "within the spread of the runs before",
        Grade::TooFew => "too few samples",
        Grade::Told => "its ratio is graded",
    }
}
