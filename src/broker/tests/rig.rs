//! A broker edge between a real server and a pipeline played by the test.
#![expect(clippy::disallowed_methods, reason = "a real broker takes real time, and a test may queue what it likes")]

use crate::{
    broker::{
        Broker, QueueType, Settings, Wiring,
        events::{EventPorts, Outgoing},
        topology,
    },
    codec::event::FactEvent,
    domain::{decision::Decision, ids::RequestId, reason::Reason, time::Timestamp},
    pipeline::{Answer, DeskOrder, FreshApproval, Intake, Job},
    telemetry::{Spans, Telemetry},
};
use futures_util::FutureExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    message::{BasicGetMessage, Delivery},
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::{Instant, sleep},
};

/// How long anything may take before a test gives up on it.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test listens for what must not happen.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

pub(crate) fn settings(url: &str, prefix: &str) -> Settings {
    let name = |base: &str| format!("{prefix}{base}");
    Settings {
        url: url.into(),
        queue_type: QueueType::Quorum,
        exchange: name("transactions"),
        events_exchange: name("events"),
        request_queue: name("jit-funding-queue"),
        response_queue: name("jit-funding-responses"),
        dead_letter_queue: name("jit-funding-dlq"),
        transaction_queue: name("transaction-processing-queue"),
        webhook_queue: name("webhook-queue"),
        reply_to_allowed: ["amq.gen-", "amq.rabbitmq.reply-to.", "reply.", "jit-funding-responses"].map(String::from).to_vec(),
        prefetch: 256,
        confirms_max: 64,
        ack_within: Duration::from_millis(5),
        confirm_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(5),
        heartbeat: Duration::from_secs(10),
        reconnect_max: Duration::from_secs(1),
    }
}

