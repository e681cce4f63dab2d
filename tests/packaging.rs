//! What is shipped to run jitauth elsewhere fits together: images are pinned, files exist, settings are settings, and no password is
//! written down. No container engine is needed; none builds or starts them here either.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic where it stands")]

use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn compose() -> Value {
    yaml("docker-compose.yml")
}

fn services(compose: &Value) -> impl Iterator<Item = (&str, &Value)> {
    compose["services"].as_object().expect("services").iter().map(|(name, service)| (name.as_str(), service))
}

/// The texts of a list, or of the values of a table.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::Object(table) => table.values().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Every `JITAUTH_<SECTION>__<KEY>` that the configuration knows.
fn known_variables() -> BTreeSet<String> {
    let table: toml::Table = read("config.toml").parse().unwrap();
    let mut known = BTreeSet::from(["JITAUTH_PROFILE".to_owned(), "JITAUTH_CONFIG".to_owned()]);
    let mut add = |section: &str, key: &str| {
        known.insert(format!("JITAUTH_{}__{}", section.to_uppercase(), key.to_uppercase()));
        known.insert(format!("JITAUTH_{}__{}_FILE", section.to_uppercase(), key.to_uppercase()));
    };
    for (section, keys) in &table {
        keys.as_table().unwrap().keys().for_each(|key| add(section, key));
    }
    known
}

/// The names that begin with `JITAUTH_` and have two underscores, or are those of the two flags.
fn variables_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let named = text.split(word).filter(|word| word.starts_with("JITAUTH_"));
    named.filter(|name| name.contains("__") || matches!(*name, "JITAUTH_PROFILE" | "JITAUTH_CONFIG")).map(str::to_owned).collect()
}

#[test]
fn every_setting_exists() {
    let known = known_variables();
    for (path, at_least) in [("docker-compose.yml", 7), ("Dockerfile", 1), ("deploy/jitauth.service", 4)] {
        let used = variables_in(&read(path));
        assert!(used.len() >= at_least, "{path}: only {used:?}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?} are no settings of config.toml");
    }
}

#[test]
fn every_image_is_pinned() {
    let compose = compose();
    let images = services(&compose).map(|(name, service)| (name.to_owned(), service["image"].as_str().unwrap_or_default().to_owned()));
    let dockerfile = read("Dockerfile");
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).map(|image| ("Dockerfile".to_owned(), image.to_owned()));
    let mut count = 0;
    for (place, image) in images.chain(bases) {
        count += 1;
        if image == "jitauth:local" {
            continue;
        }
        let tag = image.split_whitespace().next().unwrap().rsplit_once(':').map_or("", |(_, tag)| tag);
        let version = tag.trim_start_matches('v').split('-').next().unwrap_or_default();
        let numbers = version.split('.').filter(|part| part.parse::<u32>().is_ok()).count();
        assert!(numbers >= 2, "{place}: {image} names no version");
    }
    assert!(count >= 11, "only {count} images");
}

#[test]
fn everything_that_stays_up_is_watched_and_kept() {
    let compose = compose();
    let names: BTreeSet<_> = services(&compose).map(|(name, _)| name).collect();
    for wanted in ["postgres", "redis", "rabbitmq", "prometheus", "grafana", "nginx", "jitauth", "migrate", "topology"] {
        assert!(names.contains(wanted), "no {wanted}");
    }
    for (name, service) in services(&compose) {
        let once = service["restart"] == "no";
        assert_eq!(once, matches!(name, "migrate" | "topology"), "{name}: restart {}", service["restart"]);
        assert_eq!(service["healthcheck"]["test"].is_array(), !once, "{name}: a health check for what stays up");
        let in_app = texts(&service["profiles"]) == ["app"];
        assert_eq!(in_app, matches!(name, "migrate" | "topology" | "jitauth" | "nginx"), "{name}: profile");
    }
    let conditions = &compose["services"]["jitauth"]["depends_on"];
    for once in ["migrate", "topology"] {
        assert_eq!(conditions[once]["condition"], "service_completed_successfully", "{once} ends before the daemon starts");
    }
    assert!(texts(&compose["services"]["rabbitmq"]["ports"]).iter().any(|port| port.ends_with(":15672")), "the management page");
}

