//! `jitauth doctor`: whether everything that a daemon needs is there and set up well, before it is started or while it runs.

mod dependencies;
mod machine;
#[cfg(test)]
mod tests;

use super::{Error, Exit, daemon::DaemonArgs, table::plain, write_out};
use crate::config::{Config, Origin};
use clap::Args;
use serde_json::{Value, json};
use std::{fmt, time::Duration};
use tokio::time::timeout;

/// Longest that one area may take to look at.
const AREA_MAX: Duration = Duration::from_secs(20);

/// How to say it.
#[derive(Clone, Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    area: &'static str,
    level: Level,
    /// What is so.
    what: String,
    /// How to mend it; empty when there is nothing to mend.
    mend: String,
}

impl Finding {
    fn ok(area: &'static str, what: impl Into<String>) -> Self {
        Self { area, level: Level::Ok, what: what.into(), mend: String::new() }
    }

    fn warn(area: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { area, level: Level::Warn, what: what.into(), mend: mend.into() }
    }

    fn fail(area: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { area, level: Level::Fail, what: what.into(), mend: mend.into() }
    }
}

/// Looks at everything at the same time; what cannot be reached hides nothing else.
pub(super) async fn run(args: &DoctorArgs, config: &Config) -> Result<(), Error> {
    let (store, redis, broker, http) = tokio::join!(
        bounded("store", dependencies::store(config)),
        bounded("redis", dependencies::redis(config)),
        bounded("broker", dependencies::broker(config)),
        bounded("http", machine::http(args, config)),
    );
    let parts = [configuration(config), store, redis, broker, http, machine::limits(config)];
    let findings: Vec<Finding> = parts.into_iter().flatten().collect();
    let text = if args.json { format!("{}\n", as_json(&findings)) } else { as_text(&findings) };
    write_out(text.as_bytes())?;
    if findings.iter().any(|finding| finding.level == Level::Fail) { Err(Error::told(Exit::Failed)) } else { Ok(()) }
}

async fn bounded(area: &'static str, looking: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    timeout(AREA_MAX, looking).await.unwrap_or_else(|_| {
        let what = format!("it could not be looked at within {} s", AREA_MAX.as_secs());
        vec![Finding::fail(area, what, "see that it answers, and that nothing between here and there swallows packets")]
    })
}

fn configuration(config: &Config) -> Vec<Finding> {
    let layers: std::collections::BTreeSet<String> = config
        .effective()
        .iter()
        .map(|it| match &it.origin {
            Origin::File { name, .. } => name.clone(),
            Origin::Environment(_) => "environment".to_owned(),
            Origin::Flag(_) => "flags".to_owned(),
        })
        .collect();
    let layers: Vec<String> = layers.into_iter().collect();
    let (profile, fingerprint) = (&config.profile, config.fingerprint());
    vec![Finding::ok("configuration", format!("profile {profile}, fingerprint {fingerprint}, from {}", layers.join(", ")))]
}

fn as_text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.area.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { area, level, what, mend } in findings {
        text.push_str(&format!("{level:<4}  {area:<width$}  {}\n", plain(what)));
        if !mend.is_empty() {
            text.push_str(&format!("      {:<width$}  mend: {mend}\n", ""));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    format!("{text}\n{} ok, {} to look at, {} failed\n", count(Level::Ok), count(Level::Warn), count(Level::Fail))
}

fn as_json(findings: &[Finding]) -> Value {
    let listed: Vec<Value> = findings
        .iter()
        .map(|Finding { area, level, what, mend }| {
            json!({"area": area, "level": level.to_string().to_lowercase(), "what": what, "mend": Some(mend).filter(|mend| !mend.is_empty())})
        })
        .collect();
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    json!({"healthy": !failed, "findings": listed})
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}
