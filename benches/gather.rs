//! What a request costs before its commit: its card's file out of memory and the decision on it, out of Redis, or out of the store.
//!
//! Redis and PostgreSQL are those that `JITAUTH_TEST_REDIS` and `JITAUTH_TEST_POSTGRES` name: `make bench` starts private ones.

use criterion::{Criterion, criterion_group, criterion_main};
use jitauth::{
    codec::request,
    config::{Config, Flag, Sources},
    domain::{
        facts::{Balance, CardFile},
        ids::CardToken,
        limits::{CounterKey, Used},
        request::AuthRequest,
        rules::{Position, decide},
        time::{Timestamp, WindowStarts},
    },
    facts::{
        FactError, FactSource,
        document::CardDocument,
        memory::{self, Memory},
        redis::{self, Redis},
        tiered::FactTiers,
    },
    ledger::postgres::{self, Postgres},
    seed::{self, Plan, Target},
    telemetry::{Exposition, Spans, Telemetry},
};
use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt,
    hint::black_box,
    io::{Write, stderr},
    time::Duration,
};
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep},
};

const CARDS: u32 = 100_000;
/// Cards in Redis and in the store.
const COLD_CARDS: u32 = 10_000;
/// So little that whatever is read is gone when it is asked for again.
const TINY_BYTES: u64 = 64 << 10;
const STARTS: WindowStarts = WindowStarts { day: Timestamp(300), week: Timestamp(200), month: Timestamp(100) };

/// A store that has every card: three limits bear on each.
struct Source;

impl FactSource for Source {
    async fn fetch(&self, card: &CardToken) -> Result<Option<CardFile>, FactError> {
        let id: i64 = card.as_str().trim_start_matches("crd_").parse().map_err(|_| FactError::Malformed("token".to_owned()))?;
        let json = format!(
            r#"{{"card": {{"id": {id}, "token": "{token}", "version": {id}, "user_id": {id}, "user": "usr_{id}", "user_version": 2, "account_id": {id},
                "currency": "EUR", "account_open": true, "program_id": 1, "status": "active", "expires_at": 4102444800000000, "controls": {{}}}},
               "user": {{"id": {id}, "token": "usr_{id}", "version": 2, "active": true, "kyc_verified": true}},
               "limits": {{"card_version": {id}, "limits": [{{"id": {id}, "scope": "card", "window": "day", "cap_amount": 5000000, "cap_count": null}}]}},
               "program": {{"id": 1, "version": 4, "kind": "personal", "time_zone": "UTC", "week_start": "monday", "kyc_required": true,
                "partial_approval": true, "limits": [{{"id": 900000, "scope": "card", "window": "transaction", "cap_amount": 500000, "cap_count": null}},
                  {{"id": 900001, "scope": "card", "window": "month", "cap_amount": 50000000, "cap_count": 1000}}]}}}}"#,
            token = card.as_str()
        );
        CardDocument::parse(json.as_bytes()).map(Some)
    }
}

/// Plenty of money, nothing spent.
struct Plenty;

impl Position for Plenty {
    fn balance(&self) -> Balance {
        Balance { posted: 1_000_000_000, held: 0, floor: 0 }
    }
    fn used(&self, _: &CounterKey) -> Used {
        Used::default()
    }
}

fn ask(card: u32) -> Option<AuthRequest> {
    let body = format!(
        r#"{{"version": 1, "type": "authorization", "id": "auth-{card}", "card": "crd_{card}", "amount": "42.50", "currency": "EUR",
            "merchant": {{"id": "000000012345678", "mcc": "5812", "country": "NLD"}}, "channel": "contactless"}}"#
    );
    request::decode(body.as_bytes()).ok().map(|decoded| decoded.request)
}

fn gather(criterion: &mut Criterion) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let settings = memory::Settings { bytes_max: 1 << 30, ttl: Duration::from_secs(3600), absent_ttl: Duration::from_secs(1) };
    let tiers = FactTiers::new(Memory::new(settings), None, Source, Telemetry::default());
    let requests: Vec<AuthRequest> = (1..=CARDS).filter_map(ask).collect();
    runtime.block_on(async {
        for request in &requests {
            drop(tiers.lookup(&request.card).await);
        }
    });
    // A stride that is prime to the number of cards visits them all, in an order that no cache line likes.
    let mut at = 0;
    criterion.bench_function("warm gather and decision, 100,000 cards", |bencher| {
        bencher.iter(|| {
            at = (at + 76_543) % requests.len();
            let request = &requests[at];
            let found = tiers.peek(&request.card, &mut Spans::default());
            decide(request, black_box(found.flatten().as_ref()), &STARTS, Timestamp(301), &Plenty)
        });
    });
}

