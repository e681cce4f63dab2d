//! The tiers in their order, with one reader per card at a time.

use super::{FactError, FactSource, memory::Memory, redis::Redis};
use crate::{
    domain::{
        facts::{Card, CardFile, Program, User},
        ids::CardToken,
    },
    telemetry::{
        Span, Spans, Telemetry,
        events::{CacheResult, Dependency, Tier},
    },
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::{task::JoinError, time::Instant};

/// What a tier knows about a token: a card, or that there is none.
pub type Found = Option<CardFile>;

type Flight = Shared<BoxFuture<'static, Result<Found, FactError>>>;

/// Memory, Redis and the store, asked in this order. Cheap to clone.
pub struct FactTiers<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    memory: Memory,
    redis: Option<Redis>,
    source: S,
    telemetry: Telemetry,
    /// Reads under way, one per card: a burst on a cold card costs one read.
    flights: Mutex<HashMap<CardToken, Flight>>,
}

impl<S> Clone for FactTiers<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<S: FactSource> FactTiers<S> {
    /// Puts the tiers in order.
    pub fn new(memory: Memory, redis: Option<Redis>, source: S, telemetry: Telemetry) -> Self {
        Self { inner: Arc::new(Inner { memory, redis, source, telemetry, flights: Mutex::default() }) }
    }

    /// What memory has, without waiting. Fills in how long user, card and limits took.
    #[must_use]
    pub fn peek(&self, token: &CardToken, spans: &mut Spans) -> Option<Found> {
        let found = self.inner.peek(token, spans);
        self.inner.telemetry.cache(Tier::Memory, if found.is_some() { CacheResult::Hit } else { CacheResult::Miss });
        found
    }

    /// What Redis or the store has, after [`FactTiers::peek`] found nothing.
    ///
    /// # Errors
    /// [`FactError`] when the store cannot be read. A failing Redis is no error.
    pub async fn lookup(&self, token: &CardToken) -> Result<Found, FactError> {
        let flight = {
            let mut flights = self.inner.flights.lock();
            match flights.get(token) {
                Some(flight) => flight.clone(),
                None => {
                    let (inner, token) = (Arc::clone(&self.inner), token.clone());
                    // A task of its own: a read whose askers have all run out of time must still come to its end, or it would keep
                    // its place among the store's connections for good.
                    let flight = tokio::spawn(inner.fly(token.clone())).map(landed).boxed().shared();
                    flights.insert(token, flight.clone());
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
        self.inner.fetch(token).await
    }
}

fn landed(ended: Result<Result<Found, FactError>, JoinError>) -> Result<Found, FactError> {
    ended.unwrap_or_else(|error| Err(FactError::Unavailable(format!("the read did not end well: {error}"))))
}

impl<S: FactSource> Inner<S> {
    async fn fly(self: Arc<Self>, token: CardToken) -> Result<Found, FactError> {
        let found = match self.redis_file(&token).await {
            Some(file) => Ok(Some(file)),
            None => self.fetch(&token).await,
        };
        self.flights.lock().remove(&token);
        found
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
        let limits = self.memory.limits(card.id, started)?;
        let program = self.memory.program(card.program, started)?;
        spans.set(Span::Limits, after_user.elapsed());
        let file = CardFile { card, user, limits, program };
        file.agrees().then_some(Some(file))
    }

    /// A whole, agreeing file from Redis and what memory still has, or nothing.
    async fn redis_file(&self, token: &CardToken) -> Option<CardFile> {
        let redis = self.redis.as_ref()?;
        let found = self.assemble(redis, token).await;
        let result = match &found {
            Ok(Some(file)) if file.agrees() && file.card.token == *token => CacheResult::Hit,
            Ok(Some(_)) => CacheResult::Stale,
            Ok(None) => CacheResult::Miss,
            Err(_) => CacheResult::Error,
        };
        self.telemetry.cache(Tier::Redis, result);
        match found {
            Err(error) => {
                self.telemetry.cache_failed(Tier::Redis, &error.to_string());
                self.telemetry.dependency(Dependency::Redis, false, &error.to_string());
                None
            }
            Ok(file) => {
                self.telemetry.dependency(Dependency::Redis, true, "");
                let file = file.filter(|_| result == CacheResult::Hit)?;
                self.memory.keep(&file, Instant::now());
                Some(file)
            }
        }
    }

    async fn assemble(&self, redis: &Redis, token: &CardToken) -> Result<Option<CardFile>, FactError> {
        let (Some(card), Some(limits)) = redis.card(token).await? else { return Ok(None) };
        let (user, program) = self.surroundings(redis, &card).await?;
        let (Some(user), Some(program)) = (user, program) else { return Ok(None) };
        Ok(Some(CardFile { card: Arc::new(card), user, limits: Arc::new(limits), program }))
    }

    async fn surroundings(&self, redis: &Redis, card: &Card) -> Result<(Option<Arc<User>>, Option<Arc<Program>>), FactError> {
        let now = Instant::now();
        let user = self.memory.user(card.user, now).filter(|user| user.version == card.user_version);
        let program = self.memory.program(card.program, now);
        if user.is_some() && program.is_some() {
            return Ok((user, program));
        }
        let (from_redis_user, from_redis_program) = redis.surroundings(card).await?;
        Ok((user.or(from_redis_user.map(Arc::new)), program.or(from_redis_program.map(Arc::new))))
    }

    async fn fetch(&self, token: &CardToken) -> Result<Found, FactError> {
        let found = self.source.fetch(token).await?;
        let now = Instant::now();
        match &found {
            Some(file) => {
                self.memory.keep(file, now);
                if let Some(redis) = &self.redis {
                    redis.keep(file);
                }
            }
            None => self.memory.keep_absent(token, now),
        }
        Ok(found)
    }
}
