//! A ledger that stands still under a flood: everybody is answered, what cannot be decided in time is declined in time, memory stays
//! within bounds, and the books are right when the ledger goes on.

use crate::support::{
    PATIENCE,
    amqp::{Amqp, Mailbox},
    daemon::Daemon,
    eventually,
    http::Http,
    metrics::Metrics,
    outside::Outside,
    request::Request,
    sandbox::Sandbox,
    services::{Service, Services},
    store::Store,
    world::{Holder, Limit, Owner, Program, World},
};
use futures_util::future::join_all;
use lapin::BasicProperties;
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    task,
    time::{Instant, timeout},
};

const REPLIES: &str = "reply.flood";
const CARDS: usize = 50;
/// Over HTTP: more than `http.in_flight_max`, so that some are turned away at the door.
const HTTP_REQUESTS: usize = 1_300;
const AMQP_REQUESTS: usize = 500;
/// Two lanes with a full batch each: all that can be in a commit that stands still.
const STUCK_MAX: usize = 2 * 64;

/// Declined this long before the deadline, so that a busy machine has the time to say so.
const SHED_BEFORE_MS: u32 = 1_500;
const HTTP_DEADLINE_MS: u32 = 4_500;
/// The broker keeps what exceeds the prefetch, and these count from their receipt: short, so that all get their turn in the stall.
const AMQP_DEADLINE_MS: u32 = 2_000;

/// More than the daemon may grow by, in KiB, in this profile and with every buffer full.
const GROWTH_MAX_KIB: u64 = 256 * 1024;

/// An answer: its bytes, and when it came after it was asked for.
type Answers = Arc<Mutex<BTreeMap<String, (Vec<u8>, Duration)>>>;

struct Flood {
    http: Http,
    /// With a broker only.
    amqp: Option<(Vec<Amqp>, Mailbox)>,
    answers: Answers,
}

fn settings(mut sandbox: Sandbox) -> Sandbox {
    for (name, value) in [("SHED_BEFORE_MS", SHED_BEFORE_MS.to_string()), ("LANES", "2".to_owned()), ("BATCH_MAX", "64".to_owned())] {
        sandbox.settings = sandbox.settings.with(&format!("JITAUTH_PIPELINE__{name}"), &value);
    }
    sandbox
}

async fn prepare(store: &Store) {
    let world = World::new(store);
    let program = world.program("flood", Program::default()).await;
    // The second half is never asked for before the flood: nobody knows its facts.
    for number in 0..2 * CARDS {
        let held = world.holder(program, &format!("flood{number}"), Holder { posted: 100_000_000, ..Holder::default() }).await;
        world.limit(Owner::Card(held.card), Limit { cap_count: Some(100_000), ..Limit::default() }).await;
    }
}

/// One in ten is for a card whose facts are not known yet.
fn card(number: usize) -> String {
    let cold = if number.is_multiple_of(10) { CARDS } else { 0 };
    format!("crd_flood{}", cold + number % CARDS)
}

fn request(id: &str, number: usize) -> Request {
    Request::new(id).card(&card(number)).amount("1.00")
}

fn rss_kib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a running daemon");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

impl Flood {
    async fn new(daemon: &Daemon, broker: Option<&Sandbox>) -> Self {
        let amqp = match broker {
            Some(sandbox) => {
                let producers = join_all((0..4).map(|_| sandbox.amqp())).await;
                let mailbox = producers[0].collect(REPLIES).await;
                Some((producers, mailbox))
            }
            None => None,
        };
        Self { http: daemon.http(), amqp, answers: Answers::default() }
    }

    /// Sends all of it, and waits until the broker has its part.
    #[expect(clippy::disallowed_methods, reason = "a processor reads its own clock")]
    async fn begin(&self) {
        for number in 0..HTTP_REQUESTS {
            let (http, answers, id) = (self.http.clone(), Arc::clone(&self.answers), format!("http-{number}"));
            // How long it waits to be accepted counts.
            let request = request(&id, number).deadline_ms(HTTP_DEADLINE_MS);
            tokio::spawn(async move {
                let (began, body) = (Instant::now(), request.sent_at(&jiff::Timestamp::now().to_string()).body());
                // Who is never answered is found missing.
                let Ok(reply) = http.try_authorize(body).await else { return };
                assert_eq!(reply.status, 200, "{id}: {}", reply.text());
                assert!(answers.lock().insert(id, (reply.body.to_vec(), began.elapsed())).is_none());
            });
        }
        let Some((producers, _)) = &self.amqp else { return };
        let publish = async |share: usize| {
            for number in (share..AMQP_REQUESTS).step_by(producers.len()) {
                let id = format!("amqp-{number}");
                let properties = BasicProperties::default().with_message_id(id.as_str().into()).with_reply_to(REPLIES.into());
                producers[share].request(request(&id, number).deadline_ms(AMQP_DEADLINE_MS).body(), properties).await;
            }
        };
        join_all((0..producers.len()).map(publish)).await;
    }

