//! "What was p99 at 14:05, and which span?": `/report` tells two stretches of time apart, also after a restart, and `report` and
//! `top` show it.

use crate::support::{
    daemon::{Daemon, Settings},
    eventually,
    outside::Outside,
    request::Request,
    sandbox::Sandbox,
    store::Store,
    world::{Holder, Program, World},
};
use serde_json::Value;
use std::{path::Path, time::Duration};
use tempfile::TempDir;
use tokio::time::sleep;

async fn ask(daemon: &Daemon, path: &str) -> Value {
    let reply = daemon.http().get(path).await.expect("an answer");
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

fn span<'a>(report: &'a Value, name: &str) -> &'a Value {
    let spans = report["spans"].as_array().expect("spans");
    spans.iter().find(|span| span["span"] == name).unwrap_or_else(|| panic!("no span {name}: {report}"))
}

async fn authorize(daemon: &Daemon, id: &str, amount: &str) -> Value {
    let request = Request::new(id).card("crd_one").amount(amount).deadline_ms(30_000);
    daemon.http().authorize(request.body()).await.json()
}

/// A time between two intervals of a second.
#[expect(clippy::disallowed_methods, reason = "reports are asked for by the wall clock")]
async fn moment() -> String {
    sleep(Duration::from_millis(1300)).await;
    let now = jiff::Timestamp::now().to_string();
    sleep(Duration::from_millis(1300)).await;
    now
}

fn settings(settings: Settings, directory: &Path) -> Settings {
    settings
        .with("JITAUTH_REPORT__INTERVAL_S", "1")
        .with("JITAUTH_REPORT__DIRECTORY", directory.to_str().unwrap())
        .with("JITAUTH_SQLITE__BUSY_TIMEOUT_MS", "1500")
        .with("JITAUTH_ALERTS__STALL_MS", "600000")
}

/// 120 ordinary decisions, a quarter of them declined.
async fn calm(daemon: &Daemon) {
    for nth in 0..120 {
        let amount = if nth % 4 == 0 { "99999.00" } else { "0.10" };
        authorize(daemon, &format!("calm-{nth}"), amount).await;
    }
}

