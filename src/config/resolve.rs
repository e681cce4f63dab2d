//! From leaves to each module's settings: types, units, ranges. How values relate to each other is [`super::relations`]' matter.

use super::{
    Config, StoreKind,
    layer::{read_file, without_newline},
    link::{self, Kind, Link},
    reader::Reader,
};
use crate::{
    broker,
    facts::{
        invalidator::{self, Paths},
        memory, redis,
    },
    http,
    ledger::{
        Store as _,
        postgres::{self, Postgres},
        sqlite::{self, Sqlite},
    },
    pipeline,
    telemetry::{self, Budget, Promise, alerts, events::Path, log, report},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path as FilePath, PathBuf},
    time::Duration,
};
use tracing_subscriber::EnvFilter;

const LONG_MS: u64 = 600_000;
const LINK_MS: u64 = 60_000;
const DAY_S: u64 = 86_400;
const TOKEN_CHARS_MIN: usize = 16;

/// Reads everything. What is returned may only be used when `r` has no problems.
pub(super) fn resolve(r: &mut Reader<'_>, profile: &str, cores: usize) -> Config {
    let store = r.choice("store.kind", ("sqlite", StoreKind::Sqlite), &[("postgres", StoreKind::Postgres)]);
    let broker = enabled(r, "broker.enabled", broker);
    let mut pipeline = pipeline(r);
    let prefetch = broker.as_ref().map(|it| usize::from(it.prefetch));
    if pipeline.batch_max == 0 {
        let books = [pipeline.book_accounts_max, pipeline.book_counters_max];
        let filled = prefetch.map(|prefetch| (prefetch / pipeline.lanes.max(1)).max(1));
        pipeline.batch_max = batch_max(store, books.into_iter().chain(filled));
    }
    pipeline.lanes = lanes(pipeline.lanes, store, prefetch.map(|prefetch| prefetch / pipeline.batch_max), cores);
    Config {
        profile: profile.to_owned(),
        store,
        sqlite: sqlite(r),
        postgres: postgres(r),
        memory: memory(r),
        freshness: freshness(r),
        redis: enabled(r, "redis.enabled", redis),
        broker,
        http: enabled(r, "http.enabled", http),
        pipeline,
        safety: Safety { default_passwords: r.flag("safety.allow_default_passwords"), plaintext: plaintext(r) },
        log: log(r),
        telemetry: telemetry::Settings { alerts: alerts(r), report: report(r) },
        promise: promise(r),
        effective: Vec::new(),
        fingerprint: String::new(),
    }
}

/// What is put up with.
#[derive(Clone, Debug)]
pub(super) struct Safety {
    pub(super) default_passwords: bool,
    pub(super) plaintext: Vec<String>,
}

/// Reads a section in any case, so that its errors show, and keeps it if it is switched on.
fn enabled<T>(r: &mut Reader<'_>, key: &str, read: fn(&mut Reader<'_>) -> T) -> Option<T> {
    let settings = read(r);
    r.flag(key).then_some(settings)
}

/// As many as suits the store, though no more than any of the bounds lets through.
fn batch_max(store: StoreKind, bounds: impl Iterator<Item = usize>) -> usize {
    let suits = match store {
        StoreKind::Sqlite => Sqlite::BATCH_MAX,
        StoreKind::Postgres => Postgres::BATCH_MAX,
    };
    bounds.fold(suits, usize::min)
}

fn lanes(asked: usize, store: StoreKind, busy_max: Option<usize>, cores: usize) -> usize {
    match (store, asked) {
        (StoreKind::Sqlite, _) => 1,
        (StoreKind::Postgres, 0) => cores.min(busy_max.unwrap_or(cores)).max(1),
        (StoreKind::Postgres, asked) => asked,
    }
}

