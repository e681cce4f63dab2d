//! `jitauth bench ceiling`: how much a second?

use super::RunArgs;
use crate::{
    bench::{
        ceiling::Settings,
        scenario::{Arrival, Scenario},
    },
    cli::{Error, Exit},
};
use clap::Args;
use std::time::Duration;

/// What `jitauth bench ceiling` takes.
#[derive(Clone, Debug, Args)]
#[command(
    mut_arg("scenario", |it| it.required(false).default_value("ceiling")),
    mut_arg("duration", |it| it.hide(true)),
    mut_arg("ramp_to", |it| it.hide(true)),
    mut_arg("running", |it| it.hide(true)),
    mut_arg("url", |it| it.hide(true)),
    mut_arg("token_file", |it| it.hide(true))
)]
pub(in crate::cli) struct CeilingArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Seconds of a step; its warm-up, the scenario's, is at most 1 s
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    step: u64,
    /// Most steps of the daemon, and of the broker's echo
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    steps_max: u32,
    /// Seconds after which no step is begun any more
    #[arg(long, value_name = "S", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    lasts_max: u64,
}

impl CeilingArgs {
    /// How long it may search.
    pub(super) const fn settings(&self) -> Settings {
        Settings { step: Duration::from_secs(self.step), steps_max: self.steps_max, lasts_max: Duration::from_secs(self.lasts_max) }
    }
}

/// Refuses what has no rate to look for.
pub(super) fn searchable(scenario: &Scenario, running: bool) -> Result<(), Error> {
    if scenario.arrival == Arrival::Closed {
        let what = "in a closed loop there is no rate that is offered";
        return Err(Error::new(
            Exit::BadFlagValue,
            what,
            "take --arrival poisson or constant; jitauth bench run tells what a closed loop reaches",
        ));
    }
    if running {
        let what = "a daemon that runs already would be driven beyond what it can do";
        return Err(Error::new(Exit::BadFlagValue, what, "leave out --running and --url: the search starts a daemon of its own"));
    }
    Ok(())
}
