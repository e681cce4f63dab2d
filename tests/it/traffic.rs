//! A steady load over AMQP whose every answer is foretold: whatever breaks meanwhile, no other decision may come out.

use crate::support::{
    amqp::{Amqp, CREATED, DEAD_LETTERS, EXCHANGE, Mailbox, Message, REQUESTS, RESPONSES},
    daemon::Daemon,
    eventually,
    metrics::Metrics,
    request::Request,
    sandbox::Sandbox,
    store::Store,
    world::{NEVER_US, Program, World},
};
use lapin::{BasicProperties, Confirmation};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Cards that are used again and again; every other request is the first of its card, so that no cache can help.
const HOT_CARDS: u64 = 64;
const CARDS: u64 = 6000;
const PRODUCERS: u64 = 4;
const PAUSE: Duration = Duration::from_millis(15);
pub(crate) const REPLIES: &str = "reply.load";

/// What the ids of requests without `reply_to` begin with.
const UNADDRESSED: &str = "unaddressed-";

/// How long one request waits for its answer.
const SHORT_MS: u32 = 1000;
const LONG_MS: u32 = 60_000;

/// What becomes of a request of the nth card; `None` is an approval.
const fn foretold(card: u64) -> Option<&'static str> {
    match card % 8 {
        1 => Some("insufficient_funds"),
        2 => Some("card_lost"),
        3 => Some("transaction_limit"),
        _ => None,
    }
}

/// Daemons that read a card when it is first used: then every other request has to wait for its facts.
pub(crate) fn cold(mut sandbox: Sandbox) -> Sandbox {
    sandbox.settings = sandbox.settings.with("JITAUTH_MEMORY__WARM", "false");
    sandbox
}

/// Puts the cards into a PostgreSQL store.
pub(crate) async fn prepare(store: &Store) {
    let program = World::new(store).program("load", Program::default()).await;
    store
        .execute(&format!(
            "insert into users (id, token, program_id) select 1000000 + n, 'usr_load_' || n, {program} from generate_series(1, {CARDS}) n;
             insert into accounts (id, token, program_id, currency, posted)
             select 1000000 + n, 'acc_load_' || n, {program}, 'USD', case when n % 8 = 1 then 0 else 100000000 end
               from generate_series(1, {CARDS}) n;
             insert into entries (transfer, account_id, amount, posted_at)
             select 'trf_load_' || id, id, posted, 0 from accounts where id > 1000000
             union all
             select 'trf_load_' || a.id, f.id, -a.posted, 0 from accounts a, accounts f
              where a.id > 1000000 and f.program_id = {program} and f.kind = 'funding';
             update accounts set posted = (select sum(amount) from entries where account_id = accounts.id)
              where program_id = {program} and kind = 'funding';
             insert into cards (id, token, user_id, account_id, program_id, status, expires_at)
             select 1000000 + n, 'crd_load_' || n, 1000000 + n, 1000000 + n, {program},
                    case when n % 8 = 2 then 'lost' else 'active' end, {NEVER_US} from generate_series(1, {CARDS}) n;
             insert into limits (id, owner, owner_id, scope, period, cap_amount)
             select 1000000 + n, 'card', 1000000 + n, 'card', case when n % 8 = 3 then 'transaction' else 'day' end,
                    case when n % 8 = 3 then 500 else 90000000 end from generate_series(1, {CARDS}) n"
        ))
        .await;
}

/// A request that the broker confirmed to its producer.
#[derive(Clone, Debug)]
struct Sent {
    id: String,
    reason: Option<&'static str>,
}

/// The load at work.
#[derive(Debug)]
pub(crate) struct Traffic {
    amqp: Amqp,
    replies: Mailbox,
    /// Where answers go that were sent to no address.
    unaddressed: Mailbox,
    sent: Arc<Mutex<Vec<Sent>>>,
    flow: watch::Sender<Flow>,
    producers: Vec<JoinHandle<()>>,
    cold: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    Paused,
    Ended,
}

/// What the answers say, added up.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) requests: usize,
    pub(crate) responses: usize,
    /// Answers whose request is in the journal.
    pub(crate) decided: usize,
    /// Requests that are not, and whose requesters heard that they could not be decided in time.
    pub(crate) shed: usize,
    pub(crate) by_reason: BTreeMap<String, usize>,
}

impl Traffic {
    /// Starts it and waits for the first answers.
    pub(crate) async fn start(sandbox: &Sandbox) -> Self {
        let amqp = sandbox.amqp().await;
        let (replies, unaddressed) = (amqp.collect(REPLIES).await, amqp.collect(RESPONSES).await);
        let (flow, _) = watch::channel(Flow::On);
        let (sent, cold) = (Arc::default(), Arc::new(AtomicU64::new(HOT_CARDS)));
        let mut traffic = Self { amqp, replies, unaddressed, sent, flow, producers: Vec::new(), cold };
        for number in 0..PRODUCERS {
            let amqp = sandbox.amqp().await;
            let producer = Producer { number, amqp, sent: Arc::clone(&traffic.sent), cold: Arc::clone(&traffic.cold) };
            traffic.producers.push(tokio::spawn(producer.run(traffic.flow.subscribe())));
        }
        traffic.more(100).await;
        traffic
    }

