#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use axum::{Router, extract::State, http::StatusCode, routing::post};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;

/// A server that answers like a daemon, but fails every request's first try and changes its mind about one id.
#[derive(Clone, Default)]
struct Fickle {
    tries: Arc<Mutex<HashMap<String, u32>>>,
    faithless: Option<String>,
}

async fn answer(State(fickle): State<Fickle>, body: Bytes) -> (StatusCode, [(&'static str, &'static str); 2], String) {
    let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let id = request["id"].as_str().unwrap().to_owned();
    let tries = {
        let mut tries = fickle.tries.lock();
        let tries = tries.entry(id.clone()).or_default();
        *tries += 1;
        *tries
    };
    let headers = [("x-replayed", if tries > 2 { "true" } else { "false" }), ("x-stage-us", "user=3;commit=640")];
    if tries == 1 {
        return (StatusCode::SERVICE_UNAVAILABLE, headers, String::new());
    }
    let version = if fickle.faithless.as_ref() == Some(&id) { tries } else { 0 };
    (StatusCode::OK, headers, format!(r#"{{"id":"{id}","decision":"approved","mood":{version}}}"#))
}

async fn sender(fickle: Fickle, steady: usize, burst: usize) -> Sender {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/v1/authorizations", post(answer)).with_state(fickle);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (_, at) = watch::channel(Place::new(address).unwrap());
    let traffic = Traffic::new(Plan::new(50, 1), 1, steady, burst);
    Sender { link: Link::at(at, 8), tally: Arc::new(Tally::new(traffic.bodies.len())), traffic: Arc::new(traffic) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_in_both_loops_and_replays_are_compared() {
    let sender = sender(Fickle::default(), 700, 900).await;
    let pace = traffic::steady(&sender, 2_000).await.unwrap();
    assert_eq!(pace.lag.len(), 700);
    let steady = sender.tally.take_times();
    assert_eq!((steady.round_trip.len(), steady.spans[crate::telemetry::Span::Commit as usize].1.max()), (700, 640));
    let mut burst = Burst::start(&sender, 8);
    burst.reach(100, Duration::from_secs(10)).await.unwrap();
    burst.finish().await.unwrap();

    let bodies = sender.traffic.bodies.len();
    let (tally, replays) = (&sender.tally, 1_600 - bodies as u64);
    assert!(replays > 10, "{replays}");
    assert_eq!((tally.answers().count(), tally.answered.load(Relaxed)), (bodies, 1_600));
    assert_eq!((tally.identical.load(Relaxed), tally.differing.load(Relaxed)), (replays, 0));
    assert_eq!(tally.resent.load(Relaxed), bodies as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_changes_is_noticed() {
    let traffic = Traffic::new(Plan::new(50, 1), 1, 1_000, 0);
    let replayed = traffic.steady.iter().find(|item| item.replay).unwrap().body;
    let sender = sender(Fickle { faithless: Some(requests::ids().id(replayed)), ..Fickle::default() }, 1_000, 0).await;
    traffic::steady(&sender, 5_000).await.unwrap();
    assert!(sender.tally.differing.load(Relaxed) >= 1);
}
