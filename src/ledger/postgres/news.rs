//! What the triggers announce on the channel `facts`, heard on a connection of its own.

use super::connection::Server;
use crate::{
    domain::{
        ids::{CardToken, ProgramId, UserId, UserToken},
        time::Timestamp,
    },
    facts::change::{Announced, Change},
    ledger::feed::Source,
};
use sqlx::{
    Executor as _,
    postgres::{PgListener, PgPoolOptions},
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

const CHANNEL: &str = "facts";
/// After this much silence the server is asked whether it is still there.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// A server that takes longer to answer is gone, whatever its socket says.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Most announcements that are handed on together.
const BATCH_MAX: usize = 500;

/// The announcements of a server.
#[derive(Debug)]
pub struct PgNews {
    server: Arc<Server>,
    /// Taken out when it has failed: the driver would connect again by itself, and hide that something may have been missed.
    listener: Option<PgListener>,
}

impl PgNews {
    pub(super) const fn new(server: Arc<Server>) -> Self {
        Self { server, listener: None }
    }
}

impl Source for PgNews {
    async fn connect(&mut self) -> Result<(), String> {
        self.listener = None;
        let limit = self.server.connect_timeout();
        let connecting = async {
            // A pool of one, new each time: what is left of a dead connection must not be in its way.
            let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None).test_before_acquire(false);
            let mut listener = PgListener::connect_with(&pool.connect_lazy_with(self.server.listening_options())).await?;
            listener.ignore_pool_close_event(true);
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        let connected = timeout(limit, connecting).await.map_err(|_| format!("no answer within {} ms", limit.as_millis()))?;
        self.listener = Some(connected.map_err(|error| error.to_string())?);
        Ok(())
    }

    async fn changes(&mut self) -> Result<Vec<Announced>, String> {
        let Some(listener) = &mut self.listener else { return Err("not connected".to_owned()) };
        let first = loop {
            match timeout(SILENCE_MAX, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => break notification,
                Ok(Ok(None)) => return Err("the server closed the connection".to_owned()),
                Ok(Err(error)) => return Err(error.to_string()),
                // What arrives meanwhile is kept by the driver.
                Err(_) => match timeout(PING_TIMEOUT, listener.execute("select 1")).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(error.to_string()),
                    Err(_) => return Err(format!("no answer within {} ms", PING_TIMEOUT.as_millis())),
                },
            }
        };
        let mut heard: Vec<_> = announced(first.payload()).into_iter().collect();
        while heard.len() < BATCH_MAX
            && let Some(next) = listener.next_buffered()
        {
            heard.extend(announced(next.payload()));
        }
        Ok(heard)
    }
}

/// What a payload says: see `migrations/postgres/0004_announcements.sql`. One that cannot be read may mean anything.
/// A token that no request can name concerns nobody.
fn announced(payload: &str) -> Option<Announced> {
    match read(payload) {
        Some(Read::Of(announced)) => Some(announced),
        Some(Read::Nobody) => None,
        None => Some(Announced { change: Change::Everything, at: None }),
    }
}

enum Read {
    Of(Announced),
    Nobody,
}

fn read(payload: &str) -> Option<Read> {
    let mut fields = payload.splitn(5, ':');
    let number = |fields: &mut std::str::SplitN<'_, char>| fields.next()?.parse::<i64>().ok();
    let kind = fields.next()?;
    if kind == "all" {
        return Some(Read::Of(Announced { change: Change::Everything, at: number(&mut fields).map(Timestamp) }));
    }
    let (id, version, at) = (number(&mut fields)?, Some(number(&mut fields)?), number(&mut fields)?);
    let token = fields.next()?;
    let change = match kind {
        "card" => CardToken::new(token).ok().map(|token| Change::Card { token, version }),
        "user" => UserToken::new(token).ok().map(|token| Change::User { id: UserId(id), token, version }),
        "program" => Some(Change::Program { id: ProgramId(id), version }),
        _ => return None,
    };
    Some(change.map_or(Read::Nobody, |change| Read::Of(Announced { change, at: Some(Timestamp(at)) })))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_read_or_mean_everything() {
        let card = |token: &str| Change::Card { token: CardToken::new(token).unwrap(), version: Some(7) };
        let user = Change::User { id: UserId(3), token: UserToken::new("usr_3").unwrap(), version: Some(7) };
        let everything = Change::Everything;
        for (payload, change, at) in [
            ("card:1:7:1700000000000000:crd_1", card("crd_1"), Some(1_700_000_000_000_000)),
            ("card:1:7:9:a:b", card("a:b"), Some(9)),
            ("user:3:7:9:usr_3", user, Some(9)),
            ("program:4:7:9:prg 4", Change::Program { id: ProgramId(4), version: Some(7) }, Some(9)),
            ("all:9", everything.clone(), Some(9)),
            ("all", everything.clone(), None),
            ("", everything.clone(), None),
            ("card:1", everything.clone(), None),
            ("card:1:7:9", everything.clone(), None),
            ("card:x:7:9:crd_1", everything.clone(), None),
            ("account:1:7:9:acc_1", everything, None),
        ] {
            assert_eq!(announced(payload), Some(Announced { change, at: at.map(Timestamp) }), "{payload}");
        }
        for payload in ["card:1:7:9:", "card:1:7:9:crd 1", "user:1:7:9:usr 1"] {
            assert_eq!(announced(payload), None, "{payload} concerns nobody");
        }
    }
}
