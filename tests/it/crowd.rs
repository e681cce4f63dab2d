//! Producers that all send at the same time, by either edge, and everything they were answered.

use crate::support::{
    PATIENCE,
    amqp::{Amqp, CREATED, EXCHANGE, Mailbox, Message},
    daemon::Daemon,
    http::{Http, Reply},
    request::Request,
    sandbox::Sandbox,
    store::Store,
    world::{Holder, Limit, Owner, Program, World},
};
use futures_util::future::join_all;
use lapin::{BasicProperties, Confirmation};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Where a crowd is answered over AMQP.
pub(crate) const REPLIES: &str = "reply.crowd";

/// The longest deadline there is: on a busy machine the clock must not decide.
pub(crate) const UNHURRIED_MS: u32 = 60_000;

/// What a test has measured: shown when it fails, and by `--nocapture`.
pub(crate) fn tell(line: &str) {
    eprintln!("{}: {line}", std::thread::current().name().unwrap_or("a test"));
}

/// One answer, whichever edge it came from.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) id: String,
    /// What the requester wrote beside the id, over AMQP.
    pub(crate) correlation: Option<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) replayed: bool,
    /// Whether it is in the journal.
    pub(crate) journaled: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The reason of a decline; empty for an approval, in full or in part.
    pub(crate) fn reason(&self) -> String {
        let json = self.json();
        assert_eq!(json["reason"].is_null(), json["decision"] != "declined", "{json}");
        json["reason"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn from_reply(id: &str, reply: &Reply) -> Self {
        Self {
            id: id.to_owned(),
            correlation: None,
            body: reply.body.to_vec(),
            replayed: reply.header("x-replayed") == Some("true"),
            journaled: reply.header("x-final") != Some("false"),
        }
    }
}

impl From<Message> for Answer {
    fn from(message: Message) -> Self {
        Self {
            replayed: message.header("x-replayed") == Some("true"),
            journaled: message.header("x-final") != Some("false"),
            id: message.message_id.expect("an answer names the id"),
            correlation: message.correlation_id,
            body: message.body,
        }
    }
}

/// Producers, each with a connection of its own.
#[derive(Debug)]
pub(crate) enum Crowd {
    Amqp { producers: Vec<Amqp>, replies: Mailbox },
    Http { clients: Vec<Http> },
}

impl Crowd {
    pub(crate) async fn over_amqp(sandbox: &Sandbox, producers: usize) -> Self {
        let replies = sandbox.amqp().await.collect(REPLIES).await;
        let producers = join_all((0..producers).map(|_| sandbox.amqp())).await;
        Self::Amqp { producers, replies }
    }

    pub(crate) fn over_http(address: SocketAddr, clients: usize) -> Self {
        Self::Http { clients: (0..clients).map(|_| Http::new(address)).collect() }
    }

    /// Sends all requests, every producer its share of them one after the other, and waits until each was answered.
    pub(crate) async fn ask(&self, requests: &[Request]) -> Vec<Answer> {
        match self {
            Self::Amqp { producers, replies } => {
                join_all(producers.iter().enumerate().map(async |(place, producer)| {
                    for request in requests.iter().skip(place).step_by(producers.len()) {
                        producer.request(request.body(), properties(request.id())).await;
                    }
                }))
                .await;
                let ids: Vec<_> = requests.iter().map(|request| request.id().to_owned()).collect();
                replies.responses(&ids).await;
                let mut first = BTreeMap::new();
                for message in replies.all() {
                    first.entry(message.message_id.clone().unwrap_or_default()).or_insert(message);
                }
                ids.iter().map(|id| Answer::from(first[id].clone())).collect()
            }
            Self::Http { clients } => {
                let shares = join_all(clients.iter().enumerate().map(async |(place, client)| {
                    let mut answers = Vec::new();
                    for (place, request) in requests.iter().enumerate().skip(place).step_by(clients.len()) {
                        let reply = client.authorize(request.body()).await;
                        assert_eq!(reply.status, 200, "{}", reply.text());
                        answers.push((place, Answer::from_reply(request.id(), &reply)));
                    }
                    answers
                }))
                .await;
                let in_order: BTreeMap<_, _> = shares.into_iter().flatten().collect();
                in_order.into_values().collect()
            }
        }
    }
}

pub(crate) fn properties(id: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(id.into()).with_reply_to(REPLIES.into())
}

/// Producers that go on until they are told to stop, with never more than a number of requests unanswered: enough that a daemon
/// always has its hands full.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    producers: Vec<JoinHandle<Vec<String>>>,
    pub(crate) replies: Arc<Mailbox>,
}

