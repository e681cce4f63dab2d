//! Dead letters can be looked at without end, and sent again without losing one or deciding one twice, whatever is killed when.

use crate::support::{
    amqp::{Amqp, CREATED, DEAD_LETTERS, EXCHANGE, REQUESTS},
    daemon::{Daemon, Settings},
    eventually,
    request::Request,
    sandbox::Sandbox,
    store::Store,
    world::{Holder, Program, World},
};
use crate::traffic::figure;
use lapin::{
    BasicProperties, Confirmation,
    message::Delivery,
    options::{BasicGetOptions, QueueDeleteOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use std::{collections::BTreeMap, process::Output};

const FAILED: &str = "jit-funding.failed";
/// Not allowed by default, so that what asks for it is dead-lettered undecided.
const REPLIES: &str = "later.answers";
const ALLOWED: &str = "JITAUTH_BROKER__REPLY_TO_ALLOWED";
const LONG_MS: u32 = 60_000;

async fn prepare(store: &Store) {
    let world = World::new(store);
    let program = world.program("letters", Program::default()).await;
    world.holder(program, "approve", Holder { posted: 100_000_000, ..Holder::default() }).await;
}

#[expect(clippy::disallowed_methods, reason = "letters are as old as their test says, by the clock on the wall")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A dead letter as the daemon writes it, put into the queue by hand.
struct Written {
    id: String,
    reason: &'static str,
    failed_at: jiff::Timestamp,
    replays: Option<i64>,
    redacted: bool,
    body: Vec<u8>,
}

impl Written {
    fn new(id: &str) -> Self {
        let body = Request::new(id).deadline_ms(LONG_MS).body();
        let failed_at = now();
        Self { id: id.to_owned(), reason: "reply_to_forbidden", failed_at, replays: None, redacted: false, body }
    }

    fn properties(&self) -> BasicProperties {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut headers = FieldTable::default();
        for (name, value) in [
            ("x-reason", text(self.reason)),
            ("x-detail", text("told by the test")),
            ("x-attempts", AMQPValue::LongLongInt(1)),
            ("x-original-exchange", text(EXCHANGE)),
            ("x-original-routing-key", text(CREATED)),
            ("x-failed-at", text(&self.failed_at.to_string())),
            ("x-dlq-id", text(&format!("{:0>32}", self.id.replace(|c: char| !c.is_ascii_hexdigit(), "")))),
            ("x-tenant", text("acme")),
        ] {
            headers.insert(name.into(), value);
        }
        if let Some(replays) = self.replays {
            headers.insert("x-replays".into(), AMQPValue::LongLongInt(replays));
        }
        if self.redacted {
            headers.insert("x-redacted".into(), AMQPValue::Boolean(true));
        }
        BasicProperties::default()
            .with_message_id(self.id.as_str().into())
            .with_correlation_id(format!("cor-{}", self.id).into())
            .with_reply_to(REPLIES.into())
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_headers(headers)
    }

    async fn put(&self, amqp: &Amqp) {
        let confirmation = amqp.publish(EXCHANGE, FAILED, &self.body, self.properties()).await;
        assert_eq!(confirmation, Ok(Confirmation::Ack(None)), "{}", self.id);
    }
}

async fn take(amqp: &Amqp, queue: &str) -> Option<Delivery> {
    let channel = amqp.channel().await.expect("RabbitMQ answers");
    let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.expect("the queue exists");
    got.map(|got| got.delivery)
}

type Kept = (String, BasicProperties, Vec<u8>);

/// The same messages in the same order; says which are not without printing them all.
fn same(left: &[Kept], expected: &[Kept], what: &str) {
    let ids = |all: &[Kept]| all.iter().map(|(id, ..)| id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(left), ids(expected), "{what}");
    for (left, expected) in left.iter().zip(expected) {
        assert_eq!(left.1, expected.1, "{what}: {}", left.0);
        assert!(left.2 == expected.2, "{what}: {} has another body", left.0);
    }
}

/// Everything in a queue, in order, each as its id, its properties as the broker did not change them, and its body.
async fn drained(amqp: &Amqp, queue: &str) -> Vec<Kept> {
    let mut all = Vec::new();
    while let Some(delivery) = take(amqp, queue).await {
        let headers = delivery.properties.headers().clone().unwrap_or_default();
        let mut kept = FieldTable::default();
        for (name, value) in headers.into_iter().filter(|(name, _)| name.as_str() != "x-delivery-count") {
            kept.insert(name.clone(), value.clone());
        }
        let id = delivery.properties.message_id().as_ref().map_or(String::new(), ToString::to_string);
        all.push((id, delivery.properties.clone().with_headers(kept), delivery.data));
    }
    all
}

async fn dlq(settings: &Settings, arguments: &[&str]) -> Output {
    settings.run(&[&["dlq"], arguments].concat()).await
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The JSON that a command printed, line by line.
async fn json(settings: &Settings, arguments: &[&str]) -> Vec<Value> {
    let output = dlq(settings, &[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}\n{}", stdout(&output), String::from_utf8_lossy(&output.stderr));
    stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn listed(answer: &[Value]) -> Vec<String> {
    let letters = answer[0]["letters"].as_array().expect("letters");
    letters.iter().map(|letter| letter["message_id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What was done with each message, by its id: the outcome, and why.
fn outcomes(answer: &[Value]) -> BTreeMap<String, String> {
    let of = |line: &Value| {
        let why = line["why"].as_str().map_or(String::new(), |why| format!(" {why}"));
        (line["message_id"].as_str().expect("an id").to_owned(), format!("{}{why}", line["outcome"].as_str().expect("an outcome")))
    };
    answer[..answer.len() - 1].iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_leaves_the_queue_as_it_was() {
    // Above 32, where a quorum queue begins to shuffle what comes back in other ways.
    const LETTERS: usize = 80;
    for queue_type in ["quorum", "classic"] {
        let Some(sandbox) = Sandbox::services().await else { return };
        let amqp = sandbox.amqp().await;
        let settings = sandbox.settings.clone().with("JITAUTH_BROKER__QUEUE_TYPE", queue_type);
        if queue_type == "classic" {
            let channel = amqp.channel().await.unwrap();
            for queue in [
                DEAD_LETTERS,
                REQUESTS,
                "jit-funding-responses",
                "transaction-processing-queue",
                "transaction-processing-queue-dlq",
                "webhook-queue",
                "webhook-queue-dlq",
            ] {
                channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
            }
            settings.run_well(&["topology", "apply"]).await;
        }
        let letters: Vec<Written> = (0..LETTERS).map(|number| Written::new(&format!("look-{number}"))).collect();
        for letter in &letters {
            letter.put(&amqp).await;
        }
        let ids: Vec<String> = letters.iter().map(|letter| letter.id.clone()).collect();
        let began = tokio::time::Instant::now();
        for round in 0..50 {
            // Some looks stop in the middle, as a limit makes them.
            let limit = if round % 3 == 0 { "7" } else { "10000" };
            let seen = listed(&json(&settings, &["list", "--limit", limit]).await);
            assert_eq!(seen, ids[..seen.len()], "{queue_type}, round {round}");
            assert_eq!(seen.len(), if round % 3 == 0 { 7 } else { LETTERS }, "{queue_type}, round {round}");
        }
        figure(&format!("{queue_type}: 50 looks at {LETTERS} letters took {:?}", began.elapsed()));
        let dry = json(&settings, &["replay", "--dry-run"]).await;
        assert_eq!(outcomes(&dry).values().filter(|outcome| *outcome == "would_replay").count(), LETTERS);
        json(&settings, &["stats"]).await;
        json(&settings, &["show", "look-3"]).await;
        assert_eq!(amqp.depth(REQUESTS).await, 0, "{queue_type}: a dry run sent something");

        let left = drained(&amqp, DEAD_LETTERS).await;
        let expected: Vec<_> = letters.iter().map(|letter| (letter.id.clone(), letter.properties(), letter.body.clone())).collect();
        same(&left, &expected, queue_type);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_sent_again_is_sent_once_as_it_came() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let amqp = sandbox.amqp().await;
    let hour_ago = now() - jiff::SignedDuration::from_hours(1);
    let request = |id: &str| Request::new(id).deadline_ms(LONG_MS);
    let case = |id: &str| Written::new(id);
    let sent_at = |at: jiff::Timestamp, id: &str| request(id).sent_at(&at.to_string()).body();
    // Id, letter, and what becomes of it: plainly, and with a new deadline.
    let again = ("replayed", "replayed");
    let never = |why: &'static str| (why, why);
    let stale = ("refused stale", "replayed");
    let cases = [
        (case("good"), again),
        (Written { replays: Some(2), ..case("twice") }, again),
        (Written { replays: Some(3), ..case("thrice") }, never("refused too_often")),
        (Written { reason: "attempts_exhausted", ..case("exhausted") }, again),
        (Written { reason: "delivery_limit", ..case("limit") }, again),
        (Written { reason: "malformed", ..case("malformed") }, never("refused input")),
        (Written { reason: "invalid_amount", ..case("amount") }, never("refused input")),
        (Written { reason: "pan_present", ..case("pan") }, never("refused redacted")),
        (Written { redacted: true, ..case("blotted") }, never("refused redacted")),
        (Written { body: b"{}".to_vec(), ..case("unreadable") }, never("refused input")),
        (Written { body: sent_at(hour_ago, "stale"), ..case("stale") }, stale),
        (Written { failed_at: hour_ago, ..case("failed-long-ago") }, stale),
        (Written { failed_at: hour_ago, body: sent_at(now(), "sent-after"), ..case("sent-after") }, stale),
    ];
    for (deadline, with_new) in [(&[][..], false), (&["--deadline-ms", "5000"][..], true)] {
        for (letter, _) in &cases {
            letter.put(&amqp).await;
        }
        let done = json(&sandbox.settings, &[&["replay", "--rate", "1000"], deadline].concat()).await;
        let expected: BTreeMap<String, String> = cases
            .iter()
            .map(|(letter, (plainly, renewed))| (letter.id.clone(), if with_new { *renewed } else { *plainly }.to_owned()))
            .collect();
        assert_eq!(outcomes(&done), expected, "with a new deadline: {with_new}");

        let (arrived, left) = (drained(&amqp, REQUESTS).await, drained(&amqp, DEAD_LETTERS).await);
        let stays: Vec<_> = cases.iter().filter(|(letter, _)| expected[&letter.id] != "replayed").collect();
        let stays: Vec<_> = stays.iter().map(|(letter, _)| (letter.id.clone(), letter.properties(), letter.body.clone())).collect();
        same(&left, &stays, "what is refused");
        let goes: Vec<_> = cases.iter().filter(|(letter, _)| expected[&letter.id] == "replayed").map(|(letter, _)| letter).collect();
        assert_eq!(arrived.len(), goes.len());
        for ((id, properties, body), letter) in arrived.iter().zip(goes) {
            assert_eq!(id, &letter.id);
            let mut headers = FieldTable::default();
            headers.insert("x-tenant".into(), AMQPValue::LongString("acme".into()));
            headers.insert("x-replays".into(), AMQPValue::LongLongInt(letter.replays.unwrap_or_default() + 1));
            assert_eq!(*properties, letter.properties().with_headers(headers), "{id}");
            let (mut sent, then): (Value, Value) = (serde_json::from_slice(body).unwrap(), serde_json::from_slice(&letter.body).unwrap());
            if with_new {
                assert_eq!(sent["deadline_ms"], 5000, "{id}");
                let sent_at: jiff::Timestamp = sent["sent_at"].as_str().unwrap().parse().unwrap();
                assert!(now().duration_since(sent_at).as_secs() < 600, "{id}: {sent_at}");
                sent["deadline_ms"] = then["deadline_ms"].clone();
                match then.get("sent_at") {
                    Some(sent_at) => sent["sent_at"] = sent_at.clone(),
                    None => drop(sent.as_object_mut().unwrap().remove("sent_at")),
                }
            } else {
                assert_eq!(*body, letter.body, "{id}");
            }
            assert_eq!(sent, then, "{id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_choose_what_is_listed_and_sent() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let amqp = sandbox.amqp().await;
    let ago = |minutes: i64| now() - jiff::SignedDuration::from_mins(minutes);
    for letter in [
        Written { failed_at: ago(50), ..Written::new("a1") },
        Written { failed_at: ago(30), reason: "reply_unroutable", ..Written::new("b2") },
        Written { failed_at: ago(10), ..Written::new("c3") },
    ] {
        letter.put(&amqp).await;
    }
    let padded = "000000000000000000000000000000b2";
    let instant = ago(20).to_string();
    for (arguments, expected) in [
        (&[][..], &["a1", "b2", "c3"][..]),
        (&["--reason", "reply_unroutable"], &["b2"]),
        (&["--reason", "reply_unroutable", "--reason", "reply_to_forbidden"], &["a1", "b2", "c3"]),
        (&["--reason", "nonsense"], &[]),
        (&["--since", "40m"], &["b2", "c3"]),
        (&["--until", "40m"], &["a1"]),
        (&["--since", "40m", "--until", &instant], &["b2"]),
        (&["--id", "c3"], &["c3"]),
        (&["--id", padded], &["b2"]),
        (&["--limit", "2"], &["a1", "b2"]),
    ] {
        assert_eq!(listed(&json(&sandbox.settings, &[&["list"], arguments].concat()).await), expected, "{arguments:?}");
    }
    let done = json(&sandbox.settings, &["replay", "--since", "40m", "--limit", "1", "--deadline-ms", "1000"]).await;
    assert_eq!(outcomes(&done), BTreeMap::from([("b2".to_owned(), "replayed".to_owned())]));
    assert_eq!((amqp.depth(REQUESTS).await, amqp.depth(DEAD_LETTERS).await), (1, 2));
}

/// Counts what went wrong again and again, with the daemon's own letters from end to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_again_is_sent_three_times_and_then_stays() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare(&store).await;
    let amqp = sandbox.amqp().await;
    let answers = amqp.collect(REPLIES).await;
    let mut daemon = sandbox.daemon().await;
    let reply = BasicProperties::default().with_message_id("again".into()).with_reply_to(REPLIES.into());
    for id in ["again", "later"] {
        let reply = reply.clone().with_message_id(id.into());
        amqp.request(Request::new(id).deadline_ms(LONG_MS).body(), reply).await;
        eventually("a dead letter", async || (amqp.depth(DEAD_LETTERS).await > 0).then_some(())).await;
        if id == "again" {
            for nth in 1..=4 {
                let done = outcomes(&json(&sandbox.settings, &["replay", "--id", id]).await);
                let expected = if nth <= 3 { "replayed" } else { "refused too_often" };
                assert_eq!(done[id], expected, "time {nth}");
                eventually("the letter again", async || (amqp.depth(DEAD_LETTERS).await > 0).then_some(())).await;
            }
            let shown = json(&sandbox.settings, &["show", id]).await;
            assert_eq!((&shown[0]["replays"], &shown[0]["reason"]), (&3.into(), &"reply_to_forbidden".into()));
            amqp.channel().await.unwrap().queue_purge(DEAD_LETTERS.into(), QueuePurgeOptions::default()).await.unwrap();
        }
    }
    assert_eq!(store.number("select count(*) from authorizations").await, 0, "decided before its answer may go anywhere");
    // The cause is mended, and what was left behind is decided.
    daemon.terminate().await;
    daemon.settings = daemon.settings.clone().with(ALLOWED, "later.");
    daemon.restart().await;
    assert_eq!(outcomes(&json(&sandbox.settings, &["replay"]).await)["later"], "replayed");
    let answer = answers.response("later").await;
    assert_eq!((answer.json()["decision"].as_str(), answer.header("x-replayed")), (Some("approved"), Some("false")));
    assert_eq!(amqp.depth(DEAD_LETTERS).await, 0);
    store.check_books().await;
}

/// Kills the command in the middle, again and again, at another point each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_killed_loses_nothing_and_decides_nothing_twice() {
    const LETTERS: usize = 300;
    let Some(sandbox) = Sandbox::services().await else { return };
    let store = sandbox.store().await;
    prepare(&store).await;
    let amqp = sandbox.amqp().await;
    let answers = amqp.collect(REPLIES).await;
    let ids: Vec<String> = (0..LETTERS).map(|number| format!("kill-{number}")).collect();
    for id in &ids {
        Written::new(id).put(&amqp).await;
    }
    let _daemon = Daemon::serve(sandbox.settings.clone().with(ALLOWED, "later.")).await;
    let mut kills = 0;
    while store.number("select count(*) from authorizations").await < 240 {
        // From a few milliseconds to a second: while it connects, publishes, waits for a confirm, acks or gives back.
        let life = std::time::Duration::from_millis(120 + 53 * kills % 400);
        let killed = tokio::time::timeout(life, dlq(&sandbox.settings, &["replay", "--rate", "200"])).await;
        kills += u64::from(killed.is_err());
        assert!(kills < 500, "the replay never gets on");
    }
    // Whoever was killed last may still hold letters for a moment.
    eventually("an empty dead letter queue", async || {
        let done = json(&sandbox.settings, &["replay", "--rate", "1000"]).await;
        let refused = outcomes(&done).into_values().find(|outcome| outcome != "replayed");
        assert_eq!(refused, None);
        (amqp.depth(DEAD_LETTERS).await == 0 && done.len() == 1).then_some(())
    })
    .await;
    answers.responses(&ids).await;
    eventually("an empty work queue", async || (amqp.depth(REQUESTS).await == 0).then_some(())).await;
    let mut twice = 0;
    for id in &ids {
        let all = answers.all_for(id);
        assert!(all.iter().all(|answer| answer.body == all[0].body), "{id} was answered in different ways");
        assert_eq!(all[0].json()["decision"], "approved", "{id}");
        twice += usize::from(all.len() > 1);
    }
    let journal = store.number("select count(*) from authorizations").await;
    let holds = store.number("select count(*) from holds where status = 1").await;
    assert_eq!((journal, holds), (300, 300), "decided once each");
    store.check_books().await;
    figure(&format!("{LETTERS} letters sent again through {kills} kills, {twice} of them more than once"));
    assert!(kills >= 5, "only {kills} kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_nowhere_stays() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let amqp = sandbox.amqp().await;
    let letters = [Written::new("one"), Written::new("two")];
    for letter in &letters {
        letter.put(&amqp).await;
    }
    let channel = amqp.channel().await.unwrap();
    channel.queue_delete(REQUESTS.into(), QueueDeleteOptions::default()).await.unwrap();
    let output = dlq(&sandbox.settings, &["replay"]).await;
    let (said, error) = (stdout(&output), String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(output.status.code(), Some(1), "{said}{error}");
    assert!(said.contains("FAILED: no queue takes it; run jitauth topology apply"), "{said}");
    assert!(error.contains("error: the replay ended early") && error.contains("\n  next: "), "{error}");
    for (arguments, code, part) in [
        (&["list", "--queue", "payroll"][..], 64, "give one of jit-funding-dlq, transaction-processing-queue-dlq, webhook-queue-dlq"),
        (&["show", "nobody"], 1, "has no letter \"nobody\""),
        (&["list", "--since", "yesterday"], 64, "give an instant such as"),
        (&["replay", "--rate", "0"], 64, "1 to 10000"),
    ] {
        let output = dlq(&sandbox.settings, arguments).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
    let expected: Vec<_> = letters.iter().map(|letter| (letter.id.clone(), letter.properties(), letter.body.clone())).collect();
    same(&drained(&amqp, DEAD_LETTERS).await, &expected, "what goes nowhere");
    let output = dlq(&sandbox.settings.clone().with("JITAUTH_BROKER__DEAD_LETTER_QUEUE", "gone-dlq"), &["list"]).await;
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
}
