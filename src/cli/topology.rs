//! `jitauth topology`: exchanges and queues, compared or declared.

use super::{Error, Exit, say};
use crate::{
    broker::topology::{self, TopologyError},
    config::Config,
};
use clap::Subcommand;

/// What to do about the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum TopologyCommand {
    /// Say whether the broker has what is needed, and change nothing
    Check,
    /// Declare what is missing
    Apply,
}

pub(super) async fn run(command: TopologyCommand, config: &Config) -> Result<(), Error> {
    let Some(settings) = &config.broker else {
        return Err(Error::new(
            Exit::Misconfigured,
            format!("the profile {} uses no broker", config.profile),
            "choose one that does, as in: jitauth --profile services topology apply",
        ));
    };
    match command {
        TopologyCommand::Check => {
            topology::check(settings).await?;
            say("the broker has every exchange, queue and binding\nnext: jitauth serve")
        }
        TopologyCommand::Apply => {
            topology::apply(settings).await?;
            say("every exchange, queue and binding is declared\nnext: jitauth serve")
        }
    }
}

impl From<TopologyError> for Error {
    fn from(error: TopologyError) -> Self {
        let (exit, next) = match &error {
            TopologyError::Unreachable(_) => (Exit::Unavailable, "see that RabbitMQ runs where JITAUTH_BROKER__URL says, and try again"),
            TopologyError::Refused(_) => {
                (Exit::Refused, "give the user of JITAUTH_BROKER__URL configure, write and read rights on its vhost")
            }
            TopologyError::Mismatch(_) => {
                (Exit::Misconfigured, "run jitauth topology apply; a queue declared in another way has to be emptied and deleted first")
            }
        };
        Self::new(exit, error.to_string(), next)
    }
}
