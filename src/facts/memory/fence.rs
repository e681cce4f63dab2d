//! What keeps slow readers from writing back what has changed meanwhile.

use parking_lot::{Mutex, MutexGuard};
use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire},
};

/// Keys that share a fence are refused together, which costs a read more. A reading of the whole store takes seconds, in which a
/// thousand changes may come; they refuse three in a hundred of its cards at most.
const FENCES: usize = 32_768;

/// For every key, when what is known of it was last dropped. Nothing is allocated for a key.
#[derive(Debug)]
pub(super) struct Fences {
    clock: AtomicU64,
    last: Box<[Mutex<u64>]>,
}

impl Default for Fences {
    fn default() -> Self {
        Self { clock: AtomicU64::new(1), last: (0..FENCES).map(|_| Mutex::new(0)).collect() }
    }
}

impl Fences {
    /// Now, in drops.
    pub(super) fn now(&self) -> u64 {
        self.clock.load(Acquire)
    }

    /// Of one key: when it was last dropped. As long as the lock is held, nobody else drops or keeps it. Gives the key's hash, too.
    pub(super) fn lock(&self, key: &impl Hash) -> (u64, MutexGuard<'_, u64>) {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let place = usize::try_from(hash >> 32).unwrap_or_default() % self.last.len();
        (hash, self.last[place].lock())
    }

    /// The key is dropped now: whoever began before may not keep it.
    pub(super) fn raise(&self, last: &mut u64) {
        *last = self.clock.fetch_add(1, AcqRel) + 1;
    }
}

/// Which generations count: from the lower half to the upper half of one word, so that both are read at once.
#[derive(Debug)]
pub(super) struct Generations(AtomicU32);

impl Default for Generations {
    fn default() -> Self {
        Self(AtomicU32::new(pack(1, 1)))
    }
}

const fn pack(first: u16, current: u16) -> u32 {
    ((current as u32) << 16) | first as u32
}

const fn unpack(word: u32) -> (u16, u16) {
    (word as u16, (word >> 16) as u16)
}

impl Generations {
    pub(super) fn current(&self) -> u16 {
        unpack(self.0.load(Acquire)).1
    }

    pub(super) fn counts(&self, generation: u16) -> bool {
        let (first, current) = unpack(self.0.load(Acquire));
        (first..=current).contains(&generation)
    }

    /// Begins another one. `true` asks to clear what is kept, because numbers are used again.
    #[must_use]
    pub(super) fn advance(&self) -> bool {
        self.update(|first, current| current.checked_add(1).map_or((1, 1), |next| (first, next)))
    }

    /// Begins another one and forgets all before it. `true` as in [`Generations::advance`].
    #[must_use]
    pub(super) fn forget(&self) -> bool {
        self.update(|_, current| current.checked_add(1).map_or((1, 1), |next| (next, next)))
    }

    /// Forgets all before `first`.
    pub(super) fn raise(&self, first: u16) {
        // Not beyond the current one: numbers may have begun again since.
        let _unused = self.update(|old, current| if (old..=current).contains(&first) { (first, current) } else { (old, current) });
    }

    fn update(&self, step: impl Fn(u16, u16) -> (u16, u16)) -> bool {
        let next = |word: u32| {
            let (first, current) = unpack(word);
            let (first, current) = step(first, current);
            Some(pack(first, current))
        };
        // `next` always gives a word, so this is the old one in either case.
        let old = self.0.fetch_update(AcqRel, Acquire, next).unwrap_or_else(|old| old);
        unpack(self.0.load(Acquire)).1 < unpack(old).1
    }
}