type Failure = Box<dyn Error>;

fn cold(criterion: &mut Criterion) {
    let Ok(runtime) = Runtime::new() else { return };
    if let Err(error) = from_redis(criterion, &runtime) {
        tell("redis hit", error);
    }
    if let Err(error) = from_store(criterion, &runtime) {
        tell("store miss", error);
    }
}

fn from_redis(criterion: &mut Criterion, runtime: &Runtime) -> Result<(), Failure> {
    let url = env::var("JITAUTH_TEST_REDIS").map_err(|_| "skipped: JITAUTH_TEST_REDIS names no Redis; run `make bench`")?;
    let hour = Duration::from_secs(3600);
    let settings = redis::Settings {
        url,
        command_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(5),
        user_ttl: hour,
        card_ttl: hour,
        limits_ttl: hour,
    };
    let telemetry = Telemetry::default();
    let tiers = runtime.block_on(async {
        let (redis, _) = Redis::connect(settings, false, &telemetry)?;
        let (first, until) = (token(1)?, Instant::now() + Duration::from_secs(10));
        while redis.card(&first).await.is_err() && Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
        }
        let tiers = FactTiers::new(Memory::new(tiny()), Some(redis), Source, telemetry.clone());
        for card in 1..=COLD_CARDS {
            tiers.lookup(&token(card)?).await?;
        }
        // The last rows are still on their way.
        sleep(Duration::from_millis(500)).await;
        Ok::<_, Failure>(tiers)
    })?;
    let hits = || counted(&telemetry, r#"jitauth_cache_requests_total{tier="redis",result="hit"}"#);
    let before = hits();
    measure(criterion, runtime, "redis hit, 10,000 cards", &tiers)?;
    if hits() == before { Err("no look-up was a hit".into()) } else { Ok(()) }
}

fn from_store(criterion: &mut Criterion, runtime: &Runtime) -> Result<(), Failure> {
    let url = env::var("JITAUTH_TEST_POSTGRES").map_err(|_| "skipped: JITAUTH_TEST_POSTGRES names no PostgreSQL; run `make bench`")?;
    let server = url.rsplit_once('/').map_or(url.as_str(), |(server, _)| server);
    let url = format!("{server}/bench_gather_{}", std::process::id());
    let (environment, flags) = (BTreeMap::new(), [Flag { name: "--set", key: "postgres.url", value: url.clone() }]);
    let config = Config::load(&Sources { profile: "services", file: None, environment: &environment, flags: &flags, cores: 2 })?;
    let tiers = runtime.block_on(async {
        postgres::create_database(&config.postgres).await?;
        let store = Postgres::connect(&config.postgres).await?;
        store.migrate().await?;
        seed::write(Plan::new(COLD_CARDS.into(), 1), &Target::Postgres { url }, |_| ()).await?;
        Ok::<_, Failure>(FactTiers::new(Memory::new(tiny()), None, store, Telemetry::default()))
    })?;
    measure(criterion, runtime, "store miss, 10,000 cards", &tiers)
}

fn measure<S: FactSource>(criterion: &mut Criterion, runtime: &Runtime, name: &str, tiers: &FactTiers<S>) -> Result<(), Failure> {
    let tokens: Vec<CardToken> = (1..=COLD_CARDS).map(token).collect::<Result<_, _>>()?;
    let (mut at, mut lost) = (0, 0_u64);
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            at = (at + 7_919) % tokens.len();
            let found = runtime.block_on(tiers.lookup(&tokens[at]));
            lost += u64::from(!found.is_ok_and(|read| read.found.is_some()));
        });
    });
    if lost == 0 { Ok(()) } else { Err(format!("{lost} look-ups found no card").into()) }
}

fn tiny() -> memory::Settings {
    memory::Settings { bytes_max: TINY_BYTES, ttl: Duration::from_secs(3600), absent_ttl: Duration::from_secs(1) }
}

/// As `jitauth seed` names its cards.
fn token(card: u32) -> Result<CardToken, Failure> {
    CardToken::new(&format!("crd_{card:07}")).map_err(|error| error.to_string().into())
}

fn counted(telemetry: &Telemetry, sample: &str) -> String {
    let page = telemetry.scrape(Exposition::Prometheus).unwrap_or_default();
    page.lines().find_map(|line| line.strip_prefix(sample)).unwrap_or_default().to_owned()
}

fn tell(what: &str, error: impl fmt::Display) {
    // Nobody is left to tell when the terminal is gone.
    drop(writeln!(stderr(), "{what}: {error}"));
}

criterion_group!(benches, gather, cold);
criterion_main!(benches);
