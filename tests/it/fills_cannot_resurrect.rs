//! Who reads a fact before it changes and writes it down afterwards writes nothing: not in memory, and not in a real Redis.

use crate::support::{eventually, metrics::Metrics, sandbox::Sandbox};
use fred::cmd;
use fred::prelude::{Builder, Client, ClientLike, Config, Expiration, KeysInterface, Value};
use jitauth::{
    domain::{
        facts::CardFile,
        ids::{CardToken, ProgramId, UserId, UserToken},
        time::Timestamp,
    },
    facts::{
        FactError, FactSource,
        change::{Announced, Change, ChangeFeed, FactStore, Heard, Scanned, Subject},
        document::CardDocument,
        invalidator::{self, Invalidator, Paths},
        memory::{self, Memory},
        redis::{self, Redis, tell},
        tiered::FactTiers,
    },
    telemetry::{Exposition, Spans, Telemetry, events::Path},
};
use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout},
};

const PATIENCE: Duration = Duration::from_secs(60);
const AT: Timestamp = Timestamp(1_772_619_307_112_000);

fn token() -> CardToken {
    CardToken::new("crd_1").unwrap()
}

fn file(version: i64) -> CardFile {
    let json = format!(
        r#"{{"card": {{"id": 1, "token": "crd_1", "version": {version}, "user_id": 3, "user": "usr_3", "user_version": 2, "account_id": 5,
                "currency": "EUR", "account_open": true, "program_id": 4, "status": "active", "expires_at": 4102444800000000}},
             "user": {{"id": 3, "token": "usr_3", "version": 2, "active": true, "kyc_verified": true}},
             "limits": {{"card_version": {version}, "limits": []}},
             "program": {{"id": 4, "version": 4, "kind": "personal", "time_zone": "UTC", "week_start": "monday", "kyc_required": true,
                "partial_approval": true, "limits": []}}}}"#
    );
    CardDocument::parse(json.as_bytes()).unwrap()
}

fn card(version: Option<i64>) -> Change {
    Change::Card { token: token(), version }
}

/// A store with one card, whose reads see what is current when they begin and then wait until they are let go.
#[derive(Clone)]
struct Slow(Arc<State>);

struct State {
    version: AtomicI64,
    began: Notify,
    let_go: Semaphore,
}

struct Silent;

impl ChangeFeed for Silent {
    async fn next(&mut self) -> Heard {
        std::future::pending().await
    }
}

impl FactSource for Slow {
    async fn fetch(&self, _: &CardToken) -> Result<Option<CardFile>, FactError> {
        let version = self.0.version.load(Relaxed);
        self.0.began.notify_one();
        self.0.let_go.acquire().await.unwrap().forget();
        Ok(Some(file(version)))
    }
}

impl FactStore for Slow {
    type Feed = Silent;

    fn feed(&self) -> Silent {
        Silent
    }

    async fn every_card(&self, _: impl FnMut(Scanned) -> ControlFlow<()> + Send) -> Result<u64, FactError> {
        Ok(0)
    }

    async fn concerned(&self, _: &Subject) -> Result<Vec<Change>, FactError> {
        Ok(Vec::new())
    }
}

/// One daemon's caches on a real Redis.
struct Caches {
    source: Slow,
    facts: FactTiers<Slow>,
    redis: Redis,
    telemetry: Telemetry,
}

struct Rig {
    settings: redis::Settings,
    client: Client,
    _sandbox: Sandbox,
}

impl Rig {
    async fn new() -> Option<Self> {
        Some(Self::on(Sandbox::services().await?).await)
    }

    async fn on(sandbox: Sandbox) -> Self {
        let url = sandbox.external().redis_url.clone();
        let client = Builder::from_config(Config::from_url(&url).unwrap()).build().unwrap();
        client.init().await.expect("Redis answers");
        let settings = redis::Settings {
            url,
            command_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(10),
            user_ttl: Duration::from_secs(3600),
            card_ttl: Duration::from_secs(900),
            limits_ttl: Duration::from_secs(300),
        };
        Self { settings, client, _sandbox: sandbox }
    }

