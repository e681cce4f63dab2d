//! `jitauth seed`.

use super::Error;
use crate::config::Config;
use clap::Args;

/// What to fill the store with.
#[derive(Clone, Debug, Args)]
pub struct SeedArgs {
    /// Load cards, from crd_0000001 up
    #[arg(long, default_value_t = 1000)]
    pub cards: u64,
}

pub(super) async fn run(args: SeedArgs, config: &Config) -> Result<(), Error> {
    Err(Error::bug(format!("seeding {} cards into {:?} is not in this build", args.cards, config.store)))
}
