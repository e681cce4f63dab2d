//! A card that is frozen is declined by every daemon at once, by whichever way it hears of it, with the other ways cut.

use crate::{
    crowd::tell,
    support::{
        PATIENCE,
        amqp::Amqp,
        daemon::Daemon,
        eventually,
        http::Http,
        metrics::Metrics,
        request::Request,
        sandbox::Sandbox,
        store::Store,
        world::{Holder, Program, World},
    },
};
use jitauth::{
    codec::event::{EventKind, FactEvent, encode},
    domain::{ids::CardToken, time::Timestamp},
    facts::{
        change::{Change, Subject},
        redis::{self, tell as tell_redis},
    },
};
use lapin::BasicProperties;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep};

const CARDS: usize = 40;

/// The only way by which the daemons hear of it.
#[derive(Clone, Copy, Debug)]
enum Way {
    Store,
    Redis,
    Events,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Redis => "redis",
            Self::Events => "events",
        }
    }

    fn dropped(self) -> String {
        format!("jitauth_cache_invalidations_total{{path=\"{}\",kind=\"card\"}}", self.name())
    }
}

/// What the daemons do not hear of by themselves, told as `jitauth card freeze` would.
struct Teller {
    way: Way,
    redis: redis::Settings,
    amqp: Amqp,
}

impl Teller {
    async fn told(&self, store: &Store, token: &str, at: Timestamp) {
        let token = CardToken::new(token).unwrap();
        match self.way {
            Way::Store => {}
            Way::Redis => {
                let version = store.number(&format!("select version from cards where token = '{}'", token.as_str())).await;
                let change = Change::Card { token, version: Some(version) };
                tell_redis(&self.redis, &[change], Some(at), Duration::from_secs(60)).await.expect("Redis is told");
            }
            Way::Events => {
                let event = FactEvent { kind: EventKind::CardUpdated, subject: Subject::Card(token), at: Some(at) };
                let (key, body) = (event.kind.name(), encode(&event));
                let sent = self.amqp.publish("events", key, &body, BasicProperties::default()).await;
                assert!(sent.is_ok(), "{sent:?}");
            }
        }
    }
}

async fn ask(http: &Http, id: &str, token: &str) -> String {
    let json = http.authorize(Request::new(id).card(token).amount("1.00").deadline_ms(60_000).body()).await.json();
    format!("{} {}", json["decision"], json["reason"])
}

async fn check(way: Way) {
    let Some(mut sandbox) = Sandbox::services().await else { return };
    sandbox.settings = sandbox.settings.with("JITAUTH_MEMORY__LISTEN_TO", way.name());
    if matches!(way, Way::Store) {
        sandbox.settings = sandbox.settings.with("JITAUTH_REDIS__ENABLED", "false").with("JITAUTH_BROKER__ENABLED", "false");
    }
    let store = sandbox.store().await;
    let world = World::new(&store);
    let program = world.program("freeze", Program::default()).await;
    for number in 0..CARDS {
        world.holder(program, &format!("freeze{number}"), Holder::default()).await;
    }
    let daemons = tokio::join!(sandbox.daemon(), sandbox.another_daemon());
    let daemons = [daemons.0, daemons.1];
    let live = format!("jitauth_news_path_live{{path=\"{}\"}}", way.name());
    for daemon in &daemons {
        eventually("daemons that listen", async || (Metrics::of(&daemon.http()).await.get(&live) == 1.0).then_some(())).await;
    }
    let redis = redis::Settings {
        url: sandbox.external().redis_url.clone(),
        command_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(10),
        user_ttl: Duration::from_secs(60),
        card_ttl: Duration::from_secs(60),
        limits_ttl: Duration::from_secs(60),
    };
    let teller = Teller { way, redis, amqp: sandbox.amqp().await };
    let mut declined_after = Vec::new();
    for number in 0..CARDS {
        declined_after.push(freeze(&teller, &store, &daemons, number).await);
    }
    report(way, &daemons, declined_after).await;
}

#[expect(clippy::disallowed_methods, reason = "the change is dated as a command would date it")]
fn wall() -> Timestamp {
    Timestamp(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap())
}

/// Freezes a card that both have in memory, and gives how long after that both had declined it, with nothing but the news to tell them.
async fn freeze(teller: &Teller, store: &Store, daemons: &[Daemon; 2], number: usize) -> Duration {
    let (way, token) = (teller.way, format!("crd_freeze{number}"));
    let mut before = Vec::new();
    for (place, daemon) in daemons.iter().enumerate() {
        assert_eq!(ask(&daemon.http(), &format!("warm-{number}-{place}"), &token).await, "\"approved\" null");
        before.push(Metrics::of(&daemon.http()).await);
    }
    let (at, frozen) = (wall(), Instant::now());
    store.execute(&format!("update cards set status = 'inactive' where token = '{token}'")).await;
    teller.told(store, &token, at).await;
    for (place, (daemon, before)) in daemons.iter().zip(&before).enumerate() {
        let http = daemon.http();
        // By the millisecond: `eventually` looks less often than this takes.
        while Metrics::of(&http).await.get(&way.dropped()) <= before.get(&way.dropped()) {
            assert!(frozen.elapsed() < PATIENCE, "{way:?}, daemon {place}: {token} is not dropped");
            sleep(Duration::from_millis(1)).await;
        }
        let decision = ask(&http, &format!("frozen-{number}-{place}"), &token).await;
        assert_eq!(decision, "\"declined\" \"card_inactive\"", "{way:?}, daemon {place}");
        let after = Metrics::of(&http).await;
        // Nobody had to be corrected by a refused commit.
        assert_eq!(after.commits("rejected"), before.commits("rejected"), "{way:?}, daemon {place}");
        assert_eq!(after.cache("memory", "stale"), before.cache("memory", "stale"), "{way:?}, daemon {place}");
    }
    frozen.elapsed()
}

async fn report(way: Way, daemons: &[Daemon; 2], mut declined_after: Vec<Duration>) {
    declined_after.sort_unstable();
    let at = |share: usize| declined_after[(declined_after.len() - 1) * share / 100].as_secs_f64() * 1e3;
    for (place, daemon) in daemons.iter().enumerate() {
        let metrics = Metrics::of(&daemon.http()).await;
        let others = metrics.sum("jitauth_cache_invalidations_total") - metrics.get(&way.dropped());
        assert_eq!(others, 0.0, "{way:?}, daemon {place}: the other ways are cut");
        assert_eq!(metrics.get(&way.dropped()), CARDS as f64, "{way:?}, daemon {place}");
        let of = |what: &str| metrics.get(&format!("jitauth_freeze_propagation_seconds_{what}{{path=\"{}\"}}", way.name()));
        let mean = if of("count") > 0.0 { of("sum") / of("count") * 1e3 } else { f64::NAN };
        tell(&format!("{way:?}, daemon {place}: dropped {mean:.2} ms after the change on average ({} measured)", of("count")));
    }
    tell(&format!("{way:?}: declined by both daemons after p50 {:.1} ms, p99 {:.1} ms (target 50 ms)", at(50), at(99)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_notifications_of_the_store() {
    check(Way::Store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_pushes_of_redis() {
    check(Way::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_events_of_the_broker() {
    check(Way::Events).await;
}
