//! A database of its own for each test, and commits to send to it.

use crate::{
    domain::{
        decision::Decision,
        facts::CardFile,
        hold::HoldId,
        ids::{AccountId, CardId, CardToken, LimitId, MerchantId, ProgramId, RequestId},
        limits::{CounterKey, Scope, Used},
        money::Currency,
        reason::Reason,
        request::{Channel, Country, Mcc},
        time::Timestamp,
    },
    facts::FactSource as _,
    ledger::{
        AccountDelta, CardVersion, Commit, CounterClaim, CounterDelta, JournalEntry, Ledger as _, LedgerError, Outcome, Report,
        SchemaState, Void,
        postgres::{PgLedger, Postgres, Settings},
    },
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::time::Duration;

/// Program 1; four users and accounts with 10,000 each; cards 1 to 8, two to a user and account. Limit 1: each card of the program
/// 5,000 and 20 times a day. Limit 2: the program 50,000 for ever. Limit 3: user 1, 3,000 a day.
pub(super) const SEED: &str = "
insert into programs (id, token, kind, currency, time_zone) values (1, 'prg_1', 'personal', 'USD', 'UTC');
insert into users (id, token, program_id) select g, 'usr_' || g, 1 from generate_series(1, 4) g;
insert into accounts (id, token, program_id, currency, posted) select g, 'acc_' || g, 1, 'USD', 10000 from generate_series(1, 4) g;
insert into cards (id, token, user_id, account_id, program_id, expires_at)
  select g, 'crd_' || g, (g - 1) % 4 + 1, (g - 1) % 4 + 1, 1, 4000000000000000 from generate_series(1, 8) g;
insert into limits (id, owner, owner_id, scope, period, cap_amount, cap_count) values
  (1, 'program', 1, 'card', 'day', 5000, 20), (2, 'program', 1, 'program', 'lifetime', 50000, null), (3, 'user', 1, 'user', 'day', 3000, null);
";

/// A migrated and seeded store.
#[derive(Clone)]
pub(super) struct World {
    pub(super) store: Postgres,
    pub(super) url: String,
}

/// Runs a test in a new world, which is dropped afterwards whatever happens.
pub(super) async fn in_world<F: Future<Output = ()> + Send + 'static>(seed: &'static str, test: impl FnOnce(World) -> F) {
    let Ok(server) = std::env::var("JITAUTH_TEST_POSTGRES") else {
        assert!(
            std::env::var("JITAUTH_TEST_REQUIRE").as_deref() != Ok("1"),
            "JITAUTH_TEST_POSTGRES is not set, and nothing may be skipped"
        );
        eprintln!("skipped: set JITAUTH_TEST_POSTGRES to the URL of a server on which databases may be created");
        return;
    };
    let name = format!("jit_test_{:016x}", rand::random::<u64>());
    let mut admin = PgConnection::connect(&server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await.unwrap();
    let (base, query) = server.split_once('?').unwrap_or((&server, ""));
    let url = format!("{}/{name}?{query}", base.rsplit_once('/').unwrap().0);
    let store = Postgres::connect(&settings(&url)).await.unwrap();
    assert_eq!(store.schema().await.unwrap(), SchemaState::Missing);
    store.migrate().await.unwrap();
    assert_eq!(store.schema().await.unwrap(), SchemaState::Current);
    let world = World { store, url };
    world.sql(seed).await;
    let ended = tokio::spawn(test(world)).await;
    sqlx::raw_sql(AssertSqlSafe(format!("drop database {name} with (force)"))).execute(&mut admin).await.unwrap();
    if let Err(error) = ended {
        std::panic::resume_unwind(error.into_panic());
    }
}

pub(super) fn settings(url: &str) -> Settings {
    Settings {
        url: url.to_owned(),
        pool_min: 0,
        pool_max: 4,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(30),
        query_timeout: Duration::from_secs(30),
        commit_timeout: Duration::from_millis(1500),
        lock_timeout: Duration::from_millis(60),
    }
}

impl World {
    pub(super) async fn sql(&self, text: impl Into<String>) {
        sqlx::raw_sql(AssertSqlSafe(text.into())).execute(self.store.pool()).await.unwrap();
    }

    pub(super) async fn number(&self, text: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(text.to_owned())).fetch_one(self.store.pool()).await.unwrap()
    }

    /// A connection outside of the store's pools: somebody with psql.
    pub(super) async fn stranger(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub(super) async fn file(&self, card: i64) -> CardFile {
        let file = self.store.fetch(&token(card)).await.unwrap().unwrap();
        assert!(file.agrees());
        file
    }

    /// A group with one approval.
    pub(super) async fn approval(&self, id: &str, card: i64, amount: i64, keys: &[CounterKey]) -> Commit {
        let mut commit = Commit::default();
        approve(&mut commit, &self.file(card).await, id, amount, keys);
        commit
    }

    pub(super) async fn held(&self, account: i64) -> i64 {
        self.number(&format!("select held from accounts where id = {account}")).await
    }
}

pub(super) fn token(card: i64) -> CardToken {
    CardToken::new(&format!("crd_{card}")).unwrap()
}

pub(super) const fn key(limit: i64, scope: i64, window: i64) -> CounterKey {
    CounterKey { limit: LimitId(limit), scope, window }
}

pub(super) fn request(id: &str) -> RequestId {
    RequestId::new(id).unwrap()
}

/// A journal row; the digest stands for the amount, the response for the id and the decision.
pub(super) fn entry(file: Option<&CardFile>, id: &str, amount: i64, reason: Option<Reason>) -> JournalEntry {
    let approved = reason.is_none();
    JournalEntry {
        id: request(id),
        digest: amount_digest(amount),
        card: file.map_or_else(|| token(999), |file| file.card.token.clone()),
        card_id: file.map(|file| file.card.id),
        account: file.map(|file| file.card.account.id),
        program: file.map(|file| file.program.id),
        requested: amount,
        held: if approved { amount } else { 0 },
        currency: Currency::from_code("USD").unwrap(),
        decision: if approved { Decision::Approved } else { Decision::Declined },
        reason,
        response: format!("{id}:{amount}:{reason:?}").into_bytes().into(),
        hold: approved.then(|| HoldId::new(&format!("hld_{id}"))),
        card_version: file.map_or(0, |file| file.card.version),
        program_version: file.map_or(0, |file| file.program.version),
        mcc: Mcc::from_code("5812").unwrap(),
        merchant: MerchantId::new("mrc_1").unwrap(),
        country: Country::from_code("NLD").unwrap(),
        channel: Channel::Contactless,
        charges: None,
        stage_us: [1, 2, 3, 4, 5],
        decided_at: Timestamp(1_772_618_400_000_000),
        unheard: false,
    }
}

fn amount_digest(amount: i64) -> [u8; 16] {
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&amount.to_be_bytes());
    digest
}

