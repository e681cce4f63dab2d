//! A store with a small world in it, and the ways of acting on it.

use super::{books, draft::Draft, fixture::Fixture};
use jitauth::{
    domain::{facts::CardFile, ids::CardToken},
    facts::FactSource,
    ledger::{Commit, Ledger, LedgerError, Outcome, Report},
};
use std::collections::HashMap;

/// Two users with two cards each on three accounts. `crd_1` and `crd_4` share `acc_1`; `crd_1` and `crd_2` share `usr_1` and with it
/// limit 11. Limit 12 counts the whole program. Account 9 is the other side of every credit.
const WORLD: &str = "
insert into programs (id, token, kind, currency, time_zone, week_start) values (1, 'prg_1', 'personal', 'USD', 'America/New_York', 'sunday');
insert into users (id, token, program_id) values (1, 'usr_1', 1), (2, 'usr_2', 1);
insert into accounts (id, token, program_id, kind, currency, floor) values
  (1, 'acc_1', 1, 'cardholder', 'USD', 0), (2, 'acc_2', 1, 'cardholder', 'USD', 0), (3, 'acc_3', 1, 'cardholder', 'USD', 0),
  (9, 'acc_9', 1, 'funding', 'USD', -1000000000);
insert into cards (id, token, user_id, account_id, program_id, expires_at) values
  (1, 'crd_1', 1, 1, 1, 4000000000000000), (2, 'crd_2', 1, 2, 1, 4000000000000000),
  (3, 'crd_3', 2, 3, 1, 4000000000000000), (4, 'crd_4', 2, 1, 1, 4000000000000000);
insert into limits (id, owner, owner_id, scope, period, cap_amount, cap_count) values
  (10, 'card', 1, 'card', 'day', 5000, 3), (11, 'user', 1, 'user', 'month', 8000, null), (12, 'program', 1, 'program', 'lifetime', 20000, null)";

/// A store, two ledgers on it.
pub(crate) struct Stage<F: Fixture> {
    pub(crate) fixture: F,
    pub(crate) ledger: F::Ledger,
    pub(crate) other: F::Ledger,
}

/// Runs a case on a fresh stage and checks the books afterwards.
pub(crate) async fn run<F: Fixture>(case: impl AsyncFnOnce(&mut Stage<F>)) {
    let Some(mut stage) = Stage::<F>::new().await else { return };
    case(&mut stage).await;
    stage.finish().await;
}

/// SQL that posts money to an account, with both sides of the entry.
pub(crate) fn credit(account: i64, amount: i64) -> String {
    format!(
        "begin; insert into entries (transfer, account_id, amount, posted_at) values
           ('t-{account}-{amount}', {account}, {amount}, 0), ('t-{account}-{amount}', 9, -{amount}, 0);
         update accounts set posted = posted + {amount} where id = {account};
         update accounts set posted = posted - {amount} where id = 9; commit"
    )
}

impl<F: Fixture> Stage<F> {
    pub(crate) async fn new() -> Option<Self> {
        let fixture = F::fresh().await?;
        let stage = Self { ledger: fixture.ledger(), other: fixture.ledger(), fixture };
        stage.sql(WORLD).await;
        for account in [1, 2, 3] {
            stage.credit(account, 10_000).await;
        }
        Some(stage)
    }

    pub(crate) async fn finish(self) {
        assert_eq!(books::faults(&self.fixture).await, Vec::<String>::new(), "the books");
        let Self { fixture, ledger, other } = self;
        drop((ledger, other));
        fixture.remove().await;
    }

    pub(crate) async fn sql(&self, sql: &str) {
        if let Err(error) = self.fixture.try_sql(sql).await {
            panic!("{error} in {sql}");
        }
    }

    /// One number from the store.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let rows = self.fixture.rows(&format!("select cast(({sql}) as text)")).await;
        rows[0].parse().unwrap()
    }

    /// Posts money to an account.
    pub(crate) async fn credit(&self, account: i64, amount: i64) {
        self.sql(&credit(account, amount)).await;
    }

    pub(crate) async fn file(&self, card: &str) -> Option<CardFile> {
        let file = self.fixture.facts().fetch(&CardToken::new(card).unwrap()).await.unwrap();
        assert!(file.as_ref().is_none_or(CardFile::agrees));
        file
    }

    /// A group that knows all cards as they are now, and the counters.
    pub(crate) async fn draft(&self) -> Draft {
        let mut files = HashMap::new();
        for card in ["crd_1", "crd_2", "crd_3", "crd_4"] {
            files.extend(self.file(card).await.map(|file| (card.to_owned(), file)));
        }
        let keys: Vec<_> = files.values().flat_map(super::draft::charged).collect();
        let used = self.fixture.ledger().positions(&[], &keys).await.unwrap().counters;
        Draft::on(files, used)
    }

    /// Every row that a commit may touch.
    pub(crate) async fn dump(&self) -> Vec<String> {
        books::dump(&self.fixture).await
    }

    pub(crate) async fn committed(&mut self, group: &Commit) {
        match self.ledger.commit(group, true).await {
            Ok(Outcome::Committed) => {}
            other => panic!("not committed: {other:?}"),
        }
    }

    /// The report on a group of which nothing may be applied.
    pub(crate) async fn rejected(&mut self, group: &Commit) -> Report {
        let before = self.dump().await;
        let report = match self.ledger.commit(group, true).await {
            Ok(Outcome::Rejected(report)) => report,
            other => panic!("not rejected: {other:?}"),
        };
        assert_eq!(self.dump().await, before, "something of a rejected group was applied");
        *report
    }

    /// Whether a group, of which nothing may be applied, is refused for good.
    pub(crate) async fn refused(&mut self, group: &Commit) {
        let before = self.dump().await;
        match self.ledger.commit(group, true).await {
            Err(LedgerError::Refused(_)) => {}
            other => panic!("not refused: {other:?}"),
        }
        assert_eq!(self.dump().await, before, "something of a refused group was applied");
    }
}
