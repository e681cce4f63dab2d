//! `jitauth report`: what the running daemon says about its latency, for people.

mod table;
#[cfg(test)]
mod tests;

pub(super) use table::{bar, percent, time};

use super::daemon::StatusCode;
use super::{
    Error, Exit,
    daemon::{Daemon, DaemonArgs, Reply},
    say,
};
use crate::{
    bench::page,
    config::Config,
    telemetry::{promise::Verdict, report::Report},
};
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
};
use url::form_urlencoded;

/// Which stretch of time, and how to show it.
#[derive(Clone, Debug, Args)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Where to begin: RFC 3339, a time of day in UTC as in 14:05, or a time ago as in -15m [default: everything since start]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Where to end [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "from")]
    to: Option<String>,
    /// As one JSON object, as the daemon gave it
    #[arg(long)]
    json: bool,
    /// Also as a page, beside the stretch of time of the same length before it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Prints the report. Ends with exit 99 when a promise of the profile was broken.
pub(super) async fn run(args: &ReportArgs, config: &Config) -> Result<(), Error> {
    let daemon = Daemon::new(&args.daemon, config)?;
    let (report, json) = fetch(&daemon, &path(args.from.as_deref(), args.to.as_deref(), args.html.is_some())).await?;
    if args.json {
        say(json.trim_end())?;
    } else {
        say(table::render(&report).trim_end())?;
    }
    if let Some(file) = &args.html {
        let before = if args.from.is_some() { before(&daemon, &report).await } else { None };
        write(file, &page::operations(&report, before.as_ref()))?;
        if !args.json {
            say(&format!("\nWritten to {}", file.display()))?;
        }
    }
    if report.verdict == Verdict::Broken { Err(Error::told(Exit::PromiseBroken)) } else { Ok(()) }
}

fn write(file: &Path, page: &str) -> Result<(), Error> {
    fs::write(file, page).map_err(|error| {
        let what = format!("the page cannot be written to {}: {error}", file.display());
        Error::new(Exit::Failed, what, "give a file that can be written to with --html")
    })
}

/// The stretch of time before a report's, as long as it. `None` when nothing is kept of it: the page goes without.
async fn before(daemon: &Daemon, report: &Report) -> Option<Report> {
    let (from, to) = window_before(report)?;
    fetch(daemon, &path(Some(&from), Some(&to), true)).await.ok().map(|(report, _)| report)
}

fn window_before(report: &Report) -> Option<(String, String)> {
    let [since, until] = [&report.since, &report.until].map(|text| text.parse::<jiff::Timestamp>());
    let (since, until) = (since.ok()?, until.ok()?);
    let from = since.checked_sub(until.duration_since(since)).ok().filter(|from| *from < since)?;
    Some((from.to_string(), since.to_string()))
}

/// The path that asks for a stretch of time.
pub(super) fn path(from: Option<&str>, to: Option<&str>, detail: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (key, value) in [("from", from), ("to", to), ("detail", detail.then_some("true"))] {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    let query = query.finish();
    if query.is_empty() { "/report".to_owned() } else { format!("/report?{query}") }
}

/// A report, and the text it came as.
pub(super) async fn fetch(daemon: &Daemon, path: &str) -> Result<(Report, String), Error> {
    let Reply { status, body, .. } = daemon.ask(path).await?;
    let text = String::from_utf8_lossy(&body).into_owned();
    match status {
        StatusCode::OK => match serde_json::from_str(&text) {
            Ok(report) => Ok((report, text)),
            Err(error) => {
                let what = format!("the report of the daemon at {} cannot be read: {error}", daemon.shown());
                Err(Error::new(Exit::Failed, what, "ask with the jitauth of the same release, or look at it with --json"))
            }
        },
        StatusCode::BAD_REQUEST => Err(Error::new(Exit::BadFlagValue, text.trim_end(), "mend --from or --to")),
        StatusCode::NOT_FOUND => {
            let next = "ask for a later time; report.kept_max, report.directory and report.keep_days say how much is kept";
            Err(Error::new(Exit::Failed, text.trim_end(), next))
        }
        other => {
            let what = format!("the daemon at {} has no report: {other}: {}", daemon.shown(), text.trim_end());
            Err(Error::new(Exit::Failed, what, "look at its log"))
        }
    }
}
