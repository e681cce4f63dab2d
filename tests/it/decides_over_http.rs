//! `POST /v1/authorizations` decides, on SQLite, with nothing else installed.

use crate::{
    outcomes::{self, Case, Expected},
    support::{request::Request, sandbox::Sandbox, store::Store},
};
use hyper::Method;
use jitauth::domain::reason::Reason;

/// The status that goes with an outcome: 200 for every decision, whatever it says.
fn status_fits(case: &Case, status: u16) -> bool {
    match case.expected {
        Expected::Declined(Reason::DuplicateConflict) => status == 409,
        Expected::Declined(_) if !case.journaled() => matches!(status, 400 | 422),
        _ => status == 200,
    }
}

async fn check(case: &Case, http: &crate::support::http::Http, store: &Store) {
    for request in &case.before {
        let reply = http.authorize(request.body()).await;
        assert_eq!(reply.json()["decision"], "approved", "{}: {}", request.id(), reply.text());
    }
    let reply = http.authorize(case.request.body()).await;
    assert!(status_fits(case, reply.status), "{}: {} {}", case.request.id(), reply.status, reply.text());
    outcomes::check_response(case, &reply.body);
    outcomes::check_store(case, &reply.body, store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_over_http() {
    let sandbox = Sandbox::embedded();
    let daemon = sandbox.daemon().await;
    let store = sandbox.store().await;
    outcomes::prepare(&store).await;
    let http = daemon.http();
    for case in outcomes::all() {
        check(&case, &http, &store).await;
    }
    store.check_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_survives_a_restart_byte_for_byte() {
    let sandbox = Sandbox::embedded();
    let mut daemon = sandbox.daemon().await;
    let store = sandbox.store().await;
    outcomes::prepare(&store).await;
    let request = Request::new("lasting").amount("12.50");
    let first = daemon.http().authorize(request.body()).await;
    assert_eq!(first.json()["decision"], "approved", "{}", first.text());
    assert!(first.header("x-stage-us").is_some(), "{:?}", first.headers);
    assert_eq!(daemon.terminate().await.code(), Some(0));
    daemon.restart().await;
    let second = daemon.http().authorize(request.body()).await;
    assert_eq!((second.status, &second.body), (200, &first.body));
    assert_eq!(second.header("x-replayed"), Some("true"));
    assert_eq!(store.number("select count(*) from holds").await, 1);
    store.check_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_refused_by_its_status() {
    let sandbox = Sandbox::embedded();
    let daemon = sandbox.daemon().await;
    let http = daemon.http();
    let huge = format!("{{\"version\": 1, \"id\": \"huge\", \"filler\": \"{}\"}}", "x".repeat(20_000));
    let json = Some("application/json");
    for (what, method, content_type, body, statuses) in [
        ("nothing", Method::POST, json, String::new(), [400, 422]),
        ("broken JSON", Method::POST, json, "{\"version\": 1".to_owned(), [400, 422]),
        ("an array", Method::POST, json, "[1]".to_owned(), [400, 422]),
        ("too large", Method::POST, json, huge, [413, 413]),
        ("a picture", Method::POST, Some("image/png"), "{}".to_owned(), [415, 415]),
        ("a GET", Method::GET, None, String::new(), [405, 405]),
    ] {
        let reply = http.send(method, "/v1/authorizations", content_type, body.into_bytes()).await.expect("an answer");
        assert!(statuses.contains(&reply.status), "{what}: {} {}", reply.status, reply.text());
    }
    assert_eq!(sandbox.store().await.number("select count(*) from authorizations").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_ends_the_start_before_the_broker_is_asked() {
    let sandbox = Sandbox::embedded();
    let first = sandbox.daemon().await;
    // Nothing listens there: whoever asks the broker first ends for that, and with a broker would have taken deliveries.
    let second = sandbox.settings.clone().with("JITAUTH_SQLITE__PATH", "second.db").with("JITAUTH_BROKER__ENABLED", "true");
    let output = second.with("JITAUTH_BROKER__URL", "amqp://guest:guest@127.0.0.1:1").run(&["serve"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains(&format!("cannot listen on {}", first.address())), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_check_ends_with_0_or_1() {
    let sandbox = Sandbox::embedded();
    let nobody = sandbox.settings.run(&["health"]).await;
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    let daemon = sandbox.daemon().await;
    let well = sandbox.settings.run(&["health"]).await;
    let said = String::from_utf8_lossy(&well.stdout).into_owned();
    assert!(well.status.success() && said.contains("\"status\":\"healthy\""), "{said}{}", String::from_utf8_lossy(&well.stderr));
    // Another daemon than that of the configuration, and one that is no daemon.
    let url = format!("http://{}", daemon.address());
    assert_eq!(sandbox.settings.clone().with_free_port().run(&["health", "--url", &url]).await.status.code(), Some(0));
    assert_eq!(sandbox.settings.run(&["health", "--url", &format!("{url}/v1")]).await.status.code(), Some(1), "404 is not well");
}
