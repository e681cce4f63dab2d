//! How each figure is measured.
#![expect(clippy::disallowed_methods, reason = "daemons are watched from outside, on the real clock")]

use super::{
    Order, Sizes, Told, Without,
    contest::{Contestant, Turn},
    decide, median,
    rows::Group,
};
use crate::{
    bench::{
        Error, Kind, Request, Seen, Step, ceiling,
        environment::Environment,
        floor::{self, Ratio},
        run,
        scenario::{Arrival, Funds, Grade, Mix, Scenario, Start},
        scratch::{Location, ScratchError},
        spawn::{Daemon, SpawnError},
        stage::Stage,
        summary::Summary,
        versions,
    },
    broker::QueueType,
    ledger::{Store as _, sqlite::Sqlite},
};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Requests under way where it goes as fast as it can: enough for the lanes to fill a commit while one is on its way.
const IN_FLIGHT: u32 = 512;
/// Of this many requests one may be declined for reasons of ours, as in the scenario `steady`.
const ERRORS_SHARE: u64 = 1_000;
/// More than can be sent a second: a closed loop takes what it needs.
const CLOSED_PER_S: u32 = 60_000;
/// Requests a second where latency is measured.
const MODERATE_PER_S: u32 = 1_000;
/// Memory for the facts of very many cards.
const MEMORY_MIB: u64 = 4_096;
/// Lanes that the figures on PostgreSQL are about.
const LANES: usize = 2;
/// How long a ceiling may be searched for.
const SEARCH_MAX: Duration = Duration::from_mins(10);

/// How often it is looked at what a daemon has in memory, how many times at most, and by how many bytes one grows that is not done.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOKS_MAX: u32 = 30;
const GROWTH_MIN: f64 = 1e6;

/// As the warm start reads them.
const USABLE: &str = "select count(*) from cards where status = 'active' and expires_at > $1";

/// Why a stage is not missing.
const ONE: &str = "there is a stage for each request";

const NO_BROKER: &str = "the configuration has no broker: run it with --profile services";
const NO_POSTGRES: &str = "the configuration is not about PostgreSQL: run it with --profile services";

