//! `jitauth doctor` finds what is wrong with the services, names it, says how to mend it, and hides nothing else for it.

use crate::support::{
    amqp::{DEAD_LETTERS, REQUESTS},
    daemon::Settings,
    request::Request,
    sandbox::Sandbox,
    services::{Service, Turn},
};
use lapin::{BasicProperties, options::QueueDeleteOptions};
use serde_json::Value;

/// What doctor says, and its exit code.
async fn doctor(settings: &Settings) -> (Option<i32>, Vec<Value>) {
    let output = settings.run(&["doctor", "--json"]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let findings = answer["findings"].as_array().expect("findings").clone();
    assert!(findings.len() >= 6, "{text}");
    for finding in &findings {
        assert_eq!(finding["mend"].is_null(), finding["level"] == "ok", "{finding}");
    }
    assert_eq!(answer["healthy"], output.status.success());
    (output.status.code(), findings)
}

/// Whether there is a finding of this area and level with these words.
#[track_caller]
fn found(findings: &[Value], area: &str, level: &str, part: &str) {
    let has = |finding: &&Value| {
        finding["area"] == area && finding["level"] == level && finding["what"].as_str().is_some_and(|what| what.contains(part))
    };
    assert!(findings.iter().any(|finding| has(&finding)), "no {level} of {area} with {part:?} in {findings:#?}");
}

#[track_caller]
fn failures(findings: &[Value]) -> Vec<&Value> {
    findings.iter().filter(|finding| finding["level"] == "fail").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_services_pass_and_each_fault_is_found_beside_them() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let settings = &sandbox.settings;
    let (code, findings) = doctor(settings).await;
    assert_eq!((code, failures(&findings)), (Some(0), vec![]));
    for (area, part) in [
        ("configuration", "profile services"),
        ("store", "PostgreSQL 1"),
        ("store", "synchronous_commit=on"),
        ("schema", "is this build's"),
        ("clock", "agrees"),
        ("redis", "Redis "),
        ("broker", "RabbitMQ 3."),
        ("broker", "may publish to transactions"),
        ("topology", "as it should be"),
        ("http", "no daemon runs there"),
        ("limits", "files"),
    ] {
        found(&findings, area, "ok", part);
    }
    // The private Redis has neither bound nor policy.
    found(&findings, "redis", "warn", "maxmemory is 0");
    found(&findings, "redis", "warn", "noeviction");

    let url = |variable: &str, port: &str| {
        let url = settings.get(variable).expect("a URL").to_owned();
        let (scheme, rest) = url.split_once("://").expect("a scheme");
        let (place, path) = rest.rsplit_once('/').expect("a path");
        let host = place.rsplit_once('@').map_or("", |(user, _)| user);
        let at = if host.is_empty() { String::new() } else { format!("{host}@") };
        settings.clone().with(variable, &format!("{scheme}://{at}127.0.0.1:{port}/{path}"))
    };
    for (variable, area) in [("JITAUTH_POSTGRES__URL", "store"), ("JITAUTH_REDIS__URL", "redis"), ("JITAUTH_BROKER__URL", "broker")] {
        let (code, findings) = doctor(&url(variable, "1")).await;
        assert_eq!(code, Some(1), "{variable}");
        found(&findings, area, "fail", "reached");
        assert_eq!(failures(&findings).len(), 1, "one dependency hides no other, and blames none: {findings:#?}");
    }
    let broker = settings.get("JITAUTH_BROKER__URL").unwrap().replace("guest:guest@", "guest:wrong@");
    let (code, findings) = doctor(&settings.clone().with("JITAUTH_BROKER__URL", &broker)).await;
    assert_eq!(code, Some(1));
    found(&findings, "broker", "fail", "refuses");
    assert!(!format!("{findings:?}").contains("guest:wrong"), "a password is shown");
    let database = format!("{}_gone", settings.get("JITAUTH_POSTGRES__URL").unwrap());
    let (_, findings) = doctor(&settings.clone().with("JITAUTH_POSTGRES__URL", &database)).await;
    found(&findings, "store", "fail", "refuses");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_set_up_badly_is_found() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let (store, amqp) = (sandbox.store().await, sandbox.amqp().await);
    let database = sandbox.external().postgres_url.rsplit_once('/').unwrap().1.to_owned();
    store.execute(&format!("alter database {database} set synchronous_commit = off")).await;
    let (code, findings) = doctor(&sandbox.settings).await;
    assert_eq!(code, Some(0));
    found(&findings, "store", "warn", "synchronous_commit is off");

    store.execute("delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)").await;
    amqp.publish("transactions", "jit-funding.failed", &Request::new("lost").body(), BasicProperties::default()).await.unwrap();
    let (code, findings) = doctor(&sandbox.settings).await;
    assert_eq!(code, Some(1));
    found(&findings, "schema", "fail", "is older than this build");
    found(&findings, "broker", "warn", "1 dead letter waits in jit-funding-dlq");

    let channel = amqp.channel().await.unwrap();
    channel.queue_delete(REQUESTS.into(), QueueDeleteOptions::default()).await.unwrap();
    let (_, findings) = doctor(&sandbox.settings).await;
    found(&findings, "topology", "fail", &format!("queue {REQUESTS} does not exist"));
    let (_, findings) = doctor(&sandbox.settings.clone().with("JITAUTH_BROKER__QUEUE_TYPE", "classic")).await;
    found(&findings, "topology", "fail", &format!("queue {DEAD_LETTERS} was declared in another way"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_service_is_found_and_the_others_are_looked_at() {
    let Some(sandbox) = Sandbox::alone().await else { return };
    let services = sandbox.external().services;
    services.stop(Service::Redis).await;
    let (code, findings) = doctor(&sandbox.settings).await;
    services.start(Service::Redis).await;
    assert_eq!(code, Some(1));
    found(&findings, "redis", "fail", "reached");
    found(&findings, "schema", "ok", "is this build's");
    found(&findings, "topology", "ok", "as it should be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_daemon_needs_no_service() {
    let sandbox = Sandbox::embedded();
    let (code, findings) = doctor(&sandbox.settings).await;
    assert_eq!((code, failures(&findings)), (Some(0), vec![]));
    found(&findings, "store", "ok", "does not exist yet");
    let _daemon = sandbox.daemon().await;
    let (code, findings) = doctor(&sandbox.settings).await;
    assert_eq!((code, failures(&findings)), (Some(0), vec![]));
    for (area, part) in [("store", "SQLite 3."), ("store", "journal_mode=wal synchronous=full"), ("http", "is ready")] {
        found(&findings, area, "ok", part);
    }
    let nowhere = sandbox.settings.clone().with("JITAUTH_SQLITE__PATH", "nowhere/at/all.db");
    found(&doctor(&nowhere).await.1, "store", "fail", "does not exist");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_server_is_told_what_to_run() {
    let Some(sandbox) = Sandbox::bare(Turn::shared().await).await else { return };
    let (code, findings) = doctor(&sandbox.settings).await;
    assert_eq!(code, Some(1));
    found(&findings, "schema", "fail", "there is none yet");
    found(&findings, "topology", "fail", "exchange transactions does not exist");
    assert!(findings.iter().any(|finding| finding["mend"] == "run jitauth migrate"), "{findings:#?}");
}
