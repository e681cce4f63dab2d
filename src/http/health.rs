//! What orchestrators and scrapers ask: alive, ready, how fast.

use super::ingress::Edge;
use crate::{pipeline::Intake, telemetry::Exposition};
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::sync::Arc;

/// `GET /livez`: the event loop turns. Never looks at dependencies, because restarting us does not mend them.
pub(super) async fn livez() -> &'static str {
    "alive\n"
}

/// `GET /ready[?verbose]`: whether requests are wanted; 503 before that and during a drain.
pub(super) async fn ready<I: Intake>(State(edge): State<Arc<Edge<I>>>, request: Request) -> Response {
    let draining = edge.is_draining();
    let ready = edge.readiness.is_ready() && !draining;
    let mut text = match (ready, draining) {
        (true, _) => "ready\n",
        (false, true) => "not ready: draining\n",
        (false, false) => "not ready; ask /ready?verbose for the checks\n",
    }
    .to_owned();
    if request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))) {
        for check in edge.readiness.checks() {
            let (sign, state) = if check.ok { ('+', "ok") } else { ('-', check.detail.as_str()) };
            text.push_str(&format!("[{sign}] {}: {state}\n", check.name));
        }
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], text).into_response()
}

/// `GET /metrics`: the Prometheus text format, or OpenMetrics for those who accept it.
pub(super) async fn metrics<I: Intake>(State(edge): State<Arc<Edge<I>>>, request: Request) -> Response {
    let accepts = request.headers().get_all(header::ACCEPT);
    let open = accepts.iter().any(|value| value.to_str().is_ok_and(|value| value.contains("application/openmetrics-text")));
    let exposition = if open { Exposition::OpenMetrics } else { Exposition::Prometheus };
    // One at a time: a scrape takes a millisecond of a blocking thread, and many scrapers may call at once.
    let Ok(turn) = Arc::clone(&edge.scrape_turn).acquire_owned().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let telemetry = edge.telemetry.clone();
    let text = tokio::task::spawn_blocking(move || {
        let text = telemetry.scrape(exposition);
        drop(turn);
        text
    });
    match text.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, exposition.content_type())], text).into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