    async fn caches(&self) -> Caches {
        let telemetry = Telemetry::default();
        let (redis, _) = Redis::connect(self.settings.clone(), false, &telemetry).unwrap();
        let memory = memory::Settings { bytes_max: 1 << 20, ttl: Duration::from_secs(3600), absent_ttl: Duration::from_secs(2) };
        let source = Slow(Arc::new(State { version: AtomicI64::new(1), began: Notify::new(), let_go: Semaphore::new(0) }));
        let facts = FactTiers::new(Memory::new(memory), Some(redis.clone()), source.clone(), telemetry.clone());
        let caches = Caches { source, facts, redis, telemetry };
        eventually("a connection to Redis", async || caches.redis.card(&token()).await.is_ok().then_some(())).await;
        caches
    }

    async fn get(&self, key: &str) -> Option<String> {
        self.client.get(key).await.expect("a text")
    }

    async fn put(&self, key: &str, row: &str) {
        self.client.set::<(), _, _>(key, row, Some(Expiration::EX(1000)), None, false).await.expect("Redis answers");
    }

    async fn tell(&self, change: Change) -> usize {
        tell(&self.settings, &[change], Some(AT), PATIENCE).await.expect("Redis is told")
    }
}

impl Caches {
    fn seen(&self) -> Option<i64> {
        self.facts.peek(&token(), &mut Spans::default()).flatten().map(|file| file.card.version)
    }

    fn metrics(&self) -> Metrics {
        Metrics::read(&self.telemetry.scrape(Exposition::Prometheus).unwrap())
    }

    fn writes(&self) -> f64 {
        self.metrics().get("jitauth_redis_command_duration_seconds_count{command=\"write\"}")
    }