#[test]
fn ports_are_published_on_loopback_once() {
    let compose = compose();
    let mut taken = BTreeSet::new();
    for (name, service) in services(&compose) {
        for port in texts(&service["ports"]) {
            let parts: Vec<_> = port.split(':').collect();
            assert!(parts.len() == 3 && parts[0] == "127.0.0.1", "{name}: {port} would be open to everybody");
            assert!(taken.insert(parts[1].to_owned()), "{name}: {port} is taken");
        }
    }
    assert!(compose["services"]["jitauth"]["ports"].is_null(), "the daemon is reached through nginx");
    assert!(taken.len() >= 6, "{taken:?}");
}

#[test]
fn volumes_are_declared_and_mounted_files_exist() {
    let compose = compose();
    let declared: BTreeSet<_> = compose["volumes"].as_object().unwrap().keys().cloned().collect();
    let secrets = compose["secrets"].as_object().unwrap();
    let mut used = BTreeSet::new();
    for (name, service) in services(&compose) {
        for volume in texts(&service["volumes"]) {
            let (source, rest) = volume.split_once(':').unwrap_or_else(|| panic!("{name}: {volume}"));
            if let Some(path) = source.strip_prefix("./") {
                assert!(root().join(path).exists(), "{name}: {source} does not exist");
                assert!(rest.ends_with(":ro"), "{name}: {volume} could be written from inside");
            } else {
                assert!(declared.contains(source), "{name}: volume {source} is not declared");
                used.insert(source.to_owned());
            }
        }
        for secret in texts(&service["secrets"]) {
            assert!(secrets.contains_key(secret), "{name}: secret {secret} is not declared");
        }
    }
    assert_eq!(used, declared, "volumes that nothing mounts");
}

/// `${NAME:?…}` and secrets from the environment, and nothing that stands in for a value that is missing.
#[test]
fn no_password_is_written_down() {
    let example = read(".env.example");
    let offered: BTreeSet<_> = example.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.strip_suffix('=')).collect();
    let filled: Vec<_> = example.lines().filter(|line| !line.starts_with('#') && !line.is_empty() && !line.ends_with('=')).collect();
    assert!(filled.is_empty(), ".env.example gives values: {filled:?}");

    let text = read("docker-compose.yml");
    let without_dollars = text.replace("$$", "");
    let mut asked = BTreeSet::new();
    for rest in without_dollars.split('$').skip(1) {
        let name = rest.strip_prefix('{').and_then(|rest| rest.split_once(":?")).map(|(name, _)| name);
        asked.insert(name.unwrap_or_else(|| panic!("${} does not insist on a value", rest.lines().next().unwrap_or_default())));
    }
    let compose = compose();
    let from_environment: Vec<_> =
        compose["secrets"].as_object().unwrap().values().map(|secret| secret["environment"].as_str().unwrap()).collect();
    asked.extend(from_environment);
    assert_eq!(asked, offered, "what is asked for is what .env.example offers");

    for (name, service) in services(&compose) {
        let Some(environment) = service["environment"].as_object() else { continue };
        for (key, value) in environment {
            let named = key.trim_start_matches("JITAUTH_");
            let secret = ["PASS", "TOKEN", "SECRET", "REDISCLI_AUTH"].iter().any(|word| named.contains(word)) && !named.ends_with("_FILE");
            let value = value.as_str().unwrap_or_default();
            if secret {
                assert!(value.starts_with("${"), "{name}: {key} is written down");
            }
            if let Some((_, rest)) = value.split_once("://") {
                let password = rest.split_once('@').and_then(|(user, _)| user.split_once(':')).map_or("", |(_, password)| password);
                assert!(password.starts_with("${"), "{name}: {key} has a password in it");
            }
        }
    }
}

