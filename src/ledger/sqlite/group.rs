//! A group of decisions as parameters: lists as JSON, bytes as they are.

use super::{arguments::Parameters, statements};
use crate::{
    domain::limits::CounterKey,
    ledger::{Commit, CounterClaim, JournalEntry, LedgerError},
};
use serde_json::value::RawValue;
use std::fmt::{self, Display, Write};

/// The parameters of [`statements::COMMIT`] and [`statements::REPORT`]. The texts are JSON arrays:
///
/// - `ids` of `[id, first byte of its response, length]`, `journal` likewise with the columns after it, in their order
/// - `cards` and `programs` of `[id, version]`, `absent` of tokens
/// - `accounts` of `[account, held]`, `account_claims` of `[account, need]`
/// - `counters` of `[limit, scope, window, amount, count]`, `counter_claims` likewise, where amount or count may be null
/// - `holds` of `[authorization, hold, account, amount, placed at]`
///
/// Nothing in them needs escaping: ids and tokens have an allow-list, codes are letters. What does not hold to that comes from
/// `charges` alone, which is parsed.
#[derive(Debug)]
pub(super) struct Group {
    ids: String,
    journal: String,
    holds: String,
    digests: Vec<u8>,
    responses: Vec<u8>,
    cards: String,
    absent: String,
    programs: String,
    accounts: String,
    counters: String,
}

impl Group {
    pub(super) fn new(commit: &Commit) -> Result<Self, LedgerError> {
        let bytes = commit.journal.iter().map(|entry| entry.response.len()).sum();
        let mut responses = Vec::with_capacity(bytes);
        let mut digests = Vec::with_capacity(commit.journal.len() * 16);
        let (mut ids, mut journal, mut holds) = (List::new(), List::new(), List::new());
        for entry in &commit.journal {
            let key = format_args!("\"{}\",{},{}", entry.id.as_str(), responses.len() + 1, entry.response.len()).to_string();
            responses.extend_from_slice(&entry.response);
            digests.extend_from_slice(&entry.digest);
            journal.push(format_args!("[{key},{}]", Columns { entry, charges: &charges(entry)? }));
            if let (Some(hold), Some(account)) = (&entry.hold, entry.account) {
                let (hold, placed_at) = (hold.as_str(), entry.decided_at.0);
                holds.push(format_args!("[\"{}\",\"{hold}\",{},{},{placed_at}]", entry.id.as_str(), account.0, entry.held));
            }
            ids.push(format_args!("[{key}]"));
        }
        Ok(Self {
            ids: ids.close(),
            journal: journal.close(),
            holds: holds.close(),
            digests,
            responses,
            cards: list(&commit.cards, |card, out| write!(out, "[{},{}]", card.card.0, card.version)),
            absent: list(&commit.absent, |token, out| write!(out, "\"{}\"", token.as_str())),
            programs: list(&commit.programs, |(program, version), out| write!(out, "[{},{version}]", program.0)),
            accounts: list(&commit.accounts, |delta, out| write!(out, "[{},{}]", delta.account.0, delta.held)),
            counters: list(&commit.counters, |delta, out| write!(out, "[{},{},{}]", Key(&delta.key), delta.add.amount, delta.add.count)),
        })
    }

    pub(super) fn commit(&self, commit: &Commit) -> Result<Parameters, LedgerError> {
        let account_claims = list(&commit.account_claims, |(account, need), out| write!(out, "[{},{need}]", account.0));
        let counter_claims = list(&commit.counter_claims, write_claim);
        Parameters::of(statements::COMMIT)
            .text(&self.ids)?
            .text(&self.cards)?
            .text(&self.absent)?
            .text(&self.programs)?
            .text(&self.accounts)?
            .count(commit.accounts.len())?
            .text(&self.counters)?
            .count(commit.counters.len())?
            .text(&account_claims)?
            .text(&counter_claims)?
            .bytes(&self.digests)?
            .bytes(&self.responses)?
            .text(&self.journal)?
            .text(&self.holds)
    }