    /// Requests that were confirmed so far.
    pub(crate) fn confirmed(&self) -> usize {
        self.sent.lock().len()
    }

    /// Waits until so many more requests were confirmed, and then for all answers that are due to them.
    pub(crate) async fn more(&self, requests: usize) {
        let enough = self.confirmed() + requests;
        eventually("confirmed requests", async || (self.confirmed() >= enough).then_some(())).await;
        self.all_answered().await;
    }

    /// Waits until every request confirmed by now is answered.
    pub(crate) async fn all_answered(&self) {
        let (unaddressed, addressed): (Vec<_>, Vec<_>) =
            self.sent.lock().iter().map(|sent| sent.id.clone()).partition(|id| id.starts_with(UNADDRESSED));
        self.replies.responses(&addressed).await;
        self.unaddressed.responses(&unaddressed).await;
    }

    /// Puts requests into the work queue by its name, past every exchange, and without an address for the answer.
    pub(crate) async fn send_unaddressed(&self, requests: u64) {
        for card in 1..=requests {
            let id = format!("{UNADDRESSED}{card}");
            let message = BasicProperties::default().with_message_id(id.as_str().into());
            let confirmation = self.amqp.publish("", REQUESTS, &body(&id, card, LONG_MS), message).await;
            assert_eq!(confirmation, Ok(Confirmation::Ack(None)), "the work queue takes a request");
            self.sent.lock().push(Sent { id, reason: foretold(card) });
        }
    }

    /// Keeps the producers from sending until [`Traffic::resume`], and waits until all they sent is answered.
    pub(crate) async fn pause(&self) {
        self.flow.send_replace(Flow::Paused);
        // A producer may have read the flow just before, and be at its last request.
        let mut before = usize::MAX;
        while before != self.confirmed() {
            before = self.confirmed();
            sleep(Duration::from_millis(300)).await;
        }
        self.all_answered().await;
    }

    pub(crate) fn resume(&self) {
        self.flow.send_replace(Flow::On);
    }

    /// Asks for a card that was never asked for before, apart from the load, and gives the reason of the answer.
    pub(crate) async fn probe_cold(&self, wait_ms: u32) -> (Option<&'static str>, Option<String>) {
        let card = self.cold.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(card <= CARDS, "no cards are left that were never used");
        let id = format!("probe-{card}");
        self.amqp.request_surely(&body(&id, card, wait_ms), properties(&id)).await;
        self.sent.lock().push(Sent { id: id.clone(), reason: foretold(card) });
        let answer = self.replies.response(&id).await.json();
        (foretold(card), answer["reason"].as_str().map(str::to_owned))
    }

    /// Ends the load, waits for the last answers, and checks every one of them, the queues and the store. `tolerated` are the
    /// reasons that may stand instead of what was foretold. Ends the daemons first, so that nothing moves any more.
    pub(crate) async fn finish(mut self, daemons: &mut [Daemon], store: &Store, tolerated: &[&str]) -> Summary {
        self.flow.send_replace(Flow::Ended);
        for producer in std::mem::take(&mut self.producers) {
            producer.await.expect("a producer ends well");
        }
        self.all_answered().await;
        let sent = std::mem::take(&mut *self.sent.lock());
        eventually("an empty work queue", async || (self.amqp.depth(REQUESTS).await == 0).then_some(())).await;
        for daemon in daemons {
            let status = daemon.terminate().await;
            assert!(status.success(), "{status}\n{}", daemon.text());
        }
        // What was not acked would be back by now.
        assert_eq!(self.amqp.depth(REQUESTS).await, 0, "requests were answered and never acknowledged");
        assert_eq!(self.amqp.depth(DEAD_LETTERS).await, 0, "healthy requests were dead-lettered");
        store.check_books().await;
        let replies = [self.replies.all(), self.unaddressed.all()].concat();
        check(&sent, replies, store, tolerated).await
    }
}

