//! What a durable decision costs: batches of 1, 16 and 64 through the real pipeline, one lane, its group commit on SQLite and on
//! PostgreSQL. Memory is warm, the limits of the seeded cards are active, and every commit is on disk before anybody is answered.
//!
//! PostgreSQL is the one that `JITAUTH_TEST_POSTGRES` names: `make bench` starts a private one.

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use jitauth::{
    codec::request,
    config::{Config, Flag, Sources},
    domain::time::Timestamp,
    facts::{memory::Memory, tiered::FactTiers},
    ledger::{
        Store,
        postgres::{self, Postgres},
        sqlite::Sqlite,
    },
    pipeline::{self, Answer, Intake, Job, Pipeline, Requester, WallClock},
    seed::{self, Plan, Target},
    telemetry::{Spans, Telemetry},
};
use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt,
    io::{Write, stderr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{runtime::Runtime, sync::mpsc, time::Instant};

const BATCHES: [usize; 3] = [1, 16, 64];
const CARDS: u64 = 10_000;
/// The deadlines are those of a patient processor: what is measured is the store, not the clock.
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error>;

/// Says that it was answered, and that an approval was heard.
struct Asker(mpsc::Sender<()>);

impl Requester for Asker {
    fn answer(self: Box<Self>, answer: Answer) {
        if let Some(fresh) = answer.fresh {
            fresh.heard();
        }
        // The bench may have ended.
        let _ended = self.0.try_send(()).is_err();
    }
}

fn lane(criterion: &mut Criterion) {
    let Ok(runtime) = Runtime::new() else { return };
    let directory = tempfile::tempdir();
    let outcome = directory.map_err(Failure::from).and_then(|directory| {
        let path = directory.path().join("bench.db");
        let config = config("embedded", "sqlite.path", &path.to_string_lossy())?;
        let store = runtime.block_on(async {
            let store = Sqlite::open(&config.sqlite).await?;
            store.migrate().await?;
            seed::write(Plan::new(CARDS, 1), &Target::Sqlite { path }, |_| ()).await?;
            Ok::<_, Failure>(store)
        })?;
        measure(criterion, &runtime, &config, store)
    });
    if let Err(error) = outcome {
        tell("sqlite", error);
    }
    let outcome = match env::var("JITAUTH_TEST_POSTGRES") {
        Err(_) => Err("skipped: JITAUTH_TEST_POSTGRES names no PostgreSQL; run `make bench`".into()),
        Ok(url) => {
            let name = format!("bench_{}", std::process::id());
            let url = url.rsplit_once('/').map_or(url.as_str(), |(server, _)| server).to_owned() + "/" + &name;
            config("services", "postgres.url", &url).and_then(|config| {
                let store = runtime.block_on(async {
                    postgres::create_database(&config.postgres).await?;
                    let store = Postgres::connect(&config.postgres).await?;
                    store.migrate().await?;
                    seed::write(Plan::new(CARDS, 1), &Target::Postgres { url }, |_| ()).await?;
                    Ok::<_, Failure>(store)
                })?;
                measure(criterion, &runtime, &config, store)
            })
        }
    };
    if let Err(error) = outcome {
        tell("postgresql", error);
    }
}

fn config(profile: &str, key: &'static str, value: &str) -> Result<Config, Failure> {
    let flags =
        [Flag { name: "--set", key, value: value.to_owned() }, Flag { name: "--set", key: "pipeline.lanes", value: "1".to_owned() }];
    let environment = BTreeMap::new();
    Config::load(&Sources { profile, file: None, environment: &environment, flags: &flags, cores: 2 })
        .map_err(|error| error.to_string().into())
}

fn tell(store: &str, what: impl fmt::Display) {
    // Nobody is left to tell when the terminal is gone.
    drop(writeln!(stderr(), "lane on {store}: {what}"));
}

fn measure<S: Store>(criterion: &mut Criterion, runtime: &Runtime, config: &Config, store: S) -> Result<(), Failure> {
    let telemetry = Telemetry::default();
    let wall: WallClock = Arc::new(wall_now);
    // The lane lives on the runtime's threads, the bench on its own, as an edge does.
    let guard = runtime.enter();
    let facts = FactTiers::new(Memory::new(config.memory), None, store.clone(), telemetry.clone());
    let (pipeline, _running) = pipeline::start(config.pipeline, facts, || store.ledger(), &wall, &telemetry);
    drop(guard);
    let durability = runtime.block_on(store.durability())?;
    tell(S::NAME, durability);
    let mut numbers = 0..;
    // Every card is read once, and every account is in the lane's book.
    for _ in 0..CARDS / 64 + 1 {
        runtime.block_on(ask(&pipeline, &mut numbers, 64))?;
    }
    let mut group = criterion.benchmark_group(format!("decide and commit on {}", S::NAME));
    group.sampling_mode(SamplingMode::Flat).sample_size(20).measurement_time(Duration::from_secs(5));
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("batch", batch), |bencher| {
            bencher.iter(|| runtime.block_on(ask(&pipeline, &mut numbers, batch)).ok());
        });
    }
    group.finish();
    Ok(())
}

/// Asks for so many decisions at once, on different cards, and waits until all are durable.
async fn ask<S: Store>(pipeline: &Pipeline<S>, numbers: &mut impl Iterator<Item = u64>, batch: usize) -> Result<(), Failure> {
    let (sender, mut answers) = mpsc::channel(batch);
    for number in numbers.by_ref().take(batch) {
        let body = format!(
            r#"{{"version": 1, "type": "authorization", "id": "bench-{number}", "card": "crd_{:07}", "amount": "0.01", "currency": "USD",
                "merchant": {{"id": "000000012345678", "mcc": "5812", "country": "NLD"}}, "channel": "contactless"}}"#,
            1 + number % CARDS
        );
        let request = request::decode(body.as_bytes()).map_err(|_| "the bench's own request is not one")?.request;
        let received = Instant::now();
        let requester = Box::new(Asker(sender.clone()));
        let deadline = received + PATIENCE;
        pipeline.submit(Job { request, received, deadline, spans: Spans::default(), lossy_reply: false, redelivered: false, requester });
    }
    for _ in 0..batch {
        answers.recv().await.ok_or("the pipeline has ended")?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "as the daemon's own wall clock")]
fn wall_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

criterion_group!(benches, lane);
criterion_main!(benches);
