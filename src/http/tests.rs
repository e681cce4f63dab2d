//! Over real sockets, with a pipeline that a test plays by hand.
#![expect(clippy::disallowed_methods, reason = "real sockets take real time, and a test may queue what it likes")]
#![expect(clippy::expect_used, reason = "a failed expectation is a failed test")]

use super::{BindError, Parts, Server, Settings};
use crate::{
    domain::{decision::Decision, ids::RequestId, reason::Reason},
    pipeline::{Answer, DeskOrder, FreshApproval, Intake, Job, Requester},
    telemetry::{Exposition, Readiness, Reports, Span, Telemetry},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Hands every job to the test.
#[derive(Clone)]
struct Pipeline(mpsc::UnboundedSender<Job>);

impl Intake for Pipeline {
    fn submit(&self, job: Job) {
        drop(self.0.send(job));
    }
}

struct Daemon {
    address: SocketAddr,
    jobs: mpsc::UnboundedReceiver<Job>,
    telemetry: Telemetry,
    readiness: Readiness,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

fn settings() -> Settings {
    Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        token: None,
        in_flight_max: 8,
        connections_max: 64,
        header_timeout: PATIENCE,
        body_timeout: PATIENCE,
    }
}

async fn daemon(change: impl FnOnce(&mut Settings)) -> Daemon {
    let mut settings = settings();
    change(&mut settings);
    let (intake, jobs) = mpsc::unbounded_channel();
    let telemetry = Telemetry::default();
    let readiness = telemetry.readiness();
    let parts = Parts {
        intake: Pipeline(intake),
        telemetry: telemetry.clone(),
        readiness: readiness.clone(),
        reports: reports(&telemetry),
        deadline_default: Duration::from_secs(2),
        deadline_reserve: Duration::from_millis(50),
    };
    let server = Server::bind(settings, parts).await.expect("binds");
    let (stop, stopped) = oneshot::channel::<()>();
    let address = server.local_addr();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    Daemon { address, jobs, telemetry, readiness, stop: Some(stop), running }
}

impl Daemon {
    async fn job(&mut self) -> Job {
        timeout(PATIENCE, self.jobs.recv()).await.expect("a job in time").expect("a job")
    }

    fn stop(&mut self) {
        drop(self.stop.take());
    }

    fn sample(&self, key: &str) -> f64 {
        let text = self.telemetry.scrape(Exposition::Prometheus).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key} is missing"));
        line.trim().parse().expect("a number")
    }
}

/// One response as it came over the socket.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
    }
}

async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(bytes).await.expect("writes");
    stream
}

/// Reads one response, by its content-length.
async fn read(stream: &mut TcpStream) -> Got {
    let mut bytes = Vec::new();
    let received = timeout(PATIENCE, async {
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    let status = head[9..12].parse().expect("a status");
                    return Got { status, head: head.to_owned(), body: body.to_owned() };
                }
            }
            let read = stream.read_buf(&mut bytes).await.expect("reads");
            assert!(read > 0, "closed after {text:?}");
        }
    });
    received.await.expect("an answer in time")
}

async fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Got {
    read(&mut send(address, bytes.as_ref()).await).await
}

