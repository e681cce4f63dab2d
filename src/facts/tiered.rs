//! The tiers in their order, with one reader per card at a time.

use super::{
    FactError, FactSource,
    change::Change,
    memory::Memory,
    redis::{Missed, Redis},
};
use crate::{
    domain::{
        facts::{Card, CardFile, Program, User},
        ids::{CardToken, UserToken},
    },
    telemetry::{
        Span, Spans, Telemetry,
        events::{CacheResult, Tier},
    },
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{task::JoinError, time::Instant};

/// What a tier knows about a token: a card, or that there is none.
pub type Found = Option<CardFile>;

/// What a read of facts found, and where its time went.
#[derive(Clone, Debug)]
pub struct Read {
    /// What was found.
    pub found: Found,
    /// How long Redis was waited for.
    pub redis: Duration,
    /// How long the store was waited for.
    pub store: Duration,
}

type Flight = Shared<BoxFuture<'static, Result<Read, FactError>>>;

/// Memory, Redis and the store, asked in this order. Cheap to clone.
pub struct FactTiers<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    memory: Memory,
    redis: Option<Redis>,
    source: S,
    telemetry: Telemetry,
    /// Reads under way, one per card: a burst on a cold card costs one read. With the number of the flight.
    flights: Mutex<HashMap<CardToken, (u64, Flight)>>,
    flown: AtomicU64,
}

impl<S> Clone for FactTiers<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<S: FactSource> FactTiers<S> {
    /// Puts the tiers in order.
    pub fn new(memory: Memory, redis: Option<Redis>, mut source: S, telemetry: Telemetry) -> Self {
        source.tell_waits(&telemetry);
        Self { inner: Arc::new(Inner { memory, redis, source, telemetry, flights: Mutex::default(), flown: AtomicU64::new(0) }) }
    }

    /// What memory has, without waiting. Fills in how long user, card and limits took.
    #[must_use]
    pub fn peek(&self, token: &CardToken, spans: &mut Spans) -> Option<Found> {
        let found = self.inner.peek(token, spans);
        self.inner.telemetry.cache(Tier::Memory, if found.is_some() { CacheResult::Hit } else { CacheResult::Miss });
        found
    }

    /// Every card that memory has, in no order.
    pub fn known(&self) -> impl Iterator<Item = CardFile> + Send + '_ {
        self.inner.memory.files(Instant::now()).filter(CardFile::agrees)
    }

    /// What Redis or the store has, after [`FactTiers::peek`] found nothing.
    ///
    /// # Errors
    /// [`FactError`] when the store cannot be read. A failing Redis is no error.
    pub async fn lookup(&self, token: &CardToken) -> Result<Read, FactError> {
        let flight = {
            let mut flights = self.inner.flights.lock();
            match flights.get(token) {
                Some((_, flight)) => flight.clone(),
                None => {
                    let (inner, token) = (Arc::clone(&self.inner), token.clone());
                    let number = inner.flown.fetch_add(1, Relaxed);
                    // A task of its own: a read whose askers have all run out of time must still come to its end, or it would keep
                    // its place among the store's connections for good.
                    let flight = tokio::spawn(inner.fly(token.clone(), number)).map(landed).boxed().shared();
                    flights.insert(token, (number, flight.clone()));
                    flight
                }
            }
        };
        flight.await
    }

    /// What the store has now, whatever the caches say. Heals the caches.
    ///
    /// # Errors
    /// [`FactError`] when the store cannot be read.
    pub async fn refresh(&self, token: &CardToken) -> Result<Found, FactError> {
        self.inner.telemetry.cache(Tier::Memory, CacheResult::Stale);
        let found = self.inner.fetch(token).await?;
        if let Some(file) = &found {
            self.inner.believe(file);
        }
        Ok(found)
    }

    /// Forgets, in memory, what a change has made stale: whoever asks after this has returned does not get it. Says whether there was
    /// anything. A user's cards are forgotten with the user, and a program's with the program, because they need both.
    pub fn forget(&self, change: &Change) -> bool {
        let (memory, now) = (&self.inner.memory, Instant::now());
        match change {
            Change::Card { token, version } => {
                let known = memory.drop_card(token, *version, now);
                // Who asks from now on does not wait for a read that began before.
                drop(self.inner.flights.lock().remove(token));
                known
            }
            // Which cards' reads they belong to is not known here: nobody joins those under way.
            Change::User { id, version, .. } => {
                let known = memory.drop_user(*id, *version, now);
                self.inner.flights.lock().clear();
                known
            }
            Change::Program { id, version } => {
                let known = memory.drop_program(*id, *version, now);
                self.inner.flights.lock().clear();
                known
            }
            Change::Everything => {
                if let Some(redis) = &self.inner.redis {
                    redis.doubt(true);
                }
                memory.drop_everything();
                self.inner.flights.lock().clear();
                true
            }
        }
    }

    /// Shows how much memory keeps. Asks each of its parts: not for every request.
    pub fn tell_size(&self) {
        let size = self.inner.memory.size();
        self.inner.telemetry.memory_size(size.entries, size.bytes, size.evictions);
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.inner.memory
    }

    pub(super) fn redis(&self) -> Option<&Redis> {
        self.inner.redis.as_ref()
    }

    pub(super) fn source(&self) -> &S {
        &self.inner.source
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.inner.telemetry
    }
}

/// Ends a flight however it ends: one that stayed would give its end, good or bad, to all who ask later.
struct Landing<S> {
    inner: Arc<Inner<S>>,
    token: CardToken,
    number: u64,
}

