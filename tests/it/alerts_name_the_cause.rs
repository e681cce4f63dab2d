//! A stall in any part of a decision's way raises one alert that names it: in the log, in the metrics and as an event; and never a
//! storm.

use crate::support::{
    amqp::Mailbox,
    daemon::Daemon,
    eventually,
    metrics::Metrics,
    outside::{Outside, waits_for_lock},
    request::Request,
    sandbox::Sandbox,
    services::Service,
    store::Store,
    world::{Held, Holder, Program, World},
};
use lapin::{
    BasicProperties,
    options::{QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::sleep;

const REPLIES: &str = "reply.alerts";
const EVENTS: &str = "test.alerts";
/// A piece of the statement that commits.
const COMMIT: &str = "jit_commit";

/// A daemon whose alerts are watched, its store, and an account `one`.
struct Scene {
    sandbox: Sandbox,
    store: Store,
    daemon: Daemon,
    one: Held,
    events: Mailbox,
}

impl Scene {
    /// `None` without services. One lane, so that what waits for it is certain; an alert a level at most.
    async fn set(settings: &[(&str, &str)]) -> Option<Self> {
        let mut sandbox = Sandbox::alone().await?;
        let quiet = [
            ("JITAUTH_PIPELINE__LANES", "1"),
            ("JITAUTH_ALERTS__EVERY_S", "3600"),
            ("JITAUTH_ALERTS__STALL_MS", "600000"),
            ("JITAUTH_POSTGRES__LOCK_TIMEOUT_MS", "500"),
            ("JITAUTH_POSTGRES__COMMIT_TIMEOUT_MS", "1500"),
        ];
        for (key, value) in quiet.iter().chain(settings) {
            sandbox.settings = sandbox.settings.with(key, value);
        }
        let store = sandbox.store().await;
        let world = World::new(&store);
        let program = world.program("p", Program::default()).await;
        let one = world.holder(program, "one", Holder::default()).await;
        let events = listen(&sandbox).await;
        let daemon = sandbox.daemon().await;
        let scene = Self { sandbox, store, daemon, one, events };
        // Connections, plans and books are made by now, and no alert was raised for that.
        for nth in 0..3 {
            scene.authorize(&request(&format!("warm-{nth}"), "crd_one")).await;
        }
        if !scene.alerts().is_empty() {
            // A machine that is busy enough to be slow now has spent the one alert that is looked for.
            eprintln!("the first decisions were slow: {:?}", scene.alerts());
        }
        Some(scene)
    }

    async fn authorize(&self, request: &Request) {
        let reply = self.daemon.http().authorize(request.body()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    fn alerts(&self) -> Vec<Value> {
        self.daemon.log().into_iter().filter(|line| line["event"] == "latency_alert").collect()
    }

    /// Waits for a critical alert of this kind, and checks that it says the cause everywhere, and that there is no second one.
    async fn alerted(&self, kind: &str, cause: &str) -> Value {
        let is = |line: &Value| line["alert"] == "critical" && line["kind"] == kind;
        let line = eventually(&format!("a critical {kind} alert"), async || self.alerts().into_iter().find(is)).await;
        assert_eq!(line["cause"], cause, "{line}");
        let event = eventually("the event", async || {
            let all: Vec<Value> = self.events.all().iter().map(super::support::amqp::Message::json).collect();
            all.into_iter().find(|event| event["kind"] == kind && event["level"] == "critical")
        })
        .await;
        assert_eq!((&event["version"], &event["type"], &event["cause"]), (&1.into(), &"latency.alert".into(), &cause.into()), "{event}");
        // As long as the watcher takes to look several times more.
        sleep(Duration::from_millis(1200)).await;
        let of_kind: Vec<_> = self.alerts().into_iter().filter(|line| is(line)).collect();
        assert_eq!(of_kind.len(), 1, "one alert and no storm: {of_kind:?}");
        let metrics = Metrics::of(&self.daemon.http()).await;
        let counted = metrics.get(&format!("jitauth_latency_alerts_total{{level=\"critical\",cause=\"{cause}\"}}"));
        assert!((counted - 1.0).abs() < f64::EPSILON, "{counted} alerts were counted");
        let told = format!("{:?} {:?}", self.alerts(), self.events.all().iter().map(|event| event.json()).collect::<Vec<_>>());
        assert!(!told.contains("crd_") && !told.contains("usr_"), "no alert names a card or a person: {told}");
        line
    }
}

/// A queue that hears all alerts.
async fn listen(sandbox: &Sandbox) -> Mailbox {
    let amqp = sandbox.amqp().await;
    let channel = amqp.channel().await.expect("RabbitMQ answers");
    channel.queue_declare(EVENTS.into(), QueueDeclareOptions::durable(), FieldTable::default()).await.expect("a queue");
    let (binding, nothing) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(EVENTS.into(), "events".into(), "latency.alert".into(), binding, nothing).await.expect("bound");
    amqp.collect(EVENTS).await
}

fn request(id: &str, card: &str) -> Request {
    Request::new(id).card(card).amount("1.00").deadline_ms(30_000)
}

fn properties(id: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(id.into()).with_reply_to(REPLIES.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_holds() {
    let Some(scene) = Scene::set(&[]).await else { return };
    let outside = Outside::holding_account(&scene.store, scene.one.account).await;
    let http = scene.daemon.http();
    let many: Vec<_> = (0..30).map(|nth| request(&format!("held-{nth}"), "crd_one").body()).collect();
    let answers = many.into_iter().map(|body| {
        let http = http.clone();
        tokio::spawn(async move { http.authorize(body).await })
    });
    let answers: Vec<_> = answers.collect();
    assert!(waits_for_lock(&scene.store, COMMIT, async || false).await);
    sleep(Duration::from_millis(300)).await;
    outside.release().await;
    for answer in answers {
        assert_eq!(answer.await.expect("an answer").status, 200);
    }
    let line = scene.alerted("latency", "commit_wait").await;
    assert!(line["count"].as_u64().is_some_and(|count| count > 1), "the others are counted: {line}");
    assert_eq!(line["slowest_span"], "commit", "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_has_more_than_it_can_do() {
    // One decision a commit, so that many of them queue up, and no commit is slow by itself.
    let crowd = [("JITAUTH_PIPELINE__BATCH_MAX", "1"), ("JITAUTH_ALERTS__WARNING_MS", "200"), ("JITAUTH_ALERTS__CRITICAL_MS", "200")];
    let Some(scene) = Scene::set(&crowd).await else { return };
    let http = scene.daemon.http();
    // A fast disk takes a quarter of a millisecond for each: enough of them for any machine.
    let answers = (0..1000).map(|nth| {
        let (http, body) = (http.clone(), request(&format!("crowd-{nth}"), "crd_one").amount("0.01").deadline_ms(20_000).body());
        tokio::spawn(async move { http.authorize(body).await })
    });
    let answers: Vec<_> = answers.collect();
    for answer in answers {
        assert_eq!(answer.await.expect("an answer").status, 200);
    }
    let line = scene.alerted("latency", "lane_wait").await;
    assert_eq!(line["slowest_span"], "lane", "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_facts_from_the_store() {
    let Some(scene) = Scene::set(&[]).await else { return };
    World::new(&scene.store).holder(scene.one.program, "cold", Holder::default()).await;
    let outside = Outside::holding(&scene.store, "lock table users in access exclusive mode").await;
    let http = scene.daemon.http();
    let answer = tokio::spawn(async move { http.authorize(request("cold", "crd_cold").body()).await });
    sleep(Duration::from_millis(400)).await;
    outside.release().await;
    assert_eq!(answer.await.expect("an answer").json()["decision"], "approved");
    scene.alerted("latency", "database").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs() {
    let Some(scene) = Scene::set(&[("JITAUTH_REDIS__COMMAND_TIMEOUT_MS", "800")]).await else { return };
    World::new(&scene.store).holder(scene.one.program, "cold", Holder::default()).await;
    let services = scene.sandbox.external().services;
    services.pause(Service::Redis).await;
    scene.authorize(&request("cold", "crd_cold")).await;
    services.resume(Service::Redis).await;
    scene.alerted("latency", "redis").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_confirm() {
    let Some(scene) = Scene::set(&[]).await else { return };
    let services = scene.sandbox.external().services;
    let amqp = scene.sandbox.amqp().await;
    let replies = amqp.collect(REPLIES).await;
    let outside = Outside::holding_account(&scene.store, scene.one.account).await;
    amqp.request(request("unconfirmed", "crd_one").body(), properties("unconfirmed")).await;
    assert!(waits_for_lock(&scene.store, COMMIT, async || false).await);
    services.pause(Service::Rabbitmq).await;
    outside.release().await;
    sleep(Duration::from_millis(2500)).await;
    services.resume(Service::Rabbitmq).await;
    replies.response("unconfirmed").await;
    let line = scene.alerted("latency", "confirm_wait").await;
    assert_eq!(line["authorization_id"], "unconfirmed", "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_gone_when_there_is_an_answer() {
    let Some(scene) = Scene::set(&[]).await else { return };
    let services = scene.sandbox.external().services;
    let amqp = scene.sandbox.amqp().await;
    amqp.collect(REPLIES).await;
    let outside = Outside::holding_account(&scene.store, scene.one.account).await;
    // A deadline that outlasts the outage: a request that was late before the broker went would be answered by the next delivery.
    amqp.request(request("unsent", "crd_one").deadline_ms(20_000).body(), properties("unsent")).await;
    assert!(waits_for_lock(&scene.store, COMMIT, async || false).await);
    services.kill(Service::Rabbitmq).await;
    let gone = |line: &Value| line["event"] == "broker_disconnected" && line["role"] == "publisher";
    // Written to a connection that nobody has missed yet, the answer would count as told.
    eventually("the broker to be missed", async || scene.daemon.log().iter().any(gone).then_some(())).await;
    outside.release().await;
    services.start(Service::Rabbitmq).await;
    scene.alerted("latency", "publish").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the time of sending is the wall clock's")]
async fn a_wait_before_we_received_it() {
    let Some(scene) = Scene::set(&[]).await else { return };
    let sent = jiff::Timestamp::now() - jiff::SignedDuration::from_millis(1500);
    scene.authorize(&request("waited", "crd_one").sent_at(&sent.to_string())).await;
    let line = scene.alerted("queue_wait", "queue_wait").await;
    assert_eq!(line["authorization_id"], "waited", "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_that_ends_nothing() {
    let Some(scene) = Scene::set(&[("JITAUTH_ALERTS__STALL_MS", "500"), ("JITAUTH_ALERTS__EVERY_S", "2")]).await else { return };
    let services = scene.sandbox.external().services;
    services.pause(Service::Postgres).await;
    let http = scene.daemon.http();
    let answer = tokio::spawn(async move { http.authorize(request("stalled", "crd_one").body()).await });
    let line = eventually("a stall", async || scene.alerts().into_iter().find(|line| line["kind"] == "stall")).await;
    services.resume(Service::Postgres).await;
    answer.await.expect("an answer");
    assert_eq!((&line["cause"], &line["open"]), (&"stalled".into(), &1.into()), "{line}");
    let event =
        eventually("the event", async || scene.events.all().iter().map(|event| event.json()).find(|event| event["kind"] == "stall")).await;
    assert_eq!((&event["open"], &event["worst"]), (&1.into(), &Value::Null), "{event}");
    scene.alerted("latency", "commit_wait").await;
}