fn sqlite(r: &mut Reader<'_>) -> sqlite::Settings {
    sqlite::Settings {
        path: PathBuf::from(name(r, "sqlite.path", 4096)),
        readers: r.whole("sqlite.readers", 1..=64, ""),
        busy_timeout: r.millis("sqlite.busy_timeout_ms", 1..=30_000, ""),
        autocheckpoint_pages: r.whole("sqlite.autocheckpoint_pages", 100..=1_000_000, "a log that is never moved grows without end"),
    }
}

fn postgres(r: &mut Reader<'_>) -> postgres::Settings {
    postgres::Settings {
        url: url(r, "postgres.url", &link::POSTGRES),
        pool_min: r.whole("postgres.pool_min", 0..=1000, ""),
        pool_max: r.whole("postgres.pool_max", 1..=1000, ""),
        connect_timeout: r.millis("postgres.connect_timeout_ms", 10..=LINK_MS, ""),
        idle_timeout: r.millis("postgres.idle_timeout_ms", 1000..=3_600_000, ""),
        query_timeout: r.millis("postgres.query_timeout_ms", 10..=LONG_MS, ""),
        commit_timeout: r.millis("postgres.commit_timeout_ms", 10..=30_000, ""),
        lock_timeout: r.millis("postgres.lock_timeout_ms", 1..=500, "well below the server's deadlock_timeout of 1 s"),
    }
}

fn redis(r: &mut Reader<'_>) -> redis::Settings {
    redis::Settings {
        url: url(r, "redis.url", &link::REDIS),
        command_timeout: r.millis("redis.command_timeout_ms", 1..=1000, "the store can be asked instead"),
        connect_timeout: r.millis("redis.connect_timeout_ms", 10..=LINK_MS, ""),
        user_ttl: r.seconds("redis.user_ttl_s", 1..=7 * DAY_S, ""),
        card_ttl: r.seconds("redis.card_ttl_s", 1..=7 * DAY_S, ""),
        limits_ttl: r.seconds("redis.limits_ttl_s", 1..=7 * DAY_S, ""),
    }
}

fn memory(r: &mut Reader<'_>) -> memory::Settings {
    memory::Settings {
        bytes_max: r.whole::<u64>("memory.bytes_max_mib", 1..=1_048_576, "").saturating_mul(1024 * 1024),
        ttl: r.seconds("memory.ttl_s", 1..=DAY_S, ""),
        absent_ttl: r.millis("memory.absent_ttl_ms", 1..=60_000, "a new card must not stay unknown for long"),
    }
}

fn freshness(r: &mut Reader<'_>) -> invalidator::Settings {
    let mut listen_to = Paths::default();
    for name in r.list("memory.listen_to") {
        match Path::ALL.iter().find(|path| path.name() == name) {
            Some(path) => listen_to = listen_to.and(*path),
            None => r.refuse("memory.listen_to", "must name news, of \"store\", \"redis\" and \"events\""),
        }
    }
    invalidator::Settings { warm: r.flag("memory.warm"), listen_to }
}

fn broker(r: &mut Reader<'_>) -> broker::Settings {
    let settings = broker::Settings {
        url: url(r, "broker.url", &link::AMQP),
        queue_type: r.choice("broker.queue_type", ("quorum", broker::QueueType::Quorum), &[("classic", broker::QueueType::Classic)]),
        exchange: amqp_name(r, "broker.exchange"),
        events_exchange: amqp_name(r, "broker.events_exchange"),
        request_queue: amqp_name(r, "broker.request_queue"),
        response_queue: amqp_name(r, "broker.response_queue"),
        dead_letter_queue: amqp_name(r, "broker.dead_letter_queue"),
        transaction_queue: amqp_name(r, "broker.transaction_queue"),
        webhook_queue: amqp_name(r, "broker.webhook_queue"),
        reply_to_allowed: r.list("broker.reply_to_allowed"),
        prefetch: r.whole("broker.prefetch", 1..=u16::MAX, "0 would be without bound"),
        confirms_max: r.whole("broker.confirms_max", 1..=1_000_000, ""),
        ack_within: r.millis("broker.ack_within_ms", 0..=1000, "it only delays acks"),
        confirm_timeout: r.millis("broker.confirm_timeout_ms", 100..=LINK_MS, ""),
        connect_timeout: r.millis("broker.connect_timeout_ms", 10..=LINK_MS, ""),
        heartbeat: r.seconds("broker.heartbeat_s", 1..=300, "0 would never notice a dead peer"),
        reconnect_max: r.millis("broker.reconnect_max_ms", 100..=300_000, ""),
    };
    if settings.reply_to_allowed.iter().any(String::is_empty) {
        r.refuse("broker.reply_to_allowed", "no prefix may be empty (it would allow every queue)");
    }
    settings
}

