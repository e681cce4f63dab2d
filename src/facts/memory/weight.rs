//! What facts weigh: an estimate in bytes of what the allocator hands out for them.

use super::entry::{Entry, Outdated, Place, Whom};
use crate::domain::{
    facts::{Card, User},
    limits::{Filter, Match},
};
use quick_cache::{Lifecycle, Weighter};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// What the map has for a fact: place, entry, state and links, and a share of its hash table, which is at least half full. Room that it
/// has from its last growth counts for nothing, because nobody has written to it yet.
const SLOT: u64 = size_of::<Place>() as u64 + size_of::<Entry>() as u64 + 16 + 12;
/// The two counts of an `Arc`.
const COUNTS: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(super) struct Weigher;

impl Weighter<Place, Entry> for Weigher {
    fn weight(&self, _: &Place, entry: &Entry) -> u64 {
        let content = match entry {
            Entry::Card { card, .. } => weigh_card(card),
            Entry::User { user, .. } => chunk(COUNTS + size_of::<User>()) + weigh_text(user.token.elsewhere()),
            Entry::Absent { whom, .. } => chunk(COUNTS + size_of::<Whom>()) + weigh_whom(whom),
            Entry::Outdated { what, .. } => chunk(COUNTS + size_of::<Outdated>()) + weigh_whom(&what.whom),
            // Not kept here.
            Entry::Program { .. } => 0,
        };
        SLOT + content
    }
}

fn weigh_card(card: &Card) -> u64 {
    let own = chunk(COUNTS + size_of::<Card>()) + weigh_text(card.token.elsewhere()) + weigh_filter(&card.controls);
    own + chunk(size_of_val(&*card.limits)) + card.limits.iter().map(|limit| weigh_filter(&limit.filter)).sum::<u64>()
}

fn weigh_whom(whom: &Whom) -> u64 {
    match whom {
        Whom::Card(token) => weigh_text(token.elsewhere()),
        Whom::User(_) | Whom::Program(_) => 0,
    }
}

/// A text of which so many bytes stand elsewhere.
const fn weigh_text(bytes: usize) -> u64 {
    if bytes == 0 { 0 } else { chunk(COUNTS + bytes) }
}

/// Its lists, however many share them: who shares them may change, and a weight may not. Its frame counts for nothing, because
/// nearly all filters are shared.
fn weigh_filter(filter: &Filter) -> u64 {
    fn list<T>(matched: &Match<T>) -> u64 {
        chunk(matched.only.as_ref().map_or(0, |only| size_of_val(&**only))) + chunk(size_of_val(&*matched.except))
    }
    list(&filter.channels) + list(&filter.countries) + list(&filter.mccs) + list(&filter.merchants)
}

/// What an allocation takes: a word for its size, in steps of two words, at least four.
const fn chunk(bytes: usize) -> u64 {
    if bytes == 0 {
        return 0;
    }
    let taken = (bytes as u64 + 8).next_multiple_of(16);
    if taken < 32 { 32 } else { taken }
}

/// Counts what had to go.
#[derive(Clone, Debug, Default)]
pub(super) struct Evictions(Arc<AtomicU64>);

impl Evictions {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Relaxed);
    }
}

impl<K, V> Lifecycle<K, V> for Evictions {
    /// What was evicted or replaced; dropped once the cache has let go of its lock.
    type RequestState = Vec<(K, V)>;

    fn on_evict(&self, evicted: &mut Self::RequestState, key: K, value: V) {
        evicted.push((key, value));
    }
}
