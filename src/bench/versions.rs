//! What ran: versions of the daemon, the store and the broker.

use super::{environment::Environment, scratch::Location, stage::Stage, summary::Tool};
use crate::{ledger::postgres::Postgres, telemetry::report::Report};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::Url;

/// How long a broker may take to greet.
const GREETING_MAX: Duration = Duration::from_secs(2);
/// What an AMQP 0-9-1 client says first.
const HELLO: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The greeting's name of the broker's version, as a field of a table: its length, itself, and the type of a long string.
const VERSION_FIELD: &[u8] = b"\x07versionS";
/// Longer than any greeting.
const GREETING_BYTES_MAX: usize = 8 * 1024;

impl Tool {
    /// This program.
    #[must_use]
    pub fn this() -> Self {
        Self {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: crate::COMMIT.map(str::to_owned),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            command: super::run::command_line(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned())),
        }
    }
}

/// Adds what ran to where it ran. What does not tell its version stays unknown.
pub async fn versions(environment: Environment, stage: &Stage, told: Option<&Report>) -> Environment {
    let store = match stage.store() {
        _ if !stage.may_look() => None,
        // The library is a part of the daemon: that of one that runs already may be another.
        Location::Sqlite(_) if !stage.is_own() => None,
        Location::Sqlite(_) => sqlite_version().await.ok(),
        Location::Postgres(settings) => Postgres::connect(settings).await.ok().map(|store| {
            let version = store.server_version();
            format!("{}.{}", version / 10_000, version % 10_000)
        }),
    };
    let broker = match stage.broker() {
        Some(broker) => timeout(GREETING_MAX, broker_version(&broker.url)).await.ok().flatten(),
        None => None,
    };
    let daemon = told.map(|report| report.version.clone());
    Environment { store, broker, daemon, ..environment }
}

async fn sqlite_version() -> sqlx::Result<String> {
    let mut memory = SqliteConnection::connect_with(&SqliteConnectOptions::new().in_memory(true)).await?;
    let version = sqlx::query_scalar("select sqlite_version()").fetch_one(&mut memory).await?;
    memory.close().await?;
    Ok(version)
}

/// Reads the broker's greeting, which has its version: the client library keeps it to itself. Only where no TLS is between.
async fn broker_version(url: &str) -> Option<String> {
    let url: Url = url.parse().ok().filter(|url: &Url| url.scheme() == "amqp")?;
    let mut stream = TcpStream::connect((url.host_str()?, url.port().unwrap_or(5672))).await.ok()?;
    stream.write_all(HELLO).await.ok()?;
    let mut greeting = Vec::new();
    while greeting.len() < GREETING_BYTES_MAX {
        if stream.read_buf(&mut greeting).await.ok()? == 0 {
            return None;
        }
        if let Some(version) = version_in(&greeting) {
            return Some(version);
        }
    }
    None
}

fn version_in(greeting: &[u8]) -> Option<String> {
    let at = greeting.windows(VERSION_FIELD.len()).position(|window| window == VERSION_FIELD)? + VERSION_FIELD.len();
    let (length, rest) = greeting.get(at..)?.split_first_chunk::<4>()?;
    let text = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_the_greeting_once_all_of_it_is_there() {
        let greeting = b"\x01\x00\x00\x0bproduct_versionS\x07versionS\x00\x00\x00\x063.10.8\x08platform";
        assert_eq!(version_in(greeting).as_deref(), Some("3.10.8"));
        for cut in 0..greeting.len() - 9 {
            assert_eq!(version_in(&greeting[..cut]), None, "{cut} bytes");
        }
    }

    #[tokio::test]
    async fn sqlite_tells_its_version() {
        assert!(sqlite_version().await.is_ok_and(|version| version.starts_with("3.")));
    }
}