async fn check(sent: &[Sent], replies: Vec<Message>, store: &Store, tolerated: &[&str]) -> Summary {
    let journal: BTreeMap<_, _> = store
        .rows("select cast(id as text), convert_from(response, 'UTF8') from authorizations")
        .await
        .into_iter()
        .map(|mut row| (row[0].take().expect("an id"), row[1].take().expect("a response")))
        .collect();
    let mut summary = Summary { requests: sent.len(), responses: replies.len(), ..Summary::default() };
    let mut by_id: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for reply in replies {
        by_id.entry(reply.message_id.clone().expect("an id")).or_default().push(reply);
    }
    let mut faults = Vec::new();
    for Sent { id, reason } in sent {
        let answers = by_id.remove(id).unwrap_or_default();
        let (journaled, passing): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.header("x-final") != Some("false"));
        let stored = journal.get(id);
        if journaled.is_empty() && stored.is_some() {
            faults.push(format!("{id} was decided, and its requester only heard {:?}", passing.first().map(|answer| answer.json())));
        }
        if let Some(other) = journaled.iter().find(|answer| Some(answer.body.as_slice()) != stored.map(String::as_bytes)) {
            faults.push(format!("{id} was answered {}, the journal has {stored:?}", other.json()));
        }
        summary.decided += usize::from(stored.is_some());
        let shed = stored.is_none() && passing.first().is_some_and(|answer| answer.json()["reason"] == "system_unavailable");
        summary.shed += usize::from(shed);
        for answer in &answers {
            let heard = answer.json()["reason"].as_str().map(str::to_owned);
            if heard.as_deref() != *reason && !heard.as_deref().is_some_and(|heard| tolerated.contains(&heard)) {
                faults.push(format!("{id} should be {reason:?}, and was {heard:?}"));
            }
        }
        let heard = answers.first().map_or_else(|| "unanswered".to_owned(), |answer| answer.json()["reason"].to_string());
        *summary.by_reason.entry(heard).or_default() += 1;
    }
    faults.extend(by_id.into_keys().map(|id| format!("{id} was answered and never asked")));
    let asked: BTreeSet<_> = sent.iter().map(|sent| &sent.id).collect();
    faults.extend(journal.keys().filter(|id| !asked.contains(id)).map(|id| format!("{id} was decided and never asked")));
    assert!(faults.is_empty(), "{} faults, the first of them:\n{}", faults.len(), faults[..faults.len().min(20)].join("\n"));
    summary
}

/// Shows what was measured.
pub(crate) fn figure(line: &str) {
    eprintln!("{line}");
}

/// A sample of the daemon's metrics.
pub(crate) async fn metric(daemon: &Daemon, name: &str) -> f64 {
    Metrics::of(&daemon.http()).await.get(name)
}

/// Waits until `/ready` says no.
pub(crate) async fn unready(daemon: &Daemon) {
    let http = daemon.http();
    eventually("a daemon that is not ready", async || http.get("/ready").await.is_ok_and(|reply| reply.status == 503).then_some(())).await;
}

/// Waits until the daemon is ready again, and asserts that it did not take longer than promised since `healed`.
pub(crate) async fn ready_again(daemon: &mut Daemon, fault: &str, healed: Instant) {
    daemon.ready().await;
    let took = healed.elapsed();
    figure(&format!("{fault}: ready {:.2} s after it healed", took.as_secs_f64()));
    assert!(took < Duration::from_secs(10), "{fault}: ready again after {took:?}\n{}", daemon.text());
}

struct Producer {
    number: u64,
    amqp: Amqp,
    sent: Arc<Mutex<Vec<Sent>>>,
    cold: Arc<AtomicU64>,
}

impl Producer {
    async fn run(self, mut flow: watch::Receiver<Flow>) {
        for turn in 0_u64.. {
            let now = *flow.wait_for(|flow| *flow != Flow::Paused).await.expect("the traffic lives");
            if now == Flow::Ended {
                return;
            }
            let cold = (turn % 2 == 1).then(|| self.cold.fetch_add(1, Ordering::Relaxed) + 1);
            // Out of fresh cards: the hot ones serve as well.
            let card = cold.filter(|card| *card <= CARDS - 500).unwrap_or(1 + (turn / 2 * PRODUCERS + self.number) % HOT_CARDS);
            let id = format!("load-{}-{turn}", self.number);
            let wait_ms = if turn % 4 < 2 { SHORT_MS } else { LONG_MS };
            self.publish_surely(&id, card, wait_ms).await;
            self.sent.lock().push(Sent { id, reason: foretold(card) });
            sleep(PAUSE).await;
        }
    }

    /// Again and again until the broker has it. The test that waits for the traffic has the patience.
    async fn publish_surely(&self, id: &str, card: u64, wait_ms: u32) {
        let body = body(id, card, wait_ms);
        while self.amqp.publish(EXCHANGE, CREATED, &body, properties(id)).await != Ok(Confirmation::Ack(None)) {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn body(id: &str, card: u64, wait_ms: u32) -> Vec<u8> {
    Request::new(id).card(&format!("crd_load_{card}")).deadline_ms(wait_ms).body()
}

fn properties(id: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(id.into()).with_reply_to(REPLIES.into())
}
