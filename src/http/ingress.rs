//! `POST /v1/authorizations`: bytes in, a job to the pipeline, its answer out.
#![expect(clippy::disallowed_methods, reason = "an edge: this is where wall time enters")]

use super::{
    auth::Token,
    body::{self, BodyError},
    reply::{Refusal, Waiting, sendable},
    settings::Settings,
    wire::Outbox,
};
use crate::{
    codec::request::{self, DecodeError, Decoded},
    domain::{reason::Reason, time::Timestamp},
    pipeline::{Intake, Job, deadline::deadline},
    telemetry::{Readiness, Reports, Span, Spans, Telemetry},
};
use axum::{
    extract::{Extension, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::Semaphore, time::Instant};

/// What all handlers share.
pub(super) struct Edge<I> {
    pub(super) intake: I,
    pub(super) telemetry: Telemetry,
    pub(super) readiness: Readiness,
    pub(super) reports: Reports,
    pub(super) token: Option<Token>,
    pub(super) in_flight: Arc<Semaphore>,
    pub(super) scrape_turn: Arc<Semaphore>,
    /// As `scrape_turn`, for reports: a question about many hours must not keep a scraper waiting.
    pub(super) report_turn: Arc<Semaphore>,
    pub(super) draining: AtomicBool,
    pub(super) body_timeout: Duration,
    pub(super) deadline_default: Duration,
    pub(super) deadline_reserve: Duration,
}

impl<I: Intake> Edge<I> {
    pub(super) fn new(settings: &Settings, parts: super::Parts<I>) -> Self {
        Self {
            intake: parts.intake,
            telemetry: parts.telemetry,
            readiness: parts.readiness,
            reports: parts.reports,
            token: settings.token.as_deref().map(Token::new),
            in_flight: Arc::new(Semaphore::new(settings.in_flight_max)),
            scrape_turn: Arc::new(Semaphore::new(1)),
            report_turn: Arc::new(Semaphore::new(1)),
            draining: AtomicBool::new(false),
            body_timeout: settings.body_timeout,
            deadline_default: parts.deadline_default,
            deadline_reserve: parts.deadline_reserve,
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed) || self.readiness.is_draining()
    }

    fn refuse_input(&self, error: &DecodeError) -> Response {
        let DecodeError { reason, detail, id, currency } = error;
        self.telemetry.invalid_input(*reason, detail);
        let status = match reason {
            Reason::Malformed | Reason::UnsupportedVersion => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Refusal { status, reason: *reason, detail, id: id.as_ref(), currency: *currency, decided_at: now() }.into_response()
    }

    fn refuse_body(&self, error: BodyError) -> Response {
        self.telemetry.invalid_input(Reason::Malformed, error.detail());
        let (status, reason) = (error.status(), Reason::Malformed);
        Refusal { status, reason, detail: error.detail(), id: None, currency: None, decided_at: now() }.into_response()
    }

    /// Declines what there is no room for. It may be sent again.
    fn shed(&self, decoded: &Decoded, detail: &str) -> Response {
        self.telemetry.shed(Reason::SystemUnavailable);
        Refusal {
            status: StatusCode::OK,
            reason: Reason::SystemUnavailable,
            detail,
            id: Some(&decoded.request.id),
            currency: Some(decoded.request.amount.currency),
            decided_at: now(),
        }
        .into_response()
    }

    /// The deadline of a decoded request whose head came at `arrived`, and what its times tell.
    fn timed(&self, decoded: &Decoded, arrived: Instant, wall: Timestamp, spans: &mut Spans) -> Instant {
        let (deadline, skew, queue) =
            deadline(arrived, wall, decoded.sent_at, decoded.deadline_ms, self.deadline_default, self.deadline_reserve);
        if let Some(ahead) = skew {
            self.telemetry.clock_skewed(ahead);
        }
        if let Some(queue) = queue {
            spans.set(Span::Queue, queue);
        }
        if decoded.unknown_fields > 0 {
            self.telemetry.unknown_fields(decoded.unknown_fields);
        }
        deadline
    }
}

/// The handler. Dropped at any point it leaves nothing behind: the job goes on, and its answer knows that nobody waits.
pub(super) async fn authorize<I: Intake>(
    State(edge): State<Arc<Edge<I>>>,
    Extension(outbox): Extension<Outbox>,
    request: Request,
) -> Response {
    let (arrived, wall) = (Instant::now(), now());
    let (head, body) = request.into_parts();
    if let Err(error) = body::check_head(&head.headers) {
        return edge.refuse_body(error);
    }
    let bytes = match body::read(&head.headers, body, edge.body_timeout).await {
        Ok(bytes) => bytes,
        Err(error) => return edge.refuse_body(error),
    };
    let received = Instant::now();
    let decoded = match request::decode(&bytes) {
        Ok(decoded) => decoded,
        Err(error) => return edge.refuse_input(&error),
    };
    let mut spans = Spans::default();
    spans.set(Span::Decode, received.elapsed());
    let deadline = edge.timed(&decoded, arrived, wall, &mut spans);

    if edge.is_draining() {
        return closing(edge.shed(&decoded, "draining: send it to another instance"));
    }
    let Ok(permit) = Arc::clone(&edge.in_flight).try_acquire_owned() else {
        return edge.shed(&decoded, "in_flight_max reached");
    };
    let (requester, answer) = Waiting::new(permit);
    let id = decoded.request.id.clone();
    edge.intake.submit(Job { request: decoded.request, received, deadline, spans, lossy_reply: false, redelivered: false, requester });
    match sendable(answer).await {
        Some(arrived) => arrived.into_response(id, outbox, received),
        None => undecided(),
    }
}

/// The pipeline let go of a job without a word, as when it is torn down. It may have approved it: to claim a decline would be wrong.
fn undecided() -> Response {
    tracing::error!(event = "job_unanswered", "a job was dropped without an answer; its outcome is what the journal says");
    (StatusCode::INTERNAL_SERVER_ERROR, "the outcome is not known; send the same request again, with the same id\n").into_response()
}

fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The wall clock, read at the edge only.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
