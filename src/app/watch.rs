//! Readiness, kept true to the dependencies.

use super::{drain::Http, systemd::Systemd};
use crate::{
    broker::Broker,
    facts::tiered::FactTiers,
    ledger::Store,
    pipeline::Pulse,
    telemetry::{CommitCounts, Readiness, Telemetry, events::Dependency, readiness::Check},
};
use std::time::Duration;
use tokio::{
    runtime::Handle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// How often dependencies are looked at for readiness, and slow decisions are told.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// After how long a store that says nothing counts as one that is out.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// For how long a store whose commits failed, and none went through since, counts as one that is out, although it answers; and after how
/// long one whose commits do not end.
const FAILING_FOR: Duration = Duration::from_secs(5);

/// Looks at the dependencies and keeps readiness true to them.
pub(super) struct Watch<S> {
    pub(super) store: S,
    pub(super) facts: FactTiers<S>,
    pub(super) telemetry: Telemetry,
    pub(super) readiness: Readiness,
    pub(super) pulse: Pulse,
    /// What requests run on, if that is not the runtime of this loop.
    pub(super) threads: Option<Handle>,
    pub(super) commits: Commits,
}

/// How commits have fared, from look to look.
#[derive(Default)]
pub(super) struct Commits {
    seen: CommitCounts,
    failed_at: Option<Instant>,
    /// Since when commits are under way and none has ended.
    waits_since: Option<Instant>,
}

impl Commits {
    /// What is wrong, if commits fail and none goes through, or none ends. A store may answer questions and take no writes: its disk is
    /// full, or hangs, or it waits for a standby.
    fn trouble(&mut self, now: CommitCounts, at: Instant) -> Option<&'static str> {
        let before = std::mem::replace(&mut self.seen, now);
        if now.went_through > before.went_through {
            self.failed_at = None;
        } else if now.failed > before.failed {
            self.failed_at = Some(at);
        }
        self.waits_since = (now.under_way > 0 && now.ended == before.ended).then(|| self.waits_since.unwrap_or(at));
        if self.failed_at.is_some_and(|failed| at.duration_since(failed) < FAILING_FOR) {
            return Some("it answers, but takes no commits");
        }
        self.waits_since.is_some_and(|since| at.duration_since(since) >= FAILING_FOR).then_some("it answers, but commits do not end")
    }
}

impl<S: Store> Watch<S> {
    /// Looks, for ever; says once that the daemon is ready. Returns the name of a part that ended by itself.
    pub(super) async fn run(mut self, broker: Option<&Broker>, http: Option<&Http>, systemd: &mut Systemd) -> &'static str {
        let address = http.map_or("off", |http| http.address.as_str());
        let store = self.readiness.check("store");
        let broker = broker.map(|broker| (broker, self.readiness.check("broker")));
        let mut tick = interval(WATCH_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut announced = false;
        loop {
            tick.tick().await;
            self.look_at_store(&store).await;
            if http.is_some_and(|http| http.task.is_finished()) {
                return "the HTTP server";
            }
            if let Some((broker, check)) = &broker {
                if broker.broken() {
                    return "a part of the broker edge";
                }
                let failed = (!broker.ready()).then(|| "not consuming, or not able to publish".to_owned());
                self.note(check, Dependency::Broker, failed);
            }
            self.facts.tell_size();
            let ready = self.readiness.is_ready();
            if ready && !announced {
                announced = true;
                tracing::info!(event = "ready", http = address, "taking requests");
            }
            moves(self.threads.as_ref()).await;
            systemd.turned(self.pulse.stuck(), ready, &self.failing(), &self.telemetry).await;
        }
    }

    /// The checks that do not pass, for a person.
    fn failing(&self) -> String {
        let checks = self.readiness.checks();
        let failing: Vec<_> = checks.iter().filter(|check| !check.ok).map(|check| format!("{} ({})", check.name, check.detail)).collect();
        failing.join(", ")
    }

    async fn look_at_store(&mut self, check: &Check) {
        // A store that hangs does not fail by itself.
        let answer = timeout(PING_TIMEOUT, self.store.ping()).await;
        let failed = match answer {
            Ok(Err(error)) => Some(error.to_string()),
            Ok(Ok(())) => self.commits.trouble(self.telemetry.commit_counts(), Instant::now()).map(str::to_owned),
            Err(_) => Some(format!("no answer within {} ms", PING_TIMEOUT.as_millis())),
        };
        self.note(check, Dependency::Store, failed);
    }

    fn note(&self, check: &Check, dependency: Dependency, failed: Option<String>) {
        self.telemetry.dependency(dependency, failed.is_none(), failed.as_deref().unwrap_or_default());
        match failed {
            None => check.pass(),
            // Anybody may ask for the checks: what the dependency says, and where it is, stays in the log.
            Some(_) => check.fail("cannot be used; the log says why".to_owned()),
        }
    }
}

/// Waits until work has moved on the threads of this runtime and on those of requests: the watch runs on a thread of its own, and where
/// a thread of theirs spins or is blocked, there must be no sign of life.
async fn moves(threads: Option<&Handle>) {
    drop(tokio::spawn(async {}).await);
    if let Some(threads) = threads {
        drop(threads.spawn(async {}).await);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::{super::threads::Threads, *};
    use std::sync::mpsc;

    #[tokio::test]
    async fn there_is_no_sign_of_life_while_what_requests_run_on_is_blocked() {
        let threads = Threads::start(1).unwrap();
        let (release, released) = mpsc::sync_channel::<()>(1);
        let (block, blocked) = mpsc::sync_channel(1);
        let handle = threads.handle().cloned();
        let stuck = handle.as_ref().unwrap().spawn(async move {
            block.send(()).unwrap();
            released.recv().unwrap();
        });
        blocked.recv().unwrap();
        let quiet = timeout(Duration::from_millis(200), moves(handle.as_ref())).await;
        assert!(quiet.is_err(), "work moved on a thread that is blocked");
        release.send(()).unwrap();
        timeout(Duration::from_secs(10), moves(handle.as_ref())).await.unwrap();
        stuck.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_no_commits_is_out_until_one_goes_through_or_nobody_tries() {
        let (mut commits, start) = (Commits::default(), Instant::now());
        for (second, went_through, failed, failing) in [
            (0, 0, 0, false),
            (1, 5, 1, false),
            (2, 5, 1, false),
            (3, 5, 2, true),
            (4, 5, 2, true),
            (7, 5, 2, true),
            (8, 5, 2, false),
            (9, 5, 3, true),
            (10, 6, 4, false),
        ] {
            let counts = CommitCounts { went_through, failed, ended: went_through + failed, under_way: 0 };
            let trouble = commits.trouble(counts, start + Duration::from_secs(second));
            assert_eq!(trouble, failing.then_some("it answers, but takes no commits"), "at {second} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_whose_commits_do_not_end_is_out_until_one_does() {
        let (mut commits, start) = (Commits::default(), Instant::now());
        for (second, begun, ended, hangs) in [
            (0, 1, 0, false),
            (4, 1, 0, false),
            (5, 1, 0, true),
            (6, 2, 1, false),
            (7, 2, 1, false),
            (11, 2, 1, false),
            (12, 2, 1, true),
            (13, 2, 2, false),
            (30, 2, 2, false),
        ] {
            let counts = CommitCounts { went_through: ended, failed: 0, ended, under_way: begun - ended };
            let trouble = commits.trouble(counts, start + Duration::from_secs(second));
            assert_eq!(trouble, hangs.then_some("it answers, but commits do not end"), "at {second} s");
        }
    }
}
