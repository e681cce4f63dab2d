//! `jitauth demo`. Stands in until the real one is merged.

use super::Error;
use clap::Args;

/// How the demo drives the daemon.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Authorizations a second, open loop
    #[arg(long, default_value_t = 1000)]
    pub rate: u64,
    /// Seconds at that rate
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
}

/// Runs `jitauth demo`.
///
/// # Errors
/// Always, here.
pub async fn run(args: &DemoArgs) -> Result<(), Error> {
    Err(Error::bug(format!("a demo of {} s at {}/s is not in this build", args.seconds, args.rate)))
}
