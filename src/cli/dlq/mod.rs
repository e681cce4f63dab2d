//! `jitauth dlq`: dead letters, looked at and sent again.

mod print;
#[cfg(test)]
mod tests;
mod when;

use super::{Error, Exit, say, write_out};
use crate::{
    broker::{
        self,
        dead_letters::{self, Filter, Letter, Order, Outcome, Rules, VISITS_MAX, Visited},
    },
    codec::request::DEADLINE_MS,
    config::Config,
    domain::time::Timestamp,
};
use clap::{Args, Subcommand};
use print::Stats;
use std::{
    num::NonZeroU32,
    time::{SystemTime, UNIX_EPOCH},
};

/// What to do about dead letters.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// List dead letters, oldest first
    ///
    /// Looking takes letters unacknowledged and gives them back at the end: they keep their order, stand in front of those that arrive
    /// meanwhile, and are marked as redelivered. While one person looks, nobody else sees these letters.
    List(ListArgs),
    /// Show one dead letter with everything that is known about it
    Show(ShowArgs),
    /// Count dead letters by reason and age
    Stats(StatsArgs),
    /// Send the messages of dead letters to their work queue again
    ///
    /// A letter is removed only after the broker confirmed its message, so none is lost whatever is killed when; a message may be
    /// sent twice then, and the journal answers it with the same bytes. Refused are authorizations whose deadline has passed (unless
    /// --deadline-ms gives a new one), what would be refused again for its bytes, what held a card number, and what was sent again
    /// three times already.
    Replay(ReplayArgs),
}

/// Which queue.
#[derive(Clone, Debug, Args)]
struct QueueArgs {
    /// The dead letter queue [default: broker.dead_letter_queue]
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
}

/// Which letters.
#[derive(Clone, Debug, Args)]
struct FilterArgs {
    #[command(flatten)]
    queue: QueueArgs,
    /// Only with this reason, as in reply_unroutable; may be given more than once
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,
    /// Only dead-lettered at this time or later: 2026-03-04T10:15:00Z, or 15m for fifteen minutes ago (s, m, h, d)
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    since: Option<when::When>,
    /// Only dead-lettered before this time, written as for --since
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    until: Option<when::When>,
    /// Only the letter whose id begins so, or those of the message with this id
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// `dlq list`.
#[derive(Clone, Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Letters that are listed, at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(VISITS_MAX)))]
    limit: u32,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// `dlq show`.
#[derive(Clone, Debug, Args)]
pub(super) struct ShowArgs {
    /// The beginning of the letter's id, or the message's id
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    queue: QueueArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// `dlq stats`.
#[derive(Clone, Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// `dlq replay`.
#[derive(Clone, Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Messages that are sent, at most
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(VISITS_MAX)))]
    limit: u32,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Messages a second, at most
    #[arg(long, value_name = "N/s", default_value = "50", value_parser = rate)]
    rate: NonZeroU32,
    /// Give every authorization this new deadline, counted from when it is sent, milliseconds [default: the one it has]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(i64::from(*DEADLINE_MS.start())..=i64::from(*DEADLINE_MS.end())))]
    deadline_ms: Option<u32>,
    /// As JSON: one object for each letter and one at the end, a line each
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: DlqCommand, config: &Config) -> Result<(), Error> {
    let Some(settings) = &config.broker else {
        return Err(Error::new(
            Exit::Misconfigured,
            format!("broker.enabled is false in the profile {}, so there are no dead letters", config.profile),
            "choose a profile with a broker, as in: jitauth --profile services dlq list",
        ));
    };
    match command {
        DlqCommand::List(args) => list(&args, settings).await,
        DlqCommand::Show(args) => show(&args, settings).await,
        DlqCommand::Stats(args) => stats(&args, settings).await,
        DlqCommand::Replay(args) => replay(&args, settings, config).await,
    }
}

async fn list(args: &ListArgs, settings: &broker::Settings) -> Result<(), Error> {
    let (queue, filter) = (args.filter.queue.name(settings)?, args.filter.filter());
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut letters = Vec::new();
    let visited = dead_letters::browse(settings, &queue, |letter| {
        if filter.matches(&letter) {
            letters.push(print::without_body(letter));
        }
        letters.len() < limit
    })
    .await?;
    write_out(if args.json { print::list_json(&queue, &letters, visited) } else { print::list(&queue, &letters, visited) }.as_bytes())
}

