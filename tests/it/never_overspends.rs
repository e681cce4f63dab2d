//! However many ask at once, and whichever daemon decides: no cap and no floor is ever passed, and all of what is there can be spent.

use crate::{
    crowd::{Answer, Crowd, Tally, UNHURRIED_MS, check_answers, tell},
    support::{
        request::Request,
        sandbox::Sandbox,
        store::Store,
        world::{Held, Holder, Limit, Owner, Program, World},
    },
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

const PRODUCERS: usize = 64;

/// Amounts asked for, in cents. What is left of anything in the end is less than the smallest.
const SMALLEST: i64 = 25;
const LARGEST: i64 = 400;

/// What may be spent, in cents.
const ACCOUNT_CAP: i64 = 30_000;
const USER_CAP: i64 = 40_000;
const PROGRAM_CAP: i64 = 85_000;
const COUNT_CAP: i64 = 25;
const CREDIT_POSTED: i64 = 15_000;
const CREDIT_FLOOR: i64 = -20_00;
const CREDIT_LATER: i64 = 40_00;

/// One program: an account shared by eight cards under a day limit, a second account of the same user under one limit for both, an
/// account with a credit line, a card that may be used so often, a card that only the program's limit stops.
struct Town<'a> {
    store: &'a Store,
    account_limit: i64,
    user_limit: i64,
    program_limit: i64,
    count_limit: i64,
    credit: Held,
    chance: StdRng,
    asked: Vec<String>,
    answers: Vec<Answer>,
}

