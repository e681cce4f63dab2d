//! A daemon that says that it is ready has its cards in memory, as many as fit, and starts without them when it must.

use crate::{
    crowd::tell,
    support::{
        daemon::Daemon,
        eventually,
        metrics::Metrics,
        request::Request,
        sandbox::Sandbox,
        store::Store,
        world::{NEVER_US, Program, World},
    },
};
use serde_json::Value;
use std::time::Duration;

const CARDS: u64 = 4_000;

/// Cards with a user and a limit each; every tenth cannot be used.
async fn prepare(store: &Store) {
    let program = World::new(store).program("warm", Program::default()).await;
    let Store::Postgres(_) = store else { panic!("PostgreSQL's generate_series is used") };
    store
        .execute(&format!(
            "insert into users (id, token, program_id) select 1000000 + n, 'usr_warm_' || n, {program} from generate_series(1, {CARDS}) n;
             insert into accounts (id, token, program_id, currency) select 1000000 + n, 'acc_warm_' || n, {program}, 'USD'
               from generate_series(1, {CARDS}) n;
             insert into cards (id, token, user_id, account_id, program_id, status, expires_at)
             select 1000000 + n, 'crd_warm_' || n, 1000000 + n, 1000000 + n, {program},
                    case when n % 10 = 0 then 'lost' else 'active' end, {NEVER_US} from generate_series(1, {CARDS}) n;
             insert into limits (id, owner, owner_id, scope, period, cap_amount)
             select 1000000 + n, 'card', 1000000 + n, 'card', 'day', 90000000 from generate_series(1, {CARDS}) n"
        ))
        .await;
}

/// Where in the log an event stands, and its line.
fn line(daemon: &Daemon, event: &str) -> Option<(usize, Value)> {
    daemon.log().into_iter().enumerate().find(|(_, line)| line["event"] == event)
}

async fn decide(daemon: &Daemon, run: &str, cards: impl Iterator<Item = u64>) -> Metrics {
    let http = daemon.http();
    for card in cards {
        let reply =
            http.authorize(Request::new(&format!("{run}-{card}")).card(&format!("crd_warm_{card}")).deadline_ms(60_000).body()).await;
        assert_eq!(reply.json()["reason"], "insufficient_funds", "{}", reply.text());
    }
    Metrics::of(&http).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_usable_card_is_in_memory() {
    let Some(sandbox) = Sandbox::services().await else { return };
    prepare(&sandbox.store().await).await;
    let daemon = sandbox.daemon().await;
    let ((warmed, line), (ready, _)) = (line(&daemon, "warmed").expect("it says so"), self::line(&daemon, "ready").expect("it is ready"));
    tell(&format!("{line}"));
    assert!(warmed < ready, "first warm, then ready");
    assert_eq!((line["cards"].as_u64(), line["full"].as_bool()), (Some(CARDS * 9 / 10), Some(false)));
    let metrics = decide(&daemon, "warm", (1..200).filter(|card| card % 10 != 0)).await;
    assert_eq!((metrics.cache("memory", "miss"), metrics.cache("memory", "hit")), (0.0, 180.0), "no request had to wait for facts");
    // Cards with their users, and the program.
    eventually("the size of it", async || {
        let entries = Metrics::of(&daemon.http()).await.get("jitauth_cache_entries{tier=\"memory\"}");
        (entries as u64 == CARDS * 9 / 10 * 2 + 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_that_is_too_small_takes_what_it_can() {
    let Some(mut sandbox) = Sandbox::services().await else { return };
    prepare(&sandbox.store().await).await;
    sandbox.settings = sandbox.settings.with("JITAUTH_MEMORY__BYTES_MAX_MIB", "1");
    let daemon = sandbox.daemon().await;
    let (_, line) = line(&daemon, "warmed").expect("it says so");
    tell(&format!("{line}"));
    assert_eq!((line["full"].as_bool(), line["level"].as_str()), (Some(true), Some("WARN")));
    assert!((500..CARDS * 9 / 10).contains(&line["cards"].as_u64().unwrap()), "{line}");
    assert!(line["bytes"].as_u64().unwrap() <= 1 << 20, "{line}");
    let metrics = decide(&daemon, "small", (1..CARDS).filter(|card| card % 10 != 0).step_by(20)).await;
    assert!(metrics.cache("memory", "miss") > 0.0 && metrics.get("jitauth_cache_evictions_total{tier=\"memory\"}") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_read_makes_a_cold_start() {
    let Some(mut sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare(&store).await;
    let url = sandbox.external().postgres_url.clone();
    let role = format!("blind_{}", url.rsplit('/').next().unwrap());
    // It may do everything but read the limits, until that is granted.
    store
        .execute(&format!(
            "create role {role} login;
             grant select, insert, update, delete on all tables in schema public to {role};
             grant usage on all sequences in schema public to {role};
             revoke select on limits from {role}"
        ))
        .await;
    sandbox.settings = sandbox.settings.clone().with("JITAUTH_POSTGRES__URL", &url.replace("postgres@", &format!("{role}@")));
    let daemon = sandbox.daemon().await;
    let failed = daemon.log().iter().filter(|line| line["event"] == "warming_failed").count();
    assert!(failed == 2 && line(&daemon, "warmed").is_none(), "{failed} tries failed\n{}", daemon.text());
    store.execute(&format!("grant select on limits to {role}")).await;
    let metrics = decide(&daemon, "cold", 1..5).await;
    assert_eq!(metrics.cache("memory", "miss"), 4.0, "cards are read when they are used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_it_warms_is_not_missed() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare(&store).await;
    let freezer = tokio::spawn(async move {
        // A change every few milliseconds, all the time that the daemon starts.
        for card in (1..CARDS).filter(|card| card % 10 != 0).take(400) {
            store.execute(&format!("update cards set status = 'stolen' where token = 'crd_warm_{card}'")).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        store
    });
    let daemon = sandbox.daemon().await;
    let _store = freezer.await.unwrap();
    let http = daemon.http();
    let before = Metrics::of(&http).await;
    // The last news may still be on their way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for card in (1..CARDS).filter(|card| card % 10 != 0).take(400) {
        let reply =
            http.authorize(Request::new(&format!("stolen-{card}")).card(&format!("crd_warm_{card}")).deadline_ms(60_000).body()).await;
        assert_eq!(reply.json()["reason"], "card_stolen", "{}", reply.text());
    }
    let after = Metrics::of(&http).await;
    assert_eq!(after.commits("rejected"), before.commits("rejected"), "nothing stale was believed");
}
