//! A commit as the arguments of `jit_commit`.

use crate::{
    domain::request::Mcc,
    ledger::{Commit, JournalEntry},
};
use sqlx::{Postgres, postgres::PgArguments, query::Query};

const COMMIT: &str = "select kind, name, k1, k2, k3, v1, v2, v3, b1, b2 from jit_commit(\
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, \
    $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48)";

/// The call, with every list of the commit as parallel arrays.
pub(super) fn query(commit: &Commit, wait: bool) -> Query<'_, Postgres, PgArguments> {
    let query = bind_journal(sqlx::query(COMMIT).bind(wait), &commit.journal);
    let query = bind_money(query, commit);
    let query = bind_facts(query, commit);
    bind_claims(query, commit)
}

fn bind_journal<'q>(query: Query<'q, Postgres, PgArguments>, journal: &'q [JournalEntry]) -> Query<'q, Postgres, PgArguments> {
    let each = |number: fn(&JournalEntry) -> i64| journal.iter().map(number).collect::<Vec<_>>();
    let known = |number: fn(&JournalEntry) -> Option<i64>| journal.iter().map(number).collect::<Vec<_>>();
    let stage = |index: usize| journal.iter().map(|entry| entry.stage_us[index]).collect::<Vec<_>>();
    query
        .bind(texts(journal, |entry| entry.id.as_str()))
        .bind(journal.iter().map(|entry| &entry.digest[..]).collect::<Vec<_>>())
        .bind(texts(journal, |entry| entry.card.as_str()))
        .bind(known(|entry| entry.card_id.map(|id| id.0)))
        .bind(known(|entry| entry.account.map(|id| id.0)))
        .bind(known(|entry| entry.program.map(|id| id.0)))
        .bind(each(|entry| entry.requested))
        .bind(each(|entry| entry.held))
        .bind(texts(journal, |entry| entry.currency.code()))
        .bind(journal.iter().map(|entry| entry.decision as i16).collect::<Vec<_>>())
        .bind(journal.iter().map(|entry| entry.reason.map(|reason| small(reason.number()))).collect::<Vec<_>>())
        .bind(journal.iter().map(|entry| &entry.response[..]).collect::<Vec<_>>())
        .bind(each(|entry| entry.card_version))
        .bind(each(|entry| entry.program_version))
        .bind(journal.iter().map(|entry| mcc(entry.mcc)).collect::<Vec<_>>())
        .bind(texts(journal, |entry| entry.merchant.as_str()))
        .bind(texts(journal, |entry| entry.country.code()))
        .bind(texts(journal, |entry| entry.channel.name()))
        .bind(journal.iter().map(|entry| entry.charges.as_deref()).collect::<Vec<_>>())
        .bind(stage(0))
        .bind(stage(1))
        .bind(stage(2))
        .bind(stage(3))
        .bind(stage(4))
        .bind(each(|entry| entry.decided_at.0))
        .bind(journal.iter().map(|entry| entry.unheard).collect::<Vec<_>>())
        .bind(journal.iter().map(|entry| entry.hold.as_ref().map(|hold| hold.as_str())).collect::<Vec<_>>())
}

fn bind_money<'q>(query: Query<'q, Postgres, PgArguments>, commit: &Commit) -> Query<'q, Postgres, PgArguments> {
    let (accounts, counters) = (&commit.accounts, &commit.counters);
    query
        .bind(accounts.iter().map(|delta| delta.account.0).collect::<Vec<_>>())
        .bind(accounts.iter().map(|delta| delta.held).collect::<Vec<_>>())
        .bind(counters.iter().map(|delta| delta.key.limit.0).collect::<Vec<_>>())
        .bind(counters.iter().map(|delta| delta.key.scope).collect::<Vec<_>>())
        .bind(counters.iter().map(|delta| delta.key.window).collect::<Vec<_>>())
        .bind(counters.iter().map(|delta| delta.add.amount).collect::<Vec<_>>())
        .bind(counters.iter().map(|delta| delta.add.count).collect::<Vec<_>>())
        .bind(counters.iter().map(|delta| delta.fresh).collect::<Vec<_>>())
}

fn bind_facts<'q>(query: Query<'q, Postgres, PgArguments>, commit: &'q Commit) -> Query<'q, Postgres, PgArguments> {
    query
        .bind(commit.cards.iter().map(|card| card.card.0).collect::<Vec<_>>())
        .bind(commit.cards.iter().map(|card| card.version).collect::<Vec<_>>())
        .bind(commit.absent.iter().map(|token| token.as_str()).collect::<Vec<_>>())
        .bind(commit.programs.iter().map(|(program, _)| program.0).collect::<Vec<_>>())
        .bind(commit.programs.iter().map(|(_, version)| *version).collect::<Vec<_>>())
}

fn bind_claims<'q>(query: Query<'q, Postgres, PgArguments>, commit: &Commit) -> Query<'q, Postgres, PgArguments> {
    let (accounts, counters) = (&commit.account_claims, &commit.counter_claims);
    query
        .bind(accounts.iter().map(|(account, _)| account.0).collect::<Vec<_>>())
        .bind(accounts.iter().map(|(_, need)| *need).collect::<Vec<_>>())
        .bind(counters.iter().map(|claim| claim.key.limit.0).collect::<Vec<_>>())
        .bind(counters.iter().map(|claim| claim.key.scope).collect::<Vec<_>>())
        .bind(counters.iter().map(|claim| claim.key.window).collect::<Vec<_>>())
        .bind(counters.iter().map(|claim| claim.amount).collect::<Vec<_>>())
        .bind(counters.iter().map(|claim| claim.count).collect::<Vec<_>>())
}

fn texts<'q>(journal: &'q [JournalEntry], text: impl Fn(&'q JournalEntry) -> &'q str) -> Vec<&'q str> {
    journal.iter().map(text).collect()
}

/// Reasons and merchant categories end well below the end of a smallint.
pub(super) fn small(number: u16) -> i16 {
    i16::try_from(number).unwrap_or(i16::MAX)
}

pub(super) fn mcc(mcc: Mcc) -> i16 {
    small(mcc.number())
}
