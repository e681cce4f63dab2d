//! Redis stops, hangs, is flushed, filled with garbage, cut off: no decision differs from one made without it, and what it pushes is
//! heard again each time.

use crate::{
    crowd::tell,
    support::{
        daemon::Daemon,
        eventually,
        http::Http,
        metrics::Metrics,
        request::Request,
        sandbox::Sandbox,
        services::{Service, Services},
        store::Store,
        world::{Holder, Limit, Owner, Program, World},
    },
};
use fred::{
    cmd,
    prelude::{Builder, Client, ClientLike, Config, Expiration, KeysInterface, ReconnectPolicy, Value},
    types::RespVersion,
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{Instant, timeout};

/// Asked for in one phase, each by a card that no cache has seen before.
const CARDS: usize = 40;

/// What is done to Redis, and undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Healthy,
    Stopped,
    Hung,
    Flushed,
    Garbage,
    CutOff,
    HealthyAgain,
}

const PHASES: [Phase; 7] =
    [Phase::Healthy, Phase::Stopped, Phase::Hung, Phase::Flushed, Phase::Garbage, Phase::CutOff, Phase::HealthyAgain];

struct Rig {
    store: Store,
    services: &'static Services,
    redis: Client,
    /// Hears of changes from the store, and tells Redis.
    teller: Daemon,
    /// Hears of changes from Redis only.
    hearer: Daemon,
    /// Has no Redis.
    without: Daemon,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_decision_differs_and_pushes_are_heard_again() {
    let Some(mut sandbox) = Sandbox::alone().await else { return };
    sandbox.settings = sandbox.settings.with("JITAUTH_MEMORY__WARM", "false").with("JITAUTH_BROKER__ENABLED", "false");
    let services = sandbox.external().services;
    let store = sandbox.store().await;
    prepare(&store).await;
    let listening_to = |path: &str| sandbox.settings.clone().with_free_port().with("JITAUTH_MEMORY__LISTEN_TO", path);
    let (teller, hearer, without) = tokio::join!(
        Daemon::serve(listening_to("store")),
        Daemon::serve(listening_to("redis")),
        Daemon::serve(listening_to("store").with("JITAUTH_REDIS__ENABLED", "false"))
    );
    let rig = Rig { redis: client(&sandbox.external().redis_url).await, store, services, teller, hearer, without };
    for (place, phase) in PHASES.into_iter().enumerate() {
        rig.pass(phase, place).await;
    }
    rig.store.check_books().await;
}

/// Survives what is done to the server.
async fn client(url: &str) -> Client {
    let mut config = Config::from_url(url).unwrap();
    config.version = RespVersion::RESP3;
    let client = Builder::from_config(config)
        .with_connection_config(|connection| connection.max_command_attempts = 100)
        .set_policy(ReconnectPolicy::new_constant(0, 50))
        .build()
        .unwrap();
    client.init().await.expect("Redis answers");
    client
}

async fn prepare(store: &Store) {
    let world = World::new(store);
    let program = world.program("comes", Program::default()).await;
    for place in 0..PHASES.len() {
        for number in 0..CARDS {
            for side in ["with", "without"] {
                let holder = match number % 5 {
                    1 => Holder { card_status: "lost", ..Holder::default() },
                    2 => Holder { posted: 99, ..Holder::default() },
                    3 => Holder { user_status: "suspended", ..Holder::default() },
                    _ => Holder::default(),
                };
                let held = world.holder(program, &name(side, place, number), holder).await;
                if number % 5 == 4 {
                    let cap = Limit { period: "lifetime", cap_amount: Some(99), ..Limit::default() };
                    world.limit(Owner::Card(held.card), cap).await;
                }
            }
        }
        world.holder(program, &format!("frozen{place}"), Holder::default()).await;
    }
}

/// Two cards that are alike: what one of them spends must not be missed by the other.
fn name(side: &str, place: usize, number: usize) -> String {
    format!("{side}{place}_{number}")
}

async fn ask(http: &Http, id: &str, token: &str) -> (String, Duration) {
    let began = Instant::now();
    let json = http.authorize(Request::new(id).card(&format!("crd_{token}")).amount("1.00").deadline_ms(60_000).body()).await.json();
    (format!("{} {}", json["decision"], json["reason"]), began.elapsed())
}

impl Rig {
    async fn pass(&self, phase: Phase, place: usize) {
        let before = Metrics::of(&self.hearer.http()).await;
        self.begin(phase, place).await;
        let (mut slowest, mut all, mut kinds) = (Duration::ZERO, Duration::ZERO, BTreeSet::new());
        for number in 0..CARDS {
            let (token, other) = (name("with", place, number), name("without", place, number));
            let (with, took) = ask(&self.hearer.http(), &token, &token).await;
            let (without, _) = ask(&self.without.http(), &other, &other).await;
            assert_eq!(with, without, "{phase:?}: card {number}");
            kinds.insert(with);
            (slowest, all) = (slowest.max(took), all + took);
        }
        assert_eq!(kinds.len(), 5, "every kind of card is decided in its own way: {kinds:?}");
        let after = Metrics::of(&self.hearer.http()).await;
        let more = |result: &str| after.cache("redis", result) - before.cache("redis", result);
        let [hits, misses, errors, bypassed] = ["hit", "miss", "error", "bypass"].map(more);
        tell(&format!(
            "{phase:?}: {CARDS} cold decisions, mean {} us, slowest {} us; Redis: {hits} hits, {misses} misses, {errors} errors, {bypassed} not asked",
            all.as_micros() / CARDS as u128,
            slowest.as_micros()
        ));
        match phase {
            Phase::Stopped | Phase::Hung => {
                assert!(bypassed > 0.0 && errors <= 10.0, "{phase:?}: a Redis that does not answer is asked no more");
            }
            Phase::Garbage => assert!(errors > 0.0, "garbage is counted"),
            _ => {}
        }
        self.end(phase).await;
        self.heard_again(phase, place).await;
    }

