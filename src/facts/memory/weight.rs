//! What facts weigh: an estimate in bytes of what the allocator hands out for them.

use super::{Entry, Key};
use crate::domain::{
    facts::{Card, LimitSet, User},
    limits::{Filter, Limit, Match},
};
use quick_cache::{Lifecycle, Weighter};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A slot of the map with its share of what is free: key, entry, links, hash table, and room from the last growth.
const SLOT: u64 = (size_of::<Key>() as u64 + size_of::<Entry>() as u64 + 21) * 3 / 2;
/// The two counts of an `Arc`.
const COUNTS: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(super) struct Weigher;

impl Weighter<Key, Entry> for Weigher {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        let content = match entry {
            Entry::Card { card, limits, .. } => weigh_card(card, limits),
            Entry::User { user, .. } => chunk(COUNTS + size_of::<User>()) + chunk(COUNTS + user.token.as_str().len()),
            Entry::Program { .. } | Entry::Absent { .. } | Entry::Outdated { .. } => match key {
                Key::Card(token) => chunk(COUNTS + token.as_str().len()),
                Key::User(_) => 0,
            },
        };
        SLOT + content
    }
}

/// The owner's token is the user's, and counted there.
fn weigh_card(card: &Card, limits: &LimitSet) -> u64 {
    let own = chunk(COUNTS + size_of::<Card>()) + chunk(COUNTS + card.token.as_str().len()) + weigh_filter(&card.controls);
    let set = chunk(COUNTS + size_of::<LimitSet>()) + chunk(size_of_val(&*limits.limits));
    own + set + limits.limits.iter().map(|limit: &Limit| weigh_filter(&limit.filter)).sum::<u64>()
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
