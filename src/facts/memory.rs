//! Facts in this process: bounded maps, each entry with the instant after which it is not believed any more.

use crate::domain::{
    facts::{Card, CardFile, LimitSet, Program, User},
    ids::{CardId, CardToken, ProgramId, UserId},
};
use quick_cache::sync::Cache;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Programs kept. A deployment has a handful; this only keeps the map bounded.
const PROGRAMS_MAX: usize = 10_000;

/// The memory section of the configuration, resolved.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Cards kept, with their limits.
    pub cards_max: usize,
    /// Users kept.
    pub users_max: usize,
    /// How long a fact is believed without asking again. A backstop: the commit finds stale facts anyway.
    pub ttl: Duration,
    /// How long an unknown token stays unknown.
    pub absent_ttl: Duration,
}

/// The memory tier.
#[derive(Debug)]
pub struct Memory {
    settings: Settings,
    /// `None` remembers that no card has the token.
    cards: Cache<CardToken, Timed<Option<Arc<Card>>>>,
    limits: Cache<CardId, Timed<Arc<LimitSet>>>,
    users: Cache<UserId, Timed<Arc<User>>>,
    programs: Cache<ProgramId, Timed<Arc<Program>>>,
}

#[derive(Clone, Debug)]
struct Timed<T> {
    value: T,
    until: Instant,
}

impl Memory {
    /// An empty tier.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            cards: Cache::new(settings.cards_max),
            limits: Cache::new(settings.cards_max),
            users: Cache::new(settings.users_max),
            programs: Cache::new(PROGRAMS_MAX),
        }
    }

    /// The card with this token: unknown here, known not to exist, or known.
    #[must_use]
    pub fn card(&self, token: &CardToken, now: Instant) -> Option<Option<Arc<Card>>> {
        fresh(self.cards.get(token), now)
    }

    /// A card's limits.
    #[must_use]
    pub fn limits(&self, card: CardId, now: Instant) -> Option<Arc<LimitSet>> {
        fresh(self.limits.get(&card), now)
    }

    /// A user.
    #[must_use]
    pub fn user(&self, id: UserId, now: Instant) -> Option<Arc<User>> {
        fresh(self.users.get(&id), now)
    }

    /// A program.
    #[must_use]
    pub fn program(&self, id: ProgramId, now: Instant) -> Option<Arc<Program>> {
        fresh(self.programs.get(&id), now)
    }

    /// Keeps what is known about a card.
    pub fn keep(&self, file: &CardFile, now: Instant) {
        let until = now + self.settings.ttl;
        // The card goes last: whoever finds it finds the rest.
        self.programs.insert(file.program.id, Timed { value: file.program.clone(), until });
        self.users.insert(file.user.id, Timed { value: file.user.clone(), until });
        self.limits.insert(file.card.id, Timed { value: file.limits.clone(), until });
        self.cards.insert(file.card.token.clone(), Timed { value: Some(file.card.clone()), until });
    }

    /// Remembers, briefly, that no card has the token.
    pub fn keep_absent(&self, token: &CardToken, now: Instant) {
        self.cards.insert(token.clone(), Timed { value: None, until: now + self.settings.absent_ttl });
    }

    /// Cards known, those known not to exist included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cards.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cards.is_empty()
    }
}

fn fresh<T>(entry: Option<Timed<T>>, now: Instant) -> Option<T> {
    entry.filter(|entry| now < entry.until).map(|entry| entry.value)
}
