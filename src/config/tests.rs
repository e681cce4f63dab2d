#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{value::Leaves, *};
use std::{fs, path::PathBuf};
use tempfile::TempDir;

const CORES: usize = 2;

/// A directory with a `prod.toml`, an environment, and flags, loaded over a profile.
struct Case {
    directory: TempDir,
    profile: String,
    environment: BTreeMap<String, String>,
    flags: Vec<Flag>,
    cores: usize,
}

impl Case {
    fn new(profile: &str, document: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("prod.toml"), document).unwrap();
        Self { directory, profile: profile.to_owned(), environment: BTreeMap::new(), flags: Vec::new(), cores: CORES }
    }

    /// `DIR` in the value is this case's directory.
    fn with(mut self, variable: &str, value: &str) -> Self {
        let value = value.replace("DIR", self.directory.path().to_str().unwrap());
        self.environment.insert(variable.to_owned(), value);
        self
    }

    fn with_all(self, variables: &[(&str, &str)]) -> Self {
        variables.iter().fold(self, |case, (variable, value)| case.with(variable, value))
    }

    fn containing(self, file: &str, text: &str) -> Self {
        fs::write(self.directory.path().join(file), text).unwrap();
        self
    }

    fn load(&self) -> Result<Config, Problems> {
        let path: PathBuf = self.directory.path().join("prod.toml");
        let environment = &self.environment;
        Config::load(&Sources { profile: &self.profile, file: Some(&path), environment, flags: &self.flags, cores: self.cores })
    }

    /// The problems, one per line, with the directory left out.
    fn problems(&self) -> String {
        let problems = self.load().map(|_| "accepted".to_owned()).unwrap_or_else(|problems| problems.to_string());
        problems.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

#[track_caller]
fn check(profile: &str, document: &str, environment: &[(&str, &str)], expected: &str) {
    assert_eq!(Case::new(profile, document).with_all(environment).problems(), expected, "for {document:?} and {environment:?}");
}

/// Secrets as an operator would give them.
const SECRETS: [(&str, &str); 3] = [
    ("JITAUTH_POSTGRES__URL", "postgres://jit:n0t-a-default@db.example:5432/jitauth?sslmode=verify-full"),
    ("JITAUTH_REDIS__URL", "rediss://:n0t-a-default@cache.example:6379/0"),
    ("JITAUTH_BROKER__URL", "amqps://jit:n0t-a-default@mq.example:5671/%2f"),
];

#[test]
fn a_wrong_value_is_named_with_its_place_and_what_it_must_be() {
    for (document, expected) in [
        ("\n[pipeline]\n  batch_max = 4096", "prod.toml:3:15: pipeline.batch_max is 4096; must be 0 to 1024 (0 is what suits the store)"),
        ("pipeline.batch_max = -1", "prod.toml:1:22: pipeline.batch_max is -1; must be 0 to 1024 (0 is what suits the store)"),
        ("[pipeline]\nbatch_max = \"many\"", "prod.toml:2:13: pipeline.batch_max is \"many\"; must be a whole number"),
        ("[pipeline]\nbatch_max = 1.5", "prod.toml:2:13: pipeline.batch_max must be a whole number"),
        ("[pipeline]\nbatch_max = {}", "prod.toml:2:13: pipeline.batch_max must be a whole number"),
        ("[broker]\nprefetch = 70000", "prod.toml:2:12: broker.prefetch is 70000; must be 1 to 65535 (0 would be without bound)"),
        ("[http]\nenabled = \"yes\"", "prod.toml:2:11: http.enabled is \"yes\"; must be true or false"),
        ("[broker]\nreply_to_allowed = [\"a\", 1]", "prod.toml:2:20: broker.reply_to_allowed must be a list of texts"),
        (
            "[broker]\nreply_to_allowed = [\"\"]",
            "prod.toml:2:20: broker.reply_to_allowed is [\"\"]; no prefix may be empty (it would allow every queue)",
        ),
        ("[store]\nkind = \"oracle\"", "prod.toml:2:8: store.kind is \"oracle\"; must be \"sqlite\" or \"postgres\""),
        (
            "[http]\nlisten = \"localhost\"",
            "prod.toml:2:10: http.listen is \"localhost\"; must be an address and a port, such as 127.0.0.1:8080 or [::1]:8080",
        ),
        (
            "[deadline]\nreserve_ms = 100",
            "prod.toml:2:14: deadline.reserve_ms is 100; must be 0 to 99 (the shortest deadline that a request may name is 100 ms)",
        ),
        ("[memory]\nttl_s = 0", "prod.toml:2:9: memory.ttl_s is 0; must be 1 to 86400"),
        (
            "[safety]\nallow_plaintext = [\"amqp\"]",
            "prod.toml:2:19: safety.allow_plaintext is [\"amqp\"]; must name links, of \"postgres\", \"redis\", \"broker\" and \"http\"",
        ),
        (
            "[http]\ntoken_file = \"/nonexistent/token\"",
            "prod.toml:2:14: http.token_file is \"/nonexistent/token\"; the file cannot be read: No such file or directory (os error 2)",
        ),
    ] {
        check("embedded", document, &[], expected);
    }
}

#[test]
fn an_unknown_key_is_refused_with_what_was_meant() {
    for (document, expected) in [
        ("[pipeline]\nbatchmax = 1", "prod.toml:2:1: pipeline.batchmax is not a known key; did you mean pipeline.batch_max?"),
        ("[pipeline]\nreserve_ms = 1", "prod.toml:2:1: pipeline.reserve_ms is not a known key; did you mean deadline.reserve_ms?"),
        ("[pipelin]\nlanes = 1", "prod.toml:1:2: pipelin is not a known section; did you mean pipeline?"),
        ("[promise.commit]\np999_us = 1", "prod.toml:2:1: promise.commit.p999_us is not a known key; did you mean promise.commit.p99_us?"),
        ("qqq = 1", "prod.toml:1:1: qqq is not a known key"),
        ("pipeline = 1", "prod.toml:1:1: pipeline is a section; write [pipeline] on a line of its own"),
        ("[[pipeline]]\nlanes = 1", "prod.toml:1:3: pipeline is a section; write [pipeline] on a line of its own"),
        ("\"pipeline.lanes\" = 1", "prod.toml:1:1: \"pipeline.lanes\" is not a known key; did you mean pipeline.lanes?"),
    ] {
        check("embedded", document, &[], expected);
    }
}

#[test]
fn the_environment_is_held_to_the_same_rules() {
    for (environment, expected) in [
        (("JITAUTH_PIPELINE__BATCH_MAX", "many"), "JITAUTH_PIPELINE__BATCH_MAX: pipeline.batch_max is \"many\"; must be a whole number"),
        (("JITAUTH_PIPELINE__LANES", "65"), "JITAUTH_PIPELINE__LANES: pipeline.lanes is 65; must be 0 to 64 (0 is one per core)"),
        (("JITAUTH_PIPELINE__BATCHMAX", "1"), "JITAUTH_PIPELINE__BATCHMAX: sets no known key; did you mean JITAUTH_PIPELINE__BATCH_MAX?"),
        (
            ("JITAUTH_POSTGRES_URL", "postgres://u:hidden@h/d"),
            "JITAUTH_POSTGRES_URL: sets nothing; did you mean JITAUTH_POSTGRES__URL? A section is set off by two underscores",
        ),
        (
            ("JITAUTH_POSTGRES__URL_FILE", "DIR/missing"),
            "JITAUTH_POSTGRES__URL_FILE: cannot read missing: No such file or directory (os error 2)",
        ),
        (
            ("JITAUTH_PIPELINE__LANES_FILE", "DIR/prod.toml"),
            "JITAUTH_PIPELINE__LANES_FILE: pipeline.lanes is not a text, so it cannot come from a file; set JITAUTH_PIPELINE__LANES",
        ),
        (("JITAUTH_PROFILE", "production"), "accepted"),
        (("JITAUTH_TEST_POSTGRES", "x"), "accepted"),
        (("POSTGRES__URL", "x"), "accepted"),
        (("DATABASE_URL", "x"), "accepted"),
    ] {
        check("embedded", "", &[environment], expected);
    }
    check(
        "embedded",
        "",
        &[("JITAUTH_STORE__KIND", "sqlite"), ("JITAUTH_STORE__KIND_FILE", "DIR/prod.toml")],
        "JITAUTH_STORE__KIND_FILE: JITAUTH_STORE__KIND is set too; unset one of them",
    );
}

#[test]
fn values_that_do_not_fit_together_are_refused_with_both_keys() {
    for (profile, document, expected) in [
        (
            "embedded",
            "[pipeline]\nlane_queue_max = 100",
            "prod.toml:2:18: pipeline.in_flight_max is 2048, above pipeline.lane_queue_max, which is 100: all of it may be for one lane; \
             lower the first or raise the second (pipeline.in_flight_max is set at built-in config.toml:LINE)",
        ),
        (
            "services",
            "[http]\nin_flight_max = 2000",
            "prod.toml:2:17: broker.prefetch + http.in_flight_max is 2256, above pipeline.in_flight_max, which is 2048: what the edges take \
             in must fit into the pipeline; lower the first or raise the second (broker.prefetch is set at built-in config.toml:LINE, \
             pipeline.in_flight_max is set at built-in config.toml:LINE)",
        ),
        (
            "services",
            "[pipeline]\nlanes = 8\nbatch_max = 64",
            "prod.toml:2:9: broker.prefetch is 256, less than pipeline.lanes x pipeline.batch_max (8 x 64): lanes could not fill their \
             batches; raise broker.prefetch to 512 or lower the others (broker.prefetch is set at built-in config.toml:LINE, \
             pipeline.batch_max is set at prod.toml:3:13)",
        ),
        (
            "services",
            "[broker]\nconfirms_max = 255",
            "prod.toml:2:16: broker.prefetch is 256, above broker.confirms_max, which is 255: every delivery may wait for a confirm; \
             lower the first or raise the second (broker.prefetch is set at built-in config.toml:LINE)",
        ),
        (
            "services",
            "[postgres]\nlock_timeout_ms = 60\ncommit_timeout_ms = 60",
            "prod.toml:2:19: postgres.lock_timeout_ms is 60, not below postgres.commit_timeout_ms, which is 60: a commit that waits for a \
             row must not be cut off; lower the first or raise the second (postgres.commit_timeout_ms is set at prod.toml:3:21)",
        ),
        (
            "services",
            "[postgres]\nquery_timeout_ms = 1000",
            "prod.toml:2:20: postgres.commit_timeout_ms is 1000, not below postgres.query_timeout_ms, which is 1000: the hot path is the \
             stricter one; lower the first or raise the second (postgres.commit_timeout_ms is set at built-in config.toml:LINE)",
        ),
        (
            "services",
            "[postgres]\npool_max = 4",
            "prod.toml:2:12: postgres.pool_min is 5, above postgres.pool_max, which is 4: the first is kept open, the second is the bound; \
             lower the first or raise the second (postgres.pool_min is set at built-in config.toml:LINE)",
        ),
        (
            "services",
            "[deadline]\ndefault_ms = 1050",
            "prod.toml:2:14: postgres.commit_timeout_ms is 1000, not below deadline.default_ms less deadline.reserve_ms, which is 1000: one \
             stuck commit would make its batch late; lower the first or raise deadline.default_ms (postgres.commit_timeout_ms is set at \
             built-in config.toml:LINE, deadline.reserve_ms is set at built-in config.toml:LINE)",
        ),
        (
            "embedded",
            "[pipeline]\nshed_before_ms = 1950",
            "prod.toml:2:18: pipeline.shed_before_ms is 1950, not below deadline.default_ms less deadline.reserve_ms, which is 1950: a \
             request would be declined as soon as it arrives; lower the first or raise deadline.default_ms (deadline.default_ms is set at \
             built-in config.toml:LINE, deadline.reserve_ms is set at built-in config.toml:LINE)",
        ),
        (
            "services",
            "[pipeline]\ndrain_timeout_ms = 5999",
            "prod.toml:2:20: pipeline.drain_timeout_ms is 5999, less than postgres.commit_timeout_ms + broker.confirm_timeout_ms, which is \
             6000: a drain must outlast what is in flight; raise the first or lower the others (postgres.commit_timeout_ms is set at \
             built-in config.toml:LINE, broker.confirm_timeout_ms is set at built-in config.toml:LINE)",
        ),
        (
            "services",
            "[promise.user]\np99_us = 1865001",
            "prod.toml:2:10: the promised p99_us of user, card, limits, decision, commit and publish together is 1950001, above \
             deadline.default_ms less deadline.reserve_ms, which is 1950 ms: kept promises would still be too late; lower the first or \
             raise deadline.default_ms",
        ),
        (
            "services",
            "[promise.user]\np95_us = 10001",
            "prod.toml:2:10: promise.user.p95_us is 10001, above promise.user.p99_us, which is 10000: quantiles rise; lower the first or \
             raise the second (promise.user.p99_us is set at built-in profiles/services.toml:LINE)",
        ),
        (
            "embedded",
            "[http]\nenabled = false",
            "prod.toml:2:11: broker.enabled and http.enabled are both false, so no request could arrive; set one of them to true \
             (broker.enabled is set at built-in profiles/embedded.toml:LINE)",
        ),
        (
            "services",
            "[broker]\nresponse_queue = \"jit-funding-queue\"",
            "prod.toml:2:18: broker.request_queue and broker.response_queue both name \"jit-funding-queue\"; rename one of them \
             (broker.request_queue is set at built-in config.toml:LINE)",
        ),
        (
            "services",
            "[broker]\nreply_to_allowed = [\"jit-funding-r\", \"webhook-\"]",
            "prod.toml:2:20: broker.reply_to_allowed has \"webhook-\", which lets requests address \"webhook-queue\" of \
             broker.webhook_queue; lengthen the prefix or rename the queue (broker.webhook_queue is set at built-in config.toml:LINE)",
        ),
        (
            "embedded",
            "[http]\nlisten = \"0.0.0.0:8080\"",
            "prod.toml:2:10: http.listen is \"0.0.0.0:8080\", off loopback, and neither http.token nor http.token_file is set: anyone who \
             gets there may spend; set http.token_file, or listen on 127.0.0.1 (http.token is set at built-in config.toml:LINE, \
             http.token_file is set at built-in config.toml:LINE)",
        ),
    ] {
        // Lines of the built-in files move with their comments.
        let found = Case::new(profile, document).problems();
        let parts: Vec<&str> = found.split(".toml:").collect();
        let mut masked = parts[0].to_owned();
        for pair in parts.windows(2) {
            let place = pair[1].split([',', ')', ' ']).next().unwrap().trim_end_matches(':');
            let rest = &pair[1][place.len()..];
            let built_in = pair[0].rsplit(' ').next().unwrap() != "prod" && pair[0] != "prod";
            masked += &format!(".toml:{}{rest}", if built_in { "LINE" } else { place });
        }
        assert_eq!(masked, expected, "for {document:?}");
    }
}

#[test]
fn production_refuses_default_passwords_and_plain_links() {
    let check = |changed: (&str, &str), expected: &str| {
        let found = Case::new("production", "").with_all(&SECRETS).with_all(&[changed]).problems();
        let first = found.split(" (").next().unwrap();
        assert_eq!(first, expected, "for {changed:?}");
        assert!(!found.contains("hidden"), "a secret shows in {found}");
    };
    let default = "which safety.allow_default_passwords = false refuses; give a URL with a password of its own, for example by";
    let plain = "leads to another machine without TLS, which safety.allow_plaintext refuses unless it has";
    let mend = "or add it if the network is encrypted";
    for (variable, url, expected) in [
        (
            "BROKER",
            "amqp://guest:guest@127.0.0.1:5672/%2f",
            format!("broker.url has a default password, its user's name, {default} JITAUTH_BROKER__URL_FILE"),
        ),
        ("BROKER", "amqps://guest@mq.example/%2f", format!("broker.url has no password, {default} JITAUTH_BROKER__URL_FILE")),
        ("BROKER", "amqp://jit:hidden@mq.example/%2f", format!("broker.url {plain} \"broker\"; use amqps://, {mend}")),
        (
            "BROKER",
            "amqp://jit:hidden@mq.example/%2f?sslmode=require&host=::1",
            format!("broker.url {plain} \"broker\"; use amqps://, {mend}"),
        ),
        ("BROKER", "amqp://jit:hidden@localhost/%2f", String::new()),
        ("BROKER", "amqp://jit:hidden@[::1]/%2f", String::new()),
        ("REDIS", "redis://127.0.0.1:6379/0", format!("redis.url has no password, {default} JITAUTH_REDIS__URL_FILE")),
        ("REDIS", "redis://:hidden@cache.example/0", format!("redis.url {plain} \"redis\"; use rediss://, {mend}")),
        (
            "POSTGRES",
            "postgres://postgres@127.0.0.1:5432/jitauth",
            format!("postgres.url has no password, {default} JITAUTH_POSTGRES__URL_FILE"),
        ),
        (
            "POSTGRES",
            "postgres://jit:jit@127.0.0.1/jitauth",
            format!("postgres.url has a default password, its user's name, {default} JITAUTH_POSTGRES__URL_FILE"),
        ),
        (
            "POSTGRES",
            "postgres://jit:hidden@db.example/j",
            format!("postgres.url {plain} \"postgres\"; add ?sslmode=verify-full to the URL, {mend}"),
        ),
        (
            "POSTGRES",
            "postgres://jit:hidden@127.0.0.1/j?host=db.example",
            format!("postgres.url {plain} \"postgres\"; add ?sslmode=verify-full to the URL, {mend}"),
        ),
        (
            "POSTGRES",
            "postgres://jit:hidden@db.example/j?sslmode=prefer",
            format!("postgres.url {plain} \"postgres\"; add ?sslmode=verify-full to the URL, {mend}"),
        ),
        ("POSTGRES", "postgres:///j?host=/run/postgresql&user=jit", String::new()),
    ] {
        let variable = format!("JITAUTH_{variable}__URL");
        let expected = if expected.is_empty() { "accepted".to_owned() } else { format!("{variable}: {expected}") };
        check((&variable, url), &expected);
    }
    let listens = Case::new("production", "").with_all(&SECRETS).with("JITAUTH_HTTP__LISTEN", "10.0.0.1:8080");
    let listens = listens.with("JITAUTH_HTTP__TOKEN", "0123456789abcdef");
    assert!(listens.problems().contains("listen on 127.0.0.1 behind a proxy that speaks TLS"), "{}", listens.problems());
    assert_eq!(listens.with("JITAUTH_SAFETY__ALLOW_PLAINTEXT", "http").problems(), "accepted");
    check(("JITAUTH_SAFETY__ALLOW_PLAINTEXT", ""), "accepted");
}

#[test]
fn everything_wrong_is_reported_at_once_and_no_secret_is_shown() {
    let document =
        "nonsense = 1\n[pipeline]\nlanes = \"x\"\n[broker]\nurl = \"amqp//u:hidden@h\"\nheartbeat_s = 0\n[http]\ntoken = 12345678\n";
    let case = Case::new("embedded", document).with("JITAUTH_REDIS__URL", "http://u:hidden@h").with("JITAUTH_HTTP__TOKEN", "hidden");
    let case = case.with("JITAUTH_LOG__COLOR", "1");
    let expected = "prod.toml:8:9: http.token must be a text\n\
         prod.toml:1:1: nonsense is not a known key\n\
         prod.toml:3:9: pipeline.lanes is \"x\"; must be a whole number\n\
         JITAUTH_LOG__COLOR: sets no known key; did you mean JITAUTH_LOG__FORMAT?\n\
         prod.toml:5:7: broker.url must be a URL such as amqp://user:password@host:port/vhost\n\
         prod.toml:6:15: broker.heartbeat_s is 0; must be 1 to 300 (0 would never notice a dead peer)\n\
         JITAUTH_REDIS__URL: redis.url must be a URL such as redis://user:password@host:port/database\n\
         JITAUTH_HTTP__TOKEN: http.token must be 16 or more printable ASCII characters without spaces";
    let (mut found, mut expected): (Vec<_>, Vec<_>) = (case.problems().lines().map(str::to_owned).collect(), expected.lines().collect());
    found.sort();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_is_no_toml_is_reported_with_all_its_faults() {
    let problems = Case::new("embedded", "[pipeline\nlanes = = 1\n").problems();
    assert!(problems.lines().count() >= 2 && problems.lines().all(|line| line.starts_with("prod.toml:")), "{problems}");
    let missing = Sources {
        profile: "prodution",
        file: Some(Path::new("/nonexistent/x.toml")),
        environment: &BTreeMap::new(),
        flags: &[Flag { name: "--log-format", key: "log.format", value: "loud".into() }],
        cores: 1,
    };
    let expected = "no profile is named \"prodution\"; did you mean production? (there are embedded, services, production, or give the path of \
                    a .toml file)\n\
                    cannot read /nonexistent/x.toml: No such file or directory (os error 2)\n\
                    --log-format: log.format is \"loud\"; must be \"auto\" or \"json\" or \"pretty\"";
    assert_eq!(Config::load(&missing).unwrap_err().to_string(), expected);
}

#[test]
fn a_batch_is_as_large_as_suits_the_store_and_the_bounds_let_through() {
    for (profile, document, batch_max) in [
        ("services", "", 64),
        ("services", "[pipeline]\nlanes = 8", 32),
        ("services", "[pipeline]\nlanes = 2\n[broker]\nprefetch = 40", 20),
        ("embedded", "", 256),
        ("embedded", "[pipeline]\nbook_accounts_max = 100", 100),
        ("embedded", "[pipeline]\nbatch_max = 64", 64),
    ] {
        let config = Case::new(profile, document).with_all(&SECRETS).load().unwrap();
        assert_eq!(config.pipeline.batch_max, batch_max, "{profile} with {document:?}");
    }
}

#[test]
fn every_profile_resolves_to_what_it_promises() {
    for (name, store, redis, broker, lanes, batch_max, commit_p99_us, total_p99_us) in [
        ("embedded", StoreKind::Sqlite, false, false, 1, 256, 25_000, 30_000),
        ("services", StoreKind::Postgres, true, true, 2, 64, 50_000, 100_000),
        ("production", StoreKind::Postgres, true, true, 2, 64, 5_000, 10_000),
    ] {
        let config = Case::new(name, "").with_all(&SECRETS).load().unwrap();
        assert_eq!((config.store, config.redis.is_some(), config.broker.is_some()), (store, redis, broker), "{name}");
        assert!(config.http.is_some(), "{name}");
        assert_eq!((config.pipeline.lanes, config.pipeline.batch_max), (lanes, batch_max), "{name}");
        assert_eq!(config.promise.budget(telemetry::Span::Commit).unwrap().p99_us, commit_p99_us, "{name}");
        assert_eq!(config.promise.total.p99_us, total_p99_us, "{name}");
        let (_, text) = PROFILES.iter().find(|(known, _)| *known == name).unwrap();
        assert!(text.starts_with(&format!("# {name}: ")) && text.contains("# It promises"), "{name} does not say what it is for");
    }
}

#[test]
fn automatic_lanes_never_outrun_the_prefetch() {
    for (profile, cores, expected) in
        [("services", 1, 1), ("services", 3, 3), ("services", 64, 4), ("production", 64, 8), ("embedded", 64, 1)]
    {
        let case = Case { cores, ..Case::new(profile, "") }.with_all(&SECRETS);
        assert_eq!(case.load().unwrap().pipeline.lanes, expected, "{profile} on {cores} cores");
    }
}

#[test]
fn later_layers_win_and_every_origin_is_known() {
    let origin = |config: &Config| config.effective().iter().find(|it| it.key == "log.format").unwrap().clone();
    let mut case = Case::new("embedded", "");
    let shown = |case: &Case| {
        let effective = origin(&case.load().unwrap());
        let origin = effective.origin.to_string().replace(&format!("{}/", case.directory.path().display()), "");
        format!("{} by {}", effective.shown, origin.split(':').next().unwrap())
    };
    assert_eq!(shown(&case), "\"auto\" by built-in config.toml");
    case.profile = case.directory.path().join("mine.toml").display().to_string();
    let mut case = case.containing("mine.toml", "[log]\nformat = \"json\"");
    assert_eq!(shown(&case), "\"json\" by mine.toml");
    case = case.containing("prod.toml", "[log]\nformat = \"pretty\"");
    assert_eq!(shown(&case), "\"pretty\" by prod.toml");
    case = case.with("JITAUTH_LOG__FORMAT", "auto");
    assert_eq!(shown(&case), "\"auto\" by JITAUTH_LOG__FORMAT");
    case.flags = vec![Flag { name: "--log-format", key: "log.format", value: "json".into() }];
    assert_eq!(shown(&case), "\"json\" by --log-format");
    assert_eq!(case.load().unwrap().log.format, telemetry::log::Format::Json);
}

#[test]
fn the_environment_reaches_the_settings() {
    let case = Case::new("services", "")
        .containing("url", "postgres://u:from-a-file@127.0.0.1/j\r\n")
        .containing("token", "0123456789abcdef\n")
        .with("JITAUTH_POSTGRES__URL_FILE", "DIR/url")
        .with("JITAUTH_HTTP__TOKEN_FILE", "DIR/token")
        .with("JITAUTH_BROKER__REPLY_TO_ALLOWED", "reply., other-")
        .with("JITAUTH_PIPELINE__BATCH_MAX", "32")
        .with("JITAUTH_PROMISE__COMMIT__P99_US", "60000")
        .with("JITAUTH_HTTP__LISTEN", "127.0.0.1:0");
    let config = case.load().unwrap();
    assert_eq!(config.postgres.url, "postgres://u:from-a-file@127.0.0.1/j");
    let http = config.http.clone().unwrap();
    assert_eq!((http.token.as_deref(), http.listen.port()), (Some("0123456789abcdef"), 0));
    assert_eq!(config.broker.clone().unwrap().reply_to_allowed, ["reply.", "other-"]);
    assert_eq!((config.pipeline.batch_max, config.promise.commit.p99_us), (32, 60_000));
    let debug = format!("{config:?}");
    assert!(!debug.contains("from-a-file") && !debug.contains("0123456789abcdef") && debug.contains("(secret)"), "{debug}");
}

#[test]
fn the_fingerprint_follows_values_and_not_secrets() {
    let fingerprint = |case: Case| case.load().unwrap().fingerprint().to_owned();
    let plain = fingerprint(Case::new("services", ""));
    assert_eq!(plain.len(), 2 * FINGERPRINT_BYTES);
    assert_eq!(fingerprint(Case::new("services", "").with_all(&SECRETS)), plain);
    assert_eq!(fingerprint(Case::new("services", "").with("JITAUTH_HTTP__TOKEN", "0123456789abcdef")), plain);
    assert_ne!(fingerprint(Case::new("services", "").with("JITAUTH_PIPELINE__BATCH_MAX", "63")), plain);
}

#[test]
fn the_default_explains_every_key_and_every_key_is_read() {
    let lines: Vec<&str> = DEFAULT.lines().collect();
    for pair in lines.windows(2) {
        let is_key = pair[1].split('=').next().is_some_and(|name| pair[1].contains(" = ") && !name.starts_with('#'));
        assert!(!is_key || pair[0].starts_with("# "), "no comment above {:?}", pair[1]);
    }
    let leaves: Leaves = merged(&Sources { profile: "embedded", file: None, environment: &BTreeMap::new(), flags: &[], cores: 1 }).0;
    let mut reader = Reader::new(&leaves);
    let config = resolve::resolve(&mut reader, "embedded", 1);
    assert_eq!(reader.problems, []);
    assert_eq!(reader.read, leaves.keys().cloned().collect());
    assert_eq!(config.memory.bytes_max, 1024 * 1024 * 1024);
}