/// Three decisions that wait for a lock.
async fn slow(daemon: &Daemon, store: &Store) {
    for nth in 0..3 {
        let outside = Outside::holding_account(store, 0).await;
        let http = daemon.http();
        let body = Request::new(&format!("slow-{nth}")).card("crd_one").amount("0.10").deadline_ms(30_000).body();
        let answer = tokio::spawn(async move { http.authorize(body).await });
        sleep(Duration::from_millis(250)).await;
        outside.release().await;
        assert_eq!(answer.await.expect("an answer").json()["decision"], "approved");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_loads_are_told_apart_also_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let mut sandbox = Sandbox::embedded();
    sandbox.settings = settings(sandbox.settings, &directory.path().join("report"));
    let mut daemon = sandbox.daemon().await;
    let store = sandbox.store().await;
    let world = World::new(&store);
    let program = world.program("p", Program::default()).await;
    world.holder(program, "one", Holder::default()).await;

    let begin = moment().await;
    calm(&daemon).await;
    let middle = moment().await;
    slow(&daemon, &store).await;
    let end = moment().await;

    let check = async |daemon: &Daemon, when: &str| {
        let first = ask(daemon, &format!("/report?from={begin}&to={middle}")).await;
        assert_eq!((&first["decisions"]["count"], &first["decisions"]["approved"]), (&120.into(), &90.into()), "{when}: {first}");
        assert_eq!((&first["decisions"]["approval_rate"], &first["reasons"]["insufficient_funds"]), (&0.75.into(), &30.into()), "{when}");
        let second = ask(daemon, &format!("/report?from={middle}&to={end}")).await;
        assert_eq!((&second["decisions"]["count"], &second["reasons"]), (&3.into(), &serde_json::json!({})), "{when}: {second}");
        let [calm, slow] = [&first, &second].map(|report| span(report, "commit")["p99_us"].as_u64().unwrap());
        assert!(slow >= 200_000 && calm < slow, "{when}: p99 of the commit was {calm} µs, then {slow} µs");
        assert_eq!((&second["largest_share"]["span"], &second["verdict"]), (&"commit".into(), &"too_few".into()), "{when}: {second}");
        let worst = &second["slowest"][0];
        assert_eq!((&worst["cause"], &worst["slowest_span"]), (&"commit_wait".into(), &"commit".into()), "{when}: {second}");
        assert!(worst["authorization"].as_str().is_some_and(|id| id.starts_with("slow-")), "{when}: {worst}");
        assert!(!first.to_string().contains("crd_"), "{when}: no card in a report");
        eprintln!("report: {when}: p99 of the commit {calm} µs when calm, {slow} µs when slow");
    };
    check(&daemon, "before the restart").await;
    daemon.kill().await;
    daemon.restart().await;
    check(&daemon, "after SIGKILL").await;

    for (query, status, words) in [
        ("from=yesterday", 400, "from is \"yesterday\""),
        ("from=-7h", 400, "more than 6 hours apart"),
        ("when=now", 400, "there is no parameter \"when\""),
        ("from=-5h&to=-4h", 404, "nothing is kept of that time"),
    ] {
        let reply = daemon.http().get(&format!("/report?{query}")).await.expect("an answer");
        assert!(reply.status == status && reply.text().contains(words), "{query}: {} {}", reply.status, reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_read_it_as_a_table_and_as_a_screen() {
    let directory = TempDir::new().unwrap();
    let mut sandbox = Sandbox::embedded();
    // A promise that no commit on a disk keeps.
    sandbox.settings = settings(sandbox.settings, directory.path()).with("JITAUTH_PROMISE__COMMIT__P50_US", "1");
    let daemon = sandbox.daemon().await;
    let store = sandbox.store().await;
    let world = World::new(&store);
    let program = world.program("p", Program::default()).await;
    world.holder(program, "one", Holder::default()).await;
    calm(&daemon).await;
    let run = async |arguments: &[&str]| {
        let output = sandbox.settings.run(arguments).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };

    let (code, table, errors) = run(&["report"]).await;
    assert_eq!((code, errors.as_str()), (Some(99), ""), "a promise was broken\n{table}");
    for part in
        ["profile embedded, sqlite (", "decisions   120, ", "75.0 % approved", "declined    insufficient_funds 30", "BROKEN: p50 over 1 µs"]
    {
        assert!(table.contains(part), "{part:?} in\n{table}");
    }
    for name in ["decode", "user", "card", "limits", "decision", "lane", "commit", "publish", "total"] {
        assert!(table.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name} in\n{table}");
    }
    let (code, json, _) = run(&["report", "--from", "-15m", "--json"]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["decisions"]["count"]), (Some(99), &120.into()), "{json}");

    let (code, screen, errors) = run(&["top", "--once"]).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{screen}");
    for part in ["jitauth ", "ready, healthy", "approved 75.0 %", "in flight 0 of ", "depends on  sqlite up", "insufficient_funds 100.0 %"]
    {
        assert!(screen.contains(part), "{part:?} in\n{screen}");
    }
    eprintln!("{table}\n{screen}");

    for (arguments, expected, words) in [
        (vec!["report", "--from", "yesterday"], 64, "from is \"yesterday\""),
        (vec!["report", "--from", "-5h", "--to", "-4h"], 1, "nothing is kept of that time"),
        (vec!["top"], 2, "top needs a terminal"),
        (vec!["report", "--url", "http://127.0.0.1:1"], 69, "no daemon answers at http://127.0.0.1:1"),
        (vec!["top", "--once", "--url", "http://127.0.0.1:1"], 69, "no daemon answers at http://127.0.0.1:1"),
    ] {
        let (code, out, errors) = run(&arguments).await;
        assert!(code == Some(expected) && errors.contains(words), "{arguments:?}: {code:?}\n{out}{errors}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_asks_for_the_token_and_health_does_not() {
    let mut sandbox = Sandbox::embedded();
    sandbox.settings = sandbox.settings.with("JITAUTH_HTTP__TOKEN", "a-token-of-a-test");
    let daemon = sandbox.daemon().await;
    let http = daemon.http();
    assert_eq!(http.get("/report").await.expect("an answer").status, 401);
    let health = eventually("health", async || http.get("/health").await.ok().filter(|reply| reply.status == 200)).await;
    let json = health.json();
    assert_eq!((&json["status"], &json["services"]["sqlite"]["status"]), (&"healthy".into(), &"healthy".into()), "{json}");
    assert_eq!(json["services"].as_object().map(serde_json::Map::len), Some(1), "only what is used: {json}");
    let output = sandbox.settings.run(&["report", "--json"]).await;
    assert!(output.status.success(), "the token of the configuration is shown: {}", String::from_utf8_lossy(&output.stderr));
}