/// Runs a test with a rig, and cleans up behind it whatever happens. Skipped, aloud, without a server.
pub(super) fn with_rig<F: Future<Output = ()>>(test: impl FnOnce(Arc<Rig>) -> F) {
    let Ok(url) = std::env::var("JITAUTH_TEST_BROKER") else {
        assert!(std::env::var("JITAUTH_TEST_REQUIRE").as_deref() != Ok("1"), "JITAUTH_TEST_BROKER is not set, and nothing may be skipped");
        eprintln!("skipped: needs a RabbitMQ, JITAUTH_TEST_BROKER=amqp://guest:guest@127.0.0.1:5672/%2f");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let rig = Arc::new(Rig::new(&url).await);
        let outcome = AssertUnwindSafe(test(Arc::clone(&rig))).catch_unwind().await;
        rig.clean().await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A real server, names of our own on it, and a line to it that can be cut.
pub(super) struct Rig {
    pub(super) settings: Settings,
    pub(super) server: Channel,
    _connection: Connection,
    prefix: String,
    line: Arc<Line>,
    queues: parking_lot::Mutex<Vec<String>>,
}

impl Rig {
    async fn new(url: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("t{}-{}.", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("JITAUTH_TEST_BROKER is reachable");
        let server = connection.create_channel().await.expect("a channel");
        server.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let line = Arc::new(Line::default());
        let proxied = proxy(url, Arc::clone(&line)).await;
        let queues = parking_lot::Mutex::default();
        Self { settings: settings(&proxied, &prefix), server, _connection: connection, prefix, line, queues }
    }

    /// Declares everything and starts an edge with the pipeline in the test's hands.
    pub(super) async fn start(&self) -> (Broker, Pipeline) {
        topology::apply(&self.settings).await.expect("the topology can be applied");
        self.restart().await
    }

    /// Starts an edge on what is declared already.
    pub(super) async fn restart(&self) -> (Broker, Pipeline) {
        self.restart_with(&self.settings).await
    }

    /// Starts an edge with settings of its own on what is declared already.
    pub(super) async fn restart_with(&self, settings: &Settings) -> (Broker, Pipeline) {
        let (intake, jobs) = mpsc::unbounded_channel();
        let (desk, orders) = mpsc::channel(1024);
        let (heard, events) = mpsc::channel(1024);
        let (tell, told) = mpsc::channel(1024);
        let wiring = Wiring {
            intake: FakeIntake(intake),
            telemetry: Telemetry::default(),
            wall: Arc::new(now),
            deadline_default: Duration::from_secs(2),
            deadline_reserve: Duration::from_millis(50),
            events: EventPorts { heard, told },
            begin: Box::pin(async {}),
        };
        let broker = Broker::start(settings, wiring).expect("the settings are good");
        eventually("ready", || async { broker.ready() }).await;
        (broker, Pipeline { jobs, desk, orders, events, tell })
    }

    /// Cuts every connection of the edge, as a network does.
    pub(super) fn cut(&self) {
        self.line.cut.notify_waiters();
    }

    /// Keeps the server's confirms from the edge, or lets them through again.
    pub(super) fn leave_unconfirmed(&self, unconfirmed: bool) {
        self.line.unconfirmed.store(unconfirmed, Ordering::Relaxed);
    }

    /// Keeps back all that the server says to the edge, or lets it through.
    pub(super) fn fall_silent(&self, silent: bool) {
        self.line.silent.store(silent, Ordering::Relaxed);
    }

    pub(super) async fn reply_queue(&self, name: &str, arguments: &[(&str, AMQPValue)]) -> String {
        let queue = format!("reply.{}{name}", self.prefix);
        let mut table = FieldTable::default();
        for (key, value) in arguments {
            table.insert((*key).into(), value.clone());
        }
        self.server
            .queue_declare(queue.as_str().into(), QueueDeclareOptions { durable: true, ..Default::default() }, table)
            .await
            .expect("a reply queue");
        self.queues.lock().push(queue.clone());
        queue
    }

    /// A queue as requesters use them for answers: gone with its connection.
    pub(super) async fn exclusive_queue(&self, name: &str) -> String {
        let queue = format!("reply.{}{name}", self.prefix);
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        self.server.queue_declare(queue.as_str().into(), options, FieldTable::default()).await.expect("a reply queue");
        self.queues.lock().push(queue.clone());
        queue
    }

    pub(super) fn missing_queue(&self, name: &str) -> String {
        format!("reply.{}missing-{name}", self.prefix)
    }

    pub(super) async fn request(&self, body: &[u8], properties: BasicProperties) {
        self.publish(&self.settings.exchange, topology::CREATED, body, properties).await;
    }

    pub(super) async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let published = self.server.basic_publish(exchange.into(), key.into(), options, body, properties.with_delivery_mode(2)).await;
        let confirmed = published.expect("published").await.expect("confirmed");
        assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "the request reached a queue");
    }

    pub(super) async fn get(&self, queue: &str) -> Option<Delivery> {
        let message = self.server.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.expect("the queue exists");
        message.map(|BasicGetMessage { delivery, .. }| delivery)
    }

    /// The next message of a queue, waited for.
    pub(super) async fn next(&self, queue: &str) -> Delivery {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(delivery) = self.get(queue).await {
                return delivery;
            }
            assert!(Instant::now() < until, "nothing arrives in {queue}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// All messages of a queue.
    pub(super) async fn all(&self, queue: &str) -> Vec<Delivery> {
        let mut all = Vec::new();
        while let Some(delivery) = self.get(queue).await {
            all.push(delivery);
        }
        all
    }

    /// Messages that wait in a queue; unacknowledged ones are not among them.
    pub(super) async fn waiting(&self, queue: &str) -> u32 {
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        self.server.queue_declare(queue.into(), passive, FieldTable::default()).await.expect("the queue exists").message_count()
    }

    pub(super) async fn delete(&self, queue: &str) {
        self.server.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }

    async fn clean(&self) {
        let Settings { request_queue, response_queue, dead_letter_queue, transaction_queue, webhook_queue, .. } = &self.settings;
        let dead = [format!("{transaction_queue}-dlq"), format!("{webhook_queue}-dlq")];
        let ours = [request_queue, response_queue, dead_letter_queue, transaction_queue, webhook_queue].into_iter().chain(&dead);
        let replies = self.queues.lock().clone();
        let server = self._connection.create_channel().await.expect("a channel");
        for queue in ours.chain(&replies) {
            server.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
        }
        for exchange in [&self.settings.exchange, &self.settings.events_exchange] {
            server.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.expect("deleted");
        }
    }
}

#[derive(Clone)]
struct FakeIntake(mpsc::UnboundedSender<Job>);

impl Intake for FakeIntake {
    fn submit(&self, job: Job) {
        // A test that has looked away lets go of the job.
        drop(self.0.send(job));
    }
}

/// The pipeline, as the test plays it.
pub(super) struct Pipeline {
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) desk: mpsc::Sender<DeskOrder>,
    pub(super) orders: mpsc::Receiver<DeskOrder>,
    pub(super) events: mpsc::Receiver<FactEvent>,
    pub(super) tell: mpsc::Sender<Outgoing>,
}

impl Pipeline {
    pub(super) async fn job(&mut self) -> Job {
        tokio::time::timeout(PATIENCE, self.jobs.recv()).await.expect("a job in time").expect("the edge lives")
    }

    pub(super) async fn order(&mut self) -> DeskOrder {
        tokio::time::timeout(PATIENCE, self.orders.recv()).await.expect("an order in time").expect("the desk is open")
    }

    pub(super) fn approval(&self, job: &Job) -> Answer {
        self.approval_until(job, job.deadline)
    }

    pub(super) fn approval_until(&self, job: &Job, deadline: Instant) -> Answer {
        let body: Arc<[u8]> = body_of("approved", &job.request.id).into();
        let fresh = Some(FreshApproval::at_desk(job.request.id.clone(), Arc::clone(&body), deadline, self.desk.clone()));
        Answer { body, decision: Decision::Approved, reason: None, replayed: false, journaled: true, spans: job.spans, fresh }
    }

    /// Answers every job at once with a fresh approval, in the background; gives the desk's orders.
    pub(super) fn answer_all(mut self) -> mpsc::Receiver<DeskOrder> {
        let orders = std::mem::replace(&mut self.orders, mpsc::channel(1).1);
        tokio::spawn(async move {
            while let Some(job) = self.jobs.recv().await {
                let answer = self.approval(&job);
                job.requester.answer(answer);
            }
        });
        orders
    }
}

pub(super) fn decline(id: &RequestId) -> Answer {
    Answer {
        body: body_of("declined", id).into(),
        decision: Decision::Declined,
        reason: Some(Reason::DeadlineExceeded),
        replayed: true,
        journaled: true,
        spans: Spans::default(),
        fresh: None,
    }
}

pub(super) fn body_of(decision: &str, id: &RequestId) -> Vec<u8> {
    format!("{decision} {}", id.as_str()).into_bytes()
}

/// A good request.
pub(super) fn request_body(id: &str, deadline_ms: u32) -> Vec<u8> {
    format!(
        r#"{{"version":1,"type":"authorization","id":"{id}","card":"crd_0000417","amount":"42.50","currency":"EUR","channel":"chip",
        "merchant":{{"id":"000000012345678","mcc":"5812","country":"NLD"}},"deadline_ms":{deadline_ms}}}"#
    )
    .into_bytes()
}

