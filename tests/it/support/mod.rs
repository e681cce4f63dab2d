//! What the tests stand on: private services, the daemon as a child process, clients for both edges, and the store's books.

pub(crate) mod amqp;
pub(crate) mod books;
pub(crate) mod browser;
pub(crate) mod daemon;
pub(crate) mod http;
pub(crate) mod metrics;
pub(crate) mod outside;
pub(crate) mod request;
pub(crate) mod sandbox;
pub(crate) mod services;
pub(crate) mod store;
pub(crate) mod world;

use std::time::Duration;
use tokio::time::Instant;

/// How long anything may take that is expected to happen: far longer than it takes, because machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `probe` gives a value; panics after [`PATIENCE`] with what was waited for.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
