//! Caches left stale on purpose: warmed, then contradicted by plain SQL behind the daemon's back, then relied on.

use crate::support::{
    daemon::Daemon,
    eventually,
    http::Http,
    metrics::Metrics,
    request::Request,
    sandbox::Sandbox,
    store::Store,
    world::{Held, Holder, Limit, Owner, Program, World},
};
use fred::prelude::{Builder, Client, ClientLike, Config, KeysInterface};
use jitauth::domain::reason::Reason;

/// Whom of a cardholder's rows a limit is attached to.
type Attached = fn(Held) -> Owner;

/// One change of the store that no cache hears of.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) program: Program<'static>,
    pub(crate) holder: Holder<'static>,
    /// Whether the card is there from the start. The change inserts it otherwise, with id [`Held::card`] and token `crd_<token>`.
    pub(crate) card_exists: bool,
    pub(crate) limit: Option<(Attached, Limit<'static>)>,
    /// What the caches are warmed with is answered so; `None` is an approval.
    pub(crate) before: Option<Reason>,
    /// Plain SQL; the text is what the tokens of the holder end in.
    pub(crate) change: fn(Held, &str) -> String,
    /// What is answered afterwards, on stale caches.
    pub(crate) after: Option<Reason>,
}

impl Case {
    /// A cardholder with 1000.00, of a program of their own.
    pub(crate) fn new(name: &'static str, before: Option<Reason>, change: fn(Held, &str) -> String, after: Option<Reason>) -> Self {
        let (program, holder) = (Program::default(), Holder::default());
        Self { name, program, holder, card_exists: true, limit: None, before, change, after }
    }

    pub(crate) fn holder(self, holder: Holder<'static>) -> Self {
        Self { holder, ..self }
    }

    pub(crate) fn program(self, program: Program<'static>) -> Self {
        Self { program, ..self }
    }

    pub(crate) fn limit(self, owner: Attached, limit: Limit<'static>) -> Self {
        Self { limit: Some((owner, limit)), ..self }
    }

    pub(crate) fn without_card(self) -> Self {
        Self { card_exists: false, ..self }
    }

    async fn prepare(&self, store: &Store, token: &str) -> Held {
        let world = World::new(store);
        let program = world.program(token, Program { ..self.program }).await;
        let user = world.user(program, token, &self.holder).await;
        let account = world.account(program, token, &self.holder).await;
        let card = if self.card_exists { world.card(program, user, account, token, &self.holder).await } else { user + 1_000_000 };
        let held = Held { program, user, account, card };
        if let Some((owner, limit)) = &self.limit {
            world.limit(owner(held), Limit { ..*limit }).await;
        }
        held
    }
}

/// Posts money, or takes it away: two entries, two balances.
pub(crate) fn transfer(held: Held, token: &str, amount: i64) -> String {
    let Held { program, account, .. } = held;
    let funding = format!("(select id from accounts where program_id = {program} and kind = 'funding')");
    format!(
        "update accounts set posted = posted - ({amount}) where id = {funding};
         update accounts set posted = posted + ({amount}) where id = {account};
         insert into entries (transfer, account_id, amount, posted_at)
         values ('trf_{token}', {funding}, -({amount}), 0), ('trf_{token}', {account}, {amount}, 0)"
    )
}

/// The cache that is relied on while it is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Road {
    /// The memory of the daemon that is asked, with Redis, if there is one, as stale behind it.
    Memory,
    /// Redis: the daemon that is asked has never seen the card.
    Redis,
}

/// Daemons that believe what they know for as long as is allowed.
struct Rig {
    store: Store,
    warm: Daemon,
    /// With Redis only: one that has nothing in memory.
    cold: Option<(Daemon, Client)>,
    tally: Tally,
}

/// What the guards had to catch.
#[derive(Debug, Default)]
struct Tally {
    cases: u32,
    memory_hits: f64,
    redis_hits: f64,
    commits_rejected: f64,
}

/// Runs every case on SQLite.
pub(crate) async fn check_embedded(cases: fn() -> Vec<Case>) {
    let sandbox = patient(Sandbox::embedded());
    let warm = sandbox.daemon().await;
    let store = sandbox.store().await;
    Rig { store, warm, cold: None, tally: Tally::default() }.check_all(cases).await;
}

/// Runs every case on PostgreSQL and Redis.
pub(crate) async fn check_services(cases: fn() -> Vec<Case>) {
    let Some(sandbox) = Sandbox::services().await else { return };
    let sandbox = patient(sandbox);
    let (warm, cold) = tokio::join!(sandbox.daemon(), sandbox.another_daemon());
    let redis = Builder::from_config(Config::from_url(&sandbox.external().redis_url).unwrap()).build().unwrap();
    redis.init().await.expect("Redis answers");
    let store = sandbox.store().await;
    Rig { store, warm, cold: Some((cold, redis)), tally: Tally::default() }.check_all(cases).await;
}

