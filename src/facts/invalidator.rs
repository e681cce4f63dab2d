//! Keeps memory as fresh as the news: whoever says that a fact has changed, it is dropped here, and Redis gets a tombstone.
//!
//! Three ways bring news, and each is enough by itself: the store's notifications, the pushes of Redis, and events of the broker. A way
//! that was interrupted may have missed something; then memory is compared with the store in the background.

use super::{
    change::{Announced, Change, ChangeFeed, FactStore, Heard, Subject},
    redis::Tracking,
    tiered::FactTiers,
    warm,
};
use crate::{
    domain::time::Timestamp,
    telemetry::{
        events::{ChangeKind, Path},
        readiness::Check,
    },
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::AcqRel},
    },
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

/// The wall clock: changes carry the instant of whoever made them.
pub type Wall = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What of the memory section of the configuration is about freshness, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether cards are read into memory before the daemon is ready.
    pub warm: bool,
    /// Which news are listened to.
    pub listen_to: Paths,
}

/// A set of ways that news come by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paths([bool; Path::ALL.len()]);

impl Paths {
    /// With one more.
    #[must_use]
    pub const fn and(mut self, path: Path) -> Self {
        self.0[path as usize] = true;
        self
    }

    /// Whether it is one of them.
    #[must_use]
    pub const fn has(self, path: Path) -> bool {
        self.0[path as usize]
    }
}

/// Where news of changed facts go. Cheap to clone.
pub struct Invalidator<S> {
    pub(super) inner: Arc<Inner<S>>,
}

pub(super) struct Inner<S> {
    pub(super) facts: FactTiers<S>,
    pub(super) settings: Settings,
    wall: Wall,
    links: Mutex<[Link; Path::ALL.len()]>,
    /// Something may have been missed.
    pub(super) missed: Notify,
    /// A way has come up.
    pub(super) listening: Notify,
    /// The instant, µs, of the news by which everything was dropped last: the same news come by several ways.
    everything_at: AtomicI64,
}

/// Since when a way has been heard without a gap, and since when not.
#[derive(Clone, Copy, Default)]
struct Link {
    live_since: Option<Instant>,
    lost_at: Option<Instant>,
}

