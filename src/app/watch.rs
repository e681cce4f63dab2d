//! Readiness, kept true to the dependencies.

use super::{drain::Http, systemd::Systemd};
use crate::{
    broker::Broker,
    facts::tiered::FactTiers,
    ledger::Store,
    pipeline::Pulse,
    telemetry::{Readiness, Telemetry, events::Dependency, readiness::Check},
};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often dependencies are looked at for readiness, and slow decisions are told.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// After how long a store that says nothing counts as one that is out.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks at the dependencies and keeps readiness true to them.
pub(super) struct Watch<S> {
    pub(super) store: S,
    pub(super) facts: FactTiers<S>,
    pub(super) telemetry: Telemetry,
    pub(super) readiness: Readiness,
    pub(super) pulse: Pulse,
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
            systemd.turned(self.pulse.stuck(), ready, &self.failing(), &self.telemetry).await;
        }
    }

    /// The checks that do not pass, for a person.
    fn failing(&self) -> String {
        let checks = self.readiness.checks();
        let failing: Vec<_> = checks.iter().filter(|check| !check.ok).map(|check| format!("{} ({})", check.name, check.detail)).collect();
        failing.join(", ")
    }

    async fn look_at_store(&self, check: &Check) {
        // A store that hangs does not fail by itself.
        let answer = timeout(PING_TIMEOUT, self.store.ping()).await;
        let failed = match answer {
            Ok(answer) => answer.err().map(|error| error.to_string()),
            Err(_) => Some(format!("no answer within {} ms", PING_TIMEOUT.as_millis())),
        };
        self.note(check, Dependency::Store, failed);
    }

    fn note(&self, check: &Check, dependency: Dependency, failed: Option<String>) {
        self.telemetry.dependency(dependency, failed.is_none(), failed.as_deref().unwrap_or_default());
        match failed {
            None => check.pass(),
            Some(detail) => check.fail(detail),
        }
    }
}