fn http(r: &mut Reader<'_>) -> http::Settings {
    let listen = r.text("http.listen").parse().unwrap_or_else(|_| {
        r.refuse("http.listen", "must be an address and a port, such as 127.0.0.1:8080 or [::1]:8080");
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    });
    http::Settings {
        listen,
        token: token(r),
        in_flight_max: r.whole("http.in_flight_max", 1..=100_000, ""),
        connections_max: r.whole("http.connections_max", 1..=100_000, ""),
        header_timeout: r.millis("http.header_timeout_ms", 10..=LINK_MS, ""),
        body_timeout: r.millis("http.body_timeout_ms", 10..=LINK_MS, ""),
    }
}

/// The bearer token, from its key or from the file.
fn token(r: &mut Reader<'_>) -> Option<String> {
    let (token, path) = (r.text("http.token"), r.text("http.token_file"));
    let must = format!("must be {TOKEN_CHARS_MIN} or more printable ASCII characters without spaces");
    if path.is_empty() {
        if !token.is_empty() && !is_token(&token) {
            r.refuse("http.token", &must);
        }
        return Some(token).filter(|token| !token.is_empty());
    }
    if !token.is_empty() {
        r.refuse("http.token_file", "and http.token is set too; set one of them to \"\"");
    }
    let token = match read_file(FilePath::new(&path)) {
        Ok(text) => without_newline(&text).to_owned(),
        Err(error) => {
            r.refuse("http.token_file", &format!("the file cannot be read: {error}"));
            return None;
        }
    };
    if !is_token(&token) {
        r.refuse("http.token_file", &format!("the token in it {must}"));
    }
    Some(token)
}

fn is_token(text: &str) -> bool {
    text.len() >= TOKEN_CHARS_MIN && text.chars().all(|c| c.is_ascii_graphic())
}

fn pipeline(r: &mut Reader<'_>) -> pipeline::Settings {
    pipeline::Settings {
        lanes: r.whole("pipeline.lanes", 0..=64, "0 is one per core"),
        batch_max: r.whole("pipeline.batch_max", 0..=1024, "0 is what suits the store"),
        lane_queue_max: r.whole("pipeline.lane_queue_max", 1..=1_000_000, ""),
        in_flight_max: r.whole("pipeline.in_flight_max", 1..=1_000_000, ""),
        book_accounts_max: r.whole("pipeline.book_accounts_max", 1..=100_000_000, ""),
        book_counters_max: r.whole("pipeline.book_counters_max", 1..=100_000_000, ""),
        deadline_default: r.millis("deadline.default_ms", 100..=60_000, "as the deadlines that requests may name"),
        deadline_reserve: r.millis("deadline.reserve_ms", 0..=99, "the shortest deadline that a request may name is 100 ms"),
        shed_before: r.millis("pipeline.shed_before_ms", 1..=60_000, ""),
        fact_tries: r.whole("pipeline.fact_tries", 1..=10, ""),
        drain_timeout: r.millis("pipeline.drain_timeout_ms", 100..=29_000, "a daemon that is told to stop is killed after 30 s"),
    }
}

