//! `GET /report` and `GET /health`: how fast it has been, and how what it depends on is.

use super::ingress::{Edge, now};
use crate::{
    codec::timestamp,
    pipeline::Intake,
    telemetry::{
        events::Dependency,
        report::{Question, ReportError},
    },
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long a question waits for the one before it.
const TURN_MAX: Duration = Duration::from_secs(2);

/// `GET /report[?from=…&to=…][&detail=true]`: latencies and counts since start, or of a stretch of time.
pub(super) async fn report<I: Intake>(State(edge): State<Arc<Edge<I>>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let (question, detail) = match Question::parse(query, now()) {
        Ok(question) => (question, Question::wants_detail(query)),
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    // One at a time, and no scrape behind it: it takes a blocking thread some milliseconds, seconds for many hours, or as long as a disk
    // takes that hangs.
    let Ok(Ok(turn)) = timeout(TURN_MAX, Arc::clone(&edge.report_turn).acquire_owned()).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "another report is being made; ask again\n").into_response();
    };
    let reports = edge.reports.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let answer = if detail { reports.answer_in_detail(question) } else { reports.answer(question) };
        drop(turn);
        answer
    });
    match answer.await {
        Ok(Ok(report)) => json(StatusCode::OK, &report),
        Ok(Err(error @ ReportError::NotKept(_))) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
        Ok(Err(error @ ReportError::Disk(_))) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The body of `/health`.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    timestamp: String,
    services: BTreeMap<&'static str, Service>,
}

#[derive(Serialize)]
struct Service {
    status: &'static str,
    /// For a person. Says nothing of where the service is or why it fails: it is served to anybody who asks.
    detail: &'static str,
    /// Since when it has been so.
    since: String,
}

/// `GET /health`: the daemon and what it depends on; 503 when it cannot do its work. Without Redis it is slower, and no more.
pub(super) async fn health<I: Intake>(State(edge): State<Arc<Edge<I>>>) -> Response {
    let mut worst = "healthy";
    let mut services = BTreeMap::new();
    for (dependency, up, since) in edge.telemetry.dependencies() {
        let (name, without) = match dependency {
            Dependency::Store => (edge.reports.store(), "unhealthy"),
            Dependency::Redis => ("redis", "degraded"),
            Dependency::Broker => ("messageQueue", "unhealthy"),
        };
        let (status, detail) = if up { ("healthy", "answers") } else { (without, "does not answer; the log says why") };
        if !up && worst != "unhealthy" {
            worst = without;
        }
        services.insert(name, Service { status, detail, since: timestamp::format(since) });
    }
    let status = if worst == "unhealthy" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    json(status, &Health { status: worst, timestamp: timestamp::format(now()), services })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let Ok(bytes) = serde_json::to_vec(body) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
