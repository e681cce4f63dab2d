//! What Redis pushes: which rows were written, by the RESP3 client tracking of the server.
//!
//! Tracking can end without a word: with the connection, with a reader that is too slow, with a flushed database (the client drops that
//! push), with a link that is dead at one end. So one task looks at it every quarter of a second and says when news may have been
//! missed. It is also the one that probes for the [breaker](crate::facts::breaker).
//!
//! A push names a row and does not say what became of it. The row is read then: a tombstone tells what changed and when; a fact tells
//! its version, which is no news to whoever has that version; a row that expired tells nothing.

use super::{BACKGROUND_TIMEOUT, Redis, options, row, silent};
use crate::{
    facts::change::{ChangeFeed, Heard},
    telemetry::events::Dependency,
};
use fred::{
    interfaces::TrackingInterface,
    prelude::{ClientInterface, ClientLike, EventInterface, FredResult, KeysInterface, SetOptions, Value},
    types::client::Invalidation,
};
use std::{collections::HashMap, time::Duration};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::{Instant, MissedTickBehavior, interval},
};

/// How often the link and the tracking are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Rows read at once after they were pushed.
const ROWS_MAX: usize = 256;
/// News that wait to be heard. When they are not, pushes wait, until they are known to be lost.
const NEWS_WAITING_MAX: usize = 64;

/// The news of Redis.
#[derive(Debug)]
pub struct Tracking(mpsc::Receiver<Heard>);

impl ChangeFeed for Tracking {
    async fn next(&mut self) -> Heard {
        match self.0.recv().await {
            Some(heard) => heard,
            // The task that speaks ends with the process only.
            None => std::future::pending().await,
        }
    }
}

/// Starts to look after the link, and to listen if that is wanted.
pub(super) fn start(redis: Redis, listen: bool) -> Option<Tracking> {
    let (news, heard) = mpsc::channel(NEWS_WAITING_MAX);
    let keeper = Keeper { redis, news: listen.then_some(news), live: false, mark: None };
    tokio::spawn(keeper.run());
    listen.then_some(Tracking(heard))
}

struct Keeper {
    redis: Redis,
    news: Option<mpsc::Sender<Heard>>,
    /// Whether every push is heard.
    live: bool,
    /// What stood in the row that a flush takes away.
    mark: Option<String>,
}