fn post_with(headers: &str, body: &str) -> String {
    format!("POST /v1/authorizations HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn post(body: &str) -> String {
    post_with("content-type: application/json\r\n", body)
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
}

fn reports(telemetry: &Telemetry) -> Reports {
    Reports::new(Default::default(), Default::default(), telemetry.clone())
}

fn request(id: &str) -> String {
    format!(
        r#"{{"version":1,"type":"authorization","id":"{id}","card":"crd_0000417","amount":"42.50","currency":"EUR","channel":"contactless","merchant":{{"id":"000000012345678","mcc":"5812","country":"NLD"}}}}"#
    )
}

fn answer(decision: Decision, reason: Option<Reason>, body: &str, fresh: Option<FreshApproval>) -> Answer {
    Answer { body: Arc::from(body.as_bytes()), decision, reason, replayed: false, journaled: true, spans: Default::default(), fresh }
}

/// An approval whose desk the test holds.
fn fresh(within: Duration) -> (FreshApproval, mpsc::Receiver<DeskOrder>) {
    let (desk, orders) = mpsc::channel(4);
    let (id, response) = (RequestId::new("auth-1").expect("an id"), Arc::from(*b"approved"));
    (FreshApproval::at_desk(id, response, Instant::now() + within, desk), orders)
}

async fn order(orders: &mut mpsc::Receiver<DeskOrder>) -> Option<DeskOrder> {
    timeout(PATIENCE, orders.recv()).await.expect("the approval's fate in time")
}

#[tokio::test]
async fn decisions_come_back_byte_for_byte_with_their_facts_in_headers() {
    let mut daemon = daemon(|_| {}).await;
    let conflict = Some(Reason::DuplicateConflict);
    for (decision, reason, journaled, replayed, status) in [
        (Decision::Approved, None, true, false, 200),
        (Decision::Declined, Some(Reason::InsufficientFunds), true, true, 200),
        (Decision::Declined, Some(Reason::SystemUnavailable), false, false, 200),
        (Decision::Declined, conflict, false, false, 409),
    ] {
        let mut stream = send(daemon.address, post(&request("auth-1")).as_bytes()).await;
        let mut job = daemon.job().await;
        assert_eq!(job.request.id.as_str(), "auth-1");
        assert!(!job.lossy_reply && job.spans.get(Span::Decode).is_some());
        job.spans.set(Span::Commit, Duration::from_micros(640));
        let body = r#"{"any": "bytes",  "as": "they are"}"#;
        let (spans, decode) = (job.spans, job.spans.get(Span::Decode).unwrap_or_default());
        job.requester.answer(Answer { journaled, replayed, spans, ..answer(decision, reason, body, None) });
        let got = read(&mut stream).await;
        assert_eq!((got.status, got.body.as_str()), (status, body), "{got:?}");
        assert_eq!(got.header("content-type"), Some("application/json"));
        assert_eq!(got.header("x-replayed"), Some(if replayed { "true" } else { "false" }));
        assert_eq!(got.header("x-final"), (!journaled).then_some("false"));
        assert_eq!(got.header("x-stage-us"), Some(format!("decode={decode};commit=640").as_str()));
    }
    assert_eq!(daemon.telemetry.report()[Span::Total as usize].count, 4, "every answer's total is recorded, once");
    assert_eq!(daemon.telemetry.report()[Span::Decode as usize].count, 0, "what the lane records is left to it");
}

#[tokio::test]
async fn bad_input_is_declined_with_its_status() {
    let mut daemon = daemon(|_| {}).await;
    let valid = request("auth-1");
    let json = "content-type: application/json\r\n";
    let swap = |from: &str, to: &str| post(&valid.replace(from, to));
    let chunked = format!(
        "POST /v1/authorizations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4400\r\n{}\r\n0\r\n\r\n",
        "x".repeat(0x4400)
    );
    for (name, bytes, status, reason, code, detail) in [
        ("no json", post("hello"), 400, "malformed", "30", None),
        ("empty", post(""), 400, "malformed", "30", None),
        ("version", swap(r#""version":1"#, r#""version":2"#), 400, "unsupported_version", "12", None),
        ("amount", swap("42.50", "0.00"), 422, "invalid_amount", "13", None),
        ("precision", swap("42.50", "42.505"), 422, "invalid_precision", "13", None),
        ("currency", swap("EUR", "ZZZ"), 422, "invalid_currency", "12", None),
        ("card number", swap("crd_0000417", "4111111111111111"), 422, "pan_present", "30", None),
        ("too large", post(&" ".repeat(20_000)), 413, "malformed", "30", Some("too_large")),
        ("too large, far", post(&" ".repeat(2_000_000)), 413, "malformed", "30", Some("too_large")),
        ("too large, chunked", chunked, 413, "malformed", "30", Some("too_large")),
        ("media type", post_with("content-type: text/plain\r\n", &valid), 415, "malformed", "30", Some("content_type")),
        ("gzip", post_with(&format!("{json}content-encoding: gzip\r\n"), &valid), 415, "malformed", "30", Some("content_encoding")),
        ("web page", post_with("origin: https://shop.example\r\n", &valid), 415, "malformed", "30", Some("content_type")),
    ] {
        let got = ask(daemon.address, &bytes).await;
        assert_eq!(got.status, status, "{name}: {got:?}");
        let body: serde_json::Value = serde_json::from_str(&got.body).unwrap_or_else(|error| panic!("{name}: {error}: {got:?}"));
        assert_eq!(
            (&body["decision"], &body["reason"], &body["response_code"]),
            (&"declined".into(), &reason.into(), &code.into()),
            "{name}"
        );
        assert_eq!((got.header("x-final"), got.header("x-replayed")), (Some("false"), Some("false")), "{name}");
        let said = got.header("x-detail").unwrap_or_else(|| panic!("{name}: no detail"));
        assert!(detail.is_none_or(|detail| said.starts_with(detail)), "{name}: {said}");
        assert!(!got.head.contains("4111111111111111") && !got.body.contains("4111111111111111"), "{name}: a card number came back");
    }
    assert!(daemon.jobs.try_recv().is_err(), "none of this reaches the pipeline");
    assert_eq!(daemon.sample(r#"jitauth_invalid_inputs_total{reason="pan_present"}"#), 1.0);

    for (name, bytes, status) in [
        ("method", get("/v1/authorizations", ""), 405),
        ("path", get("/v2/authorizations", ""), 404),
        ("curl -d", post_with("content-type: application/x-www-form-urlencoded\r\n", "hello"), 400),
    ] {
        assert_eq!(ask(daemon.address, &bytes).await.status, status, "{name}");
    }
}

#[tokio::test]
async fn the_deadline_is_the_processors() {
    let mut daemon = daemon(|_| {}).await;
    for (extra, expected_ms) in [("", 1950), (r#""deadline_ms":500,"#, 450)] {
        let body = request("auth-1").replacen('{', &format!("{{{extra}"), 1);
        let stream = send(daemon.address, post(&body).as_bytes()).await;
        let job = daemon.job().await;
        let left = job.deadline - job.received;
        let expected = Duration::from_millis(expected_ms);
        assert!(left <= expected && left > expected - Duration::from_millis(100), "{left:?} for {extra:?}");
        drop(stream);
    }
}

#[tokio::test]
async fn a_token_is_asked_of_everything_but_probes() {
    let daemon = daemon(|settings| settings.token = Some("s3cret".to_owned())).await;
    let good = "authorization: Bearer s3cret\r\n";
    let bad = "authorization: Bearer secret\r\n";
    for (bytes, status) in [
        (get("/metrics", ""), 401),
        (get("/metrics", bad), 401),
        (get("/metrics", good), 200),
        (post(&request("auth-1")), 401),
        (post_with(bad, "hello"), 401),
        (post_with(good, "hello"), 400),
        (get("/elsewhere", ""), 401),
        (get("/livez", ""), 200),
        (get("/ready", ""), 503),
    ] {
        let got = ask(daemon.address, &bytes).await;
        assert_eq!(got.status, status, "{bytes}");
        assert_eq!(got.header("www-authenticate").is_some(), status == 401);
    }
    assert_eq!(daemon.sample(r#"jitauth_invalid_inputs_total{reason="malformed"}"#), 1.0, "only the one with the token was read");
}

#[tokio::test]
async fn nobody_listens_to_the_world_without_a_token() {
    let settings = Settings { listen: SocketAddr::from(([0, 0, 0, 0], 0)), ..settings() };
    let (intake, _jobs) = mpsc::unbounded_channel();
    let parts = |intake| Parts {
        intake: Pipeline(intake),
        telemetry: Telemetry::default(),
        readiness: Readiness::default(),
        reports: reports(&Telemetry::default()),
        deadline_default: PATIENCE,
        deadline_reserve: Duration::ZERO,
    };
    let refused = Server::bind(settings.clone(), parts(intake.clone())).await.err();
    assert!(matches!(refused, Some(BindError::Unprotected(_))), "{refused:?}");
    let protected = Settings { token: Some("s3cret".to_owned()), ..settings };
    assert!(Server::bind(protected, parts(intake)).await.is_ok());
}

#[tokio::test]
async fn probes_follow_the_checks_and_metrics_come_in_both_formats() {
    let daemon = daemon(|_| {}).await;
    let store = daemon.readiness.check("store");
    let check = async |status: u16, words: &str| {
        let got = ask(daemon.address, get("/ready?verbose", "")).await;
        assert_eq!(got.status, status, "{got:?}");
        assert!(got.body.contains(words), "{got:?}");
        assert_eq!(ask(daemon.address, get("/ready", "")).await.status, status);
        assert_eq!(ask(daemon.address, get("/livez", "")).await.status, 200, "alive whatever the dependencies do");
    };
    check(503, "[-] store: starting").await;
    store.pass();
    check(200, "[+] store: ok").await;
    store.fail("connection refused");
    check(503, "[-] store: connection refused").await;
    store.pass();
    daemon.readiness.drain();
    check(503, "draining").await;

    let old = ask(daemon.address, get("/metrics", "accept: text/plain\r\n")).await;
    assert_eq!(old.header("content-type"), Some(Exposition::Prometheus.content_type()));
    assert!(old.body.contains("# TYPE jitauth_authorizations_total counter"), "{}", old.body);
    let new = ask(daemon.address, get("/metrics", "accept: application/openmetrics-text; version=1.0.0\r\n")).await;
    assert_eq!(new.header("content-type"), Some(Exposition::OpenMetrics.content_type()));
    assert!(new.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn an_approval_that_went_out_is_heard() {
    let mut daemon = daemon(|_| {}).await;
    let mut stream = send(daemon.address, post(&request("auth-1")).as_bytes()).await;
    let job = daemon.job().await;
    let (approval, mut orders) = fresh(PATIENCE);
    job.requester.answer(answer(Decision::Approved, None, "approved", Some(approval)));
    assert_eq!(read(&mut stream).await.body, "approved");
    assert!(order(&mut orders).await.is_none(), "neither voided nor unheard");
}

#[tokio::test]
async fn a_hung_up_client_has_its_approval_voided() {
    let mut daemon = daemon(|_| {}).await;
    let stream = send(daemon.address, post(&request("auth-1")).as_bytes()).await;
    let job = daemon.job().await;
    drop(stream);
    sleep(Duration::from_millis(200)).await;
    let (approval, mut orders) = fresh(PATIENCE);
    job.requester.answer(answer(Decision::Approved, None, "approved", Some(approval)));
    assert!(matches!(order(&mut orders).await, Some(DeskOrder::Void { requesters, .. }) if requesters.is_empty()));
}

#[tokio::test]
async fn an_answer_that_its_handler_never_saw_is_voided() {
    let in_flight = Arc::new(tokio::sync::Semaphore::new(1));
    let (requester, receiver) = super::reply::Waiting::new(Arc::clone(&in_flight).try_acquire_owned().expect("a permit"));
    let (approval, mut orders) = fresh(PATIENCE);
    requester.answer(answer(Decision::Approved, None, "approved", Some(approval)));
    drop(receiver);
    assert!(matches!(order(&mut orders).await, Some(DeskOrder::Void { requesters, .. }) if requesters.is_empty()));
    assert_eq!(in_flight.available_permits(), 1);
}

#[tokio::test]
async fn an_approval_caught_between_library_and_socket_is_unheard() {
    let telemetry = Telemetry::default();
    let outbox = super::wire::Outbox::new(telemetry.clone(), telemetry.recorder());
    let (approval, mut orders) = fresh(PATIENCE);
    let now = Instant::now();
    outbox.push(super::wire::Outgoing {
        fresh: Some(approval),
        id: RequestId::new("auth-1").expect("an id"),
        decision: Decision::Approved,
        reason: None,
        spans: Default::default(),
        received: now,
        answered: now,
    });
    drop(outbox);
    assert!(matches!(order(&mut orders).await, Some(DeskOrder::Unheard(_))));
}

#[tokio::test]
async fn a_late_approval_goes_back_and_what_stands_is_answered() {
    let mut daemon = daemon(|_| {}).await;
    let mut stream = send(daemon.address, post(&request("auth-1")).as_bytes()).await;
    let job = daemon.job().await;
    let (approval, mut orders) = fresh(Duration::ZERO);
    job.requester.answer(answer(Decision::Approved, None, "approved", Some(approval)));
    let Some(DeskOrder::Void { mut requesters, .. }) = order(&mut orders).await else { panic!("not handed back") };
    let requester = requesters.pop().expect("who waits");
    requester.answer(answer(Decision::Declined, Some(Reason::DeadlineExceeded), "declined", None));
    let got = read(&mut stream).await;
    assert_eq!((got.status, got.body.as_str()), (200, "declined"));
    assert!(order(&mut orders).await.is_none());
}

#[tokio::test]
async fn a_job_dropped_without_an_answer_claims_nothing() {
    let mut daemon = daemon(|_| {}).await;
    let mut stream = send(daemon.address, post(&request("auth-1")).as_bytes()).await;
    drop(daemon.job().await);
    let got = read(&mut stream).await;
    assert_eq!(got.status, 500);
    assert!(!got.body.contains("declined"), "{got:?}");
}

#[tokio::test]
async fn more_than_in_flight_max_is_declined_at_once_even_if_clients_hang_up() {
    let mut daemon = daemon(|settings| settings.in_flight_max = 2).await;
    let first = send(daemon.address, post(&request("auth-1")).as_bytes()).await;
    let first_job = daemon.job().await;
    let _second = send(daemon.address, post(&request("auth-2")).as_bytes()).await;
    let _second_job = daemon.job().await;
    drop(first);
    sleep(Duration::from_millis(100)).await;

    let got = ask(daemon.address, post(&request("auth-3"))).await;
    let body: serde_json::Value = serde_json::from_str(&got.body).expect("json");
    assert_eq!((got.status, got.header("x-final")), (200, Some("false")), "{got:?}");
    assert_eq!((&body["id"], &body["reason"], &body["currency"]), (&"auth-3".into(), &"system_unavailable".into(), &"EUR".into()));

    first_job.requester.answer(answer(Decision::Declined, Some(Reason::CardLost), "lost", None));
    let mut third = send(daemon.address, post(&request("auth-3")).as_bytes()).await;
    daemon.job().await.requester.answer(answer(Decision::Declined, Some(Reason::CardLost), "lost", None));
    assert_eq!(read(&mut third).await.body, "lost", "an answered job makes room");
}

#[tokio::test]
async fn a_slow_head_a_slow_body_and_an_idle_connection_are_cut() {
    let daemon = daemon(|settings| {
        settings.header_timeout = Duration::from_millis(200);
        settings.body_timeout = Duration::from_millis(200);
    })
    .await;
    let closed = async |mut stream: TcpStream| {
        let mut rest = Vec::new();
        // Cut is cut, politely or not.
        drop(timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed in time"));
    };
    closed(send(daemon.address, b"POST /v1/authorizations HTTP/1.1\r\nhost: x\r\ncontent-").await).await;
    closed(send(daemon.address, b"").await).await;
    let mut slow = send(daemon.address, b"POST /v1/authorizations HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").await;
    let got = read(&mut slow).await;
    assert_eq!((got.status, got.header("x-detail")), (408, Some("body_timeout")));
    closed(slow).await;
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_their_turn() {
    let daemon = daemon(|settings| settings.connections_max = 1).await;
    let mut first = send(daemon.address, get("/livez", "").as_bytes()).await;
    assert_eq!(read(&mut first).await.status, 200);
    let mut second = send(daemon.address, get("/livez", "").as_bytes()).await;
    let early = timeout(Duration::from_millis(300), second.read_u8()).await;
    assert!(early.is_err(), "served beyond the cap");
    drop(first);
    assert_eq!(read(&mut second).await.status, 200);
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    let mut daemon = daemon(|_| {}).await;
    daemon.readiness.check("store").pass();
    let mut idle = send(daemon.address, get("/livez", "").as_bytes()).await;
    assert_eq!(read(&mut idle).await.status, 200);
    let mut running = send(daemon.address, post(&request("auth-1")).as_bytes()).await;
    let job = daemon.job().await;
    daemon.stop();
    sleep(Duration::from_millis(100)).await;

    assert_eq!(ask(daemon.address, get("/ready", "")).await.status, 503, "probes see the drain");
    let refused = ask(daemon.address, post(&request("auth-2"))).await;
    assert!(refused.body.contains("system_unavailable") && refused.header("x-final") == Some("false"), "{refused:?}");
    assert!(daemon.jobs.try_recv().is_err());
    assert!(!daemon.running.is_finished());

    let (approval, mut orders) = fresh(PATIENCE);
    job.requester.answer(answer(Decision::Approved, None, "approved", Some(approval)));
    assert_eq!(read(&mut running).await.body, "approved");
    assert!(order(&mut orders).await.is_none(), "heard");
    timeout(PATIENCE, &mut daemon.running).await.expect("ends by itself").expect("no panic");
    assert!(TcpStream::connect(daemon.address).await.is_err(), "the listener is gone");
}
