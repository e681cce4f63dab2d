//! Facts in this process: bounded by bytes, fenced against slow readers, and never older than what is known to have changed.
//!
//! **Fences.** Whoever reads facts elsewhere takes a [`Fill`] first. When a fact is dropped in the meantime, what was read is not kept:
//! it may be from before the change. **Versions.** Of two versions of a fact the higher one stays, and a fact that was dropped leaves
//! the version behind that it has to have to be believed again. **Generations.** Every entry knows in which generation it was read.
//! To forget everything, or all that a complete reading of the store has not confirmed, the oldest generation that counts is raised.

mod fence;
mod weight;

use self::{
    fence::{Fences, Generations},
    weight::{Evictions, Weigher},
};
use crate::domain::{
    facts::{Card, CardFile, LimitSet, Program, User},
    ids::{CardToken, ProgramId, UserId},
    limits::Filter,
};
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, UnitWeighter, Weighter, sync::Cache};
use std::{hash::Hash, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Programs kept. A deployment has a handful; this only keeps the map bounded.
const PROGRAMS_MAX: usize = 10_000;
/// Different filters that are shared. Others are kept as they come.
const FILTERS_MAX: usize = 4_096;
/// Instants of expiry are kept in these, so that they take four bytes.
const TICK: Duration = Duration::from_millis(100);
/// What a card weighs with its user: to guess from the bound how many there will be.
const CARD_BYTES_GUESS: u64 = 500;

/// The memory section of the configuration, resolved.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most bytes that facts may take.
    pub bytes_max: u64,
    /// How long a fact is believed without asking again: a backstop for changes that nobody told of. Spread by a quarter.
    pub ttl: Duration,
    /// How long an unknown token stays unknown.
    pub absent_ttl: Duration,
}

/// The moment at which somebody began to read facts.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    began: u64,
    generation: u16,
}

/// What became of facts that were to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// They were not there before.
    New,
    /// They were there, in this version.
    Same,
    /// They were there in an older version, or known to be outdated.
    Newer,
    /// They are older than what is known, or were read while they changed.
    Refused,
    /// They were not there, and there is no room for more.
    NoRoom,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Cards, users and programs, what is known not to exist and what is known to be outdated.
    pub entries: u64,
    /// Estimated from what they hold; equal filters count as often as they are used.
    pub bytes: u64,
    /// Entries that had to go to make room, since the start.
    pub evictions: u64,
}

/// A card with its limits.
pub type Known = (Arc<Card>, Arc<LimitSet>);

/// The memory tier.
#[derive(Debug)]
pub struct Memory {
    settings: Settings,
    base: Instant,
    people: Cache<Key, Entry, Weigher, DefaultHashBuilder, Evictions>,
    programs: Cache<ProgramId, Entry, UnitWeighter, DefaultHashBuilder, Evictions>,
    filters: Cache<Arc<Filter>, Arc<Filter>>,
    fences: Fences,
    generations: Generations,
    evictions: Evictions,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Card(CardToken),
    User(UserId),
}

/// A [`Key`] to look up: hashes as that does.
#[derive(Hash)]
enum Asked<'a> {
    Card(&'a CardToken),
    User(UserId),
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Card(asked), Key::Card(token)) => *asked == token,
            (Self::User(asked), Key::User(id)) => asked == id,
            _ => false,
        }
    }
}

/// The stamp stands in each variant and not beside them, because that takes 8 bytes less; there are millions.
#[derive(Clone, Debug)]
enum Entry {
    Card {
        generation: u16,
        until: u32,
        card: Arc<Card>,
        limits: Arc<LimitSet>,
    },
    User {
        generation: u16,
        until: u32,
        user: Arc<User>,
    },
    Program {
        generation: u16,
        until: u32,
        program: Arc<Program>,
    },
    /// No card has the token.
    Absent {
        generation: u16,
        until: u32,
    },
    /// Whatever is older than this version has changed since.
    Outdated {
        generation: u16,
        until: u32,
        at_least: i64,
    },
}

impl Entry {
    const fn stamp(&self) -> (u16, u32) {
        match self {
            Self::Card { generation, until, .. }
            | Self::User { generation, until, .. }
            | Self::Program { generation, until, .. }
            | Self::Absent { generation, until }
            | Self::Outdated { generation, until, .. } => (*generation, *until),
        }
    }