/// Measures a group.
pub(super) async fn group(group: Group, order: &Order, step: &mut impl FnMut(Step<'_>)) -> Result<Told, Without> {
    match group {
        Group::SteadyQuorum => steady(order, QueueType::Quorum, ["amqp_p50_quorum", "amqp_p99_quorum"], step).await,
        Group::SteadyClassic => steady(order, QueueType::Classic, ["amqp_p50_classic", "amqp_p99_classic"], step).await,
        Group::CeilingQuorum => ceilings(order, QueueType::Quorum, "amqp_ceiling_quorum", step).await,
        Group::CeilingClassic => ceilings(order, QueueType::Classic, "amqp_ceiling_classic", step).await,
        Group::Sqlite => closed(order, order.sqlite.clone(), "sqlite", None, step).await,
        Group::Postgres => closed(order, postgres(order)?, "postgres", Some("postgres_to_floor"), step).await,
        Group::Decide => alone(order).await,
        Group::Gather => gather(order, step).await,
        Group::Cards => cards(order, step).await,
        Group::Hot => hot(order, step).await,
    }
}

fn postgres(order: &Order) -> Result<Location, Without> {
    order.postgres.clone().ok_or(Without::Needs(NO_POSTGRES))
}

/// An ordinary load, which three limits bear on.
fn load(sizes: &Sizes) -> Scenario {
    Scenario {
        name: "figures".to_owned(),
        question: "How fast?".to_owned(),
        rate_per_s: MODERATE_PER_S,
        duration: sizes.steady,
        warm_up: sizes.warm_up,
        cards: sizes.cards,
        start: Start::Warm,
        funds: Funds::Plenty,
        grade: Grade::Tell,
        replay_back_min: 100,
        ..Scenario::default()
    }
}

/// The same as fast as it can be.
fn fast(sizes: &Sizes) -> Scenario {
    let mix = Mix { replay: 0, ..Mix::default() };
    Scenario { rate_per_s: CLOSED_PER_S, arrival: Arrival::Closed, in_flight_max: IN_FLIGHT, duration: sizes.closed, mix, ..load(sizes) }
}

fn request(order: &Order, kind: Kind, store: Location, scenario: Scenario) -> Request {
    Request { kind, store, scenario, running: None, prove: true, ..order.request.clone() }
}

fn behind(order: &Order, queue_type: QueueType, scenario: Scenario) -> Result<Request, Without> {
    let mut request = request(order, Kind::Amqp, postgres(order)?, scenario);
    let broker = request.broker.as_mut().ok_or(Without::Needs(NO_BROKER))?;
    broker.queue_type = queue_type;
    let name = match queue_type {
        QueueType::Quorum => "quorum",
        QueueType::Classic => "classic",
    };
    request.launch = request.launch.with("JITAUTH_BROKER__QUEUE_TYPE", name);
    Ok(request)
}

/// A run in which nothing went wrong, and what is known besides its figures.
fn sound(seen: Seen) -> Result<(Summary, Told), Without> {
    let summary = seen.summary;
    let faults = summary.faults();
    if !faults.is_empty() {
        return Err(Without::Wrong(faults.join("; ")));
    }
    let mut told = Told { versions: named(&summary.environment, summary.target.store.as_deref()), ..Told::default() };
    told.durability = summary.target.store.clone().zip(summary.target.durability.clone());
    // That the loop is closed, and the few samples beyond the 99th percentile, are known beforehand.
    let expected = ["closed_loop", "few_samples", "debug_build"];
    let warnings = summary.warnings.iter().filter(|warning| !expected.contains(&warning.code.as_str()));
    told.notes.extend(warnings.map(|warning| warning.code.replace('_', " ")));
    Ok((summary, told))
}

/// As [`sound`], of a load that is no more than can be done: a quick "too busy" is no answer, and must not be counted as one.
fn answered(seen: Seen) -> Result<(Summary, Told), Without> {
    let (summary, mut told) = sound(seen)?;
    let (errors, all) = (summary.requests.errors, summary.requests.answered);
    let text = format!("{errors} of {all} requests were declined for reasons of ours");
    match errors {
        0 => {}
        _ if errors * ERRORS_SHARE > all => return Err(Without::Wrong(text)),
        _ => told.notes.push(text),
    }
    Ok((summary, told))
}

/// The versions that are known, by what they are of.
fn named(it: &Environment, store: Option<&str>) -> BTreeMap<&'static str, String> {
    let store = (if store == Some("sqlite") { "SQLite" } else { "PostgreSQL" }, &it.store);
    let all = [store, ("RabbitMQ", &it.broker), ("Redis", &it.redis)];
    all.into_iter().filter_map(|(name, version)| Some((name, version.clone()?))).collect()
}