#[test]
fn the_daemon_is_nobody_and_asks_itself_for_its_health() {
    let dockerfile = read("Dockerfile");
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    for line in ["USER 65532:65532", "ENTRYPOINT [\"jitauth\"]", "CMD [\"serve\"]", "EXPOSE 8080", "STOPSIGNAL SIGTERM"] {
        assert!(last.lines().any(|found| found == line), "no {line}");
    }
    assert!(last.lines().any(|line| line.starts_with("HEALTHCHECK ") && line.ends_with("CMD [\"jitauth\", \"health\"]")), "{last}");
    assert!(!last.contains("RUN apt-get"), "the last stage stays small");
    let compose = compose();
    let daemon = &compose["services"]["jitauth"];
    assert_eq!((&daemon["read_only"], texts(&daemon["cap_drop"])), (&Value::Bool(true), vec!["ALL"]));
    assert_eq!(texts(&daemon["healthcheck"]["test"]), ["CMD", "jitauth", "health"]);
    assert_eq!(daemon["environment"]["JITAUTH_HTTP__TOKEN_FILE"], "/run/secrets/jitauth_token");
    let listen = daemon["environment"]["JITAUTH_HTTP__LISTEN"].as_str().unwrap();
    assert!(listen.ends_with(":8080") && read("deploy/nginx/nginx.conf").contains("server jitauth:8080;"), "nginx finds it");
    assert!(read("deploy/nginx/nginx.conf").contains("limit_req zone="), "nginx limits rates");
}

#[test]
fn prometheus_and_grafana_find_what_is_mounted() {
    let (compose, prometheus) = (compose(), yaml("deploy/prometheus.yml"));
    let job = prometheus["scrape_configs"].as_array().unwrap().iter().find(|job| job["job_name"] == "jitauth").expect("a job");
    assert_eq!(job["static_configs"][0]["targets"][0], "jitauth:8080");
    assert_eq!(job["authorization"]["credentials_file"], "/run/secrets/jitauth_token");
    assert_eq!(texts(&compose["services"]["prometheus"]["secrets"]), ["jitauth_token"]);
    let rules = prometheus["rule_files"][0].as_str().unwrap().trim_end_matches("*.yml");
    assert!(texts(&compose["services"]["prometheus"]["volumes"]).iter().any(|volume| volume.contains(rules)), "{rules}");

    let provider = &yaml("deploy/grafana/provisioning/dashboards/jitauth.yml")["providers"][0];
    let mounted = format!("./dashboards:{}:ro", provider["options"]["path"].as_str().unwrap());
    assert!(texts(&compose["services"]["grafana"]["volumes"]).contains(&mounted.as_str()), "{mounted}");
    let source = &yaml("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"][0];
    assert_eq!((&source["uid"], &source["url"]), (&"prometheus".into(), &"http://prometheus:9090".into()));
    let home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().unwrap();
    assert!(root().join("dashboards").join(Path::new(home).file_name().unwrap()).exists(), "{home}");
}

/// What a command says, when all went well.
fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn a_release_knows_its_commit_and_a_build_without_a_history_is_built_all_the_same() {
    let directory = tempfile::TempDir::new().unwrap();
    let (tree, outside, script) = (directory.path().join("tree"), directory.path().join("outside"), directory.path().join("script"));
    for made in [tree.join("vendored"), outside.clone()] {
        fs::create_dir_all(made).unwrap();
    }
    said(Command::new("rustc").args(["--edition", "2024", "-o"]).arg(&script).arg(root().join("build.rs")));
    let git =
        |arguments: &[&str]| said(Command::new("git").current_dir(&tree).args(["-c", "user.name=a", "-c", "user.email=b"]).args(arguments));
    fs::write(tree.join("file"), "one").unwrap();
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "one"]);
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).trim().to_owned();
    let told = |directory: &Path, profile: &str, given: &str| {
        let mut build = Command::new(&script);
        build
            .current_dir(directory)
            .env("PROFILE", profile)
            .env("JITAUTH_COMMIT", given)
            .env("GIT_CEILING_DIRECTORIES", directory.parent().unwrap());
        let lines = said(&mut build);
        lines.lines().find_map(|line| line.strip_prefix("cargo::rustc-env=BUILD_COMMIT=")).unwrap_or_default().to_owned()
    };
    let check = |directory: &Path, profile: &str, given: &str, expected: &str| {
        assert_eq!(told(directory, profile, given), expected, "{} {profile} {given:?}", directory.display());
    };
    check(&tree, "release", "", &commit);
    check(&tree, "release", "given", "given");
    check(&tree, "debug", "", "");
    check(&tree, "debug", "given", "given");
    check(&outside, "release", "", "");
    check(&outside, "release", "given", "given");
    check(&tree.join("vendored"), "release", "", "");
    fs::write(tree.join("file"), "two").unwrap();
    check(&tree, "release", "", &format!("{commit}-dirty"));
    assert!(read("Dockerfile").contains("JITAUTH_COMMIT=\"$REVISION\""), "an image has no history to ask");
}