impl Load {
    pub(crate) async fn start(sandbox: &Sandbox, producers: usize, unanswered_max: usize, request: fn(usize) -> Request) -> Self {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let replies = Arc::new(sandbox.amqp().await.collect(REPLIES).await);
        let connections = join_all((0..producers).map(|_| sandbox.amqp())).await;
        let produce = |amqp: Amqp| {
            let (stop, next, replies) = (Arc::clone(&stop), Arc::clone(&next), Arc::clone(&replies));
            tokio::spawn(async move {
                let mut confirmed = Vec::new();
                while !stop.load(Relaxed) {
                    if next.load(Relaxed) >= replies.count() + unanswered_max {
                        sleep(Duration::from_millis(5)).await;
                        continue;
                    }
                    let request = request(next.fetch_add(1, Relaxed));
                    while amqp.publish(EXCHANGE, CREATED, &request.body(), properties(request.id())).await != Ok(Confirmation::Ack(None)) {
                        sleep(Duration::from_millis(100)).await;
                    }
                    confirmed.push(request.id().to_owned());
                }
                confirmed
            })
        };
        let producers = connections.into_iter().map(produce).collect();
        Self { stop, producers, replies }
    }

    /// Waits until so many answers more than now have arrived.
    pub(crate) async fn answered(&self, more: usize) {
        let (wanted, end) = (self.replies.count() + more, Instant::now() + PATIENCE);
        while self.replies.count() < wanted {
            assert!(Instant::now() < end, "{} answers after {PATIENCE:?}, not {wanted}", self.replies.count());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends no more. Gives the id of every request that the broker has confirmed.
    pub(crate) async fn stop(self) -> (Vec<String>, Arc<Mailbox>) {
        self.stop.store(true, Relaxed);
        let confirmed = join_all(self.producers).await.into_iter().flat_map(|producer| producer.expect("a producer ends well"));
        (confirmed.collect(), self.replies)
    }
}

/// The cardholders that [`load`] speaks of: rich ones, poor ones whose money soon ends, one who may not buy often, nobody.
pub(crate) async fn prepare_load(store: &Store) {
    let world = World::new(store);
    let program = world.program("load", Program::default()).await;
    let cap = Limit { period: "lifetime", cap_amount: Some(100_000_000_000), ..Limit::default() };
    world.limit(Owner::Program(program), cap).await;
    for number in 0..12 {
        let posted = if number < 8 { 100_000_000 } else { 30_000 };
        let held = world.holder(program, &format!("load_{number}"), Holder { posted, ..Holder::default() }).await;
        if number == 0 {
            let often = Limit { period: "lifetime", cap_count: Some(40), ..Limit::default() };
            world.limit(Owner::Account(held.account), often).await;
        }
    }
}

/// The request of this number, unhurried.
pub(crate) fn load(number: usize) -> Request {
    let cents = 100 + number * 37 % 900;
    Request::new(&format!("load-{number}"))
        .card(&format!("crd_load_{}", number % 13))
        .amount(&format!("{}.{:02}", cents / 100, cents % 100))
        .deadline_ms(UNHURRIED_MS)
}

/// What became of a load.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: usize,
    pub(crate) approved: usize,
    pub(crate) declined: usize,
    /// Answers beyond the first, byte for byte the same.
    pub(crate) again: usize,
    /// Answers that came from the journal.
    pub(crate) replayed: usize,
    /// Answers that are not in the journal, because there was no deciding.
    pub(crate) not_journaled: usize,
}

/// Panics unless every id was answered, by nothing but the bytes that the journal has for it, and nothing else is in the journal.
/// What could not be decided may have been declined without the journal, before it was decided after all. Answers come in order.
pub(crate) async fn check_answers(store: &Store, ids: &[String], answers: impl IntoIterator<Item = Answer>) -> Outcome {
    let journal = journal(store).await;
    let asked: BTreeSet<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(asked.len(), ids.len(), "every id was asked for once");
    let (mut answered, mut decided) = (BTreeSet::new(), BTreeSet::new());
    let mut outcome = Outcome { requests: ids.len(), ..Outcome::default() };
    for answer in answers {
        let (text, id) = (String::from_utf8_lossy(&answer.body), answer.id.as_str());
        assert!(asked.contains(id), "an answer that nobody asked for: {text}");
        answered.insert(answer.id.clone());
        if !answer.journaled {
            assert_eq!(answer.reason(), "system_unavailable", "only what could not be decided is not journaled: {text}");
            assert!(!decided.contains(id), "{id}: after its decision was heard, something else was said: {text}");
            outcome.not_journaled += 1;
            continue;
        }
        assert_eq!(journal.get(id), Some(&text.clone().into_owned()), "{id}: what was sent is what is stored");
        outcome.replayed += usize::from(answer.replayed);
        if !decided.insert(answer.id.clone()) {
            outcome.again += 1;
        } else if answer.reason().is_empty() {
            outcome.approved += 1;
        } else {
            outcome.declined += 1;
        }
    }
    let unanswered: Vec<_> = asked.iter().filter(|id| !answered.contains(**id)).collect();
    assert!(unanswered.is_empty(), "never answered: {unanswered:?}");
    let untold: Vec<_> = journal.keys().filter(|id| !decided.contains(*id)).collect();
    assert!(untold.is_empty(), "decided, but nobody was told: {untold:?}");
    outcome
}

/// Every response in the journal, by id.
pub(crate) async fn journal(store: &Store) -> BTreeMap<String, String> {
    let response = match store {
        Store::Postgres(_) => "convert_from(response, 'UTF8')",
        Store::Sqlite(_) => "cast(response as text)",
    };
    let rows = store.rows(&format!("select id, {response} from authorizations")).await;
    let count = rows.len();
    let journal: BTreeMap<_, _> = rows
        .into_iter()
        .map(|row| {
            let [id, response] = <[_; 2]>::try_from(row).unwrap();
            (id.unwrap(), response.unwrap())
        })
        .collect();
    assert_eq!(journal.len(), count, "no id is in the journal twice");
    journal
}

/// What a drained daemon said last, once for each of its lives.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) complete: bool,
    pub(crate) in_flight: u64,
    counts: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn all(daemon: &Daemon) -> Vec<Self> {
        let last = daemon.log().into_iter().filter(|line| line["event"] == "drained");
        last.map(|line| {
            let text = line["tally"].as_str().unwrap_or_else(|| panic!("no tally: {line}"));
            let count = |pair: &str| {
                let (name, count) = pair.split_once('=').unwrap_or_else(|| panic!("not a count: {pair}"));
                (name.to_owned(), count.parse().unwrap_or_else(|_| panic!("not a count: {pair}")))
            };
            Self {
                complete: line["complete"] == true,
                in_flight: line["in_flight"].as_u64().unwrap_or_else(|| panic!("no in_flight: {line}")),
                counts: text.split(' ').map(count).collect(),
            }
        })
        .collect()
    }

    pub(crate) fn of(&self, name: &str) -> u64 {
        *self.counts.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }
}