    /// The least version that may take its place.
    fn version(&self) -> Option<i64> {
        match self {
            Self::Card { card, .. } => Some(card.version),
            Self::User { user, .. } => Some(user.version),
            Self::Program { program, .. } => Some(program.version),
            Self::Absent { .. } => None,
            Self::Outdated { at_least, .. } => Some(*at_least),
        }
    }

    /// Whether both are the very same fact.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::User { user, .. }, Self::User { user: other, .. }) => Arc::ptr_eq(user, other),
            (Self::Program { program, .. }, Self::Program { program: other, .. }) => Arc::ptr_eq(program, other),
            _ => false,
        }
    }

    const fn is_fact(&self) -> bool {
        !matches!(self, Self::Outdated { .. })
    }
}

impl Memory {
    /// An empty tier.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let evictions = Evictions::default();
        let cards = usize::try_from(settings.bytes_max / CARD_BYTES_GUESS).unwrap_or(usize::MAX);
        // Remembering evicted keys helps to choose well, and takes slots that cards could have: a tenth is a compromise.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(cards.saturating_mul(2).max(1))
            .weight_capacity(settings.bytes_max)
            .ghost_allocation(0.1)
            .build();
        let people = match options {
            Ok(options) => Cache::with_options(options, Weigher, DefaultHashBuilder::default(), evictions.clone()),
            // Cannot happen: both of what is asked for are given.
            Err(_) => Cache::with(cards, settings.bytes_max, Weigher, DefaultHashBuilder::default(), evictions.clone()),
        };
        Self {
            settings,
            base: Instant::now(),
            people,
            programs: Cache::with(PROGRAMS_MAX, PROGRAMS_MAX as u64, UnitWeighter, DefaultHashBuilder::default(), Evictions::default()),
            filters: Cache::new(FILTERS_MAX),
            fences: Fences::default(),
            generations: Generations::default(),
            evictions,
        }
    }

    /// The card with this token and its limits: unknown here, known not to exist, or known.
    #[must_use]
    pub fn card(&self, token: &CardToken, now: Instant) -> Option<Option<Known>> {
        match self.believed(self.people.get(&Asked::Card(token)), now)? {
            Entry::Card { card, limits, .. } => Some(Some((card, limits))),
            Entry::Absent { .. } => Some(None),
            _ => None,
        }
    }

    /// A user.
    #[must_use]
    pub fn user(&self, id: UserId, now: Instant) -> Option<Arc<User>> {
        match self.believed(self.people.get(&Asked::User(id)), now)? {
            Entry::User { user, .. } => Some(user),
            _ => None,
        }
    }

    /// A program.
    #[must_use]
    pub fn program(&self, id: ProgramId, now: Instant) -> Option<Arc<Program>> {
        match self.believed(self.programs.get(&id), now)? {
            Entry::Program { program, .. } => Some(program),
            _ => None,
        }
    }

    /// Whether a version of a card is older than what is known to be current.
    #[must_use]
    pub fn is_outdated(&self, token: &CardToken, version: i64, now: Instant) -> bool {
        let known = self.believed(self.people.peek(&Asked::Card(token)), now);
        known.and_then(|entry| entry.version()).is_some_and(|known| version < known)
    }

    /// How long a fact is believed at most.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.settings.ttl
    }

    /// To be taken before facts are read.
    #[must_use]
    pub fn begin(&self) -> Fill {
        Fill { began: self.fences.now(), generation: self.generations.current() }
    }

    /// Lets a file that was just read share what equals what is known: a filter, a user, a program, a token are kept once.
    #[must_use]
    pub fn share(&self, mut file: CardFile, now: Instant) -> CardFile {
        if let Some(user) = self.user(file.user.id, now).filter(|user| *user == file.user) {
            file.user = user;
        }
        if let Some(program) = self.program(file.program.id, now).filter(|program| *program == file.program) {
            file.program = program;
        }
        if let Some(card) = Arc::get_mut(&mut file.card) {
            if card.user_token == file.user.token {
                card.user_token = file.user.token.clone();
            }
            self.share_filter(&mut card.controls);
        }
        if let Some(set) = Arc::get_mut(&mut file.limits) {
            set.limits.iter_mut().for_each(|limit| self.share_filter(&mut limit.filter));
        }
        file
    }

    fn share_filter(&self, filter: &mut Arc<Filter>) {
        match self.filters.get(filter) {
            Some(known) => *filter = known,
            None => self.filters.insert(Arc::clone(filter), Arc::clone(filter)),
        }
    }

    /// Keeps what was read about a card since `fill` began. What is said is about the card; its user and program may fare otherwise.
    pub fn keep(&self, file: &CardFile, fill: Fill, now: Instant) -> Kept {
        self.put(file, fill, now, true)
    }

    /// As [`Memory::keep`], for a card that is known already only: it takes no more room.
    pub fn confirm(&self, file: &CardFile, fill: Fill, now: Instant) -> Kept {
        self.put(file, fill, now, false)
    }

    fn put(&self, file: &CardFile, fill: Fill, now: Instant, grow: bool) -> Kept {
        let Fill { generation, .. } = fill;
        let CardFile { card, user, limits, program } = file;
        // The card goes last: whoever finds it finds the rest.
        self.insert(&self.programs, program.id, fill, now, grow, |until| Entry::Program { generation, until, program: program.clone() });
        self.insert(&self.people, Key::User(user.id), fill, now, grow, |until| Entry::User { generation, until, user: user.clone() });
        self.insert(&self.people, Key::Card(card.token.clone()), fill, now, grow, |until| Entry::Card {
            generation,
            until,
            card: card.clone(),
            limits: limits.clone(),
        })
    }

    /// Remembers, briefly, that no card has the token, unless one came to have it since `fill` began.
    pub fn keep_absent(&self, token: &CardToken, fill: Fill, now: Instant) {
        let until = self.tick(now + self.settings.absent_ttl).saturating_add(1);
        let entry = |_| Entry::Absent { generation: fill.generation, until };
        self.insert(&self.people, Key::Card(token.clone()), fill, now, true, entry);
    }

    /// A card has changed: what is older than `version` is dropped, or all there is when it is not known. Says whether that was anything.
    pub fn drop_card(&self, token: &CardToken, version: Option<i64>, now: Instant) -> bool {
        self.remove(&self.people, Key::Card(token.clone()), version, now)
    }

    /// A user has changed, and with it every card of the user: those do not agree with a newer one. As [`Memory::drop_card`].
    pub fn drop_user(&self, id: UserId, version: Option<i64>, now: Instant) -> bool {
        self.remove(&self.people, Key::User(id), version, now)
    }

    /// A program has changed. As [`Memory::drop_card`].
    pub fn drop_program(&self, id: ProgramId, version: Option<i64>, now: Instant) -> bool {
        self.remove(&self.programs, id, version, now)
    }

    /// Anything may have changed. Takes no longer for many than for few.
    pub fn drop_everything(&self) {
        if self.generations.forget() {
            self.people.clear();
            self.programs.clear();
        }
    }

    /// Begins a generation: what is kept from now on is told from what was kept before.
    pub fn begin_generation(&self) -> Fill {
        if self.generations.advance() {
            self.people.clear();
            self.programs.clear();
        }
        self.begin()
    }

    /// Whether what is kept under `fill` would still be believed: not when everything was dropped since.
    #[must_use]
    pub fn is_current(&self, fill: Fill) -> bool {
        self.generations.counts(fill.generation)
    }

    /// Whether a version of a user, or of a program, is older than what is known to be current.
    #[must_use]
    pub fn surroundings_outdated(&self, file: &CardFile, now: Instant) -> bool {
        let user = self.believed(self.people.peek(&Asked::User(file.user.id)), now);
        let program = self.believed(self.programs.peek(&file.program.id), now);
        let older = |known: Option<Entry>, version: i64| known.and_then(|entry| entry.version()).is_some_and(|known| version < known);
        older(user, file.user.version) || older(program, file.program.version)
    }

    /// Forgets what was kept before the generation of `fill` and not again since.
    pub fn end_generation(&self, fill: Fill) {
        self.generations.raise(fill.generation);
    }

    /// How much is kept.
    #[must_use]
    pub fn size(&self) -> Size {
        let entries = self.people.len() + self.programs.len();
        Size { entries: entries as u64, bytes: self.people.weight(), evictions: self.evictions.count() }
    }

    /// Cards, users and programs known, and what is known not to exist or to be outdated.
    #[must_use]
    pub fn len(&self) -> usize {
        self.people.len() + self.programs.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.people.is_empty() && self.programs.is_empty()
    }

    fn believed(&self, entry: Option<Entry>, now: Instant) -> Option<Entry> {
        entry.filter(|entry| self.counts(entry, now))
    }

    fn counts(&self, entry: &Entry, now: Instant) -> bool {
        let (generation, until) = entry.stamp();
        self.tick(now) < until && self.generations.counts(generation)
    }

    fn insert<K, W>(
        &self,
        cache: &Cache<K, Entry, W, DefaultHashBuilder, Evictions>,
        key: K,
        fill: Fill,
        now: Instant,
        grow: bool,
        entry: impl FnOnce(u32) -> Entry,
    ) -> Kept
    where
        K: Hash + Eq + Clone,
        W: Weighter<K, Entry> + Clone,
    {
        let (hash, fence) = self.fences.lock(&key);
        if *fence > fill.began || !self.generations.counts(fill.generation) {
            return Kept::Refused;
        }
        let entry = entry(self.spread(hash, now));
        let before = cache.peek(&key);
        let kept = match before.as_ref().map(|before| (before, before.version(), entry.version())) {
            None if !grow => return Kept::NoRoom,
            None => Kept::New,
            Some((before, Some(old), Some(new))) if new < old && self.counts(before, now) => return Kept::Refused,
            // Many cards of a scan bring along the same user or program.
            Some((before, ..)) if before.is(&entry) && before.stamp().0 == fill.generation => return Kept::Same,
            Some((before, Some(old), Some(new))) if new == old && before.is_fact() => Kept::Same,
            Some(_) => Kept::Newer,
        };
        self.store(cache, key, entry);
        kept
    }

    /// Puts an entry in its place, and counts what had to go for it.
    fn store<K, W>(&self, cache: &Cache<K, Entry, W, DefaultHashBuilder, Evictions>, key: K, entry: Entry)
    where
        K: Hash + Eq + Clone,
        W: Weighter<K, Entry> + Clone,
    {
        let mut gone = Vec::new();
        cache.insert_with_lifecycle(key.clone(), entry, &mut gone);
        // What stood under the same key had to go for no room.
        self.evictions.add(gone.iter().filter(|(other, _)| *other != key).count());
    }

    fn remove<K, W>(&self, cache: &Cache<K, Entry, W, DefaultHashBuilder, Evictions>, key: K, version: Option<i64>, now: Instant) -> bool
    where
        K: Hash + Eq + Clone,
        W: Weighter<K, Entry> + Clone,
    {
        let (hash, mut fence) = self.fences.lock(&key);
        let before = cache.peek(&key).filter(|before| self.counts(before, now));
        let current = |before: &Entry| version.is_some() && before.version() >= version;
        if before.as_ref().is_some_and(current) {
            return false;
        }
        self.fences.raise(&mut fence);
        match (&before, version) {
            // What Redis still has may be older than the change: it must not come back from there.
            (Some(_), Some(at_least)) => {
                let (generation, until) = (self.generations.current(), self.spread(hash, now));
                self.store(cache, key, Entry::Outdated { generation, until, at_least });
            }
            _ => drop(cache.remove(&key)),
        }
        before.is_some_and(|before| before.is_fact())
    }

    fn tick(&self, at: Instant) -> u32 {
        u32::try_from(at.saturating_duration_since(self.base).as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
    }

    /// When something that is kept now is not believed any more. What was read together must not all be read again together.
    fn spread(&self, hash: u64, now: Instant) -> u32 {
        let earlier = self.settings.ttl / 4 * u32::from(hash as u8) / 256;
        self.tick(now + self.settings.ttl - earlier).saturating_add(1)
    }
}

#[cfg(test)]
mod tests;
