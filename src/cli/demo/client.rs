//! One request over HTTP, with as little work as possible: the daemon shares these cores.

use crate::telemetry::Span;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, HeaderValue},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{net::SocketAddr, time::Duration};
use tokio::{sync::watch, time::timeout};

/// Longest that one try may take. The daemon answers or hangs up long before.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read: metrics are the largest.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where the daemon listens; it changes with a restart.
#[derive(Clone, Debug)]
pub(super) struct Place {
    authorizations: Uri,
    metrics: Uri,
}

impl Place {
    /// The daemon at this address.
    pub(super) fn new(address: SocketAddr) -> Result<Self, hyper::http::uri::InvalidUri> {
        let uri = |path: &str| format!("http://{address}{path}").parse();
        Ok(Self { authorizations: uri("/v1/authorizations")?, metrics: uri("/metrics")? })
    }
}

/// A pooled client and where it sends to.
#[derive(Clone, Debug)]
pub(super) struct Link {
    client: Client<HttpConnector, Full<Bytes>>,
    place: watch::Receiver<Place>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// The bytes are those of an earlier answer.
    pub(super) replayed: bool,
    /// Whether the journal has it: not when `x-final: false` says so.
    pub(super) journaled: bool,
    /// Microseconds per span, from the header.
    pub(super) stages: Vec<(Span, u64)>,
}

/// Why there was no answer; sending the same again is safe.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("no connection: {0}")]
    Connection(#[from] hyper_util::client::legacy::Error),
    #[error("the answer broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("not a request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("no answer within 5 s")]
    Timeout,
}

impl Link {
    /// A client that keeps up to `connections` open.
    pub(super) fn new(place: watch::Receiver<Place>, connections: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(connections).build(connector);
        Self { client, place }
    }

    /// Asks for one authorization.
    pub(super) async fn authorize(&self, body: Bytes) -> Result<Reply, SendError> {
        let uri = self.place.borrow().authorizations.clone();
        let json = HeaderValue::from_static("application/json");
        self.send(Request::builder().method(Method::POST).uri(uri).header(CONTENT_TYPE, json).body(Full::new(body))?).await
    }

    /// Reads the metrics page.
    pub(super) async fn metrics(&self) -> Result<String, SendError> {
        let uri = self.place.borrow().metrics.clone();
        let reply = self.send(Request::get(uri).body(Full::default())?).await?;
        Ok(String::from_utf8_lossy(&reply.body).into_owned())
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Reply, SendError> {
        timeout(TRY_TIMEOUT, async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(SendError::Body)?.to_bytes();
            let header = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
            Ok(Reply {
                status: head.status,
                body,
                replayed: header("x-replayed") == Some(b"true"),
                journaled: header("x-final") != Some(b"false"),
                stages: header("x-stage-us").map(stages).unwrap_or_default(),
            })
        })
        .await
        .map_err(|_| SendError::Timeout)?
    }
}

/// Reads `user=3;card=2;commit=640`. What is not understood is left out.
fn stages(header: &[u8]) -> Vec<(Span, u64)> {
    let text = str::from_utf8(header).unwrap_or_default();
    let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs
        .filter_map(|(name, us)| {
            let span = Span::ALL.into_iter().find(|span| span.name() == name)?;
            Some((span, us.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_times_are_read_and_nonsense_is_left_out() {
        let both = vec![(Span::User, 3), (Span::Commit, 640)];
        for (header, expected) in [
            (b"user=3;commit=640".as_slice(), both.clone()),
            (b" user=3; commit=640 ;", both),
            (b"", vec![]),
            (b"nonsense=1;user;card=x", vec![]),
            (b"\xff", vec![]),
        ] {
            assert_eq!(stages(header), expected);
        }
    }
}