impl<S> Drop for Landing<S> {
    fn drop(&mut self) {
        let mut flights = self.inner.flights.lock();
        if flights.get(&self.token).is_some_and(|(number, _)| *number == self.number) {
            flights.remove(&self.token);
        }
    }
}

fn landed(ended: Result<Result<Read, FactError>, JoinError>) -> Result<Read, FactError> {
    ended.unwrap_or_else(|error| Err(FactError::Unavailable(format!("the read did not end well: {error}"))))
}

impl<S: FactSource> Inner<S> {
    async fn fly(self: Arc<Self>, token: CardToken, number: u64) -> Result<Read, FactError> {
        let landing = Landing { inner: self, token, number };
        let began = Instant::now();
        let from_redis = landing.inner.redis_file(&landing.token).await;
        let redis = began.elapsed();
        let found = match from_redis {
            Some(file) => Some(file),
            None => landing.inner.fetch(&landing.token).await?,
        };
        Ok(Read { found, redis, store: began.elapsed().saturating_sub(redis) })
    }

    fn peek(&self, token: &CardToken, spans: &mut Spans) -> Option<Found> {
        let started = Instant::now();
        let card = self.memory.card(token, started)?;
        let after_card = Instant::now();
        spans.set(Span::Card, after_card - started);
        let Some(card) = card else { return Some(None) };
        let user = self.memory.user(card.user, started)?;
        let after_user = Instant::now();
        spans.set(Span::User, after_user - after_card);
        let program = self.memory.program(card.program, started)?;
        let file = CardFile { card, user, program };
        if !file.agrees() {
            return None;
        }
        // Set only when nothing has to be read any more: what is unset is where the time of a read goes.
        spans.set(Span::Limits, after_user.elapsed());
        Some(Some(file))
    }

    /// A whole, agreeing file from Redis and what memory still has, or nothing.
    async fn redis_file(&self, token: &CardToken) -> Option<CardFile> {
        let redis = self.redis.as_ref()?;
        let fill = self.memory.begin();
        let found = self.assemble(redis, token).await;
        let now = Instant::now();
        let usable = |file: &CardFile| {
            file.agrees()
                && file.card.token == *token
                && !self.memory.is_outdated(token, file.card.version, now)
                && !self.memory.surroundings_outdated(file, now)
        };
        let result = match &found {
            Ok(Some(file)) if usable(file) => CacheResult::Hit,
            Ok(Some(_)) | Err(Missed::Torn) => CacheResult::Stale,
            Ok(None) => CacheResult::Miss,
            Err(Missed::Bypassed) => CacheResult::Bypass,
            Err(Missed::Failed(_) | Missed::Garbage(_)) => CacheResult::Error,
        };
        self.telemetry.cache(Tier::Redis, result);
        match found {
            Ok(file) => {
                let file = self.memory.share(file.filter(|_| result == CacheResult::Hit)?, now);
                self.memory.keep(&file, fill, now);
                Some(file)
            }
            Err(Missed::Bypassed | Missed::Torn) => None,
            Err(Missed::Failed(error) | Missed::Garbage(error)) => {
                self.telemetry.cache_failed(Tier::Redis, &error);
                None
            }
        }
    }

    async fn assemble(&self, redis: &Redis, token: &CardToken) -> Result<Option<CardFile>, Missed> {
        let Some((card, owner)) = redis.card(token).await? else { return Ok(None) };
        let (user, program) = self.surroundings(redis, &card, &owner).await?;
        let (Some(user), Some(program)) = (user, program) else { return Ok(None) };
        Ok(Some(CardFile { card: Arc::new(card), user, program }))
    }

    async fn surroundings(
        &self,
        redis: &Redis,
        card: &Card,
        owner: &UserToken,
    ) -> Result<(Option<Arc<User>>, Option<Arc<Program>>), Missed> {
        let now = Instant::now();
        let user = self.memory.user(card.user, now).filter(|user| user.version == card.user_version);
        let program = self.memory.program(card.program, now);
        if user.is_some() && program.is_some() {
            return Ok((user, program));
        }
        let (from_redis_user, from_redis_program) = redis.surroundings(card, owner).await?;
        Ok((user.or(from_redis_user.map(Arc::new)), program.or(from_redis_program.map(Arc::new))))
    }

    /// The store has the last word: whatever memory has in a higher version than that is not a fact of this store, and would be
    /// refused again and again.
    fn believe(&self, file: &CardFile) {
        let (memory, now) = (&self.memory, Instant::now());
        if memory.is_outdated(&file.card.token, file.card.version, now) || memory.surroundings_outdated(file, now) {
            memory.drop_card(&file.card.token, None, now);
            memory.drop_user(file.user.id, None, now);
            memory.drop_program(file.program.id, None, now);
        }
    }

    async fn fetch(&self, token: &CardToken) -> Result<Found, FactError> {
        let (fill, began) = (self.memory.begin(), Instant::now());
        let found = self.source.fetch(token).await?;
        let now = Instant::now();
        let Some(file) = found else {
            self.memory.keep_absent(token, fill, now);
            return Ok(None);
        };
        let file = self.memory.share(file, now);
        self.memory.keep(&file, fill, now);
        if let Some(redis) = &self.redis {
            redis.keep(&file, began);
        }
        Ok(Some(file))
    }
}

#[cfg(test)]
#[path = "tiered_tests.rs"]
mod tests;