pub(super) fn reply_to(queue: &str) -> BasicProperties {
    BasicProperties::default().with_reply_to(queue.into())
}

pub(super) fn header(delivery: &Delivery, name: &str) -> Option<String> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::Boolean(value) => Some(value.to_string()),
        AMQPValue::LongLongInt(value) => Some(value.to_string()),
        other => Some(format!("{other:?}")),
    }
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(i64::try_from(since.as_micros()).expect("before the year 294247"))
}

/// Takes no more, and waits until all that was taken is settled.
pub(super) async fn settled(broker: &Broker) {
    tokio::time::timeout(PATIENCE, broker.stop_intake()).await.expect("the intake stops in time");
    tokio::time::timeout(PATIENCE, broker.drained()).await.expect("all is settled in time");
}

/// Waits until something holds.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let until = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < until, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// What happens on the way to the server and back.
#[derive(Default)]
struct Line {
    cut: Notify,
    unconfirmed: AtomicBool,
    silent: AtomicBool,
}

/// A line to the server that can be cut; gives the URL at its near end.
async fn proxy(url: &str, line: Arc<Line>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let near = listener.local_addr().expect("bound").to_string();
    let mut uri: lapin::uri::AMQPUri = url.parse().expect("a URL");
    let far = format!("{}:{}", uri.authority.host, uri.authority.port);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (far, line) = (far.clone(), Arc::clone(&line));
            tokio::spawn(async move {
                let server = TcpStream::connect(far).await.expect("the server listens");
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
                tokio::select! {
                    () = line.cut.notified() => {}
                    () = pump(&mut from_client, &mut to_server) => {}
                    () = pump_frames(&mut from_server, &mut to_client, &line) => {}
                }
            });
        }
    });
    let (host, port) = near.rsplit_once(':').expect("an address");
    uri.authority.host = host.to_owned();
    uri.authority.port = port.parse().expect("a port");
    uri.to_string()
}

async fn pump(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin)) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// From the server, frame by frame: type, channel, size, payload, end.
async fn pump_frames(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin), line: &Line) {
    const HEADER: usize = 7;
    const BASIC_ACK: &[u8] = &[0, 60, 0, 80];
    let mut frame = vec![0; HEADER];
    while from.read_exact(&mut frame[..HEADER]).await.is_ok() {
        let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
        frame.resize(HEADER + size + 1, 0);
        if from.read_exact(&mut frame[HEADER..]).await.is_err() {
            return;
        }
        let confirm = frame[0] == 1 && frame[HEADER..].starts_with(BASIC_ACK);
        while line.silent.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1)).await;
        }
        if !(confirm && line.unconfirmed.load(Ordering::Relaxed)) && to.write_all(&frame).await.is_err() {
            return;
        }
    }
}