fn patient(mut sandbox: Sandbox) -> Sandbox {
    sandbox.settings = sandbox.settings.with("JITAUTH_MEMORY__TTL_S", "3600").with("JITAUTH_MEMORY__ABSENT_TTL_MS", "60000");
    // Deaf to all news of changes.
    sandbox.settings = sandbox.settings.with("JITAUTH_MEMORY__LISTEN_TO", "");
    sandbox
}

impl Rig {
    async fn check_all(mut self, cases: fn() -> Vec<Case>) {
        for case in cases() {
            self.check(&case, Road::Memory).await;
            // Redis does not know of cards that do not exist.
            if self.cold.is_some() && case.card_exists {
                self.check(&case, Road::Redis).await;
            }
        }
        self.store.check_books_but_caps().await;
        eprintln!("stale caches: {:?}", self.tally);
    }

    async fn check(&mut self, case: &Case, road: Road) {
        let name = format!("{}, {road:?}", case.name);
        let token = format!("{}_{road:?}", case.name).to_lowercase();
        let held = case.prepare(&self.store, &token).await;
        let ask = |id: &str| Request::new(&format!("{token}-{id}")).card(&format!("crd_{token}")).user(&format!("usr_{token}"));
        self.decides(&self.warm.http(), &format!("{name}, before"), &ask("1"), case.before).await;
        let kept = self.kept_in_redis(case, held, &token, &name).await;

        self.store.execute(&(case.change)(held, &token)).await;

        let asked = match (&self.cold, road) {
            (Some((cold, _)), Road::Redis) => cold.http(),
            _ => self.warm.http(),
        };
        let seen = Metrics::of(&asked).await;
        assert_eq!(self.in_redis(held, &token).await, kept, "{name}: Redis heard of the change");
        self.decides(&asked, &format!("{name}, after"), &ask("2"), case.after).await;
        let then = Metrics::of(&asked).await;

        let more = |tier, result| then.cache(tier, result) - seen.cache(tier, result);
        let (memory, redis) = (more("memory", "hit"), more("redis", "hit"));
        let rejected = then.commits("rejected") - seen.commits("rejected");
        match road {
            Road::Memory => {
                assert_eq!((memory, more("memory", "miss")), (1.0, 0.0), "{name}: the stale fact in memory was not used");
                assert!(rejected >= 1.0, "{name}: no guard had to catch it");
            }
            Road::Redis => assert_eq!((memory, redis), (0.0, 1.0), "{name}: the stale fact in Redis was not used"),
        }
        self.tally.cases += 1;
        self.tally.memory_hits += memory;
        self.tally.redis_hits += redis;
        self.tally.commits_rejected += rejected;
    }

    /// Asks, and compares with what is in the store as well.
    async fn decides(&self, http: &Http, name: &str, request: &Request, reason: Option<Reason>) {
        let reply = http.authorize(request.body()).await;
        let json = reply.json();
        let expected = if reason.is_some() { "declined" } else { "approved" };
        assert_eq!(
            (json["decision"].as_str(), json["reason"].as_str()),
            (Some(expected), reason.map(Reason::name)),
            "{name}: {}",
            reply.text()
        );
        let id = request.id();
        assert_eq!(self.store.response(id).await.as_deref(), Some(&reply.body[..]), "{name}: what was sent is what is stored");
        let holds = self.store.number(&format!("select count(*) from holds where authorization_id = '{id}' and status = 1")).await;
        assert_eq!(holds, i64::from(reason.is_none()), "{name}: holds");
    }

    /// What Redis keeps about a card, once it has been told.
    async fn kept_in_redis(&self, case: &Case, held: Held, token: &str, name: &str) -> Vec<Option<String>> {
        if self.cold.is_none() || !case.card_exists {
            return self.in_redis(held, token).await;
        }
        eventually(&format!("{name}: the card in Redis"), async || {
            Some(self.in_redis(held, token).await).filter(|rows| rows.iter().all(Option::is_some))
        })
        .await
    }

    async fn in_redis(&self, held: Held, token: &str) -> Vec<Option<String>> {
        let Some((_, redis)) = &self.cold else { return Vec::new() };
        let keys = [
            format!("jit:card:crd_{token}"),
            format!("jit:limits:crd_{token}"),
            format!("jit:user:usr_{token}"),
            format!("jit:program:{}", held.program),
        ];
        redis.mget(keys.to_vec()).await.expect("Redis answers")
    }
}
