//! The figures as a whole, and as a table for README.

use super::rows::{ROWS, Row, Standing, Unit};
use crate::bench::{
    environment::Environment,
    summary::{Tool, rounded},
};
use indicatif::HumanCount;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::Path,
};

/// What comes before the table in a file, on a line of its own.
pub const BEGIN: &str = "<!-- figures: begin, written by jitauth bench figures -->";
/// What comes after it.
pub const END: &str = "<!-- figures: end -->";

/// All figures, and what was under them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// 1; counted apart from that of a summary.
    pub schema_version: u32,
    /// Whether the figures mean anything: not those of a quick run or of a debug build.
    pub meaningful: bool,
    /// When measuring began.
    pub started_at: String,
    /// What was typed.
    pub command: String,
    /// What measured.
    pub tool: Tool,
    /// What compiled it, where the build knew.
    pub rustc: Option<String>,
    /// Where.
    pub environment: Environment,
    /// Versions of stores, broker and cache, by their names.
    pub versions: BTreeMap<String, String>,
    /// What survives a power cut, as each store states it.
    pub durability: BTreeMap<String, String>,
    /// The rows that were asked for.
    pub figures: Vec<Figure>,
}

/// A row with its figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// [`Row::name`].
    pub name: String,
    /// [`Row::figure`].
    pub figure: String,
    /// [`Row::unit`].
    pub unit: Unit,
    /// [`Row::must`].
    pub must: f64,
    /// [`Row::aim`].
    pub aim: f64,
    /// The figure: of several turns the median, where turns have one each.
    pub value: Option<f64>,
    /// That of each turn.
    pub turns: Vec<f64>,
    /// How it stands.
    pub standing: Standing,
    /// How it was measured, why it was not, and what speaks against it.
    pub notes: Vec<String>,
}

impl Figure {
    /// A row without a figure yet.
    #[must_use]
    pub fn of(row: &Row) -> Self {
        Self {
            name: row.name.to_owned(),
            figure: row.figure.to_owned(),
            unit: row.unit,
            must: row.must,
            aim: row.aim,
            value: None,
            turns: Vec::new(),
            standing: Standing::NotMeasured,
            notes: Vec::new(),
        }
    }
}

