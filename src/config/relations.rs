//! How values must relate: most outages are two limits that did not know of each other. Each problem names both keys, where each
//! was set, and how to mend it. It is reported at the one that was set last, because that is likely the one to change.

use super::{
    Config, StoreKind,
    link::{self, Kind, Link, Password},
    problem::Problem,
    value::{Leaf, Leaves, Value},
};
use std::time::Duration;

/// Everything that does not fit together. Expects values that are in range by themselves.
pub(super) fn check(config: &Config, leaves: &Leaves) -> Vec<Problem> {
    let mut relations = Relations { leaves, problems: Vec::new() };
    relations.bounds(config);
    relations.times(config);
    relations.promises(config);
    relations.names(config);
    relations.safety(config);
    relations.problems
}

struct Relations<'a> {
    leaves: &'a Leaves,
    problems: Vec<Problem>,
}

impl Relations<'_> {
    fn bounds(&mut self, config: &Config) {
        self.at_most("pipeline.in_flight_max", "pipeline.lane_queue_max", "all of it may be for one lane");
        self.at_most("pipeline.batch_max", "pipeline.book_accounts_max", "each decision of a batch may need its own account");
        self.at_most("pipeline.batch_max", "pipeline.book_counters_max", "each decision of a batch may need its own counter");
        if config.store == StoreKind::Postgres {
            self.at_most("postgres.pool_min", "postgres.pool_max", "the first is kept open, the second is the bound");
        }
        self.at_most("alerts.warning_ms", "alerts.critical_ms", "what is critical is worth a warning");
        self.at_most("alerts.queue_warning_ms", "alerts.queue_critical_ms", "what is critical is worth a warning");
        if config.telemetry.report.directory.is_some() {
            self.at_most("report.file_max_mib", "report.directory_max_mib", "one file must fit");
        }
        let pipeline = &config.pipeline;
        let mut edges = Vec::new();
        if let Some(broker) = &config.broker {
            self.at_most("broker.prefetch", "broker.confirms_max", "every delivery may wait for a confirm");
            edges.push(("broker.prefetch", usize::from(broker.prefetch)));
            let filled = pipeline.lanes * pipeline.batch_max;
            if usize::from(broker.prefetch) < filled {
                let text = format!(
                    "broker.prefetch is {}, less than pipeline.lanes x pipeline.batch_max ({} x {}): lanes could not fill their batches; \
                     raise broker.prefetch to {filled} or lower the others",
                    broker.prefetch, pipeline.lanes, pipeline.batch_max
                );
                self.refuse(&["broker.prefetch", "pipeline.lanes", "pipeline.batch_max"], text);
            }
        }
        if let Some(http) = &config.http {
            edges.push(("http.in_flight_max", http.in_flight_max));
        }
        let sum: usize = edges.iter().map(|(_, max)| max).sum();
        let mut keys: Vec<&str> = edges.iter().map(|(key, _)| *key).collect();
        let names = keys.join(" + ");
        keys.push("pipeline.in_flight_max");
        if edges.is_empty() {
            let text = "broker.enabled and http.enabled are both false, so no request could arrive; set one of them to true";
            self.refuse(&["broker.enabled", "http.enabled"], text.to_owned());
        } else if sum > pipeline.in_flight_max {
            let text = format!(
                "{names} is {sum}, above pipeline.in_flight_max, which is {}: what the edges take in must fit into the pipeline; \
                 lower the first or raise the second",
                pipeline.in_flight_max
            );
            self.refuse(&keys, text);
        }
    }

    fn times(&mut self, config: &Config) {
        let pipeline = &config.pipeline;
        let decide_by = pipeline.deadline_default.saturating_sub(pipeline.deadline_reserve);
        let mut within = vec![("pipeline.shed_before_ms", pipeline.shed_before, "a request would be declined as soon as it arrives")];
        let mut drained = Duration::ZERO;
        let mut drains = vec!["pipeline.drain_timeout_ms"];
        match config.store {
            StoreKind::Postgres => {
                self.below("postgres.lock_timeout_ms", "postgres.commit_timeout_ms", "a commit that waits for a row must not be cut off");
                self.below("postgres.commit_timeout_ms", "postgres.query_timeout_ms", "the hot path is the stricter one");
                within.push(("postgres.commit_timeout_ms", config.postgres.commit_timeout, "one stuck commit would make its batch late"));
                drains.push("postgres.commit_timeout_ms");
                drained += config.postgres.commit_timeout;
            }
            StoreKind::Sqlite => {
                within.push(("sqlite.busy_timeout_ms", config.sqlite.busy_timeout, "one stuck commit would make its batch late"));
                drains.push("sqlite.busy_timeout_ms");
                drained += config.sqlite.busy_timeout;
            }
        }
        if let Some(broker) = &config.broker {
            drains.push("broker.confirm_timeout_ms");
            drained += broker.confirm_timeout;
        }
        for (key, time, why) in within {
            if time >= decide_by {
                let text = format!(
                    "{key} is {}, not below deadline.default_ms less deadline.reserve_ms, which is {}: {why}; \
                     lower the first or raise deadline.default_ms",
                    time.as_millis(),
                    decide_by.as_millis()
                );
                self.refuse(&[key, "deadline.default_ms", "deadline.reserve_ms"], text);
            }
        }
        if drained > pipeline.drain_timeout {
            let text = format!(
                "pipeline.drain_timeout_ms is {}, less than {}, which is {}: a drain must outlast what is in flight; \
                 raise the first or lower the others",
                pipeline.drain_timeout.as_millis(),
                drains[1..].join(" + "),
                drained.as_millis()
            );
            self.refuse(&drains, text);
        }
    }

    fn promises(&mut self, config: &Config) {
        const PARTS: [&str; 6] = ["user", "card", "limits", "decision", "commit", "publish"];
        for span in PARTS.into_iter().chain(["total"]) {
            let [p50, p95, p99] = ["p50_us", "p95_us", "p99_us"].map(|name| format!("promise.{span}.{name}"));
            self.at_most(&p50, &p95, "quantiles rise");
            self.at_most(&p95, &p99, "quantiles rise");
        }
        let promise = &config.promise;
        let parts = [promise.user, promise.card, promise.limits, promise.decision, promise.commit, promise.publish];
        let sum: u64 = parts.iter().map(|budget| budget.p99_us).sum();
        let part_keys = PARTS.map(|span| format!("promise.{span}.p99_us"));
        let claims = [
            (part_keys.to_vec(), "the promised p99_us of user, card, limits, decision, commit and publish together", sum),
            (vec!["promise.total.p99_us".to_owned()], "promise.total.p99_us", promise.total.p99_us),
        ];
        let pipeline = &config.pipeline;
        let decide_by = pipeline.deadline_default.saturating_sub(pipeline.deadline_reserve);
        for (mut keys, what, micros) in claims {
            if Duration::from_micros(micros) > decide_by {
                let text = format!(
                    "{what} is {micros}, above deadline.default_ms less deadline.reserve_ms, which is {} ms: kept promises would still be \
                     too late; lower the first or raise deadline.default_ms",
                    decide_by.as_millis()
                );
                keys.extend(["deadline.default_ms".to_owned(), "deadline.reserve_ms".to_owned()]);
                self.refuse(&keys.iter().map(String::as_str).collect::<Vec<_>>(), text);
            }
        }
    }

    fn names(&mut self, config: &Config) {
        let Some(broker) = &config.broker else { return };
        let derived = [&broker.transaction_queue, &broker.webhook_queue].map(|queue| format!("{queue}-dlq"));
        let queues = [
            ("broker.request_queue", &broker.request_queue),
            ("broker.dead_letter_queue", &broker.dead_letter_queue),
            ("broker.transaction_queue", &broker.transaction_queue),
            ("broker.transaction_queue", &derived[0]),
            ("broker.webhook_queue", &broker.webhook_queue),
            ("broker.webhook_queue", &derived[1]),
        ];
        let exchanges = [("broker.exchange", &broker.exchange), ("broker.events_exchange", &broker.events_exchange)];
        let all_queues: Vec<_> = queues.into_iter().chain([("broker.response_queue", &broker.response_queue)]).collect();
        for names in [&all_queues[..], &exchanges[..]] {
            for (index, (left, name)) in names.iter().enumerate() {
                if let Some((right, _)) = names[index + 1..].iter().find(|(_, other)| other == name) {
                    let text = format!("{left} and {right} both name {name:?}; rename one of them");
                    self.refuse(&[left, right], text);
                }
            }
        }
        for prefix in &broker.reply_to_allowed {
            if let Some((key, queue)) = queues.iter().find(|(_, queue)| queue.starts_with(prefix.as_str())) {
                let text = format!(
                    "broker.reply_to_allowed has {prefix:?}, which lets requests address {queue:?} of {key}; \
                     lengthen the prefix or rename the queue"
                );
                self.refuse(&["broker.reply_to_allowed", key], text);
            }
        }
    }

    fn safety(&mut self, config: &Config) {
        if config.store == StoreKind::Postgres {
            let mend = "add ?sslmode=verify-full to the URL";
            self.link(config, "postgres", &config.postgres.url, &link::POSTGRES, mend);
        }
        if let Some(redis) = &config.redis {
            self.link(config, "redis", &redis.url, &link::REDIS, "use rediss://");
        }
        if let Some(broker) = &config.broker {
            self.link(config, "broker", &broker.url, &link::AMQP, "use amqps://");
        }
        let Some(http) = config.http.as_ref().filter(|http| !http.listen.ip().is_loopback()) else { return };
        if http.token.is_none() {
            let text = format!(
                "http.listen is {:?}, off loopback, and neither http.token nor http.token_file is set: anyone who gets there may spend; \
                 set http.token_file, or listen on 127.0.0.1",
                http.listen.to_string()
            );
            self.refuse(&["http.listen", "http.token", "http.token_file"], text);
        }
        if !config.safety.plaintext.iter().any(|link| link == "http") {
            let text = format!(
                "http.listen is {:?}, off loopback, and safety.allow_plaintext does not have \"http\": tokens and requests would cross the \
                 network in the clear; listen on 127.0.0.1 behind a proxy that speaks TLS, or add \"http\" if the network is encrypted",
                http.listen.to_string()
            );
            self.refuse(&["http.listen", "safety.allow_plaintext"], text);
        }
    }

    /// Never quotes the URL.
    fn link(&mut self, config: &Config, section: &str, url: &str, kind: &Kind, mend: &str) {
        let Some(link) = Link::parse(url, kind) else { return };
        let key = format!("{section}.url");
        let fault = match link.password {
            Password::Missing if !link.socket => Some("has no password"),
            Password::Default => Some("has a default password, its user's name"),
            Password::Missing | Password::Set => None,
        };
        if let Some(fault) = fault.filter(|_| !config.safety.default_passwords) {
            let variable = super::schema::variable_of(&key);
            let text = format!(
                "{key} {fault}, which safety.allow_default_passwords = false refuses; give a URL with a password of its own, for example by \
                 {variable}_FILE"
            );
            self.refuse(&[&key, "safety.allow_default_passwords"], text);
        }
        if !link.local && !link.encrypted && !config.safety.plaintext.iter().any(|allowed| allowed == section) {
            let text = format!(
                "{key} leads to another machine without TLS, which safety.allow_plaintext refuses unless it has {section:?}; \
                 {mend}, or add it if the network is encrypted"
            );
            self.refuse(&[&key, "safety.allow_plaintext"], text);
        }
    }

    /// `left <= right`, in the same unit.
    fn at_most(&mut self, left: &str, right: &str, why: &str) {
        self.ordered(left, "above", right, why, |left, right| left <= right);
    }

    /// `left < right`, in the same unit.
    fn below(&mut self, left: &str, right: &str, why: &str) {
        self.ordered(left, "not below", right, why, |left, right| left < right);
    }

    fn ordered(&mut self, left: &str, fault: &str, right: &str, why: &str, holds: fn(i64, i64) -> bool) {
        let (Some(Leaf { value: Value::Whole(a), .. }), Some(Leaf { value: Value::Whole(b), .. })) =
            (self.leaves.get(left), self.leaves.get(right))
        else {
            return;
        };
        if !holds(*a, *b) {
            let text = format!("{left} is {a}, {fault} {right}, which is {b}: {why}; lower the first or raise the second");
            self.refuse(&[left, right], text);
        }
    }

    /// Reports at the key of the topmost layer, and says where the others were set.
    fn refuse(&mut self, keys: &[&str], text: String) {
        let found: Vec<(&str, &Leaf)> = keys.iter().filter_map(|key| self.leaves.get(*key).map(|leaf| (*key, leaf))).collect();
        // Of several in the same layer the first is meant, and `max_by_key` would take the last.
        let Some((at_key, at)) = found.iter().rev().max_by_key(|(_, leaf)| leaf.layer) else { return };
        let others: Vec<String> =
            found.iter().filter(|(key, _)| key != at_key).map(|(key, leaf)| format!("{key} is set at {}", leaf.origin)).collect();
        let others = if others.is_empty() || others.len() > 2 { String::new() } else { format!(" ({})", others.join(", ")) };
        self.problems.push(Problem::at(&at.origin, format!("{text}{others}")));
    }
}