impl<S> Clone for Invalidator<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<S: FactStore> Invalidator<S> {
    /// For these facts.
    pub fn new(facts: FactTiers<S>, settings: Settings, wall: Wall) -> Self {
        let inner = Inner {
            facts,
            settings,
            wall,
            links: Mutex::default(),
            missed: Notify::new(),
            listening: Notify::new(),
            everything_at: AtomicI64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Listens to the store and to Redis, fills memory (when that is wanted; `warm` passes once it is done) and compares it with the
    /// store after every gap. None of the tasks ends by itself.
    pub fn start(&self, tracking: Option<Tracking>, warm: Option<Check>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let telemetry = self.inner.facts.telemetry();
        if self.inner.settings.listen_to.has(Path::Store) {
            telemetry.news(Path::Store, false, "");
            tasks.spawn(self.clone().listen(Path::Store, self.inner.facts.source().feed()));
        }
        if let Some(tracking) = tracking {
            telemetry.news(Path::Redis, false, "");
            tasks.spawn(self.clone().listen(Path::Redis, tracking));
        }
        tasks.spawn(warm::keep(self.clone(), warm));
        tasks
    }

    /// A fact has changed. Memory has dropped it when this returns; Redis is told in the background.
    pub fn apply(&self, path: Path, announced: Announced) {
        if !self.drop_from_memory(path, &announced) {
            return;
        }
        // What Redis pushed, it knows.
        if path != Path::Redis
            && let Some(redis) = self.inner.facts.redis()
        {
            redis.bury(announced);
        }
    }

    /// Somebody's facts are said to have changed, without what exactly. A card is dropped at once; then the store tells who else is
    /// concerned.
    pub async fn said(&self, path: Path, subject: &Subject, at: Option<Timestamp>) {
        if let Subject::Card(token) = subject {
            self.drop_from_memory(path, &Announced { change: Change::Card { token: token.clone(), version: None }, at });
        }
        match self.inner.facts.source().concerned(subject).await {
            Ok(changes) => changes.into_iter().for_each(|change| self.apply(path, Announced { change, at })),
            // Nobody can tell what it was about: the next comparison with the store finds it.
            Err(_) => self.inner.missed.notify_one(),
        }
    }

    /// Every change is heard of by this way from now on, or not any more. What was missed meanwhile is looked for.
    pub fn link(&self, path: Path, live: bool, why: &str) {
        let now = Instant::now();
        let (missed, first) = {
            let mut links = self.inner.links.lock();
            let store = links[Path::Store as usize];
            let link = &mut links[path as usize];
            let first = link.lost_at.is_none();
            if live == link.live_since.is_some() {
                return;
            }
            if live {
                link.live_since = Some(now);
                // The store tells of every change: if it was heard all the time, nothing was missed.
                let lost_at = link.lost_at;
                let covered = path != Path::Store && store.live_since.is_some_and(|since| lost_at.is_none_or(|lost| since <= lost));
                (!covered, first)
            } else {
                *link = Link { live_since: None, lost_at: Some(now) };
                (false, false)
            }
        };
        self.inner.facts.telemetry().news(path, live, why);
        if live {
            self.inner.listening.notify_one();
        }
        // Events are hints: whoever writes to the store need not send any, so that none was missed says nothing.
        if !missed || path == Path::Events {
            return;
        }
        if first && !self.inner.settings.warm {
            // Hardly anything was read yet: to read that again costs less than to compare it with the whole store.
            self.inner.facts.memory().drop_everything();
        } else {
            self.inner.missed.notify_one();
        }
    }

    async fn listen(self, path: Path, mut feed: impl ChangeFeed) {
        loop {
            match feed.next().await {
                Heard::Listening => self.link(path, true, ""),
                Heard::Lost(why) => self.link(path, false, &why),
                Heard::Changes(changes) => changes.into_iter().for_each(|announced| self.apply(path, announced)),
            }
        }
    }

    /// Says whether the news was new.
    fn drop_from_memory(&self, path: Path, announced: &Announced) -> bool {
        let Announced { change, at } = announced;
        // What the store tells counts each time: instants are those of statements, which need not be committed in that order. Others
        // may say again what it has told.
        if *change == Change::Everything
            && let Some(at) = at
            && self.inner.everything_at.swap(at.0, AcqRel) == at.0
            && path != Path::Store
        {
            return false;
        }
        if self.inner.facts.forget(change) {
            let after = at.map(|at| Duration::from_micros(u64::try_from((self.inner.wall)().0 - at.0).unwrap_or(0)));
            self.inner.facts.telemetry().invalidated(path, kind(change), after);
        }
        if *change == Change::Everything {
            self.inner.missed.notify_one();
        }
        true
    }

    /// Whether what comes by this way is wanted.
    #[must_use]
    pub fn listens_to(&self, path: Path) -> bool {
        self.inner.settings.listen_to.has(path)
    }

    /// Whether every change is heard of now, by the way that tells most.
    pub(super) fn hears(&self) -> bool {
        let Settings { listen_to, .. } = self.inner.settings;
        let best = [Path::Store, Path::Redis].into_iter().find(|path| listen_to.has(*path));
        best.is_none_or(|path| self.inner.links.lock()[path as usize].live_since.is_some())
    }
}

const fn kind(change: &Change) -> ChangeKind {
    match change {
        Change::Card { .. } => ChangeKind::Card,
        Change::User { .. } => ChangeKind::User,
        Change::Program { .. } => ChangeKind::Program,
        Change::Everything => ChangeKind::Everything,
    }
}

#[cfg(test)]
#[path = "invalidator_tests.rs"]
mod tests;