impl Keeper {
    async fn run(mut self) {
        let client = self.redis.inner.client.clone();
        let (mut pushes, mut connected) = (client.invalidation_rx(), client.reconnect_rx());
        let mut tick = interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // First: however many pushes there are, the breaker needs its probe.
                _ = tick.tick() => self.look().await,
                pushed = pushes.recv() => match pushed {
                    Ok(pushed) => {
                        let mut keys = names(&pushed);
                        while keys.len() < ROWS_MAX && let Ok(more) = pushes.try_recv() {
                            keys.extend(names(&more));
                        }
                        self.hear(keys).await;
                    }
                    Err(RecvError::Lagged(missed)) => self.lose(&format!("{missed} pushes came faster than they could be heard")).await,
                    Err(RecvError::Closed) => return self.lose("the client has ended").await,
                },
                // Tracking ended with the old connection.
                _ = connected.recv() => {
                    self.lose("the connection was made anew").await;
                    self.look().await;
                }
            }
        }
    }

    /// Asks for the mark, which tells whether the link is alive and whether the database is the same, and makes sure of the tracking.
    async fn look(&mut self) {
        if !self.redis.inner.breaker.may_probe(Instant::now()) {
            return;
        }
        let client = self.redis.inner.client.with_options(&options(BACKGROUND_TIMEOUT));
        let mut answer: FredResult<Option<String>> = client.get(row::EPOCH_KEY).await;
        if answer.as_ref().is_err_and(|error| !silent(error)) {
            // It answers, and what it has there is not ours: away with it.
            drop(client.del::<Value, _>(row::EPOCH_KEY).await);
            answer = Ok(None);
        }
        let trouble = match answer {
            Ok(mark) => {
                self.redis.inner.breaker.succeeded(true);
                self.compare(mark).await;
                None
            }
            Err(error) => {
                self.redis.inner.breaker.failed(Instant::now());
                Some(error.to_string())
            }
        };
        self.redis.note_breaker();
        self.redis.inner.telemetry.dependency(Dependency::Redis, trouble.is_none(), trouble.as_deref().unwrap_or_default());
        if let Some(why) = &trouble {
            self.lose(why).await;
        }
        if trouble.is_none() && self.news.is_some() {
            self.make_sure().await;
        }
    }

    async fn compare(&mut self, mark: Option<String>) {
        if self.mark.is_some() && mark != self.mark {
            // What was pushed before may have been read after, and not been there any more.
            self.lose("the database was flushed").await;
        }
        self.mark = mark;
        if self.mark.is_none() {
            let (client, new) = (&self.redis.inner.client, format!("{:016x}", rand::random::<u64>()));
            let set = client.with_options(&options(BACKGROUND_TIMEOUT));
            // Another daemon may be first; then its mark is read next time, and is no flush.
            drop(set.set::<Value, _, _>(row::EPOCH_KEY, new, None, Some(SetOptions::NX), false).await);
        }
    }

    /// Turns tracking on where it is not.
    async fn make_sure(&mut self) {
        if self.live && self.is_on().await {
            return;
        }
        self.lose("the server does not track any more").await;
        let client = &self.redis.inner.client;
        // On again without off would be refused, because the prefix is known. Our own writes need not be pushed: memory has them.
        let armed = async {
            client.stop_tracking().await?;
            client.start_tracking(vec![row::PREFIX], true, false, false, true).await
        };
        if tokio::time::timeout(BACKGROUND_TIMEOUT, armed).await.is_ok_and(|armed| armed.is_ok()) {
            self.live = true;
            self.tell(Heard::Listening).await;
        }
    }

    async fn is_on(&self) -> bool {
        let client = self.redis.inner.client.with_options(&options(BACKGROUND_TIMEOUT));
        let info: FredResult<HashMap<String, Value>> = client.client_trackinginfo().await;
        let flags = info.ok().and_then(|mut info| info.remove("flags")).map(Value::into_array).unwrap_or_default();
        flags.iter().any(|flag| flag.as_str().is_some_and(|flag| flag == "bcast"))
    }

    async fn hear(&mut self, mut keys: Vec<String>) {
        keys.retain(|key| row::is_news(key));
        keys.sort_unstable();
        keys.dedup();
        if self.news.is_none() || keys.is_empty() {
            return;
        }
        let client = self.redis.inner.client.with_options(&options(BACKGROUND_TIMEOUT));
        let mut changes = Vec::with_capacity(keys.len());
        for keys in keys.chunks(ROWS_MAX) {
            let rows: FredResult<Vec<Option<Vec<u8>>>> = client.mget(keys.to_vec()).await;
            match rows {
                Ok(rows) if rows.len() == keys.len() => {
                    changes.extend(keys.iter().zip(&rows).filter_map(|(key, row)| row::news(key, row.as_deref())));
                }
                _ => changes.extend(keys.iter().filter_map(|key| row::unread(key))),
            }
        }
        if !changes.is_empty() {
            self.tell(Heard::Changes(changes)).await;
        }
    }

    async fn lose(&mut self, why: &str) {
        if std::mem::take(&mut self.live) {
            self.tell(Heard::Lost(why.to_owned())).await;
        }
    }

    async fn tell(&mut self, heard: Heard) {
        let Some(news) = &self.news else { return };
        if news.send(heard).await.is_err() {
            self.news = None;
        }
    }
}

fn names(pushed: &Invalidation) -> Vec<String> {
    pushed.keys.iter().map(|key| key.as_str_lossy().into_owned()).collect()
}
