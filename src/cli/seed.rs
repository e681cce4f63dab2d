//! `jitauth seed`: fills the store with [sample rows](crate::seed).
#![expect(clippy::disallowed_methods, reason = "how long seeding took, for the person who waits")]

use super::progress::Progress;
use crate::seed::{Error, Plan, Seeded, TEST_CARDS, Target, ids, load, write};
use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

/// What `jitauth seed` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct SeedArgs {
    /// Load cards to have in the store, beside the test cards
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=ids::CARDS_MAX))]
    pub cards: u64,
    /// Draws the balances, statuses and limits of the load cards
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
}

/// Runs `jitauth seed`.
///
/// # Errors
/// [`Error`], with its [exit code](Error::exit_code).
pub async fn run(args: &SeedArgs, target: &Target) -> Result<(), Error> {
    let plan = Plan::new(args.cards, args.seed);
    let mut progress = Progress::start("seeding", plan.cards());
    let started = Instant::now();
    let seeded = write(plan, target, |cards| progress.at(cards, "")).await?;
    progress.finish();
    report(&mut io::stdout().lock(), args, &seeded, started.elapsed())?;
    Ok(())
}

fn report(out: &mut impl Write, args: &SeedArgs, seeded: &Seeded, took: Duration) -> io::Result<()> {
    let (planned, written) = (seeded.planned, seeded.written);
    if written.total() == 0 {
        writeln!(out, "Nothing to do: all {} rows are there already.", planned.total())?;
    } else {
        writeln!(
            out,
            "Seeded {} rows in {:.1} s ({} were there already).",
            written.total(),
            took.as_secs_f64(),
            planned.total() - written.total()
        )?;
    }
    for (table, there, new) in [
        ("programs", planned.programs, written.programs),
        ("accounts", planned.accounts, written.accounts),
        ("users", planned.users, written.users),
        ("limits", planned.limits, written.limits),
        ("cards", planned.cards, written.cards),
    ] {
        writeln!(out, "  {table:<9} {there:>9}  ({new} new)")?;
    }
    writeln!(out, "Test cards: crd_test_approve and {} more, one for each outcome.", TEST_CARDS.len() - 1)?;
    if args.cards > 0 {
        writeln!(out, "Load cards: {} to {}.", load::card_token(1), load::card_token(args.cards))?;
    }
    writeln!(out, "Row ids {} to {} are the seed's; use others for rows of your own.", ids::RESERVED.start(), ids::RESERVED.end())?;
    writeln!(out, "Next: `jitauth serve`, then in another terminal:")?;
    let request = TEST_CARDS[0].request("first-try-1");
    writeln!(out, "  curl -H 'content-type: application/json' -d '{request}' http://127.0.0.1:8080/v1/authorizations")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::seed::rows::Counts;

    #[test]
    fn the_report_says_what_is_there_and_what_to_do_next() {
        let seeded = Seeded { planned: Counts { programs: 5, accounts: 30, users: 28, limits: 12, cards: 29 }, written: Counts::default() };
        let mut out = Vec::new();
        report(&mut out, &SeedArgs { cards: 10, seed: 1 }, &seeded, Duration::from_millis(1_250)).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in ["Nothing to do: all 104 rows are there already.", "crd_0000001 to crd_0000010", "jitauth serve", "crd_test_approve"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