    pub(super) fn report(&self, commit: &Commit) -> Result<Parameters, LedgerError> {
        let account_claims = list(&commit.account_claims, |(account, need), out| {
            let held = commit.accounts.binary_search_by_key(account, |delta| delta.account).map_or(0, |at| commit.accounts[at].held);
            write!(out, "[{},{}]", account.0, need.saturating_add(held))
        });
        let counter_claims = list(&commit.counter_claims, |claim, out| {
            let add = commit.counters.binary_search_by_key(&claim.key, |delta| delta.key).map(|at| commit.counters[at].add);
            let add = add.unwrap_or_default();
            let amount = claim.amount.map(|amount| amount.saturating_add(add.amount));
            let count = claim.count.map(|count| count.saturating_add(add.count));
            write_claim(&CounterClaim { key: claim.key, amount, count }, out)
        });
        Parameters::of(statements::REPORT)
            .bytes(&self.digests)?
            .bytes(&self.responses)?
            .text(&self.ids)?
            .text(&self.cards)?
            .text(&self.absent)?
            .text(&self.programs)?
            .text(&self.journal)?
            .text(&self.cards)?
            .text(&self.counters)?
            .text(&counter_claims)?
            .text(&self.accounts)?
            .text(&account_claims)?
            .text(&self.counters)?
            .text(&counter_claims)
    }
}

/// Counter keys, as JSON arrays.
pub(super) fn keys(counters: &[CounterKey]) -> String {
    list(counters, |key, out| write!(out, "[{}]", Key(key)))
}

/// A JSON array with an element for each of `items`.
pub(super) fn list<T>(items: &[T], write: impl Fn(&T, &mut Element<'_>) -> fmt::Result) -> String {
    let mut list = List::new();
    for item in items {
        list.element(|out| write(item, out));
    }
    list.close()
}

fn write_claim(claim: &CounterClaim, out: &mut Element<'_>) -> fmt::Result {
    write!(out, "[{},{},{}]", Key(&claim.key), Null(claim.amount), Null(claim.count))
}

/// The counters charged, as JSON that is known to be JSON.
fn charges(entry: &JournalEntry) -> Result<Option<Box<RawValue>>, LedgerError> {
    let parse = |text: &String| RawValue::from_string(text.clone());
    let refuse = |error| LedgerError::Refused(format!("the charges of {} are not JSON: {error}", entry.id.as_str()));
    entry.charges.as_ref().map(parse).transpose().map_err(refuse)
}

/// The elements of a JSON array under construction.
struct List(String);

/// Where an element is written to.
pub(super) type Element<'a> = dyn Write + 'a;

impl List {
    fn new() -> Self {
        Self("[".to_owned())
    }

    fn push(&mut self, element: fmt::Arguments<'_>) {
        self.element(|out| out.write_fmt(element));
    }

    fn element(&mut self, write: impl FnOnce(&mut Element<'_>) -> fmt::Result) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        // Writing to a string fails only when a `Display` of ours does, and none of them does.
        let written = write(&mut self.0);
        debug_assert!(written.is_ok());
    }

    fn close(mut self) -> String {
        self.0.push(']');
        self.0
    }
}

/// A journal row after its id and the place of its response.
struct Columns<'a> {
    entry: &'a JournalEntry,
    charges: &'a Option<Box<RawValue>>,
}

impl Display for Columns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = self.entry;
        let (card_id, account, program) = (e.card_id.map(|id| id.0), e.account.map(|id| id.0), e.program.map(|id| id.0));
        write!(f, "\"{}\",{},{},{},", e.card.as_str(), Null(card_id), Null(account), Null(program))?;
        write!(f, "{},{},\"{}\",{},", e.requested, e.held, e.currency.code(), e.decision as u8)?;
        write!(f, "{},{},{},{},", Null(e.reason.map(|reason| reason.number())), e.card_version, e.program_version, e.mcc.number())?;
        write!(f, "\"{}\",\"{}\",\"{}\",", e.merchant.as_str(), e.country.code(), e.channel.name())?;
        write!(f, "{},", Null(self.charges.as_ref().map(|charges| charges.get())))?;
        let [queue, user, card, limits, decision] = e.stage_us;
        write!(f, "{queue},{user},{card},{limits},{decision},{},{}", e.decided_at.0, u8::from(e.unheard))
    }
}

/// A value, or JSON's null.
struct Null<T>(Option<T>);

impl<T: Display> Display for Null<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}

struct Key<'a>(&'a CounterKey);

impl Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.0.limit.0, self.0.scope, self.0.window)
    }
}