fn plaintext(r: &mut Reader<'_>) -> Vec<String> {
    let links = r.list("safety.allow_plaintext");
    if links.iter().any(|link| !["postgres", "redis", "broker", "http"].contains(&link.as_str())) {
        r.refuse("safety.allow_plaintext", "must name links, of \"postgres\", \"redis\", \"broker\" and \"http\"");
    }
    links
}

fn log(r: &mut Reader<'_>) -> log::Settings {
    let formats = [("json", log::Format::Json), ("pretty", log::Format::Pretty)];
    let settings = log::Settings { format: r.choice("log.format", ("auto", log::Format::Auto), &formats), filter: r.text("log.filter") };
    if let Err(error) = EnvFilter::try_new(&settings.filter) {
        r.refuse("log.filter", &format!("must be a filter such as \"info\" or \"info,jitauth=debug\": {error}"));
    }
    settings
}

fn alerts(r: &mut Reader<'_>) -> alerts::Settings {
    alerts::Settings {
        warning: r.millis("alerts.warning_ms", 1..=LINK_MS, ""),
        critical: r.millis("alerts.critical_ms", 1..=LINK_MS, ""),
        queue_warning: r.millis("alerts.queue_warning_ms", 1..=LONG_MS, ""),
        queue_critical: r.millis("alerts.queue_critical_ms", 1..=LONG_MS, ""),
        stall: r.millis("alerts.stall_ms", 250..=LONG_MS, "it is looked for four times a second"),
        every: r.seconds("alerts.every_s", 1..=3600, ""),
    }
}

fn report(r: &mut Reader<'_>) -> report::Settings {
    let directory = r.text("report.directory");
    report::Settings {
        interval: r.seconds("report.interval_s", 1..=3600, ""),
        kept_max: r.whole("report.kept_max", 1..=8640, "an interval takes some kilobytes of memory; a directory keeps more"),
        directory: (!directory.is_empty()).then(|| PathBuf::from(directory)),
        file_bytes_max: r.whole::<u64>("report.file_max_mib", 1..=1024, "") << 20,
        keep: Duration::from_secs(DAY_S * r.whole::<u64>("report.keep_days", 1..=3650, "")),
        directory_bytes_max: r.whole::<u64>("report.directory_max_mib", 1..=1_048_576, "") << 20,
        slowest_max: r.whole("report.slowest_max", 0..=64, "each one is looked at whenever another gets in"),
    }
}

fn promise(r: &mut Reader<'_>) -> Promise {
    Promise {
        user: budget(r, "user"),
        card: budget(r, "card"),
        limits: budget(r, "limits"),
        decision: budget(r, "decision"),
        commit: budget(r, "commit"),
        publish: budget(r, "publish"),
        total: budget(r, "total"),
    }
}

fn budget(r: &mut Reader<'_>, span: &str) -> Budget {
    let mut quantile = |name: &str| r.whole(&format!("promise.{span}.{name}_us"), 1..=60_000_000, "");
    Budget { p50_us: quantile("p50"), p95_us: quantile("p95"), p99_us: quantile("p99") }
}

fn url(r: &mut Reader<'_>, key: &str, kind: &Kind) -> String {
    let url = r.text(key);
    if Link::parse(&url, kind).is_none() {
        r.refuse(key, &format!("must be a URL such as {}", kind.form));
    }
    url
}

/// A name of an exchange or a queue of ours.
fn amqp_name(r: &mut Reader<'_>, key: &str) -> String {
    let text = name(r, key, 255);
    if text.starts_with("amq.") {
        r.refuse(key, "must not begin with \"amq.\" (such names belong to the broker)");
    }
    text
}

fn name(r: &mut Reader<'_>, key: &str, bytes_max: usize) -> String {
    let text = r.text(key);
    if text.is_empty() || text.len() > bytes_max || text.chars().any(char::is_control) {
        r.refuse(key, &format!("must be 1 to {bytes_max} bytes without control characters"));
    }
    text
}
