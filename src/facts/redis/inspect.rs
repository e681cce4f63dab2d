//! What a Redis says about itself, for a person who asks whether it is set up well.

use super::{Settings, client};
use fred::{
    cmd,
    error::ErrorKind,
    prelude::{ClientLike, FredResult},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// What a Redis says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Its version, in words.
    pub version: String,
    /// Bytes that it holds at most; 0 is as many as there are.
    pub memory_max_bytes: u64,
    /// Bytes that it holds.
    pub memory_used_bytes: u64,
    /// What it does when it is full, as in `allkeys-lru`.
    pub policy: String,
}

/// Why a Redis could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// The URL cannot be used.
    #[error("redis.url is not a Redis URL")]
    Address,
    /// It does not answer.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It answers, and does not let us: password or permissions.
    #[error("it refuses: {0}")]
    Refused(String),
}

/// Asks Redis about itself, within `patience`. Changes nothing.
///
/// # Errors
/// [`InspectError`].
pub async fn inspect(settings: &Settings, patience: Duration) -> Result<Inspection, InspectError> {
    let client = client(settings).map_err(|_| InspectError::Address)?;
    let asking = async {
        let connection = client.connect();
        // A wrong password is told here, and would be tried again for ever.
        let asked = async {
            client.wait_for_connect().await?;
            let info: String = client.custom(cmd!("INFO"), vec!["everything"]).await?;
            Ok(info)
        };
        let asked: FredResult<String> = asked.await;
        connection.abort();
        asked
    };
    match timeout(patience, asking).await {
        Ok(Ok(info)) => Ok(read(&info)),
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::Auth | ErrorKind::InvalidCommand | ErrorKind::Unknown) => {
            Err(InspectError::Refused(error.details().to_owned()))
        }
        Ok(Err(error)) => Err(InspectError::Unreachable(error.details().to_owned())),
        Err(_) => Err(InspectError::Unreachable(format!("no answer within {} ms", patience.as_millis()))),
    }
}

/// Reads `name:value` lines; what is missing stays empty.
fn read(info: &str) -> Inspection {
    let values: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let text = |name: &str| values.get(name).copied().unwrap_or_default().to_owned();
    let number = |name: &str| values.get(name).and_then(|value| value.parse().ok()).unwrap_or_default();
    Inspection {
        version: text("redis_version"),
        memory_max_bytes: number("maxmemory"),
        memory_used_bytes: number("used_memory"),
        policy: text("maxmemory_policy"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_info_are_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:1048576\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n";
        let (version, policy) = ("7.0.15".to_owned(), "noeviction".to_owned());
        assert_eq!(read(info), Inspection { version, memory_max_bytes: 0, memory_used_bytes: 1_048_576, policy });
        assert_eq!(read("nonsense"), Inspection::default());
    }
}