    async fn begin(&self, phase: Phase, place: usize) {
        match phase {
            Phase::Healthy | Phase::HealthyAgain => {}
            Phase::Stopped => self.services.stop(Service::Redis).await,
            Phase::Hung => self.services.pause(Service::Redis).await,
            Phase::Flushed => drop(self.redis.custom::<Value, _>(cmd!("FLUSHDB"), Vec::<String>::new()).await.expect("Redis answers")),
            Phase::CutOff => {
                let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"].map(str::to_owned).to_vec();
                drop(self.redis.custom::<Value, _>(cmd!("CLIENT"), kill).await.expect("Redis answers"));
            }
            Phase::Garbage => {
                for number in 0..CARDS {
                    let key = format!("jit:{}:crd_{}", if number % 2 == 0 { "card" } else { "limits" }, name("with", place, number));
                    let row = ["garbage", "9999999999 {\"id\": 1}", "", "[]"][number % 4];
                    self.redis.set::<(), _, _>(key, row, Some(Expiration::EX(1000)), None, false).await.expect("Redis answers");
                }
            }
        }
    }

    async fn end(&self, phase: Phase) {
        let healed = Instant::now();
        match phase {
            Phase::Stopped => self.services.start(Service::Redis).await,
            Phase::Hung => self.services.resume(Service::Redis).await,
            _ => return,
        }
        for daemon in [&self.teller, &self.hearer] {
            self.metric(daemon, "jitauth_breaker_state{dependency=\"redis\",state=\"closed\"}", 1.0).await;
        }
        tell(&format!("{phase:?}: in use again {} ms after it healed", healed.elapsed().as_millis()));
    }

    async fn metric(&self, daemon: &Daemon, name: &str, wanted: f64) {
        eventually(&format!("{name} {wanted}"), async || (Metrics::of(&daemon.http()).await.get(name) == wanted).then_some(())).await;
    }

    /// A change that only Redis tells of is heard, and it is not a refused commit that makes the answer right.
    async fn heard_again(&self, phase: Phase, place: usize) {
        let token = format!("frozen{place}");
        self.metric(&self.hearer, "jitauth_news_path_live{path=\"redis\"}", 1.0).await;
        let http = self.hearer.http();
        // Whatever is still being looked for after the gap would drop the card, too.
        eventually("a card that stays in memory", async || {
            let before = Metrics::of(&http).await;
            let (decision, _) = ask(&http, &format!("warm-{token}-{}", before.commits("committed")), &token).await;
            assert_eq!(decision, "\"approved\" null", "{phase:?}");
            tokio::time::sleep(Duration::from_millis(300)).await;
            (Metrics::of(&http).await.cache("memory", "miss") == before.cache("memory", "miss")).then_some(())
        })
        .await;
        let pushed = "jitauth_cache_invalidations_total{path=\"redis\",kind=\"card\"}";
        let before = Metrics::of(&http).await;
        let frozen = Instant::now();
        self.store.execute(&format!("update cards set status = 'inactive' where token = 'crd_{token}'")).await;
        let dropped = async {
            while Metrics::of(&http).await.get(pushed) <= before.get(pushed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(timeout(Duration::from_secs(60), dropped).await.is_ok(), "{phase:?}: no push was heard\n{}", self.hearer.text());
        let (decision, _) = ask(&http, &format!("frozen-{token}"), &token).await;
        let after = Metrics::of(&http).await;
        assert_eq!(decision, "\"declined\" \"card_inactive\"", "{phase:?}");
        assert_eq!(after.commits("rejected"), before.commits("rejected"), "{phase:?}: it was the push that did it");
        tell(&format!("{phase:?}: a freeze was pushed through Redis and declined after {} ms", frozen.elapsed().as_millis()));
    }
}