/// Adds an approval to a group, as a lane would.
pub(super) fn approve(commit: &mut Commit, file: &CardFile, id: &str, amount: i64, keys: &[CounterKey]) {
    let mut row = entry(Some(file), id, amount, None);
    let charges: Vec<String> = keys.iter().map(|k| format!("[{},{},{},0,0,0,0]", k.limit.0, k.scope, k.window)).collect();
    row.charges = Some(format!("[{}]", charges.join(",")));
    let account = file.card.account.id;
    match commit.accounts.iter_mut().find(|delta| delta.account == account) {
        Some(delta) => delta.held += amount,
        None => commit.accounts.push(AccountDelta { account, held: amount }),
    }
    for key in keys {
        match commit.counters.iter_mut().find(|delta| delta.key == *key) {
            Some(delta) => delta.add = Used { amount: delta.add.amount + amount, count: delta.add.count + 1 },
            None => commit.counters.push(CounterDelta { key: *key, add: Used { amount, count: 1 }, fresh: hint(file, key, amount) }),
        }
    }
    journal(commit, Some(file), row);
}

/// That a counter is fresh is a hint, as often wrong as right; given for those only that it may be given for.
fn hint(file: &CardFile, key: &CounterKey, amount: i64) -> bool {
    amount % 2 == 0 && file.limits().any(|limit| limit.id == key.limit && matches!(limit.scope, Scope::Card | Scope::Account))
}

/// Adds a decline to a group; claims are the caller's to add.
pub(super) fn decline(commit: &mut Commit, file: Option<&CardFile>, id: &str, amount: i64, reason: Reason) {
    journal(commit, file, entry(file, id, amount, Some(reason)));
}

fn journal(commit: &mut Commit, file: Option<&CardFile>, row: JournalEntry) {
    commit.journal.push(row);
    if let Some(file) = file {
        if !commit.cards.iter().any(|card| card.card == file.card.id) {
            commit.cards.push(CardVersion { card: file.card.id, version: file.card.version });
        }
        if !commit.programs.iter().any(|(program, _)| *program == file.program.id) {
            commit.programs.push((file.program.id, file.program.version));
        }
    }
    commit.journal.sort_by(|a, b| a.id.cmp(&b.id));
    commit.accounts.sort_by_key(|delta| delta.account);
    commit.counters.sort_by_key(|delta| delta.key);
    commit.cards.sort_by_key(|card| card.card);
}

pub(super) fn claim_funds(commit: &mut Commit, account: i64, need: i64) {
    commit.account_claims.push((AccountId(account), need));
}

pub(super) fn claim_counter(commit: &mut Commit, key: CounterKey, amount: Option<i64>, count: Option<i64>) {
    commit.counter_claims.push(CounterClaim { key, amount, count });
}

/// What the void of a group's only approval says.
pub(super) fn void_of(commit: &Commit) -> Void {
    let row = &commit.journal[0];
    Void {
        id: row.id.clone(),
        account: row.account.unwrap(),
        held: row.held,
        counters: commit.counters.iter().map(|delta| delta.key).collect(),
        response: row.response.clone(),
        decline: format!("{:?}:late", row.id).into_bytes().into(),
        reason: Reason::DeadlineExceeded,
    }
}

pub(super) async fn committed(ledger: &mut PgLedger, commit: &Commit) {
    match ledger.commit(commit, true).await {
        Ok(Outcome::Committed) => {}
        other => panic!("not committed: {other:?}"),
    }
}

pub(super) async fn rejected(ledger: &mut PgLedger, commit: &Commit, wait: bool) -> Report {
    match ledger.commit(commit, wait).await {
        Ok(Outcome::Rejected(report)) => *report,
        other => panic!("not rejected: {other:?}"),
    }
}

pub(super) async fn failed(ledger: &mut PgLedger, commit: &Commit) -> LedgerError {
    match ledger.commit(commit, true).await {
        Err(error) => error,
        other => panic!("no error: {other:?}"),
    }
}

pub(super) const CARD_1: CardId = CardId(1);
pub(super) const PROGRAM: ProgramId = ProgramId(1);
