//! Answers on their way from the pipeline to the library that writes them.

use super::wire::{Outbox, Outgoing};
use crate::{
    codec::response::{self, Response as Encoded},
    domain::{decision::Decision, ids::RequestId, money::Currency, reason::Reason, time::Timestamp},
    pipeline::{Answer, FreshApproval, Requester},
    telemetry::Spans,
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

const REPLAYED: HeaderName = HeaderName::from_static("x-replayed");
const STAGES: HeaderName = HeaderName::from_static("x-stage-us");
const FINAL: HeaderName = HeaderName::from_static("x-final");
const DETAIL: HeaderName = HeaderName::from_static("x-detail");
const DETAIL_BYTES_MAX: usize = 200;

/// The handler that waits for an answer, as the pipeline sees it.
pub(super) struct Waiting {
    handler: oneshot::Sender<Arrived>,
    /// Held until the pipeline is done with the job, however long its handler lives.
    permit: OwnedSemaphorePermit,
}

/// An answer that has come.
pub(super) struct Arrived {
    answer: Answer,
    fresh: Unsent,
    at: Instant,
    permit: OwnedSemaphorePermit,
}

/// An approval that no byte of was sent. Dropped, as when the client hung up, it is handed back to be voided.
struct Unsent(Option<FreshApproval>);

impl Unsent {
    fn take(mut self) -> Option<FreshApproval> {
        self.0.take()
    }

    fn is_late(&self, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|fresh| fresh.deadline().is_some_and(|deadline| deadline <= now))
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(fresh) = self.0.take() {
            fresh.void(None);
        }
    }
}

impl Waiting {
    /// A requester for a job, and where its answer comes out.
    pub(super) fn new(permit: OwnedSemaphorePermit) -> (Box<Self>, oneshot::Receiver<Arrived>) {
        let (handler, answer) = oneshot::channel();
        (Box::new(Self { handler, permit }), answer)
    }
}

impl Requester for Waiting {
    fn answer(self: Box<Self>, mut answer: Answer) {
        let fresh = Unsent(answer.fresh.take());
        // A handler that is gone, now or before it looks, drops what it is sent, and that voids.
        drop(self.handler.send(Arrived { answer, fresh, at: Instant::now(), permit: self.permit }));
    }
}

/// Waits until there is an answer that may be sent. An approval that is late goes back, and what stands then is answered.
/// `None` when the pipeline dropped the job.
pub(super) async fn sendable(mut answer: oneshot::Receiver<Arrived>) -> Option<Arrived> {
    loop {
        let arrived = answer.await.ok()?;
        if !arrived.fresh.is_late(Instant::now()) {
            return Some(arrived);
        }
        let (requester, second) = Waiting::new(arrived.permit);
        if let Some(fresh) = arrived.fresh.take() {
            fresh.void(Some(requester));
        }
        answer = second;
    }
}

impl Arrived {
    /// The response that carries the answer.
    pub(super) fn into_response(self, id: RequestId, outbox: Outbox, received: Instant) -> Response {
        let Self { answer, fresh, at, permit } = self;
        let Answer { body, decision, reason, replayed, journaled, spans, .. } = answer;
        let conflict = reason == Some(Reason::DuplicateConflict);
        let mut response = Response::new(Body::new(Reply {
            bytes: Some(Bytes::from_owner(body)),
            sending: Some(Sending {
                fresh,
                outgoing: Outgoing { fresh: None, id, decision, reason, spans, received, answered: at },
                outbox,
            }),
            _permit: permit,
        }));
        *response.status_mut() = if conflict { StatusCode::CONFLICT } else { StatusCode::OK };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(REPLAYED, HeaderValue::from_static(if replayed { "true" } else { "false" }));
        if !journaled {
            headers.insert(FINAL, HeaderValue::from_static("false"));
        }
        if let Ok(stages) = HeaderValue::from_str(&stages(&spans)) {
            headers.insert(STAGES, stages);
        }
        response
    }
}

/// `decode=1;user=3;…`: what was measured, in microseconds.
fn stages(spans: &Spans) -> String {
    let parts: Vec<String> = spans.iter().map(|(span, us)| format!("{}={us}", span.name())).collect();
    parts.join(";")
}

/// A decline that the journal does not have.
pub(super) struct Refusal<'a> {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    pub(super) detail: &'a str,
    pub(super) id: Option<&'a RequestId>,
    pub(super) currency: Option<Currency>,
    pub(super) decided_at: Timestamp,
}

impl Refusal<'_> {
    pub(super) fn into_response(self) -> Response {
        let body = response::encode(&Encoded {
            id: self.id,
            decision: Decision::Declined,
            reason: Some(self.reason),
            approved: 0,
            currency: self.currency,
            available: None,
            hold: None,
            decided_at: self.decided_at,
        });
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(REPLAYED, HeaderValue::from_static("false"));
        headers.insert(FINAL, HeaderValue::from_static("false"));
        insert_detail(headers, self.detail);
        response
    }
}

/// A header holds visible characters only, and not too many.
fn insert_detail(headers: &mut HeaderMap, detail: &str) {
    let visible: String = detail.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).take(DETAIL_BYTES_MAX).collect();
    if let Ok(value) = HeaderValue::from_str(&visible) {
        headers.insert(DETAIL, value);
    }
}

/// A body of one piece that tells when it is taken.
struct Reply {
    bytes: Option<Bytes>,
    sending: Option<Sending>,
    _permit: OwnedSemaphorePermit,
}

struct Sending {
    fresh: Unsent,
    outgoing: Outgoing,
    outbox: Outbox,
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        if let Some(Sending { fresh, outgoing, outbox }) = self.sending.take() {
            // From here on the fate of an approval is the connection's.
            outbox.push(Outgoing { fresh: fresh.take(), ..outgoing });
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
