//! A daemon's HTTP edge, over pooled connections.
#![expect(clippy::disallowed_methods, reason = "the load is measured from outside, on the real clock")]

use super::{Parcel, Target, stages::spans};
use crate::{bench::record::Reply, telemetry::Spans};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

/// Largest answer that is read, bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Pause before a request that had no answer is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A daemon behind a URL. Requests that had no answer are sent again until their time is up: the id makes that safe.
#[derive(Clone, Debug)]
pub struct Http {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client<HttpConnector, Full<Bytes>>,
    authorizations: Uri,
    token: Option<HeaderValue>,
    /// How long after it was due a request is given up.
    patience: Duration,
}

impl Http {
    /// The daemon at `base` (`http://host:port`), asked with `token`.
    ///
    /// # Errors
    /// The URL or the token cannot be used.
    pub fn new(base: &str, token: Option<&str>, patience: Duration) -> Result<Self, hyper::http::Error> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let bearer = |token: &str| {
            HeaderValue::try_from(format!("Bearer {token}")).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        };
        let inner = Inner {
            client: Client::builder(TokioExecutor::new()).build(connector),
            authorizations: format!("{}/v1/authorizations", base.trim_end_matches('/')).parse()?,
            token: token.map(bearer).transpose()?,
            patience,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Target for Http {
    fn send(&self, parcel: Parcel) {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move { inner.settle(parcel).await });
    }
}

impl Inner {
    /// Sends a request until it is answered, or for as long as anybody would wait.
    async fn settle(&self, parcel: Parcel) {
        let Parcel { body, seat } = parcel;
        seat.sent(Instant::now());
        loop {
            let left = self.patience.saturating_sub(seat.due().elapsed());
            let Ok(outcome) = timeout(left, self.ask(body.clone())).await else { return };
            if let Some((status, headers, body)) = outcome {
                if status == StatusCode::OK {
                    return seat.answered(Instant::now(), reply(&headers, &body));
                }
                if status.is_client_error() {
                    return seat.refused(|| format!("{status}: {}", String::from_utf8_lossy(&body)));
                }
            }
            seat.retried();
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn ask(&self, body: Bytes) -> Option<(StatusCode, HeaderMap, Bytes)> {
        let json = HeaderValue::from_static("application/json");
        let request = Request::builder().method(Method::POST).uri(self.authorizations.clone()).header(CONTENT_TYPE, json);
        let mut request = request.body(Full::new(body)).ok()?;
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let (head, body) = self.client.request(request).await.ok()?.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.ok()?.to_bytes();
        Some((head.status, head.headers, body))
    }
}

fn reply<'a>(headers: &HeaderMap, body: &'a [u8]) -> Reply<'a> {
    let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let spans = header("x-stage-us").map_or_else(Spans::default, spans);
    Reply { body, journaled: header("x-final") != Some(b"false"), spans }
}
