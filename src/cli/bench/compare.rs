//! `jitauth bench compare`: has it become slower?

use crate::{
    bench::compare::{self, CompareError, Comparison, Settings, Side, ToleranceError, Tolerances},
    cli::{Error, Exit, write_out},
};
use clap::Args;
use std::path::PathBuf;

/// What `jitauth bench compare` takes.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct CompareArgs {
    /// Before: a summary.json, a directory with one (--out DIR of a run), or a directory of such directories, of which the medians count
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// After: as BEFORE
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// How much worse a figure may be, as in p99=10%; may be given again [default: 10% for times, 5% for rates, 0.1% of the answers]
    #[arg(long = "tolerance", value_name = "FIGURE=PERCENT")]
    tolerances: Vec<String>,
    /// A change of a time by less than this is none, as in 0.5ms
    #[arg(long, value_name = "TIME", default_value = "100us", value_parser = micros)]
    min_effect: f64,
    /// Compare other workloads, targets and builds too. A run that went wrong is never compared
    #[arg(long)]
    force: bool,
    /// Print Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Reads a time with its unit, as microseconds.
fn micros(text: &str) -> Result<f64, String> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let factor = match text[digits.len()..].trim() {
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return Err("it needs a unit: us, ms or s".to_owned()),
    };
    digits.trim().parse::<f64>().map(|number| number * factor).map_err(|error| error.to_string())
}

pub(super) fn run(args: &CompareArgs) -> Result<(), Error> {
    let comparison = compared(args)?;
    let mut text = Vec::new();
    match (args.json, args.markdown) {
        (true, _) => {
            serde_json::to_writer_pretty(&mut text, &comparison).map_err(Error::bug)?;
            text.push(b'\n');
        }
        (false, true) => compare::markdown(&mut text, &comparison).map_err(Error::bug)?,
        (false, false) => compare::terminal(&mut text, &comparison).map_err(Error::bug)?,
    }
    write_out(&text)?;
    if !comparison.regression {
        return Ok(());
    }
    let next = "measure both states again, in turn; if it stays, find the commit, or raise the tolerance with a reason";
    Err(Error::new(Exit::Regression, compare::verdict(&comparison), next))
}

fn compared(args: &CompareArgs) -> Result<Comparison, CompareError> {
    let mut tolerances = Tolerances::default();
    for text in &args.tolerances {
        tolerances.add(text)?;
    }
    let settings = Settings { tolerances, min_effect_us: args.min_effect, force: args.force };
    compare::compare(&Side::read(&args.before)?, &Side::read(&args.after)?, &settings)
}

impl From<CompareError> for Error {
    fn from(error: CompareError) -> Self {
        let next = match &error {
            CompareError::Unreadable { .. } | CompareError::Nothing(_) => "give the directory that a run wrote with --out DIR",
            CompareError::Strange { .. } => "give the summary.json that a run wrote with --out DIR",
            CompareError::Schema { .. } => "measure both states with the same release",
            CompareError::Wrong { .. } => {
                "a run that went wrong has no figures: look at its report.md, and measure again when it is mended"
            }
            CompareError::Different(_) => "measure both states alike, or add --force if you know what the difference does",
            CompareError::Tolerance(ToleranceError::Unread(_)) => "give it as in --tolerance p99=10%",
            CompareError::Tolerance(ToleranceError::Unknown { .. }) => "name one of these",
        };
        Self::new(Exit::BadFlagValue, error.to_string(), next)
    }
}