impl<'a> Town<'a> {
    async fn build(store: &'a Store) -> Self {
        let world = World::new(store);
        let (zone, ample) = (zone_where_it_is_noon(), || Holder { posted: 100_000_000, ..Holder::default() });
        let program = world.program("town", Program { time_zone: &zone, ..Program::default() }).await;
        let user = world.user(program, "many", &ample()).await;
        let (shared, second) = (world.account(program, "shared", &ample()).await, world.account(program, "second", &ample()).await);
        for number in 0..8 {
            world.card(program, user, shared, &format!("shared_{number}"), &ample()).await;
        }
        for number in 0..2 {
            world.card(program, user, second, &format!("second_{number}"), &ample()).await;
        }
        let credit = world.holder(program, "credit", Holder { posted: CREDIT_POSTED, floor: CREDIT_FLOOR, ..Holder::default() }).await;
        let often = world.holder(program, "often", ample()).await;
        world.holder(program, "plenty", ample()).await;
        let amount = |cap| Limit { cap_amount: Some(cap), ..Limit::default() };
        Self {
            store,
            account_limit: world.limit(Owner::Account(shared), amount(ACCOUNT_CAP)).await,
            user_limit: world.limit(Owner::User(user), amount(USER_CAP)).await,
            program_limit: world.limit(Owner::Program(program), amount(PROGRAM_CAP)).await,
            count_limit: world.limit(Owner::Card(often.card), Limit { cap_count: Some(COUNT_CAP), ..Limit::default() }).await,
            credit,
            chance: StdRng::seed_from_u64(0x00be_e5ee),
            asked: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Requests for cards whose name begins so, of any amount, one in ten content with less.
    fn mixed(&mut self, cards: &str, count: usize) -> Vec<Request> {
        (0..count)
            .map(|place| {
                let request = self.request(cards, place);
                let request = if self.chance.random_range(0..10) == 0 { request.partial() } else { request };
                request.amount(&dollars(self.chance.random_range(SMALLEST..=LARGEST)))
            })
            .collect()
    }

    /// Requests that together use up what is less than [`LARGEST`].
    fn small(&mut self, cards: &str) -> Vec<Request> {
        let count = usize::try_from(LARGEST / SMALLEST).unwrap() + 4;
        (0..count).map(|place| self.request(cards, place).amount(&dollars(SMALLEST))).collect()
    }

    fn request(&mut self, cards: &str, place: usize) -> Request {
        let card = match cards {
            "shared" => format!("crd_shared_{}", place % 8),
            "second" => format!("crd_second_{}", place % 2),
            other => format!("crd_{other}"),
        };
        let id = format!("{cards}-{}", self.asked.len());
        self.asked.push(id.clone());
        Request::new(&id).card(&card).deadline_ms(UNHURRIED_MS)
    }

    /// All of these at once, in any order. Gives how often each kind of card was answered what: a reason, or nothing for an approval.
    async fn wave(&mut self, crowd: &Crowd, mut requests: Vec<Request>) -> BTreeMap<(String, String), usize> {
        for place in (1..requests.len()).rev() {
            requests.swap(place, self.chance.random_range(0..=place));
        }
        let answers = crowd.ask(&requests).await;
        assert_eq!(answers.len(), requests.len());
        let mut counts = BTreeMap::new();
        for answer in &answers {
            let cards = answer.id.split('-').next().unwrap().to_owned();
            *counts.entry((cards, answer.reason())).or_default() += 1;
        }
        self.answers.extend(answers);
        counts
    }

    /// Two waves: amounts of all sizes, far more than there is room for; then small ones, until the room is gone.
    async fn contest(&mut self, crowd: &Crowd, mixed: &[(&str, usize)], expected: &[(&str, &str)]) {
        let requests = mixed.iter().flat_map(|(cards, count)| self.mixed(cards, *count)).collect();
        let mut answered = self.wave(crowd, requests).await;
        // A request that nobody could decide in time used nothing up: the small ones are then asked for again.
        for _ in 0..5 {
            let requests = mixed.iter().flat_map(|(cards, _)| self.small(cards)).collect();
            let more = self.wave(crowd, requests).await;
            let undecided = more.keys().any(|(_, reason)| reason.starts_with("system"));
            more.into_iter().for_each(|(key, count)| *answered.entry(key).or_default() += count);
            if !undecided {
                break;
            }
        }
        for (cards, reason) in expected {
            let seen = answered.get(&((*cards).to_owned(), (*reason).to_owned())).copied().unwrap_or_default();
            assert!(seen > 0, "nobody at {cards} was answered {reason:?}: {answered:?}");
        }
        tell(&format!("{answered:?}"));
    }

    /// What is left: nothing that anybody asked for would fit, and nothing was passed.
    async fn is_used_up(&self) {
        let used = async |limit: i64, column: &str| {
            assert_eq!(
                self.store.number(&format!("select count(*) from counters where limit_id = {limit}")).await,
                1,
                "one day, one counter"
            );
            self.store.number(&format!("select {column} from counters where limit_id = {limit}")).await
        };
        let account = self.credit.account;
        let left = [
            ("account", ACCOUNT_CAP - used(self.account_limit, "amount").await),
            ("user", USER_CAP - used(self.user_limit, "amount").await),
            ("program", PROGRAM_CAP - used(self.program_limit, "amount").await),
            ("floor", self.store.number(&format!("select posted - held - floor from accounts where id = {account}")).await),
        ];
        tell(&format!("left over, in cents, where the smallest request is {SMALLEST}: {left:?}"));
        for (what, left) in left {
            assert!((0..SMALLEST).contains(&left), "{left} left of the {what}");
        }
        assert_eq!(used(self.count_limit, "count").await, COUNT_CAP);
    }
}

/// A day limit must not begin a new day in the middle of a test.
#[expect(clippy::disallowed_methods, reason = "the daemon runs by the wall clock too")]
fn zone_where_it_is_noon() -> String {
    let hours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 % 24;
    // The sign is that of the zone names, where west is positive.
    format!("Etc/GMT{:+}", i64::try_from(hours).unwrap() - 12)
}

fn dollars(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

async fn check(store: &Store, crowd: &Crowd) {
    let mut town = Town::build(store).await;
    let approved = "";
    // What the day limit of the shared account, the credit line and the count limit leave room for.
    let mixed = [("shared", 240), ("credit", 140), ("often", 50)];
    let seen = [("shared", approved), ("shared", "amount_limit"), ("credit", "insufficient_funds"), ("often", "count_limit")];
    town.contest(crowd, &mixed, &seen).await;
    // What the user limit leaves room for on the second account. The credited account has room again, which both daemons believe gone.
    let Held { program, account, .. } = town.credit;
    World::new(store).post(program, account, CREDIT_LATER).await;
    let mixed = [("second", 90), ("credit", 40), ("shared", 24)];
    let seen = [("second", approved), ("second", "amount_limit"), ("credit", approved), ("credit", "insufficient_funds")];
    town.contest(crowd, &mixed, &seen).await;
    // What the program limit leaves room for.
    let mixed = [("plenty", 160), ("second", 16), ("shared", 16), ("credit", 16), ("often", 16)];
    town.contest(crowd, &mixed, &[("plenty", approved), ("plenty", "amount_limit")]).await;

    town.is_used_up().await;
    store.check_books().await;
    let answers = match crowd {
        Crowd::Amqp { replies, .. } => replies.all().into_iter().map(Answer::from).collect(),
        Crowd::Http { .. } => town.answers.clone(),
    };
    let outcome = check_answers(store, &town.asked, answers.clone()).await;
    let held: i64 = answers.iter().map(|answer| cents(&answer.json()["approved_amount"])).sum();
    assert_eq!(held, store.number("select sum(held) from accounts").await, "what was answered is what is held");
    let undecided = answers.iter().filter(|answer| answer.reason().starts_with("system")).count();
    tell(&format!("{outcome:?}, {undecided} undecided"));
    assert_eq!((outcome.again, outcome.replayed), (0, 0), "nothing went wrong, so every request was answered once");
}

fn cents(decimal: &serde_json::Value) -> i64 {
    decimal.as_str().map_or(0, |text| text.replace('.', "").parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_on_postgresql() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    let mut daemons = [sandbox.daemon().await, sandbox.another_daemon().await];
    let crowd = Crowd::over_amqp(&sandbox, PRODUCERS).await;
    check(&store, &crowd).await;
    for daemon in &mut daemons {
        assert_eq!(daemon.terminate().await.code(), Some(0), "{}", daemon.text());
    }
    let decided = daemons.each_ref().map(|daemon| Tally::all(daemon)[0].of("decided"));
    tell(&format!("decided by the one and the other: {decided:?}"));
    assert!(decided.iter().all(|count| *count > 100), "both daemons decide: {decided:?}");
    let rows = store.number("select count(*) from authorizations").await;
    assert_eq!(decided.iter().sum::<u64>(), u64::try_from(rows).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_daemon_on_sqlite() {
    let sandbox = Sandbox::embedded();
    let daemon = sandbox.daemon().await;
    let store = sandbox.store().await;
    check(&store, &Crowd::over_http(daemon.address(), PRODUCERS)).await;
}
