//! `jitauth topology`: exchanges and queues, compared or declared.

use super::{Error, Exit, say};
use crate::{
    broker::{
        BrokerError,
        topology::{self, Finding, Problem},
    },
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
            format!("broker.enabled is false in the profile {}, so there is no topology", config.profile),
            "choose a profile with a broker, as in: jitauth --profile services topology apply",
        ));
    };
    match command {
        TopologyCommand::Check => judge(&topology::check(settings).await?),
        TopologyCommand::Apply => {
            topology::apply(settings).await?;
            say("every exchange, queue and binding is declared\nnext: jitauth serve")
        }
    }
}

/// What could not be looked at is told, and is no fault.
fn judge(findings: &[Finding]) -> Result<(), Error> {
    let (unverified, wrong): (Vec<_>, Vec<_>) = findings.iter().partition(|it| matches!(it.problem, Problem::Unverified(_)));
    for finding in unverified {
        say(&finding.to_string())?;
    }
    if wrong.is_empty() {
        return say("the broker has every exchange and queue\nnext: jitauth serve");
    }
    let listed: Vec<String> = wrong.iter().map(|finding| format!("\n  {finding}")).collect();
    let next = "run jitauth topology apply; what was declared in another way has to be emptied and deleted first";
    Err(Error::new(Exit::Misconfigured, format!("the topology is not as it should be{}", listed.concat()), next))
}

impl From<BrokerError> for Error {
    fn from(error: BrokerError) -> Self {
        let (exit, next) = match &error {
            BrokerError::Address => (Exit::Misconfigured, "set JITAUTH_BROKER__URL or JITAUTH_BROKER__URL_FILE"),
            BrokerError::Unreachable(_) => (Exit::Unavailable, "see that RabbitMQ runs where JITAUTH_BROKER__URL says, and try again"),
            BrokerError::Refused(_) => {
                (Exit::Refused, "see that the vhost exists and that the user of JITAUTH_BROKER__URL may configure, write and read there")
            }
            BrokerError::Topology(_) => (Exit::Misconfigured, "mend that, and run jitauth topology apply again"),
        };
        Self::new(exit, error.to_string(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_or_different_is_a_fault() {
        let finding = |problem: &Problem| Finding { object: "queue q".to_owned(), problem: problem.clone() };
        let (missing, unverified) = (Problem::Missing, Problem::Unverified("no right".to_owned()));
        let differs = Problem::Differs("x-queue-type".to_owned());
        for (problems, expected) in [
            (&[][..], None),
            (&[&unverified], None),
            (&[&missing], Some(Exit::Misconfigured)),
            (&[&unverified, &differs], Some(Exit::Misconfigured)),
        ] {
            let findings: Vec<Finding> = problems.iter().map(|problem| finding(problem)).collect();
            assert_eq!(judge(&findings).err().map(|error| error.exit()), expected, "{problems:?}");
        }
    }
}
