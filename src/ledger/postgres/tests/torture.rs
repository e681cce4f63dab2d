//! Three daemons' lanes, few hot rows, hostile administrators; and how fast one lane is.

use super::world::{SEED, World, approve, claim_counter, claim_funds, committed, decline, in_world, key, token};
use crate::{
    domain::{
        facts::{Balance, CardFile, CardStatus},
        ids::AccountId,
        limits::{CounterKey, Used},
        reason::Reason,
        time::{Timestamp, WindowStarts},
    },
    facts::FactSource as _,
    ledger::{AccountDelta, Commit, Ledger as _, LedgerError, Outcome, Report},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{AssertSqlSafe, Connection as _};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Judges that sit in the store: at the end of each transaction, with its locks still held, an approval must rest on the facts of
/// now; no change of money may pass a floor, and no charge a cap.
const JUDGES: &str = "
create function judge_approval() returns trigger language plpgsql as $$ begin
  if new.decision > 0 and not exists (select 1 from cards c join users u on u.id = c.user_id join programs p on p.id = c.program_id
     where c.id = new.card_id and c.version = new.card_version and p.version = new.program_version and c.status = 'active' and u.status = 'active') then
    raise exception 'JUDGE: % was approved on facts that are not current', new.id; end if;
  return null; end $$;
create constraint trigger judge_approval after insert on authorizations deferrable initially deferred for each row execute function judge_approval();
create function judge_counter() returns trigger language plpgsql as $$ begin
  if exists (select 1 from limits d where d.id = new.limit_id and (new.amount > d.cap_amount or new.count > d.cap_count)) then
    raise exception 'JUDGE: counter % % % past its cap', new.limit_id, new.scope_id, new.window_start; end if;
  return null; end $$;
create trigger judge_counter after insert or update on counters for each row execute function judge_counter();
alter table accounts add constraint judge_floor check (posted - held >= floor);
update accounts set posted = 300; update limits set cap_amount = 9000, cap_count = 300 where id < 3;
";

const VERDICT: &[(&str, &str)] = &[
    (
        "held is the sum of open holds",
        "select count(*) from accounts a where held <> (select coalesce(sum(amount), 0) from holds h where h.account_id = a.id and h.status = 1)",
    ),
    (
        "each approval has its hold",
        "select count(*) from (select id from authorizations where decision > 0) x full join holds h on h.authorization_id = x.id where x.id is null or h.id is null",
    ),
    (
        "counters are what the journal charged",
        "select count(*) from counters c full join (select (x->>0)::bigint l, (x->>1)::bigint k, (x->>2)::bigint w, sum(amount) a, count(*) n from authorizations, jsonb_array_elements(charges) x where decision > 0 group by 1, 2, 3) x on (x.l, x.k, x.w) = (c.limit_id, c.scope_id, c.window_start) where (coalesce(c.amount, 0), coalesce(c.count, 0)) <> (coalesce(x.a, 0), coalesce(x.n, 0))",
    ),
    ("ids are unique", "select count(*) - count(distinct id) from authorizations"),
];

#[derive(Default)]
struct Book {
    files: HashMap<i64, CardFile>,
    balances: HashMap<AccountId, Balance>,
    used: HashMap<CounterKey, Used>,
}

/// One request: id, card, amount, window.
type Asked = (String, i64, i64, i64);

impl Book {
    /// Reads the files that are missing, until all of a group know the same version of the program.
    async fn load(&mut self, world: &World, asked: &[Asked]) {
        loop {
            for (_, card, ..) in asked {
                while !self.files.contains_key(card) {
                    if let Ok(Some(file)) = world.store.fetch(&token(*card)).await {
                        self.files.insert(*card, file);
                    }
                }
            }
            let newest = asked.iter().map(|(_, card, ..)| self.files[card].program.version).max();
            let before = self.files.len();
            self.files.retain(|_, file| Some(file.program.version) >= newest);
            if self.files.len() == before {
                return;
            }
        }
    }

    fn learn(&mut self, report: &Report) {
        self.files.retain(|_, file| !report.cards.contains(&file.card.id) && !report.programs.contains(&file.program.id));
        self.balances.extend(report.accounts.iter().copied());
        self.used.extend(report.counters.iter().copied());
    }

    fn adopt(&mut self, commit: &Commit) {
        for AccountDelta { account, held } in &commit.accounts {
            self.balances.entry(*account).or_default().held += held;
        }
        for delta in &commit.counters {
            let used = self.used.entry(delta.key).or_default();
            *used = Used { amount: used.amount + delta.add.amount, count: used.count + delta.add.count };
        }
    }

    fn decide(&self, asked: &[Asked]) -> Commit {
        let mut commit = Commit::default();
        let (mut funds, mut caps) = (BTreeMap::<AccountId, i64>::new(), BTreeMap::<CounterKey, (Option<i64>, Option<i64>)>::new());
        for (id, card, amount, window) in asked {
            let file = &self.files[card];
            let day = Timestamp(*window);
            let starts = WindowStarts { day, week: day, month: day };
            let account = file.card.account.id;
            let taken = commit.accounts.iter().find(|delta| delta.account == account).map_or(0, |delta| delta.held);
            let mut over = None;
            let keys: Vec<CounterKey> = file.limits().filter_map(|limit| limit.counter(&file.card, &starts)).collect();
            for (limit, key) in file.limits().zip(&keys) {
                let batch = commit.counters.iter().find(|delta| delta.key == *key).map_or(Used::default(), |delta| delta.add);
                let used = self.used.get(key).copied().unwrap_or_default();
                if limit.cap_amount.is_some_and(|cap| used.amount + batch.amount + amount > cap.get()) {
                    over = over.or(Some((*key, Some(batch.amount + amount), None)));
                } else if limit.cap_count.is_some_and(|cap| used.count + batch.count + 1 > cap.get()) {
                    over = over.or(Some((*key, None, Some(batch.count + 1))));
                }
            }
            let room = self.balances.get(&account).copied().unwrap_or_default().room();
            if file.card.status != CardStatus::Active || !file.user.active {
                decline(&mut commit, Some(file), id, *amount, Reason::CardInactive);
            } else if let Some((key, more, times)) = over {
                decline(&mut commit, Some(file), id, *amount, Reason::AmountLimit);
                let least = |slot: &mut Option<i64>, need: Option<i64>| *slot = [*slot, need].into_iter().flatten().min();
                let claim = caps.entry(key).or_default();
                least(&mut claim.0, more);
                least(&mut claim.1, times);
            } else if taken + amount > room {
                decline(&mut commit, Some(file), id, *amount, Reason::InsufficientFunds);
                let claim = funds.entry(account).or_insert(i64::MAX);
                *claim = (taken + amount).min(*claim);
            } else {
                approve(&mut commit, file, id, *amount, &keys);
            }
        }
        for (account, need) in funds {
            let taken = commit.accounts.iter().find(|delta| delta.account == account).map_or(0, |delta| delta.held);
            claim_funds(&mut commit, account.0, need - taken);
        }
        for (key, (amount, count)) in caps {
            let taken = commit.counters.iter().find(|delta| delta.key == key).map_or(Used::default(), |delta| delta.add);
            claim_counter(&mut commit, key, amount.map(|need| need - taken.amount), count.map(|need| need - taken.count));
        }
        commit
    }
}

struct Ring {
    stop: AtomicBool,
    next: AtomicU64,
    tally: Mutex<BTreeMap<String, u64>>,
}

impl Ring {
    fn hit(&self, what: &str) {
        *self.tally.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    /// A third of the requests race with another lane or come again; what an id asks for never changes.
    fn ask(&self, rng: &mut StdRng) -> Vec<Asked> {
        let mut asked = BTreeMap::new();
        for _ in 0..rng.random_range(1..13) {
            let top = self.next.load(Ordering::Relaxed);
            let id = if rng.random_range(0..3) == 0 {
                top.saturating_sub(rng.random_range(0..20)) + rng.random_range(0..6)
            } else {
                self.next.fetch_add(1, Ordering::Relaxed)
            };
            let mut material = StdRng::seed_from_u64(id);
            let window = i64::try_from(id / 400).unwrap();
            asked.insert(format!("auth-{id:08}"), (material.random_range(1..9), material.random_range(1..60), window));
        }
        asked.into_iter().map(|(id, (card, amount, window))| (id, card, amount, window)).collect()
    }
}

async fn lane(world: World, ring: Arc<Ring>, seed: u64) {
    let (mut rng, mut ledger, mut book) = (StdRng::seed_from_u64(seed), world.store.ledger(), Book::default());
    while !ring.stop.load(Ordering::Relaxed) {
        let mut asked = ring.ask(&mut rng);
        let mut wait = true;
        for tries in 0.. {
            assert!(tries < 500, "no end of tries");
            book.load(&world, &asked).await;
            let commit = book.decide(&asked);
            let outcome = loop {
                match ledger.commit(&commit, wait).await {
                    Err(LedgerError::Unknown(_)) => ring.hit("unknown"),
                    other => break other,
                }
            };
            match outcome {
                Ok(Outcome::Committed) => {
                    book.adopt(&commit);
                    ring.hit("committed");
                    break;
                }
                Ok(Outcome::Rejected(report)) => {
                    assert!(
                        report.known.iter().all(|known| commit.journal.iter().any(|row| row.id == known.id && row.digest == known.digest))
                    );
                    if report.known.iter().any(|known| known.own) {
                        ring.hit("own");
                        book.balances.clear();
                        book.used.clear();
                    }
                    for (what, there) in [
                        ("known", !report.known.is_empty()),
                        ("stale", !report.cards.is_empty() || !report.programs.is_empty()),
                        ("account guard", !report.accounts.is_empty()),
                        ("counter guard", !report.counters.is_empty()),
                        ("busy", !report.busy_accounts.is_empty() || !report.busy_programs.is_empty()),
                    ] {
                        if there {
                            ring.hit(what);
                        }
                    }
                    book.learn(&report);
                    asked.retain(|(id, ..)| !report.known.iter().any(|known| known.id.as_str() == id));
                    asked.retain(|(_, card, ..)| {
                        !book.files.get(card).is_some_and(|file| report.busy_accounts.contains(&file.card.account.id))
                    });
                    if !report.busy_programs.is_empty() {
                        sleep(Duration::from_millis(5)).await;
                    }
                    if asked.is_empty() {
                        break;
                    }
                }
                Err(LedgerError::Contended(_)) => {
                    ring.hit("contended");
                    wait = false;
                }
                Err(LedgerError::Transient(_)) => ring.hit("transient"),
                Err(LedgerError::Unreachable(_)) => sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn administrator(world: World, ring: Arc<Ring>, seed: u64) {
    let (mut rng, mut session) = (StdRng::seed_from_u64(seed), world.stranger().await);
    while !ring.stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(rng.random_range(1..8))).await;
        let (card, user, account) = (rng.random_range(1..9), rng.random_range(1..5), rng.random_range(1..5));
        let sql = match rng.random_range(0..22) {
            0..3 => format!("update cards set status = case status when 'active' then 'inactive' else 'active' end where id = {card}"),
            3..5 => format!("update users set status = case status when 'active' then 'suspended' else 'active' end where id = {user}"),
            // A cap is lowered under its gate and never below what is used: the judge of counters looks at every change.
            5 => format!("update limits set cap_amount = {} where id = 1", rng.random_range(4000..9000)),
            6 => format!("insert into limits (id, owner, owner_id, scope, period, cap_amount) values ({}, 'account', {account}, 'account', 'day', 100000) on conflict do nothing", rng.random_range(50..60)),
            7 => format!("delete from limits where id = {}", rng.random_range(50..60)),
            8..11 => format!("update accounts set posted = posted + {} where id = {account}", rng.random_range(0..200)),
            11..14 => format!("do $$ declare a bigint; begin perform 1 from accounts where id = {account} for no key update; with x as (update holds set status = 2 where authorization_id in (select authorization_id from holds where account_id = {account} and status = 1 limit 3) returning amount) select coalesce(sum(amount), 0) into a from x; update accounts set held = held - a where id = {account}; end $$"),
            14 => format!("begin; update cards set status = 'lost' where id = {card}; select pg_sleep(0.{}); rollback", rng.random_range(1..3)),
            15 => "begin; update cards set status = status where id in (4, 8); update cards set status = status where id in (1, 5); commit".to_owned(),
            16..18 => "update cards set status = 'active' where status <> 'active'".to_owned(),
            18 => "update users set status = 'active' where status <> 'active'".to_owned(),
            19 => "update programs set partial_approval = not partial_approval".to_owned(),
            20 => "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query like '%from jit_commit%' and pid <> pg_backend_pid() order by random() limit 1".to_owned(),
            _ => format!("update accounts set posted = greatest(posted - 300, held + floor) where id = {account}"),
        };
        if sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut session).await.is_err() {
            ring.hit("administrator refused");
            drop(sqlx::raw_sql("rollback").execute(&mut session).await);
        }
        if session.ping().await.is_err() {
            session = world.stranger().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_lanes_and_hostile_administrators_break_nothing() {
    in_world(SEED, |world| async move {
        world.sql(JUDGES).await;
        let ring = Arc::new(Ring { stop: AtomicBool::new(false), next: AtomicU64::new(1), tally: Mutex::default() });
        let seed: u64 = rand::random();
        let mut tasks = Vec::new();
        for number in 0..3 {
            tasks.push(tokio::spawn(lane(world.clone(), Arc::clone(&ring), seed ^ number)));
            tasks.push(tokio::spawn(administrator(world.clone(), Arc::clone(&ring), seed ^ (number + 100))));
        }
        sleep(Duration::from_secs(5)).await;
        ring.stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        let tally = ring.tally.lock().unwrap().clone();
        eprintln!("seed {seed}: {tally:?}");
        for (promise, broken) in VERDICT {
            assert_eq!(world.number(broken).await, 0, "{promise}");
        }
        for happened in ["committed", "known", "stale", "account guard"] {
            assert!(tally.contains_key(happened), "{happened} never happened: {tally:?}");
        }
    })
    .await;
}

/// Prints decisions per second of one lane: approvals on random cards with three counters each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lane_commits_thousands_a_second() {
    in_world("", |world| async move {
        world
            .sql(
                "insert into programs (id, token, kind, currency, time_zone) values (1, 'prg_1', 'personal', 'USD', 'UTC');
                 insert into limits (id, owner, owner_id, scope, period) select g, 'program', 1, 'card', 'day' from generate_series(1, 3) g;
                 insert into users (id, token, program_id) select g, 'usr_' || g, 1 from generate_series(1, 20000) g;
                 insert into accounts (id, token, program_id, currency, posted) select g, 'acc_' || g, 1, 'USD', 1000000000 from generate_series(1, 20000) g;
                 insert into cards (id, token, user_id, account_id, program_id, expires_at) select g, 'crd_' || g, g, g, 1, 1 from generate_series(1, 20000) g;",
            )
            .await;
        let mut rng = StdRng::seed_from_u64(1);
        let mut files = Vec::new();
        for card in 1..=1000 {
            files.push(world.file(card).await);
        }
        let mut ledger = world.store.ledger();
        let mut serial = 0u64;
        for size in [1, 16, 64] {
            let (started, mut done, mut took) = (Instant::now(), 0u32, Vec::new());
            while started.elapsed() < Duration::from_millis(1500) {
                let mut commit = Commit::default();
                for _ in 0..size {
                    serial += 1;
                    let file = &files[rng.random_range(0..files.len())];
                    let card = file.card.id.0;
                    let keys = [key(1, card, 0), key(2, card, 86_400), key(3, card, 7)];
                    approve(&mut commit, file, &format!("auth-{:016x}-{serial}", rng.random::<u64>()), 100, &keys);
                }
                let sent = Instant::now();
                committed(&mut ledger, &commit).await;
                took.push(sent.elapsed());
                done += size;
            }
            took.sort();
            let at = |share: usize| took[took.len() * share / 100];
            eprintln!("batch {size}: {:.0} decisions/s, commit p50 {:?} p99 {:?}", f64::from(done) / started.elapsed().as_secs_f64(), at(50), at(99));
        }
    })
    .await;
}
