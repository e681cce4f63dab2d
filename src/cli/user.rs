//! `jitauth user`: suspending a user with all cards, and letting the user spend again.

use super::{Error, administration::announce, card::turn_text};
use crate::{
    codec::event::EventKind,
    config::Config,
    domain::ids::UserToken,
    facts::change::Subject,
    ledger::administration::{self, Administration},
};
use clap::{Args, Subcommand};

/// What to do with a user.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Decline everything on all cards of the user from now on
    Suspend(UserArgs),
    /// Let the user spend again; one who is closed stays so
    Activate(UserArgs),
}

/// Which user.
#[derive(Clone, Debug, Args)]
pub(super) struct UserArgs {
    /// The user's token
    #[arg(value_name = "TOKEN", value_parser = user_token)]
    token: UserToken,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// A user's token, or why it is none.
pub(super) fn user_token(text: &str) -> Result<UserToken, String> {
    UserToken::new(text).map_err(|error| format!("the token {error}"))
}

pub(super) async fn run(store: &impl Administration, command: UserCommand, config: &Config) -> Result<String, Error> {
    let (args, turned, head) = match command {
        UserCommand::Suspend(args) => {
            let turned = administration::suspend(store, &args.token).await?;
            let undo = format!("jitauth user activate {} undoes it", args.token.as_str());
            let head = match turned.was.as_str() {
                "active" => ["is suspended: everything on the user's cards is declined from now on".to_owned(), undo],
                "suspended" => ["was suspended already".to_owned(), undo],
                _ => ["is closed: nothing can be spent anyway, and it stays so".to_owned(), String::new()],
            };
            (args, turned, head)
        }
        UserCommand::Activate(args) => {
            let turned = administration::activate(store, &args.token).await?;
            let head = if turned.changed() { "may spend again" } else { "was not suspended" };
            (args, turned, [head.to_owned(), String::new()])
        }
    };
    // Also when nothing was changed: whoever was not told the last time is told now.
    let announced = announce(store, &Subject::User(args.token.clone()), EventKind::UserUpdated, config).await?;
    Ok(turn_text("user", args.token.as_str(), &turned, &announced, args.json, &head))
}
