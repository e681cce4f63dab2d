//! A commit of one decision as the arguments of `jit_commit_one`.

use super::commit::{mcc, small};
use crate::ledger::{Commit, JournalEntry};
use sqlx::{Postgres, postgres::PgArguments, query::Query};

const COMMIT_ONE: &str = "select jit_commit_one(\
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, \
    $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36)";

/// The decision, where the group has but one and `jit_commit_one` takes it: it looks at one card and one program, charges every counter
/// with the whole of what is held, and knows no claims.
pub(super) fn only(commit: &Commit) -> Option<&JournalEntry> {
    let [entry] = &commit.journal[..] else { return None };
    let plain = commit.account_claims.is_empty()
        && commit.counter_claims.is_empty()
        && commit.cards.len() <= 1
        && commit.absent.len() <= 1
        && commit.programs.len() <= 1
        && commit.counters.iter().all(|delta| delta.add.amount == entry.held && delta.add.count == 1);
    plain.then_some(entry)
}

/// The call.
pub(super) fn query<'q>(commit: &'q Commit, entry: &'q JournalEntry) -> Query<'q, Postgres, PgArguments> {
    let stage = entry.stage_us;
    let query = sqlx::query(COMMIT_ONE)
        .bind(entry.id.as_str())
        .bind(&entry.digest[..])
        .bind(entry.card.as_str())
        .bind(entry.card_id.map(|id| id.0))
        .bind(entry.account.map(|id| id.0))
        .bind(entry.program.map(|id| id.0))
        .bind(entry.requested)
        .bind(entry.held)
        .bind(entry.currency.code())
        .bind(entry.decision as i16)
        .bind(entry.reason.map(|reason| small(reason.number())))
        .bind(&entry.response[..])
        .bind(entry.card_version)
        .bind(entry.program_version)
        .bind(mcc(entry.mcc))
        .bind(entry.merchant.as_str())
        .bind(entry.country.code())
        .bind(entry.channel.name())
        .bind(entry.charges.as_deref());
    let query = stage.into_iter().fold(query, Query::bind);
    query
        .bind(entry.decided_at.0)
        .bind(entry.unheard)
        .bind(entry.hold.as_ref().map(|hold| hold.as_str()))
        .bind(commit.counters.iter().map(|delta| delta.key.limit.0).collect::<Vec<_>>())
        .bind(commit.counters.iter().map(|delta| delta.key.scope).collect::<Vec<_>>())
        .bind(commit.counters.iter().map(|delta| delta.key.window).collect::<Vec<_>>())
        .bind(commit.counters.iter().map(|delta| delta.fresh).collect::<Vec<_>>())
        .bind(commit.cards.first().map(|card| card.card.0))
        .bind(commit.cards.first().map(|card| card.version))
        .bind(commit.absent.first().map(|token| token.as_str()))
        .bind(commit.programs.first().map(|(program, _)| program.0))
        .bind(commit.programs.first().map(|(_, version)| *version))
}
