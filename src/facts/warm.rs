//! Reads the whole store into memory: at the start, so that no request has to wait for facts, and after news were missed, to find out
//! what they would have told.

use super::{
    FactError,
    change::{FactStore, Scanned},
    invalidator::Invalidator,
    memory::{Fill, Kept, Memory},
    redis::Redis,
};
use crate::{
    domain::facts::CardFile,
    telemetry::{Telemetry, readiness::Check},
};
use std::{ops::ControlFlow, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// How often a scan says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the first scan waits to hear of changes, so that none is missed in between.
const NEWS_WAIT_MAX: Duration = Duration::from_secs(5);
/// Scans before the daemon starts without warm facts.
const TRIES: u32 = 2;
/// Between two scans: several ways of news often come back together.
const PAUSE: Duration = Duration::from_millis(500);
/// After a scan that failed; doubles, up to the second.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
const PAUSE_AFTER_FAILURES_MAX: Duration = Duration::from_secs(60);

/// Fills memory once, if `check` waits for it, and compares it with the store whenever something may have been missed.
pub(super) async fn keep<S: FactStore>(invalidator: Invalidator<S>, check: Option<Check>) {
    if let Some(check) = check {
        fill(&invalidator, &check).await;
        check.pass();
    }
    let warm = invalidator.inner.settings.warm;
    loop {
        // Facts are believed for a time only. Where memory is to be warm, they are read again before that is over.
        let renew = if warm { invalidator.inner.facts.memory().ttl() / 2 } else { Duration::MAX };
        // The end of the time is as good a reason as news that were missed.
        drop(timeout(renew, invalidator.inner.missed.notified()).await);
        let mut pause = PAUSE_AFTER_FAILURE;
        while let Err(error) = compare(&invalidator).await {
            invalidator.inner.facts.telemetry().warming_failed(&error.to_string(), true);
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_AFTER_FAILURES_MAX);
        }
        sleep(PAUSE).await;
    }
}

async fn fill<S: FactStore>(invalidator: &Invalidator<S>, check: &Check) {
    let telemetry = invalidator.inner.facts.telemetry();
    check.fail("waiting for news of changes");
    let hearing = async {
        while !invalidator.hears() {
            invalidator.inner.listening.notified().await;
        }
    };
    // Without them it goes on all the same: when they come, memory is compared with the store.
    if timeout(NEWS_WAIT_MAX, hearing).await.is_ok() {
        // What was missed before is read now.
        drop(timeout(Duration::ZERO, invalidator.inner.missed.notified()).await);
    }
    let mut failures = 0;
    loop {
        let mut scan = Scan::begin(invalidator, Some(check));
        match invalidator.inner.facts.source().every_card(|scanned| scan.fill(&scanned)).await {
            Ok(_) if !scan.memory.is_current(scan.read) && failures < TRIES => {
                // Everything changed meanwhile, and nothing of what was read is believed: once more.
                failures += 1;
            }
            Ok(_) => return telemetry.warmed(scan.cards, scan.began.elapsed(), scan.memory.size().bytes, scan.full),
            Err(error) => {
                failures += 1;
                telemetry.warming_failed(&error.to_string(), failures < TRIES);
                if failures >= TRIES {
                    return;
                }
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

/// Reads every card without emptying memory: what is as it was stays, what is not is replaced, and what the store does not have among
/// its usable cards is forgotten, to be read again when it is used.
async fn compare<S: FactStore>(invalidator: &Invalidator<S>) -> Result<(), FactError> {
    let mut scan = Scan::begin(invalidator, None);
    invalidator.inner.facts.source().every_card(|scanned| scan.compare(&scanned)).await?;
    if !scan.memory.is_current(scan.read) {
        // Everything changed meanwhile: whoever said so has asked for another comparison.
        return Ok(());
    }
    scan.memory.end_generation(scan.read);
    if let Some(redis) = scan.redis {
        redis.doubt(false);
    }
    scan.telemetry.healed(scan.cards, scan.changed, scan.began.elapsed());
    Ok(())
}

struct Scan<'a> {
    memory: &'a Memory,
    redis: Option<&'a Redis>,
    telemetry: &'a Telemetry,
    check: Option<&'a Check>,
    read: Fill,
    began: Instant,
    told: Instant,
    told_cards: u64,
    cards: u64,
    changed: u64,
    evictions: u64,
    /// Whether memory takes cards that it does not have.
    grows: bool,
    full: bool,
    /// Whether everything was dropped since it began.
    outrun: bool,
}

impl<'a> Scan<'a> {
    fn begin<S: FactStore>(invalidator: &'a Invalidator<S>, check: Option<&'a Check>) -> Self {
        let facts = &invalidator.inner.facts;
        let (memory, now) = (facts.memory(), Instant::now());
        Self {
            memory,
            redis: facts.redis(),
            telemetry: facts.telemetry(),
            check,
            read: memory.begin_generation(),
            began: now,
            told: now,
            told_cards: 0,
            cards: 0,
            changed: 0,
            evictions: memory.size().evictions,
            grows: invalidator.inner.settings.warm,
            full: false,
            outrun: false,
        }
    }

    /// The card, if it is one. What the reading needs itself is taken from the room that memory has, for this time and the next.
    fn card<'b>(&self, scanned: &'b Scanned) -> Option<&'b CardFile> {
        match scanned {
            Scanned::Card(file) => Some(file),
            Scanned::Aside(bytes) => {
                self.memory.set_aside(*bytes);
                None
            }
        }
    }

    /// Stops when memory is full.
    fn fill(&mut self, scanned: &Scanned) -> ControlFlow<()> {
        let Some(file) = self.card(scanned) else { return ControlFlow::Continue(()) };
        let now = Instant::now();
        self.memory.keep(file, self.read, now);
        self.count(now);
        if self.full || self.outrun { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Goes on to the end: a full memory takes no further cards, and those that it has are compared.
    fn compare(&mut self, scanned: &Scanned) -> ControlFlow<()> {
        let Some(file) = self.card(scanned) else { return ControlFlow::Continue(()) };
        let now = Instant::now();
        let grows = self.grows && !self.full;
        let kept = if grows { self.memory.keep(file, self.read, now) } else { self.memory.confirm(file, self.read, now) };
        if kept == Kept::Newer {
            self.changed += 1;
            // Redis may have missed it as well.
            if let Some(redis) = self.redis {
                redis.keep(file, self.began);
            }
        }
        self.count(now);
        if self.outrun { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn count(&mut self, now: Instant) {
        self.cards += 1;
        // Asking every part of the memory for its size is not for every card.
        if !self.cards.is_multiple_of(256) {
            return;
        }
        let size = self.memory.size();
        self.full = size.evictions > self.evictions;
        self.outrun = !self.memory.is_current(self.read);
        let since = now - self.told;
        if let Some(check) = self.check
            && since >= PROGRESS_INTERVAL
        {
            let per_s = (self.cards - self.told_cards) * 1_000 / u64::try_from(since.as_millis()).unwrap_or(1).max(1);
            self.telemetry.warming(self.cards, per_s, size.bytes);
            check.fail(format!("warming: {} cards are in memory", self.cards));
            (self.told, self.told_cards) = (now, self.cards);
        }
    }
}