async fn show(args: &ShowArgs, settings: &broker::Settings) -> Result<(), Error> {
    let queue = args.queue.name(settings)?;
    let filter = Filter { id: Some(args.id.clone()), ..Filter::default() };
    let mut found: Vec<Letter> = Vec::new();
    // More than two are not shown anyway.
    let visited = dead_letters::browse(settings, &queue, |letter| {
        if filter.matches(&letter) {
            found.push(letter);
        }
        found.len() <= 2
    })
    .await?;
    match found.as_slice() {
        [] => {
            let what = format!("{queue} has no letter {:?} among the {} that were looked at", args.id, visited.seen);
            Err(Error::new(Exit::Failed, what, "see jitauth dlq list; somebody else may be looking at it at the moment"))
        }
        [letter] => write_out(if args.json { print::letter_json(letter) } else { print::letter(letter) }.as_bytes()),
        [first, .., last] if first.id == last.id => {
            // The same message failed more than once; the last says most.
            write_out(if args.json { print::letter_json(last) } else { print::letter(last) }.as_bytes())
        }
        _ => {
            let what = format!("several letters in {queue} are called {:?}", args.id);
            Err(Error::new(Exit::Failed, what, format!("give more of the id, from jitauth dlq list --id {}", args.id)))
        }
    }
}

async fn stats(args: &StatsArgs, settings: &broker::Settings) -> Result<(), Error> {
    let (queue, filter) = (args.filter.queue.name(settings)?, args.filter.filter());
    let mut stats = Stats::new(now());
    let visited = dead_letters::browse(settings, &queue, |letter| {
        if filter.matches(&letter) {
            stats.add(&letter);
        }
        true
    })
    .await?;
    write_out(if args.json { stats.json(&queue, visited) } else { stats.text(&queue, visited) }.as_bytes())
}

async fn replay(args: &ReplayArgs, settings: &broker::Settings, config: &Config) -> Result<(), Error> {
    let order = Order {
        queue: args.filter.queue.name(settings)?,
        filter: args.filter.filter(),
        limit: args.limit,
        dry_run: args.dry_run,
        rate: args.rate,
        rules: Rules {
            deadline_ms: args.deadline_ms,
            deadline_default: config.pipeline.deadline_default,
            deadline_reserve: config.pipeline.deadline_reserve,
        },
    };
    let mut tally = print::Tally::default();
    let mut spoken = Ok(());
    let told = |letter: &Letter, outcome: &Outcome| {
        tally.add(outcome);
        let line = if args.json { print::outcome_json(letter, outcome) } else { print::outcome(letter, outcome) };
        // A reader that is gone does not stop the replay: what was begun is told in the end by the exit code.
        if spoken.is_ok() {
            spoken = say(&line);
        }
    };
    let visited = dead_letters::replay(settings, &order, now, told).await;
    let seen = visited.as_ref().map_or_else(|_| Visited::default(), |visited| *visited);
    spoken.and(say(&if args.json { tally.json(&order.queue, seen) } else { tally.text(&order.queue, seen, order.dry_run) }))?;
    visited?;
    match tally.failure {
        None => Ok(()),
        Some(failure) => Err(Error::new(Exit::Failed, format!("the replay ended early: {failure}"), "mend that, and run it again")),
    }
}

impl QueueArgs {
    /// Only our own dead letter queues: of others nobody knows whether looking at them does harm.
    fn name(&self, settings: &broker::Settings) -> Result<String, Error> {
        let known = dead_letters::queues(settings);
        let wanted = self.queue.clone().unwrap_or_else(|| settings.dead_letter_queue.clone());
        if known.contains(&wanted) {
            return Ok(wanted);
        }
        let next = format!("give one of {}", known.join(", "));
        Err(Error::new(Exit::BadFlagValue, format!("--queue {wanted:?} is no dead letter queue of this configuration"), next))
    }
}

impl FilterArgs {
    fn filter(&self) -> Filter {
        let now = now();
        let at = |when: &Option<when::When>| when.map(|when| when.at(now));
        Filter { reasons: self.reason.clone(), since: at(&self.since), until: at(&self.until), id: self.id.clone() }
    }
}

/// Reads `50` or `50/s`.
fn rate(text: &str) -> Result<NonZeroU32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let rate: u32 = number.parse().map_err(|_| "must be messages a second, as in 50 or 50/s".to_owned())?;
    NonZeroU32::new(rate).filter(|rate| rate.get() <= 10_000).ok_or_else(|| "must be 1 to 10000 messages a second".to_owned())
}

#[expect(clippy::disallowed_methods, reason = "an edge: ages and deadlines are told from the clock on the wall")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
