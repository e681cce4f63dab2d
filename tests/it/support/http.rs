//! A client of the HTTP edge.

use super::PATIENCE;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::time::timeout;

/// Keeps its connections open between requests. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a text"))
    }
}

impl Http {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// An error is a connection that failed; a bad status is a reply.
    pub(crate) async fn get(&self, path: &str) -> Result<Reply, String> {
        self.send(Method::GET, path, None, Vec::new()).await
    }

    /// Asks for an authorization; the daemon must be there to answer.
    pub(crate) async fn authorize(&self, body: impl Into<Vec<u8>>) -> Reply {
        self.try_authorize(body).await.expect("an answer")
    }

    /// Asks for an authorization of a daemon that may be gone.
    pub(crate) async fn try_authorize(&self, body: impl Into<Vec<u8>>) -> Result<Reply, String> {
        self.send(Method::POST, "/v1/authorizations", Some("application/json"), body.into()).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, content_type: Option<&str>, body: Vec<u8>) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
        };
        timeout(PATIENCE, exchange).await.map_err(|_| format!("no answer after {PATIENCE:?}"))?
    }
}
