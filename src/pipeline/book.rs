//! A lane's working copies of money: balances and counters as the last commit left them.
//!
//! **Invariant**: a working copy is a hint. Whatever it says, the store's guards decide; a copy that turns out wrong is replaced
//! by what the store reports.

use crate::{
    domain::{
        facts::Balance,
        ids::AccountId,
        limits::{CounterKey, Used},
        rules::Position,
    },
    ledger::{CounterDelta, Positions},
};
use foldhash::HashMap;
use quick_cache::unsync::Cache;

/// The working copies a lane keeps between batches; bounded, least used out.
pub(super) struct Book {
    accounts: Cache<AccountId, Balance>,
    counters: Cache<CounterKey, Used>,
}

impl Book {
    pub(super) fn new(accounts_max: usize, counters_max: usize) -> Self {
        Self { accounts: Cache::new(accounts_max), counters: Cache::new(counters_max) }
    }

    pub(super) fn account(&self, id: AccountId) -> Option<Balance> {
        self.accounts.get(&id).copied()
    }

    pub(super) fn counter(&self, key: &CounterKey) -> Option<Used> {
        self.counters.get(key).copied()
    }

    pub(super) fn set_account(&mut self, id: AccountId, balance: Balance) {
        self.accounts.insert(id, balance);
    }

    pub(super) fn set_counter(&mut self, key: CounterKey, used: Used) {
        self.counters.insert(key, used);
    }

    /// Whether all that is missing fits without anything else having to leave.
    pub(super) fn has_room_for(&self, missing: &Missing) -> bool {
        let room = |len: usize, max: u64, more: usize| (len + more) as u64 <= max;
        room(self.accounts.len(), self.accounts.capacity(), missing.accounts.len())
            && room(self.counters.len(), self.counters.capacity(), missing.counters.len())
    }

    /// Forgets what a commit moved in a way that is not known here; it is read again on next use.
    pub(super) fn forget(&mut self, account: Option<AccountId>, counters: impl Iterator<Item = CounterKey>) {
        if let Some(account) = account {
            self.accounts.remove(&account);
        }
        for key in counters {
            self.counters.remove(&key);
        }
    }
}

/// The money one batch is decided on: copies that move with every decision, and become the book's once the batch is committed.
#[derive(Default)]
pub(super) struct Sheet {
    accounts: HashMap<AccountId, Line<Balance>>,
    counters: HashMap<CounterKey, Line<Used>>,
}

/// A working copy with what this batch has added to it so far.
#[derive(Clone, Copy)]
struct Line<T> {
    now: T,
    added: Used,
    /// Charged with the lock of one account only.
    own: bool,
}

impl<T> Line<T> {
    const fn new(now: T, own: bool) -> Self {
        Self { now, added: Used { amount: 0, count: 0 }, own }
    }
}

/// What a batch needs to know before it can be decided.
#[derive(Default)]
pub(super) struct Missing {
    pub(super) accounts: Vec<AccountId>,
    pub(super) counters: Vec<CounterKey>,
}

impl Sheet {
    /// Copies what the book has; notes in `missing` what it has not.
    pub(super) fn want_account(&mut self, id: AccountId, book: &Book, missing: &mut Missing) {
        if self.accounts.contains_key(&id) {
            return;
        }
        let now = book.account(id).unwrap_or_else(|| {
            missing.accounts.push(id);
            Balance::default()
        });
        self.accounts.insert(id, Line::new(now, true));
    }

    /// As [`Sheet::want_account`], for a counter. It is the account's `own` when nobody charges it without the account's lock.
    pub(super) fn want_counter(&mut self, key: CounterKey, own: bool, book: &Book, missing: &mut Missing) {
        if self.counters.contains_key(&key) {
            return;
        }
        let now = book.counter(&key).unwrap_or_else(|| {
            missing.counters.push(key);
            Used::default()
        });
        self.counters.insert(key, Line::new(now, own));
    }

    /// Takes over what was read for `missing`. A counter that does not exist stands at zero.
    pub(super) fn fill(&mut self, missing: &Missing, read: &Positions, book: &mut Book) {
        for id in &missing.accounts {
            if let (Some(balance), Some(line)) = (read.accounts.get(id), self.accounts.get_mut(id)) {
                line.now = *balance;
                book.set_account(*id, *balance);
            }
        }
        for key in &missing.counters {
            let used = read.counters.get(key).copied().unwrap_or_default();
            if let Some(line) = self.counters.get_mut(key) {
                line.now = used;
            }
            book.set_counter(*key, used);
        }
    }

    /// The money as one account's decision sees it.
    pub(super) fn position(&self, account: Option<AccountId>) -> SheetPosition<'_> {
        SheetPosition { sheet: self, account }
    }

    /// Moves an account's copy by an approval.
    pub(super) fn hold(&mut self, id: AccountId, amount: i64) {
        if let Some(line) = self.accounts.get_mut(&id) {
            line.now.held = line.now.held.saturating_add(amount);
            line.added.amount = line.added.amount.saturating_add(amount);
            line.added.count += 1;
        }
    }

    /// Moves a counter's copy by an approval.
    pub(super) fn charge(&mut self, key: &CounterKey, amount: i64) {
        if let Some(line) = self.counters.get_mut(key) {
            line.now.amount = line.now.amount.saturating_add(amount);
            line.now.count = line.now.count.saturating_add(1);
            line.added.amount = line.added.amount.saturating_add(amount);
            line.added.count += 1;
        }
    }

    /// What this batch has added to an account so far.
    pub(super) fn added_to_account(&self, id: AccountId) -> i64 {
        self.accounts.get(&id).map_or(0, |line| line.added.amount)
    }

    /// What this batch has added to a counter so far.
    pub(super) fn added_to_counter(&self, key: &CounterKey) -> Used {
        self.counters.get(key).map_or(Used::default(), |line| line.added)
    }

    /// Every account this batch holds on, with the sum.
    pub(super) fn account_sums(&self) -> impl Iterator<Item = (AccountId, i64)> + '_ {
        self.accounts.iter().filter(|(_, line)| line.added.count > 0).map(|(id, line)| (*id, line.added.amount))
    }

    /// Every counter this batch adds to, with the sum. One that nothing was charged to before has no row yet, as far as is known.
    pub(super) fn counter_sums(&self) -> impl Iterator<Item = CounterDelta> + '_ {
        self.counters.iter().filter(|(_, line)| line.added.count > 0).map(|(key, line)| CounterDelta {
            key: *key,
            add: line.added,
            fresh: line.own && line.now == line.added,
        })
    }

    /// Makes the copies the book's: the batch was committed.
    pub(super) fn close(self, book: &mut Book) {
        for (id, line) in self.accounts.into_iter().filter(|(_, line)| line.added.count > 0) {
            book.set_account(id, line.now);
        }
        for (key, line) in self.counters.into_iter().filter(|(_, line)| line.added.count > 0) {
            book.set_counter(key, line.now);
        }
    }
}

/// A [`Position`] read from a sheet.
pub(super) struct SheetPosition<'a> {
    sheet: &'a Sheet,
    account: Option<AccountId>,
}

impl Position for SheetPosition<'_> {
    fn balance(&self) -> Balance {
        self.account.and_then(|id| self.sheet.accounts.get(&id)).map_or(Balance::default(), |line| line.now)
    }

    fn used(&self, key: &CounterKey) -> Used {
        self.sheet.counters.get(key).map_or(Used::default(), |line| line.now)
    }
}
