//! `jitauth health`: the running daemon asked once, for a container's health check.

use super::{
    Error, Exit,
    daemon::{Daemon, DaemonArgs},
    say,
};
use crate::config::Config;
use clap::Args;
use std::time::Duration;

/// What is asked. Open to everybody, so that no token is needed.
const PATH: &str = "/health";
/// Longest that the answer may take; below the 4 s of the Dockerfile's health check.
const PATIENCE: Duration = Duration::from_secs(3);

/// `jitauth health`.
#[derive(Clone, Debug, Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Ends well when the daemon can do its work, if without a cache (`degraded`).
pub(super) async fn run(args: &HealthArgs, config: &Config) -> Result<(), Error> {
    let daemon = Daemon::new(&args.daemon, config)?.patient_for(PATIENCE);
    // Whatever is wrong: a health check knows 0 and 1.
    let reply = daemon.ask(PATH).await.map_err(|error| error.with_exit(Exit::Failed))?;
    let text = reply.text();
    let told = text.trim_end();
    if reply.status.is_success() {
        return say(told);
    }
    let what = format!("the daemon at {} is not well: {told}", daemon.shown());
    Err(Error::new(Exit::Failed, what, "look at its log for the dependency that is named; it tries again by itself"))
}
