//! Facts in this process: bounded by bytes, fenced against slow readers, and never older than what is known to have changed.
//!
//! **Fences.** Whoever reads facts elsewhere takes a [`Fill`] first. When a fact is dropped in the meantime, what was read is not kept:
//! it may be from before the change. **Versions.** Of two versions of a fact the higher one stays, and a fact that was dropped leaves
//! the version behind that it has to have to be believed again. **Generations.** Every entry knows in which generation it was read.
//! To forget everything, or all that a complete reading of the store has not confirmed, the oldest generation that counts is raised.

mod entry;
mod fence;
mod weight;

use self::{
    entry::{Asked, Entry, Hashed, Outdated, Place, Whom},
    fence::{Fences, Generations},
    weight::{Evictions, Weigher},
};
use crate::domain::{
    facts::{Card, CardFile, Program, User},
    ids::{CardToken, ProgramId, UserId},
    limits::Filter,
};
use foldhash::quality::RandomState;
use quick_cache::{OptionsBuilder, UnitWeighter, Weighter, sync::Cache};
use std::{
    hash::BuildHasherDefault,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Programs kept. A deployment has a handful; this only keeps the map bounded.
const PROGRAMS_MAX: usize = 10_000;
/// Different filters that are shared. Others are kept as they come.
const FILTERS_MAX: usize = 4_096;
/// Instants of expiry are kept in these, so that they take four bytes.
const TICK: Duration = Duration::from_millis(100);
/// What a card weighs with its user: to guess from the bound how many there will be.
const CARD_BYTES_GUESS: u64 = 350;

/// In steps of this room is left to others, bytes.
const ASIDE_STEP: u64 = 64 << 10;

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

type Places<W> = Cache<Place, Entry, W, BuildHasherDefault<Hashed>, Evictions>;

/// The memory tier.
#[derive(Debug)]
pub struct Memory {
    settings: Settings,
    base: Instant,
    hashing: RandomState,
    people: Places<Weigher>,
    programs: Places<UnitWeighter>,
    filters: Cache<Arc<Filter>, Arc<Filter>>,
    fences: Fences,
    generations: Generations,
    evictions: Evictions,
    aside: AtomicU64,
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
            Ok(options) => Cache::with_options(options, Weigher, BuildHasherDefault::default(), evictions.clone()),
            // Cannot happen: both of what is asked for are given.
            Err(_) => Cache::with(cards, settings.bytes_max, Weigher, BuildHasherDefault::default(), evictions.clone()),
        };
        Self {
            settings,
            base: Instant::now(),
            hashing: RandomState::default(),
            people,
            programs: Cache::with(PROGRAMS_MAX, PROGRAMS_MAX as u64, UnitWeighter, BuildHasherDefault::default(), Evictions::default()),
            filters: Cache::new(FILTERS_MAX),
            fences: Fences::default(),
            generations: Generations::default(),
            evictions,
            aside: AtomicU64::new(0),
        }
    }

    /// The card with this token: unknown here, known not to exist, or known.
    #[must_use]
    pub fn card(&self, token: &CardToken, now: Instant) -> Option<Option<Arc<Card>>> {
        match self.get(&self.people, Asked::Card(token), now)? {
            Entry::Card { card, .. } => Some(Some(card)),
            Entry::Absent { .. } => Some(None),
            _ => None,
        }
    }

    /// A user.
    #[must_use]
    pub fn user(&self, id: UserId, now: Instant) -> Option<Arc<User>> {
        match self.get(&self.people, Asked::User(id), now)? {
            Entry::User { user, .. } => Some(user),
            _ => None,
        }
    }

    /// A program.
    #[must_use]
    pub fn program(&self, id: ProgramId, now: Instant) -> Option<Arc<Program>> {
        match self.get(&self.programs, Asked::Program(id), now)? {
            Entry::Program { program, .. } => Some(program),
            _ => None,
        }
    }

    /// Every card that is known and believed, with its user and its program, in no order. A card that is kept or dropped meanwhile may be among
    /// them or not.
    pub fn files(&self, now: Instant) -> impl Iterator<Item = CardFile> + Send + '_ {
        let cards = self.people.iter().filter_map(move |(_, entry)| match entry {
            Entry::Card { ref card, .. } if self.counts(&entry, now) => Some(Arc::clone(card)),
            _ => None,
        });
        cards.filter_map(move |card| Some(CardFile { user: self.user(card.user, now)?, program: self.program(card.program, now)?, card }))
    }

    /// Whether a version of a card is older than what is known to be current.
    #[must_use]
    pub fn is_outdated(&self, token: &CardToken, version: i64, now: Instant) -> bool {
        let known = self.peek(&self.people, Asked::Card(token)).filter(|known| self.counts(known, now));
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

    /// Lets a file that was just read share what equals what is known: a filter, a user, a program are kept once.
    #[must_use]
    pub fn share(&self, mut file: CardFile, now: Instant) -> CardFile {
        if let Some(user) = self.user(file.user.id, now).filter(|user| *user == file.user) {
            file.user = user;
        }
        if let Some(program) = self.program(file.program.id, now).filter(|program| *program == file.program) {
            file.program = program;
        }
        if let Some(card) = Arc::get_mut(&mut file.card) {
            self.share_filter(&mut card.controls);
            card.limits.iter_mut().for_each(|limit| self.share_filter(&mut limit.filter));
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
        let CardFile { card, user, program } = file;
        // The card goes last: whoever finds it finds the rest.
        self.insert(&self.programs, Asked::Program(program.id), fill, now, grow, |until| Entry::Program {
            generation,
            until,
            program: Arc::clone(program),
        });
        self.insert(&self.people, Asked::User(user.id), fill, now, grow, |until| Entry::User { generation, until, user: Arc::clone(user) });
        self.insert(&self.people, Asked::Card(&card.token), fill, now, grow, |until| Entry::Card {
            generation,
            until,
            card: Arc::clone(card),
        })
    }

    /// Remembers, briefly, that no card has the token, unless one came to have it since `fill` began.
    pub fn keep_absent(&self, token: &CardToken, fill: Fill, now: Instant) {
        let until = self.tick(now + self.settings.absent_ttl).saturating_add(1);
        let entry = |_| Entry::Absent { generation: fill.generation, until, whom: Arc::new(Whom::Card(token.clone())) };
        self.insert(&self.people, Asked::Card(token), fill, now, true, entry);
    }

    /// A card has changed: what is older than `version` is dropped, or all there is when it is not known. Says whether that was anything.
    pub fn drop_card(&self, token: &CardToken, version: Option<i64>, now: Instant) -> bool {
        self.remove(&self.people, Asked::Card(token), version, now)
    }

    /// A user has changed, and with it every card of the user: those do not agree with a newer one. As [`Memory::drop_card`].
    pub fn drop_user(&self, id: UserId, version: Option<i64>, now: Instant) -> bool {
        self.remove(&self.people, Asked::User(id), version, now)
    }

    /// A program has changed. As [`Memory::drop_card`].
    pub fn drop_program(&self, id: ProgramId, version: Option<i64>, now: Instant) -> bool {
        self.remove(&self.programs, Asked::Program(id), version, now)
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
        let user = self.peek(&self.people, Asked::User(file.user.id));
        let program = self.peek(&self.programs, Asked::Program(file.program.id));
        let older = |known: Option<Entry>, version: i64| {
            known.filter(|known| self.counts(known, now)).and_then(|known| known.version()).is_some_and(|known| version < known)
        };
        older(user, file.user.version) || older(program, file.program.version)
    }

    /// Leaves so many bytes of its bound to somebody else from now on, but no more than half of it.
    pub fn set_aside(&self, bytes: u64) {
        let bytes = bytes.next_multiple_of(ASIDE_STEP).min(self.settings.bytes_max / 2);
        // What is known must be counted anew for another bound: not for every little.
        if self.aside.swap(bytes, Relaxed) != bytes {
            self.people.set_capacity(self.settings.bytes_max - bytes);
        }
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

    /// What is known and believed of whom is asked for; it is used.
    fn get<W: Weighter<Place, Entry> + Clone>(&self, places: &Places<W>, asked: Asked<'_>, now: Instant) -> Option<Entry> {
        places.get(&Place::of(asked, &self.hashing)).filter(|entry| entry.is_about(asked) && self.counts(entry, now))
    }

    /// What is known of whom is asked for, believed or not.
    fn peek<W: Weighter<Place, Entry> + Clone>(&self, places: &Places<W>, asked: Asked<'_>) -> Option<Entry> {
        places.peek(&Place::of(asked, &self.hashing)).filter(|entry| entry.is_about(asked))
    }

    fn counts(&self, entry: &Entry, now: Instant) -> bool {
        let (generation, until) = entry.stamp();
        self.tick(now) < until && self.generations.counts(generation)
    }

    fn insert<W: Weighter<Place, Entry> + Clone>(
        &self,
        places: &Places<W>,
        asked: Asked<'_>,
        fill: Fill,
        now: Instant,
        grow: bool,
        entry: impl FnOnce(u32) -> Entry,
    ) -> Kept {
        let (hash, fence) = self.fences.lock(&asked);
        if *fence > fill.began || !self.generations.counts(fill.generation) {
            return Kept::Refused;
        }
        let entry = entry(self.spread(hash, now));
        let before = self.peek(places, asked);
        let kept = match before.as_ref().map(|before| (before, before.version(), entry.version())) {
            None if !grow => return Kept::NoRoom,
            None => Kept::New,
            Some((before, Some(old), Some(new))) if new < old && self.counts(before, now) => return Kept::Refused,
            // Many cards of a scan bring along the same user or program.
            Some((before, ..)) if before.is(&entry) && before.stamp().0 == fill.generation => return Kept::Same,
            Some((before, Some(old), Some(new))) if new == old && before.is_fact() => Kept::Same,
            Some(_) => Kept::Newer,
        };
        self.store(places, asked, entry);
        kept
    }

    /// Puts an entry in its place, and counts what had to go for it.
    fn store<W: Weighter<Place, Entry> + Clone>(&self, places: &Places<W>, asked: Asked<'_>, entry: Entry) {
        let place = Place::of(asked, &self.hashing);
        let mut gone = Vec::new();
        places.insert_with_lifecycle(place, entry, &mut gone);
        // What stood in the same place had to go for no room.
        self.evictions.add(gone.iter().filter(|(other, _)| *other != place).count());
    }

    fn remove<W>(&self, places: &Places<W>, asked: Asked<'_>, version: Option<i64>, now: Instant) -> bool
    where
        W: Weighter<Place, Entry> + Clone,
    {
        let (hash, mut fence) = self.fences.lock(&asked);
        let before = self.peek(places, asked).filter(|before| self.counts(before, now));
        let current = |before: &Entry| version.is_some() && before.version() >= version;
        if before.as_ref().is_some_and(current) {
            return false;
        }
        self.fences.raise(&mut fence);
        match (&before, version) {
            // What Redis still has may be older than the change: it must not come back from there.
            (Some(_), Some(at_least)) => {
                let (generation, until) = (self.generations.current(), self.spread(hash, now));
                let what = Arc::new(Outdated { whom: asked.into(), at_least });
                self.store(places, asked, Entry::Outdated { generation, until, what });
            }
            _ => drop(places.remove(&Place::of(asked, &self.hashing))),
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
