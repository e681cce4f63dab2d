//! PostgreSQL and Redis go away in every way, under load: a store that is out delays answers or makes them system declines, and
//! never wrong; a cache that is out is noticed by nobody.

use crate::{
    support::{eventually, sandbox::Sandbox, services::Service},
    traffic::{self, Traffic, figure, metric, ready_again, unready},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_killed_makes_no_answer_wrong() {
    let Some(sandbox) = Sandbox::alone().await else { return };
    let sandbox = traffic::cold(sandbox);
    let services = sandbox.external().services;
    let store = sandbox.store().await;
    traffic::prepare(&store).await;
    let mut daemon = sandbox.daemon().await;
    let traffic = Traffic::start(&sandbox).await;

    services.kill(Service::Postgres).await;
    unready(&daemon).await;
    during_an_outage(&traffic).await;
    services.start(Service::Postgres).await;
    let healed = Instant::now();
    ready_again(&mut daemon, "store killed", healed).await;
    decides_cold_again(&traffic, "store killed", healed).await;
    let summary = traffic.finish(&mut [daemon], &store, &["system_unavailable", "deadline_exceeded"]).await;
    figure(&format!("store killed: {summary:?}"));
    assert!(summary.by_reason.contains_key("\"system_unavailable\""), "the outage was not felt: {summary:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_makes_no_answer_wrong() {
    let Some(sandbox) = Sandbox::alone().await else { return };
    let sandbox = traffic::cold(sandbox);
    let services = sandbox.external().services;
    let store = sandbox.store().await;
    traffic::prepare(&store).await;
    let mut daemon = sandbox.daemon().await;
    let traffic = Traffic::start(&sandbox).await;

    services.pause(Service::Postgres).await;
    unready(&daemon).await;
    during_an_outage(&traffic).await;
    services.resume(Service::Postgres).await;
    let healed = Instant::now();
    ready_again(&mut daemon, "store hung", healed).await;
    decides_cold_again(&traffic, "store hung", healed).await;
    let summary = traffic.finish(&mut [daemon], &store, &["system_unavailable", "deadline_exceeded"]).await;
    figure(&format!("store hung: {summary:?}"));
    assert!(summary.by_reason.contains_key("\"system_unavailable\""), "the outage was not felt: {summary:?}");
}

/// Requests for cards that nobody has seen yet run out of time, more of them than there are store connections.
async fn during_an_outage(traffic: &Traffic) {
    let (begun, before) = (Instant::now(), traffic.confirmed());
    eventually("requests during the outage", async || {
        (traffic.confirmed() > before + 150 && begun.elapsed() > Duration::from_secs(3)).then_some(())
    })
    .await;
}

/// Cards that are in no cache are decided again, and from then on all of them.
async fn decides_cold_again(traffic: &Traffic, fault: &str, healed: Instant) {
    eventually("a decision on a card that is in no cache", async || {
        let (foretold, heard) = traffic.probe_cold(5000).await;
        (heard.as_deref() == foretold).then_some(())
    })
    .await;
    figure(&format!("{fault}: the first card from the store {:.2} s after it healed", healed.elapsed().as_secs_f64()));
    for _ in 0..50 {
        let (foretold, heard) = traffic.probe_cold(5000).await;
        assert_eq!(heard.as_deref(), foretold, "the store is back");
    }
    traffic.more(50).await;
}

/// Forgets everything in the Redis database at `url`.
async fn flush(url: &str) {
    let (address, database) = url.trim_start_matches("redis://").split_once('/').expect("a database");
    let mut socket = TcpStream::connect(address).await.expect("Redis answers");
    socket.write_all(format!("SELECT {database}\r\nFLUSHDB\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 10];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+OK\r\n+OK\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_fails_is_noticed_by_nobody() {
    let Some(sandbox) = Sandbox::alone().await else { return };
    let sandbox = traffic::cold(sandbox);
    let external = sandbox.external();
    let services = external.services;
    let store = sandbox.store().await;
    traffic::prepare(&store).await;
    let mut daemon = sandbox.daemon().await;
    let traffic = Traffic::start(&sandbox).await;
    let errors = async || metric(&daemon, "jitauth_cache_requests_total{tier=\"redis\",result=\"error\"}").await;
    let up = async || metric(&daemon, "jitauth_dependency_up{dependency=\"redis\"}").await > 0.0;
    assert!(up().await, "Redis is in use");

    let healthy = errors().await;
    services.kill(Service::Redis).await;
    traffic.more(150).await;
    let killed = eventually("somebody asks Redis while it is dead", async || Some(errors().await).filter(|seen| *seen > healthy)).await;
    services.start(Service::Redis).await;
    eventually("Redis in use again", async || up().await.then_some(())).await;
    traffic.more(50).await;

    let before = errors().await;
    services.pause(Service::Redis).await;
    traffic.more(150).await;
    let hung = eventually("somebody asks Redis while it hangs", async || Some(errors().await).filter(|seen| *seen > before)).await;
    services.resume(Service::Redis).await;
    eventually("Redis in use again", async || up().await.then_some(())).await;
    traffic.more(50).await;

    for _ in 0..10 {
        flush(&external.redis_url).await;
        sleep(Duration::from_millis(50)).await;
    }
    traffic.more(50).await;
    figure(&format!("cache: {:.0} reads failed while it was dead, {:.0} while it was hung", killed - healthy, hung - before));

    ready_again(&mut daemon, "cache", Instant::now()).await;
    let summary = traffic.finish(&mut [daemon], &store, &[]).await;
    figure(&format!("cache: {summary:?}"));
    assert_eq!(summary.decided, summary.requests, "every confirmed request was decided");
}
