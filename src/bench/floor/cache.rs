//! How long Redis takes for one `GET`.
#![expect(clippy::disallowed_methods, reason = "a server is measured on the real clock")]

use crate::bench::{Error, record::micros};
use fred::{
    prelude::{Builder, Client, ClientLike, Config, Expiration, KeysInterface},
    types::InfoKind,
};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long connecting and each command may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// As long as a card's facts.
const VALUE_BYTES: usize = 300;
/// The key is gone after this, however the run ends.
const EXPIRES_S: i64 = 600;

/// A client with one key to ask for.
pub(super) struct Cache {
    client: Client,
    key: String,
}

impl Cache {
    /// Connects, and writes the key.
    ///
    /// # Errors
    /// Redis cannot be used; its URL is not quoted.
    pub(super) async fn connect(url: &str, run: &str) -> Result<Self, Error> {
        let config = Config::from_url(url).map_err(|_| Error::Floor("redis.url is not a Redis URL".to_owned()))?;
        let client = Builder::from_config(config).build().map_err(failed)?;
        let key = format!("jit:floor:{run}");
        let opening = async {
            client.init().await?;
            client.set::<(), _, _>(&key, "x".repeat(VALUE_BYTES), Some(Expiration::EX(EXPIRES_S)), None, false).await
        };
        timeout(PATIENCE, opening).await.map_err(|_| silent())?.map_err(failed)?;
        Ok(Self { client, key })
    }

    /// Asks for the key, one time after the other, for so long; adds the microseconds to `times`.
    ///
    /// # Errors
    /// Redis does not answer any more.
    pub(super) async fn measure(&self, lasts: Duration, times: &mut Histogram<u64>) -> Result<(), Error> {
        let began = Instant::now();
        while began.elapsed() < lasts {
            let start = Instant::now();
            let got: Option<String> = timeout(PATIENCE, self.client.get(&self.key)).await.map_err(|_| silent())?.map_err(failed)?;
            if got.is_none_or(|value| value.len() != VALUE_BYTES) {
                return Err(Error::Floor("Redis has forgotten what was just written".to_owned()));
            }
            times.saturating_record(u64::from(micros(start.elapsed())));
        }
        Ok(())
    }

    /// The version that it tells.
    pub(super) async fn version(&self) -> Option<String> {
        let told: String = timeout(PATIENCE, self.client.info(Some(InfoKind::Server))).await.ok()?.ok()?;
        Some(told.lines().find_map(|line| line.strip_prefix("redis_version:"))?.trim().to_owned())
    }

    /// Takes the key away.
    pub(super) async fn close(self) {
        let closing = async {
            self.client.del::<(), _>(&self.key).await?;
            self.client.quit().await
        };
        // What could not be deleted expires.
        let _gone_or_expires = timeout(PATIENCE, closing).await.is_ok_and(|closed| closed.is_ok());
    }
}

fn silent() -> Error {
    Error::Floor(format!("Redis does not answer within {} s", PATIENCE.as_secs()))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn failed(error: fred::error::Error) -> Error {
    Error::Floor(format!("Redis: {}", error.details()))
}