    /// Writes a version as a fill does, and waits until the server has answered.
    async fn keep(&self, version: i64) {
        let before = self.writes();
        self.redis.keep(&file(version), Instant::now());
        eventually("the fill's end", async || (self.writes() > before).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_fill_writes_nothing_that_has_changed_meanwhile() {
    let Some(rig) = Rig::new().await else { return };
    for (told, tombstone) in [(Some(2), format!("2 - {} 0", AT.0)), (None, format!("9007199254740991 ! {} 0", AT.0))] {
        let _: i64 = rig.client.del(vec!["jit:card:crd_1", "jit:limits:crd_1"]).await.unwrap();
        let caches = rig.caches().await;
        let settings = invalidator::Settings { warm: false, listen_to: Paths::default() };
        let invalidator = Invalidator::new(caches.facts.clone(), settings, Arc::new(|| AT));
        let slow = tokio::spawn({
            let facts = caches.facts.clone();
            async move { facts.lookup(&token()).await }
        });
        caches.source.0.began.notified().await;

        caches.source.0.version.store(2, Relaxed);
        invalidator.apply(Path::Store, Announced { change: card(told), at: Some(AT) });
        eventually("the tombstone", async || (rig.get("jit:card:crd_1").await.as_deref() == Some(&tombstone)).then_some(())).await;
        let before = caches.writes();
        caches.source.0.let_go.add_permits(1);
        assert_eq!(slow.await.unwrap().unwrap().found.map(|file| file.card.version), Some(1), "read before the change");
        eventually("the fill's end", async || (caches.writes() > before).then_some(())).await;
        assert_eq!(caches.seen(), None, "{told:?}: in memory");
        for key in ["jit:card:crd_1", "jit:limits:crd_1"] {
            assert_eq!(rig.get(key).await.as_deref(), Some(&*tombstone), "{told:?}: {key}");
        }

        // Another daemon, which knows nothing, asks the store.
        let other = rig.caches().await;
        other.source.0.version.store(2, Relaxed);
        other.source.0.let_go.add_permits(1);
        assert_eq!(other.facts.lookup(&token()).await.unwrap().found.map(|file| file.card.version), Some(2));
        assert_eq!(other.seen(), Some(2));
        if told.is_some() {
            eventually("the new row", async || rig.get("jit:card:crd_1").await?.starts_with("2 {").then_some(())).await;
            // From there the first one has it, without a read of the store.
            assert_eq!(caches.facts.lookup(&token()).await.unwrap().found.map(|file| file.card.version), Some(2));
            assert_eq!((caches.seen(), caches.metrics().cache("redis", "hit")), (Some(2), 1.0));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_lower_version_are_not_written() {
    let Some(rig) = Rig::new().await else { return };
    let caches = rig.caches().await;
    let stone = |version: &str, mark: char| Some(format!("{version} {mark} {} 0", AT.0));
    let unknown = "9007199254740991";
    // What is there, what is written (or buried, or buried without a version), what is there then.
    enum Then {
        Keep(i64),
        Bury(Option<i64>),
    }
    use Then::{Bury, Keep};
    let rows: [(Option<&str>, Then, Option<String>); 22] = [
        (None, Keep(7), None),
        (Some("6 {}"), Keep(7), None),
        (Some("7 {}"), Keep(7), Some("7 {}".to_owned())),
        (Some("8 {}"), Keep(7), Some("8 {}".to_owned())),
        (Some("10 {}"), Keep(9), Some("10 {}".to_owned())),
        (Some("6 - 0 0"), Keep(7), None),
        (Some("7 - 0 0"), Keep(7), None),
        (Some("8 - 0 0"), Keep(7), Some("8 - 0 0".to_owned())),
        (Some("6 ! 0 0"), Keep(7), None),
        (Some("7 ! 0 0"), Keep(7), Some("7 ! 0 0".to_owned())),
        (Some("garbage"), Keep(7), None),
        (Some("7"), Keep(7), None),
        (None, Bury(Some(7)), stone("7", '-')),
        (Some("6 {}"), Bury(Some(7)), stone("7", '-')),
        (Some("7 {}"), Bury(Some(7)), Some("7 {}".to_owned())),
        (Some("7 - 0 0"), Bury(Some(7)), Some("7 - 0 0".to_owned())),
        (Some("8 - 0 0"), Bury(Some(7)), Some("8 - 0 0".to_owned())),
        (Some("garbage"), Bury(Some(7)), stone("7", '-')),
        (None, Bury(None), stone(unknown, '!')),
        (Some("6 {}"), Bury(None), stone("6", '!')),
        (Some("6 - 0 0"), Bury(None), stone("6", '!')),
        (Some("6 ! 0 0"), Bury(None), Some("6 ! 0 0".to_owned())),
    ];
    for (place, (before, then, expected)) in rows.into_iter().enumerate() {
        let _: i64 = rig.client.del(vec!["jit:card:crd_1", "jit:limits:crd_1"]).await.unwrap();
        if let Some(row) = before {
            rig.put("jit:card:crd_1", row).await;
        }
        if place == 1 {
            // As after a restart of the server: it has to be given the scripts again.
            let _: Value = rig.client.custom(cmd!("SCRIPT"), vec!["FLUSH"]).await.unwrap();
        }
        let (done, kept) = match then {
            Keep(version) => {
                caches.keep(version).await;
                (format!("keep {version}"), Some(version))
            }
            Bury(version) => {
                rig.tell(card(version)).await;
                (format!("bury {version:?}"), None)
            }
        };
        let row = rig.get("jit:card:crd_1").await.expect("a row");
        match (expected, kept) {
            (Some(expected), _) => assert_eq!(row, expected, "{before:?}, {done}"),
            (None, kept) => assert!(row.starts_with(&format!("{} {{\"id\":1,", kept.unwrap())), "{before:?}, {done}: {row}"),
        }
    }
    let ttl = async |key: &str| rig.client.ttl::<i64, _>(key).await.unwrap();
    assert!((1..=60).contains(&ttl("jit:limits:crd_1").await), "a tombstone goes by itself");
    caches.keep(i64::from(u32::MAX)).await;
    assert!((3000..=3600).contains(&ttl("jit:user:usr_3").await) && (800..=900).contains(&ttl("jit:program:4").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_counted_and_replaced() {
    let Some(rig) = Rig::new().await else { return };
    let good = { format!("1 {}", serde_json::json!({"card_version": 1, "limits": []})) };
    for garbage in ["", "null", "garbage", "1 {}", "1 {", "999999999 {\"id\":1}", "\u{0}\u{1}", "2 - "] {
        for key in ["jit:card:crd_1", "jit:limits:crd_1"] {
            let caches = rig.caches().await;
            caches.keep(1).await;
            rig.put(key, garbage).await;
            caches.source.0.let_go.add_permits(1);
            assert_eq!(caches.facts.lookup(&token()).await.unwrap().found.map(|file| file.card.version), Some(1));
            assert_eq!(caches.metrics().cache("redis", "error"), 1.0, "{key} {garbage:?}");
            eventually(&format!("{key}: a fact in place of {garbage:?}"), async || {
                rig.get(key).await.filter(|row| row.starts_with("1 {\"id\"") || *row == good)
            })
            .await;
        }
    }
    // Not even a string.
    let caches = rig.caches().await;
    let _: i64 = rig.client.del("jit:card:crd_1").await.unwrap();
    let _: i64 = rig.client.custom(cmd!("LPUSH"), vec!["jit:card:crd_1", "x"]).await.unwrap();
    caches.keep(1).await;
    assert!(rig.get("jit:card:crd_1").await.unwrap().starts_with("1 {"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_tell_what_changed_and_not_what_merely_moved() {
    // Pushes come from every database of the server, whichever is tracked.
    let Some(sandbox) = Sandbox::alone().await else { return };
    let rig = Rig::on(sandbox).await;
    let caches = rig.caches().await;
    let (_listener, tracking) = Redis::connect(rig.settings.clone(), true, &Telemetry::default()).unwrap();
    let mut tracking = tracking.expect("it listens");
    let next = async |tracking: &mut redis::Tracking| timeout(PATIENCE, tracking.next()).await.expect("news");
    assert_eq!(next(&mut tracking).await, Heard::Listening);
    let mut heard = async |expected: &[(Change, Option<Timestamp>)]| {
        let mut missing = expected.to_vec();
        while !missing.is_empty() {
            let Heard::Changes(changes) = next(&mut tracking).await else { panic!("a gap") };
            for Announced { change, at } in changes {
                let place = missing.iter().position(|expected| *expected == (change.clone(), at));
                missing.remove(place.unwrap_or_else(|| panic!("{change:?} at {at:?} was not expected: {expected:?}")));
            }
        }
    };
    let (user, program) = (|version| Change::User { id: UserId(3), token: UserToken::new("usr_3").unwrap(), version }, ProgramId(4));
    // A fill by another daemon tells its versions; whoever has them has lost nothing.
    caches.keep(1).await;
    heard(&[(card(Some(1)), None), (user(Some(2)), None), (Change::Program { id: program, version: Some(4) }, None)]).await;
    // The same again writes nothing, so nothing is pushed: the next that comes is the tombstone.
    caches.keep(1).await;
    rig.tell(card(Some(7))).await;
    heard(&[(card(Some(7)), Some(AT))]).await;
    rig.tell(user(Some(8))).await;
    heard(&[(user(Some(8)), Some(AT))]).await;
    // A row that is gone, as those are whose time is over, is no news.
    let _: i64 = rig.client.del("jit:card:crd_1").await.unwrap();
    rig.tell(Change::Everything).await;
    heard(&[(Change::Everything, Some(AT))]).await;
    rig.tell(Change::Program { id: program, version: None }).await;
    heard(&[(Change::Program { id: program, version: None }, Some(AT))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_tell_redis_says_so_in_time() {
    let settings = redis::Settings {
        // Nobody listens there.
        url: "redis://:a-secret@127.0.0.1:9/0".to_owned(),
        command_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_millis(200),
        user_ttl: Duration::from_secs(1),
        card_ttl: Duration::from_secs(1),
        limits_ttl: Duration::from_secs(1),
    };
    let error = timeout(PATIENCE, tell(&settings, &[card(Some(7))], Some(AT), Duration::from_secs(1))).await.expect("in time").unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, FactError::Unavailable(_)) && !text.contains("a-secret"), "{text}");
}