async fn steady(
    order: &Order,
    queue_type: QueueType,
    [p50, p99]: [&'static str; 2],
    step: &mut impl FnMut(Step<'_>),
) -> Result<Told, Without> {
    let request = behind(order, queue_type, load(&order.sizes))?;
    let (summary, mut told) = answered(floor::turns::run(&request, order.sizes.rounds, order.redis.clone(), &mut *step).await?)?;
    told.ratio(p50, ratio(&summary, "p50_over_echo_us"), 1e3);
    told.ratio(p99, ratio(&summary, "p99_to_echo"), 1.0);
    let echo = summary.floor.as_ref().and_then(|floor| floor.echo.as_ref());
    if let Some(echo) = echo.filter(|_| order.sizes.quick) {
        // Too short for a floor to be measured well, and long enough to see that it is measured.
        let both = |name| (summary.response_time.percentile(name) as f64, echo.response_time.percentile(name) as f64);
        let ((ours, theirs), (ours_99, theirs_99)) = (both("p50"), both("p99"));
        told.figure(p50, (ours - theirs) / 1e3, Vec::new());
        told.figure(p99, ours_99 / theirs_99, Vec::new());
    }
    let line = |latency: &crate::bench::summary::Latency| {
        format!("p50 {} ms, p99 {} ms", millis(latency.percentile("p50")), millis(latency.percentile("p99")))
    };
    let queues = summary.target.queue_type.clone().unwrap_or_default();
    told.notes.insert(
        0,
        format!(
            "{queues} queues: {} {}; the echo {}; {} s each in {} turns",
            summary.target.kind,
            line(&summary.response_time),
            echo.map_or_else(|| "was not measured".to_owned(), |echo| line(&echo.response_time)),
            order.sizes.steady.as_secs(),
            order.sizes.rounds
        ),
    );
    Ok(told)
}

/// The median of several searches: a broker that stands still for a tenth of a second now and then decides single ones, of the echo's more
/// than of the daemon's.
async fn ceilings(order: &Order, queue_type: QueueType, name: &'static str, step: &mut impl FnMut(Step<'_>)) -> Result<Told, Without> {
    let mut scenario = load(&order.sizes);
    scenario.in_flight_max = 4_000;
    // Where to begin to look, and no more than a step can do in a quick run.
    scenario.rate_per_s = if order.sizes.quick { 50 } else { 2 * MODERATE_PER_S };
    let settings = ceiling::Settings { step: order.sizes.step, steps_max: order.sizes.steps_max, lasts_max: SEARCH_MAX };
    let (mut told, mut ratios, mut ours, mut echos) = (Told::default(), Vec::new(), Vec::new(), Vec::new());
    for nth in 0..order.sizes.rounds {
        let seed = scenario.seed.wrapping_add(nth.into());
        let request = behind(order, queue_type, Scenario { seed, ..scenario.clone() })?;
        let (summary, search) = sound(ceiling::run(&request, settings, &mut *step).await?)?;
        let found = summary.ceiling.as_ref().map_or(0.0, |ceiling| ceiling.rate_per_s);
        let echo = summary.floor.as_ref().and_then(|floor| floor.echo.as_ref()?.ceiling_per_s).unwrap_or(0.0);
        // Too short for a ceiling to be certain, and long enough to see that it is searched for.
        let quick = Some(found / echo).filter(|_| order.sizes.quick && echo > 0.0);
        ratios.extend(ratio(&summary, "ceiling_to_echo").map(|ratio| ratio.value).or(quick));
        ours.push(found.to_string());
        echos.push(echo.to_string());
        told.versions.extend(search.versions);
        told.durability = search.durability;
        let new: Vec<String> = search.notes.into_iter().filter(|note| !told.notes.contains(note)).collect();
        told.notes.extend(new);
    }
    // One that told nothing might have told the worst.
    if ratios.len() == ours.len() {
        told.median(name, ratios);
    }
    let (ours, echos, queues) = (ours.join(", "), echos.join(", "), format!("{queue_type:?}").to_lowercase());
    let line = format!("{queues} queues: {ours} a second, the echo {echos}; steps of {} s", order.sizes.step.as_secs());
    told.notes.insert(0, line);
    Ok(told)
}

async fn closed(
    order: &Order,
    store: Location,
    name: &'static str,
    to_floor: Option<&'static str>,
    step: &mut impl FnMut(Step<'_>),
) -> Result<Told, Without> {
    let sizes = &order.sizes;
    let mut request = request(order, Kind::Inproc, store, Scenario { duration: sizes.closed * sizes.rounds, ..fast(sizes) });
    request.pipeline.lanes = LANES;
    // What is configured is meant for the store that is configured.
    if let Location::Sqlite(_) = request.store {
        request.pipeline.batch_max = Sqlite::BATCH_MAX;
    }
    let (summary, mut told) = answered(floor::turns::run(&request, sizes.rounds, None, &mut *step).await?)?;
    told.figure(name, summary.rate.achieved_per_s, Vec::new());
    if let Some(name) = to_floor {
        told.ratio(name, ratio(&summary, "decisions_to_commits"), 1.0);
    }
    let target = &summary.target;
    told.notes.insert(0, format!("{} lanes, up to {} decisions in a commit, {IN_FLIGHT} requests at once", target.lanes, target.batch_max));
    Ok(told)
}

async fn alone(order: &Order) -> Result<Told, Without> {
    let batches = order.sizes.batches;
    let each = tokio::task::spawn_blocking(move || decide::measure(batches)).await.map_err(|error| Error::Floor(error.to_string()))?;
    let mut told = Told::default();
    told.figure("decide", median(each), Vec::new());
    told.notes.push(format!("median of {batches} batches"));
    Ok(told)
}

async fn gather(order: &Order, step: &mut impl FnMut(Step<'_>)) -> Result<Told, Without> {
    let store = order.postgres.clone().unwrap_or_else(|| order.sqlite.clone());
    let scenario = Scenario { duration: order.sizes.gather, ..load(&order.sizes) };
    let request = request(order, Kind::Inproc, store, scenario);
    let requests = [&request];
    let told = run::on_stages(&requests, async |stages| {
        let [(stage, name)] = stages else { unreachable!("{ONE}") };
        stage.set(&request).await?;
        let mut one = Contestant::ready(stage, &request, name).await?;
        let Turn { gathered, .. } = one.turn(&request.scenario, step).await?;
        Ok((gathered.value_at_quantile(0.99), gathered.len(), one.finish().await))
    });
    let ((p99, count, sound), left) = told.await?;
    let mut told = Told { durability: sound?.durability, ..Told::left(&left) };
    told.figure("gather", p99 as f64, Vec::new());
    told.notes.push(format!("spans user, card, limits and decision of {count} requests at {MODERATE_PER_S} a second, each rounded up"));
    Ok(told)
}

async fn hot(order: &Order, step: &mut impl FnMut(Step<'_>)) -> Result<Told, Without> {
    let store = order.postgres.clone().unwrap_or_else(|| order.sqlite.clone());
    let even = Scenario { zipf_exponent: 0.0, ..fast(&order.sizes) };
    let hot = Scenario { hot_percent: 90, ..even.clone() };
    let request = request(order, Kind::Inproc, store, even);
    let requests = [&request];
    let told = run::on_stages(&requests, async |stages| {
        let [(stage, name)] = stages else { unreachable!("{ONE}") };
        stage.set(&request).await?;
        let mut one = Contestant::ready(stage, &request, name).await?;
        let mut ratios = Vec::new();
        for round in 0..order.sizes.rounds {
            let mut rates = [0.0; 2];
            for nth in in_turn(round) {
                let scenario = if nth == 0 { &request.scenario } else { &hot };
                rates[nth] = one.turn(scenario, step).await?.measured.rate.achieved_per_s;
            }
            ratios.push(rates[1] / rates[0]);
        }
        Ok((ratios, one.finish().await))
    });
    let ((ratios, sound), left) = told.await?;
    let mut told = Told { durability: sound?.durability, ..Told::left(&left) };
    told.median("hot_account", ratios);
    told.notes.push(format!("{} turns of {} s each", order.sizes.rounds, order.sizes.closed.as_secs()));
    Ok(told)
}

/// Which of two is first: each is once.
const fn in_turn(round: u32) -> [usize; 2] {
    if round.is_multiple_of(2) { [0, 1] } else { [1, 0] }
}

/// What is told of very many cards and of few.
struct Cards {
    costs: Vec<f64>,
    starts_s: Vec<f64>,
    bytes: Vec<f64>,
    warm: u64,
    environment: Environment,
    sound: Result<super::contest::Sound, Without>,
}

async fn cards(order: &Order, step: &mut impl FnMut(Step<'_>)) -> Result<Told, Without> {
    let store = postgres(order)?;
    let with = |cards: u64| {
        let mut request = request(order, Kind::Inproc, store.clone(), Scenario { cards, ..fast(&order.sizes) });
        request.pipeline.lanes = LANES;
        request.memory.bytes_max = MEMORY_MIB << 20;
        request.launch = request.launch.with("JITAUTH_MEMORY__BYTES_MAX_MIB", MEMORY_MIB.to_string());
        request
    };
    let (many, few) = (with(order.sizes.cards_many), with(order.sizes.cards_few));
    let requests = [&many, &few];
    let told = run::on_stages(&requests, async |stages| {
        let [(large, large_name), (small, small_name)] = stages else { unreachable!("{ONE}") };
        step(Step::Note(&format!("making a store with {} cards", order.sizes.cards_many)));
        large.set(&many).await?;
        small.set(&few).await?;
        let (starts_s, bytes, warm) = starts(order.sizes.starts, (large, &many), (small, &few), step).await?;
        let environment = versions::versions(Environment::look(), large, None).await;
        let mut one = Contestant::ready(large, &many, large_name).await?;
        let mut other = Contestant::ready(small, &few, small_name).await?;
        let mut costs = Vec::new();
        for round in 0..order.sizes.rounds {
            let mut rates = [0.0; 2];
            for nth in in_turn(round) {
                let turn = if nth == 0 { one.turn(&many.scenario, step).await? } else { other.turn(&few.scenario, step).await? };
                rates[nth] = turn.measured.rate.achieved_per_s;
            }
            costs.push(rates[1] / rates[0]);
        }
        let sound = match other.finish().await {
            Ok(_) => one.finish().await,
            wrong => wrong,
        };
        Ok(Cards { costs, starts_s, bytes, warm, environment, sound })
    });
    let (Cards { costs, starts_s, bytes, warm, environment, sound }, left) = told.await?;
    let mut told = Told { durability: sound?.durability, versions: named(&environment, None), ..Told::left(&left) };
    told.median("cards_cost", costs);
    told.median("card_memory", bytes);
    told.median("warm_start", starts_s);
    told.notes.push(format!(
        "{} and {} cards, of which {warm} are warm; {} turns of {} s, {} starts; memory is the growth of a daemon's resident pages",
        order.sizes.cards_many,
        order.sizes.cards_few,
        order.sizes.rounds,
        order.sizes.closed.as_secs(),
        order.sizes.starts
    ));
    Ok(told)
}

/// Starts a daemon on both stores, again and again. Seconds until it is warm, bytes a card, and how many cards are warm.
async fn starts(
    starts: u32,
    (large, many): (&Stage, &Request),
    (small, few): (&Stage, &Request),
    step: &mut impl FnMut(Step<'_>),
) -> Result<(Vec<f64>, Vec<f64>, u64), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    let (warm, warm_few) = (usable_cards(large, now_us).await?, usable_cards(small, now_us).await?);
    let (mut seconds, mut bytes) = (Vec::new(), Vec::new());
    for nth in 1..=starts {
        step(Step::Note(&format!("start {nth} of {starts} of a daemon with {warm} cards")));
        let (took, resident) = start(large, many).await?;
        let (_, resident_few) = start(small, few).await?;
        seconds.push(took.as_secs_f64());
        bytes.push((resident - resident_few) / (warm as f64 - warm_few as f64));
    }
    Ok((seconds, bytes, warm))
}

/// The cards that a daemon reads into memory.
async fn usable_cards(stage: &Stage, now_us: i64) -> Result<u64, Error> {
    let Location::Postgres(settings) = stage.store() else { return Ok(0) };
    let options: PgConnectOptions = settings.url.parse().map_err(|_| ScratchError::Address)?;
    let mut store = PgConnection::connect_with(&options.disable_statement_logging()).await?;
    let count: i64 = sqlx::query_scalar(USABLE).bind(now_us).fetch_one(&mut store).await?;
    store.close().await?;
    Ok(count.cast_unsigned())
}

/// Starts a daemon and ends it. How long it took until it was ready, and what it has in memory once it takes no more, bytes.
async fn start(stage: &Stage, request: &Request) -> Result<(Duration, f64), Error> {
    let mut daemon = Daemon::new(stage.launch(request));
    let began = Instant::now();
    daemon.start().await?;
    let took = began.elapsed();
    let resident = settled(daemon.pid()).await;
    daemon.stop().await?;
    let unknown = || Error::Spawn(SpawnError::Daemon("the system does not tell what a process has in memory".to_owned()));
    Ok((took, resident.ok_or_else(unknown)?))
}

/// What a process has in memory when it does not grow any more: what follows the facts, at leisure, counts as well.
async fn settled(pid: Option<u32>) -> Option<f64> {
    let mut before = pid.and_then(resident)?;
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = pid.and_then(resident)?;
        if now - before < GROWTH_MIN {
            return Some(now);
        }
        before = now;
    }
    Some(before)
}

/// What a process has in memory, bytes.
fn resident(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0)
}

fn ratio<'a>(summary: &'a Summary, name: &str) -> Option<&'a Ratio> {
    summary.floor.as_ref()?.ratios.iter().find(|ratio| ratio.name == name)
}

/// Milliseconds with two decimals, for people.
fn millis(us: u64) -> String {
    format!("{}.{:02}", us / 1_000, us % 1_000 / 10)
}