/// Why a file did not get its table.
#[derive(Debug, thiserror::Error)]
pub enum IntoError {
    /// It cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The table has no place in it, or more than one.
    #[error("{path} must have the lines `{BEGIN}` and `{END}` once each, in this order; {why}")]
    Markers {
        /// Which.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl Board {
    /// Puts the table between the markers of a file, in place of what was there.
    ///
    /// # Errors
    /// [`IntoError`]. The file is as it was then.
    pub fn write_into(&self, path: &Path) -> Result<(), IntoError> {
        let name = path.display().to_string();
        let failed = |error| IntoError::File { path: name.clone(), error };
        let text = fs::read_to_string(path).map_err(failed)?;
        let mut table = Vec::new();
        self.markdown(&mut table).map_err(failed)?;
        let table = String::from_utf8_lossy(&table).into_owned();
        let text = between(&text, &table).map_err(|why| IntoError::Markers { path: name.clone(), why })?;
        // Whole or not at all: a full disk must not cost a README.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        let permissions = fs::metadata(path).map_err(failed)?.permissions();
        file.as_file().set_permissions(permissions).map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Writes the table as Markdown.
    ///
    /// # Errors
    /// The writer failed.
    pub fn markdown(&self, out: &mut impl Write) -> io::Result<()> {
        if !self.meaningful {
            writeln!(out, "**These figures mean nothing**: a quick run or a debug build only shows that everything can be measured.\n")?;
        }
        writeln!(out, "| figure | must | aim | measured | |\n|---|--:|--:|--:|---|")?;
        let mut notes: Vec<&String> = Vec::new();
        for figure in &self.figures {
            let mut marks = Vec::new();
            for note in &figure.notes {
                let at = notes.iter().position(|known| *known == note).unwrap_or_else(|| {
                    notes.push(note);
                    notes.len() - 1
                });
                marks.push(format!("({})", at + 1));
            }
            let standing = standing(figure.standing);
            let (bound, aim) = (written(figure.must, figure.unit), written(figure.aim, figure.unit));
            writeln!(
                out,
                "| {} | {bound} | {aim} | {} | {} |",
                figure.figure,
                measured(figure),
                [&[standing.to_owned()], &marks[..]].concat().join(" ")
            )?;
        }
        writeln!(out)?;
        for (number, note) in (1..).zip(notes) {
            writeln!(out, "{number}. {note}")?;
        }
        writeln!(out, "\n{}\n\n{}\n\nPrinted by:\n\n```console\n$ {}\n```", self.place(), self.durable(), self.command)
    }

    fn place(&self) -> String {
        let (machine, tool) = (&self.environment, &self.tool);
        let versions: String = self.versions.iter().map(|(name, version)| format!(", {name} {version}")).collect();
        let commit = tool.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
        let rustc = self.rustc.as_ref().map(|rustc| format!(", {rustc}")).unwrap_or_default();
        format!(
            "Measured {} on {}, {} cores shared by everything, {} MiB, Linux {}; jitauth {}{commit} ({} build{rustc}){versions}.",
            self.started_at.split_once('T').map_or(self.started_at.as_str(), |(day, _)| day),
            machine.cpu,
            machine.cores,
            machine.memory_mib,
            machine.kernel,
            tool.version,
            tool.build
        )
    }

    fn durable(&self) -> String {
        let each: Vec<String> = self.durability.iter().map(|(store, stated)| format!("{store} with {stated}")).collect();
        if each.is_empty() { "No store was asked how durable it is.".to_owned() } else { format!("Durability: {}.", each.join("; ")) }
    }
}

/// The text with the table between its markers.
fn between(text: &str, table: &str) -> Result<String, &'static str> {
    let lines: Vec<&str> = text.lines().collect();
    let find = |marker: &str| lines.iter().enumerate().filter(|(_, line)| line.trim() == marker).map(|(at, _)| at).collect::<Vec<_>>();
    let (begin, end) = match (find(BEGIN).as_slice(), find(END).as_slice()) {
        ([], _) => return Err("the first is missing"),
        (_, []) => return Err("the second is missing"),
        ([begin], [end]) if begin < end => (*begin, *end),
        ([_], [_]) => return Err("they are the other way round"),
        _ => return Err("one is there twice"),
    };
    let parts = [&lines[..=begin], &[""], &table.trim_end().lines().collect::<Vec<_>>(), &[""], &lines[end..]].concat();
    Ok(parts.join("\n") + "\n")
}

const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Aim => "aim reached",
        Standing::Must => "must kept",
        Standing::Short => "**falls short**",
        Standing::NotMeasured => "not measured",
    }
}

fn measured(figure: &Figure) -> String {
    let Some(value) = figure.value else { return "-".to_owned() };
    let text = written(value, figure.unit);
    let (least, most) = figure.turns.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), it| (least.min(*it), most.max(*it)));
    if figure.turns.len() < 2 { text } else { format!("{text} ({} to {})", written(least, figure.unit), written(most, figure.unit)) }
}

fn written(value: f64, unit: Unit) -> String {
    let whole = |value: f64| format!("{}{}", if value < 0.0 { "-" } else { "" }, HumanCount(value.abs().round() as u64));
    match unit {
        Unit::MoreMs => format!("{value:+.2} ms"),
        Unit::Ratio => format!("{value:.2}"),
        Unit::PerS => whole(value),
        Unit::Ns => format!("{} ns", whole(value)),
        Unit::Us => format!("{} µs", whole(value)),
        Unit::Bytes => format!("{} B", whole(value)),
        Unit::S => format!("{} s", rounded(value, 1)),
    }
}

/// The rows with these names; all when none is named.
///
/// # Errors
/// A name that no row has.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Row>, String> {
    if let Some(unknown) = names.iter().find(|name| ROWS.iter().all(|row| row.name != **name)) {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("there is no figure {unknown:?}; there are {}", known.join(", ")));
    }
    Ok(ROWS.iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.name)).collect())
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