    fn sent(&self) -> usize {
        HTTP_REQUESTS + self.amqp.as_ref().map_or(0, |_| AMQP_REQUESTS)
    }

    /// Everybody's answer so far; the time is that of HTTP only.
    fn answered(&self) -> BTreeMap<String, (Vec<u8>, Option<Duration>)> {
        let over_http = self.answers.lock().clone().into_iter().map(|(id, (body, took))| (id, (body, Some(took))));
        let messages = self.amqp.iter().flat_map(|(_, mailbox)| mailbox.all());
        let over_amqp = messages.map(|message| (message.message_id.clone().expect("an id"), (message.body, None)));
        over_http.chain(over_amqp).collect()
    }

    /// Waits until all but `rest` are answered.
    async fn until_unanswered(&self, rest: usize) {
        let enough = async {
            while self.sent() - self.answered().len() > rest {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = timeout(PATIENCE, enough).await;
        assert!(waited.is_ok(), "{} of {} were not answered", self.sent() - self.answered().len(), self.sent());
    }
}

/// Floods a daemon whose ledger stands still, lets it go on once all are answered but `stuck_max`, and proves the rest.
async fn check(name: &str, sandbox: &Sandbox, stuck_max: usize, stall: impl AsyncFnOnce(&Store) -> Stall) {
    let (daemon, store) = (sandbox.daemon().await, sandbox.store().await);
    prepare(&store).await;
    let http = daemon.http();
    for number in 0..CARDS {
        let warm = Request::new(&format!("warm-{number}")).card(&format!("crd_flood{number}")).amount("1.00");
        assert_eq!(http.authorize(warm.body()).await.json()["decision"], "approved");
    }
    let flood = Flood::new(&daemon, sandbox.external.is_some().then_some(sandbox)).await;
    let before_kib = rss_kib(&daemon);

    let stall = stall(&store).await;
    let began = Instant::now();
    flood.begin().await;
    flood.until_unanswered(stuck_max).await;
    let (stalled, full_kib) = (began.elapsed(), rss_kib(&daemon));
    let in_stall = flood.answered();
    if let Stall::Paused(_) = stall {
        eventually("a daemon that says it is not ready", async || (http.get("/ready").await.ok()?.status == 503).then_some(())).await;
    }
    stall.end().await;
    flood.until_unanswered(0).await;

    let answers = flood.answered();
    let slowest = check_in_time(&in_stall);
    let approved = check_answers(&store, &answers).await;
    let growth_kib = full_kib.max(rss_kib(&daemon)).saturating_sub(before_kib);
    eprintln!(
        "sheds, {name}: {} requests, {} answered in a stall of {stalled:?} (slowest {slowest:?} of {HTTP_DEADLINE_MS} ms), {} after it; \
         {approved} approved; memory {} MiB before, {} MiB in the stall, {} MiB after",
        flood.sent(),
        in_stall.len(),
        answers.len() - in_stall.len(),
        before_kib / 1024,
        full_kib / 1024,
        rss_kib(&daemon) / 1024
    );
    assert!(growth_kib < GROWTH_MAX_KIB, "the daemon grew by {growth_kib} KiB");
    decides_normally(&daemon, &flood).await;
    store.check_books().await;
}

/// Whoever was answered in the stall was told explicitly, and before it stopped listening.
fn check_in_time(in_stall: &BTreeMap<String, (Vec<u8>, Option<Duration>)>) -> Duration {
    let mut slowest = (Duration::ZERO, "");
    for (id, (body, took)) in in_stall {
        let json: Value = serde_json::from_slice(body).unwrap();
        assert_eq!((json["decision"].as_str(), json["reason"].as_str()), (Some("declined"), Some("system_unavailable")), "{id}: {json}");
        slowest = slowest.max((took.unwrap_or_default(), id));
    }
    let (took, id) = slowest;
    let late = in_stall.values().filter(|(_, took)| took.is_some_and(|took| took >= Duration::from_millis(HTTP_DEADLINE_MS.into())));
    assert_eq!(late.count(), 0, "answered after their deadline; the slowest, {id}, took {took:?}");
    took
}

/// Every answer is what the store has; what it does not have was declined. Gives the number of approvals.
async fn check_answers(store: &Store, answers: &BTreeMap<String, (Vec<u8>, Option<Duration>)>) -> i64 {
    let rows = store.rows("select id from authorizations where id not like 'warm-%'").await;
    let journal: BTreeSet<_> = rows.into_iter().map(|row| row[0].clone().unwrap()).collect();
    for id in &journal {
        let (body, _) = answers.get(id).unwrap_or_else(|| panic!("{id} was decided and not answered"));
        assert_eq!(store.response(id).await.as_deref(), Some(&body[..]), "{id}: what was sent is what is stored");
    }
    let approvals = answers.iter().filter(|(id, (body, _))| {
        let json: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(json["id"].as_str(), Some(id.as_str()));
        let unjournaled = !journal.contains(id.as_str());
        assert!(!unjournaled || json["reason"] == "system_unavailable", "{id} is not in the journal: {json}");
        json["decision"] == "approved"
    });
    let approvals = i64::try_from(approvals.count()).unwrap();
    let open = "select count(*) from holds where status = 1 and authorization_id not like 'warm-%'";
    assert_eq!(store.number(open).await, approvals, "one hold for each approval that was answered");
    approvals
}

/// Over every edge, on facts that were known before the flood and on facts that never were.
async fn decides_normally(daemon: &Daemon, flood: &Flood) {
    eventually("a ready daemon", async || (flood.http.get("/ready").await.ok()?.status == 200).then_some(())).await;
    let asked = |id: &str, number: usize| Request::new(id).card(&format!("crd_flood{number}")).deadline_ms(60_000);
    for (id, number) in [("then-warm", 1), ("then-cold", CARDS + 1)] {
        let reply = flood.http.authorize(asked(id, number).body()).await;
        assert_eq!(reply.json()["decision"], "approved", "{}\n{}", reply.text(), daemon.text());
    }
    if let Some((producers, mailbox)) = &flood.amqp {
        let properties = BasicProperties::default().with_message_id("then-amqp".into()).with_reply_to(REPLIES.into());
        producers[0].request(asked("then-amqp", 2).body(), properties).await;
        assert_eq!(mailbox.response("then-amqp").await.json()["decision"], "approved");
    }
    assert_eq!(Metrics::of(&flood.http).await.get("jitauth_inflight_messages"), 0.0);
}

/// What keeps the ledger from going on.
enum Stall {
    Lock(Outside),
    Paused(Paused),
}

/// A server that goes on whatever becomes of the test: others need it.
struct Paused(&'static Services);

impl Drop for Paused {
    fn drop(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "a drop that must wait, in a test of its own runtime")]
        task::block_in_place(|| Handle::current().block_on(self.0.resume(Service::Postgres)));
    }
}

impl Stall {
    async fn end(self) {
        match self {
            Self::Lock(outside) => outside.release().await,
            Self::Paused(paused) => drop(paused),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_a_server_that_hangs() {
    let Some(sandbox) = Sandbox::alone().await else { return };
    let sandbox = settings(sandbox);
    let services = sandbox.external().services;
    check("PostgreSQL hung", &sandbox, STUCK_MAX, async |_| {
        services.pause(Service::Postgres).await;
        Stall::Paused(Paused(services))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_a_locked_table() {
    let Some(sandbox) = Sandbox::services().await else { return };
    let sandbox = settings(sandbox);
    // The lock times out, so nothing is stuck in a commit: everybody is answered while it lasts.
    let lock = "lock table accounts in access exclusive mode";
    check("PostgreSQL table locked", &sandbox, 0, async |store| Stall::Lock(Outside::holding(store, lock).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_a_locked_file() {
    let sandbox = settings(Sandbox::embedded());
    check("SQLite file locked", &sandbox, 0, async |store| Stall::Lock(Outside::holding(store, "").await)).await;
}
