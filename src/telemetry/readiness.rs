//! Whether the daemon can take requests: named checks that their owners report on.
//!
//! The handles are plain: whoever owns a dependency gets a [`Check`] from the wiring and knows nothing of who asks.

use std::sync::Arc;
use tokio::sync::watch;

/// The checks of one daemon. Cheap to clone; ready once every registered check passes, until a drain begins.
#[derive(Clone, Debug)]
pub struct Readiness {
    board: Arc<watch::Sender<Board>>,
}

/// One named check. Not passed until its owner says so.
#[derive(Clone, Debug)]
pub struct Check {
    name: &'static str,
    board: Arc<watch::Sender<Board>>,
}

/// How a check stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckState {
    /// The check.
    pub name: &'static str,
    /// Whether it passes.
    pub ok: bool,
    /// What is wrong, or what it waits for; for a person.
    pub detail: String,
}

#[derive(Debug, Default)]
struct Board {
    draining: bool,
    checks: Vec<CheckState>,
}

impl Board {
    fn ready(&self) -> bool {
        !self.draining && !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self { board: Arc::new(watch::Sender::new(Board::default())) }
    }
}

impl Readiness {
    /// Registers a check, which does not pass yet. The same name again is the same check.
    #[must_use]
    pub fn check(&self, name: &'static str) -> Check {
        self.board.send_if_modified(|board| {
            let new = board.checks.iter().all(|check| check.name != name);
            if new {
                board.checks.push(CheckState { name, ok: false, detail: "starting".to_owned() });
            }
            new
        });
        Check { name, board: Arc::clone(&self.board) }
    }

    /// From now on, and for good, not ready: requests in work are finished, no further ones wanted.
    pub fn drain(&self) {
        self.board.send_modify(|board| board.draining = true);
    }

    /// Whether a drain began.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.board.borrow().draining
    }

    /// Whether requests are wanted: there are checks, all pass, and no drain began.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.board.borrow().ready()
    }

    /// Every check as it stands, in order of registration.
    #[must_use]
    pub fn checks(&self) -> Vec<CheckState> {
        self.board.borrow().checks.clone()
    }

    /// Waits until the daemon is ready. Never returns when it drains first.
    pub async fn ready(&self) {
        // The sender lives in `self`, so the channel cannot close while this waits.
        drop(self.board.subscribe().wait_for(Board::ready).await);
    }
}

impl Check {
    /// The check passes.
    pub fn pass(&self) {
        self.set(true, String::new());
    }

    /// The check does not pass; `detail` tells a person why. No secrets: it is served to anybody who asks.
    pub fn fail(&self, detail: impl Into<String>) {
        self.set(false, detail.into());
    }

    fn set(&self, ok: bool, detail: String) {
        self.board.send_if_modified(|board| {
            let Some(check) = board.checks.iter_mut().find(|check| check.name == self.name) else { return false };
            let changed = check.ok != ok || check.detail != detail;
            (check.ok, check.detail) = (ok, detail);
            changed
        });
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a failed expectation is a failed test")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_means_every_check_passes_and_no_drain_began() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready(), "nothing registered yet: still starting");
        let (store, broker) = (readiness.check("store"), readiness.check("broker"));
        store.pass();
        assert!(!readiness.is_ready(), "the broker has not reported");
        broker.fail("connecting");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        broker.pass();
        waiting.await.expect("wakes when the last check passes");
        assert!(readiness.is_ready());
        store.fail("connection refused");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.checks()[0], CheckState { name: "store", ok: false, detail: "connection refused".to_owned() });
        store.pass();
        readiness.drain();
        assert!(!readiness.is_ready() && readiness.is_draining());
    }
}
