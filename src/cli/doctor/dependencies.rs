//! Store, Redis and broker: are they there, may we use them, and are they set up well?

use super::Finding;
use crate::{
    broker::{
        self, BrokerError,
        topology::{self, Problem},
    },
    config::{Config, StoreKind},
    facts::redis::{self, InspectError},
    ledger::{
        SchemaState, StoreError, postgres,
        postgres::Postgres,
        sqlite::{self, Sqlite},
    },
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Clocks that differ by more make deadlines and windows wrong in a way that shows.
const SKEW_MAX: Duration = Duration::from_millis(500);
/// What facts may take in Redis.
const REDIS_BYTES_MAX: u64 = 500 << 20;
/// How long Redis may take to answer here, where nobody waits for a decision.
const REDIS_PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn store(config: &Config) -> Vec<Finding> {
    match config.store {
        StoreKind::Postgres => postgres(config).await,
        StoreKind::Sqlite => sqlite(config).await,
    }
}

async fn postgres(config: &Config) -> Vec<Finding> {
    let before = now_us();
    let asked = async { Postgres::connect(&config.postgres).await?.inspect().await };
    match asked.await {
        Ok(seen) => postgres_findings(&seen, connections_needed(config), before, now_us()),
        Err(error) => vec![unusable(&error, "PostgreSQL", "JITAUTH_POSTGRES__URL")],
    }
}

/// The pool, a connection for each lane and the late desk, administration, and the one that listens.
fn connections_needed(config: &Config) -> i64 {
    let lanes = i64::try_from(config.pipeline.lanes).unwrap_or(i64::MAX);
    lanes.saturating_add(i64::from(config.postgres.pool_max)).saturating_add(6)
}

/// Our clock was read `before` and `after` the server's.
pub(super) fn postgres_findings(seen: &postgres::Inspection, connections_needed: i64, before: i64, after: i64) -> Vec<Finding> {
    let ok = |what: String| Finding::ok("store", what);
    let mut findings = vec![ok(format!("PostgreSQL {}", seen.version)), schema(seen.schema)];
    findings.push(match seen.fsync.as_str() {
        "off" => Finding::fail("store", "fsync is off: a crash of its machine loses and damages what was committed", "set fsync = on"),
        _ => ok(format!("fsync={}", seen.fsync)),
    });
    findings.push(match seen.full_page_writes.as_str() {
        "off" => {
            let what = "full_page_writes is off: a crash of its machine can leave pages that cannot be repaired";
            Finding::fail("store", what, "set full_page_writes = on, unless the file system never tears pages")
        }
        _ => ok(format!("full_page_writes={}", seen.full_page_writes)),
    });
    findings.push(match seen.synchronous_commit.as_str() {
        level @ ("off" | "local") => {
            let what = format!(
                "synchronous_commit is {level} by default; our own sessions choose on, but what others change here can be lost in a crash"
            );
            Finding::warn("store", what, "alter database … set synchronous_commit = on")
        }
        level => ok(format!("synchronous_commit={level}")),
    });
    if !seen.forbidden.is_empty() {
        let what = format!("this user may not: {}", seen.forbidden.join(", "));
        findings.push(Finding::fail("store", what, "grant that to the user of JITAUTH_POSTGRES__URL, or make it the owner of the schema"));
    }
    if connections_needed > seen.connections_max {
        let what = format!("a daemon opens up to {connections_needed} connections, and the server takes {}", seen.connections_max);
        findings.push(Finding::warn("store", what, "raise max_connections there, or lower postgres.pool_max"));
    }
    findings.push(clock(seen.clock_us, before, after));
    findings
}

fn clock(theirs: i64, before: i64, after: i64) -> Finding {
    // Somewhere between the two readings they were read at the same time.
    let skew = if theirs < before { before - theirs } else { (theirs - after).max(0) };
    let skew = Duration::from_micros(u64::try_from(skew).unwrap_or_default());
    if skew > SKEW_MAX {
        let what = format!("the clocks of the store and of this machine differ by {} ms", skew.as_millis());
        return Finding::warn("clock", what, "let both be set by NTP, as with chrony or systemd-timesyncd");
    }
    Finding::ok("clock", "agrees with the store's")
}

async fn sqlite(config: &Config) -> Vec<Finding> {
    let path = config.sqlite.path.display();
    if !config.sqlite.path.exists() {
        let directory = config.sqlite.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        return vec![match directory.filter(|directory| !directory.is_dir()) {
            Some(missing) => Finding::fail("store", format!("{} does not exist", missing.display()), "create it, or mend sqlite.path"),
            None => Finding::ok("store", format!("{path} does not exist yet; jitauth serve creates it")),
        }];
    }
    let asked = async { Sqlite::visit(&config.sqlite).await?.inspect().await };
    match asked.await {
        Ok(seen) => sqlite_findings(&seen, &path.to_string()),
        Err(error) => vec![unusable(&error, "the SQLite file", "JITAUTH_SQLITE__PATH")],
    }
}

pub(super) fn sqlite_findings(seen: &sqlite::Inspection, path: &str) -> Vec<Finding> {
    let durable = seen.durability.contains("journal_mode=wal") && seen.durability.contains("synchronous=full");
    vec![
        Finding::ok("store", format!("SQLite {} with {path}", seen.version)),
        schema(seen.schema),
        if durable {
            Finding::ok("store", seen.durability.clone())
        } else {
            let what = format!("{}: a crash of the machine can lose what was committed", seen.durability);
            Finding::fail("store", what, "put the file on a local file system, where a write-ahead log works")
        },
    ]
}

fn schema(state: SchemaState) -> Finding {
    match state {
        SchemaState::Current => Finding::ok("schema", "is this build's"),
        SchemaState::Missing => Finding::fail("schema", "there is none yet", "run jitauth migrate"),
        SchemaState::Older => Finding::fail("schema", "is older than this build", "run jitauth migrate"),
        SchemaState::Newer => Finding::fail("schema", "is newer than this build", "run the build that migrated it, or a newer one"),
    }
}

fn unusable(error: &StoreError, what: &str, variable: &str) -> Finding {
    let mend = match error {
        StoreError::Unreachable(_) => format!("see that {what} is where {variable} says, and runs"),
        StoreError::Refused(_) => format!("mend user, password and database in {variable}, or what they may do there"),
        StoreError::Locked { .. } => "stop that daemon, or give this one a file of its own".to_owned(),
        StoreError::Broken(_) => "restore it from a backup, or migrate a fresh one".to_owned(),
    };
    Finding::fail("store", error.to_string(), mend)
}

pub(super) async fn redis(config: &Config) -> Vec<Finding> {
    let Some(settings) = &config.redis else { return vec![Finding::ok("redis", "not used (redis.enabled is false)")] };
    match redis::inspect(settings, REDIS_PATIENCE).await {
        Ok(seen) => redis_findings(&seen),
        Err(error) => {
            let mend = match error {
                InspectError::Unreachable(_) => "see that Redis runs where JITAUTH_REDIS__URL says; decisions go on without it, slower",
                InspectError::Refused(_) => "mend user and password in JITAUTH_REDIS__URL, or what they may do there",
                InspectError::Address => "set JITAUTH_REDIS__URL as in redis://user:password@host:6379/0",
            };
            vec![Finding::fail("redis", error.to_string(), mend)]
        }
    }
}

pub(super) fn redis_findings(seen: &redis::Inspection) -> Vec<Finding> {
    let mib = |bytes: u64| bytes >> 20;
    let mut findings = vec![Finding::ok("redis", format!("Redis {}", seen.version))];
    findings.push(if seen.memory_max_bytes == 0 {
        let what = "maxmemory is 0: it grows until the machine has no memory left";
        Finding::warn("redis", what, "set maxmemory 500mb, and maxmemory-policy allkeys-lru")
    } else {
        Finding::ok("redis", format!("holds {} MiB of at most {} MiB", mib(seen.memory_used_bytes), mib(seen.memory_max_bytes)))
    });
    findings.push(if seen.policy == "noeviction" {
        let what = "maxmemory-policy is noeviction: once full it takes no fact any more, and no news of a change";
        Finding::warn("redis", what, "set maxmemory-policy allkeys-lru")
    } else {
        Finding::ok("redis", format!("maxmemory-policy={}", seen.policy))
    });
    if seen.memory_used_bytes > REDIS_BYTES_MAX {
        let what = format!("holds {} MiB; facts should stay below {} MiB", mib(seen.memory_used_bytes), mib(REDIS_BYTES_MAX));
        findings.push(Finding::warn("redis", what, "see whether others use the same Redis, and lower redis.*_ttl_s"));
    }
    findings
}

pub(super) async fn broker(config: &Config) -> Vec<Finding> {
    let Some(settings) = &config.broker else { return vec![Finding::ok("broker", "not used (broker.enabled is false)")] };
    match broker::inspect(settings).await {
        Ok(seen) => broker_findings(&seen, &settings.exchange, &settings.dead_letter_queue),
        Err(error) => {
            let mend = match &error {
                BrokerError::Address => "set JITAUTH_BROKER__URL as in amqp://user:password@host:5672/%2f",
                BrokerError::Unreachable(_) => "see that RabbitMQ runs where JITAUTH_BROKER__URL says",
                BrokerError::Refused(_) => "mend user, password and vhost in JITAUTH_BROKER__URL, or what they may do there",
                BrokerError::Topology(_) => "run jitauth topology apply",
            };
            vec![Finding::fail("broker", error.to_string(), mend)]
        }
    }
}

pub(super) fn broker_findings(seen: &broker::Inspection, exchange: &str, dead_letter_queue: &str) -> Vec<Finding> {
    let version = seen.version.clone().unwrap_or_else(|| "a broker that does not tell its version".to_owned());
    let mut findings = vec![Finding::ok("broker", version)];
    if seen.blocked {
        let what = "a memory or disk alarm keeps it from taking messages";
        findings.push(Finding::fail("broker", what, "free memory or disk there, or raise its watermarks"));
    }
    findings.push(match &seen.publishing {
        None => Finding::ok("broker", format!("this user may publish to {exchange}")),
        Some(why) => {
            let what = format!("this user may not publish to {exchange}: {why}");
            Finding::fail("broker", what, "grant write on the exchange (rabbitmqctl set_permissions), or run jitauth topology apply")
        }
    });
    if seen.topology.is_empty() {
        findings.push(Finding::ok("topology", "every exchange and queue is as it should be"));
    }
    findings.extend(seen.topology.iter().map(topology_finding));
    if let Some(letters) = seen.dead_letters.filter(|letters| *letters > 0) {
        let wait = if letters == 1 { "1 dead letter waits".to_owned() } else { format!("{letters} dead letters wait") };
        let what = format!("{wait} in {dead_letter_queue}");
        findings.push(Finding::warn("broker", what, "look at them with jitauth dlq stats"));
    }
    findings
}

fn topology_finding(finding: &topology::Finding) -> Finding {
    let object = &finding.object;
    match &finding.problem {
        Problem::Missing => Finding::fail("topology", format!("{object} does not exist"), "run jitauth topology apply"),
        Problem::Differs(why) => {
            let mend = "set broker.queue_type to what is declared, or drain it, delete it and run jitauth topology apply";
            Finding::fail("topology", format!("{object} was declared in another way: {why}"), mend)
        }
        Problem::Unverified(why) => {
            let mend = "run jitauth topology check as a user with the configure permission";
            Finding::warn("topology", format!("{object} exists, and its arguments cannot be compared: {why}"), mend)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an edge: the clock on the wall is what is compared")]
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
