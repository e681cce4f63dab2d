//! The dashboards and alert rules hold what Grafana's linter asks for, name only metrics that the code exports, and lead to runbooks.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic where it stands")]

use jitauth::telemetry::{Exposition, Telemetry};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// Units of the figures that a daemon exports, as Grafana names them.
const UNITS: &[&str] = &["bytes", "ops", "percentunit", "reqps", "s", "short"];
/// What promtool tests the rules with.
const TESTS: &[&str] = &["tests/alerts.yml", "tests/budgets.yml"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

/// Every dashboard with the name of its file.
fn boards() -> Vec<(String, Value)> {
    let mut boards = Vec::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let board =
                serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            boards.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), board));
        }
    }
    assert!(boards.iter().any(|(name, _)| name == "overview"), "no overview");
    boards
}

fn rules() -> Vec<Value> {
    let text = fs::read_to_string(directory().join("jitauth.rules.yml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The panels that show something, rows left out.
fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    list(&board["panels"]).iter().filter(|panel| panel["type"] != "row")
}

fn exprs(board: &Value) -> impl Iterator<Item = (&str, &str)> {
    panels(board).flat_map(|panel| {
        let title = panel["title"].as_str().unwrap_or("a panel without a title");
        list(&panel["targets"]).iter().map(move |target| (title, target["expr"].as_str().unwrap()))
    })
}

/// Names that begin as ours do, without the suffixes of histograms.
fn metrics_in(expr: &str) -> BTreeSet<String> {
    let words = expr.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')));
    let ours = words.filter(|word| (word.starts_with("jitauth_") || word.starts_with("process_")) && !word.contains(':'));
    ours.map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name).to_owned()).collect()
}

fn exported() -> BTreeSet<String> {
    let text = Telemetry::default().scrape(Exposition::Prometheus).unwrap();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split(' ').next());
    // Shown once there are lanes.
    families.map(str::to_owned).chain(["jitauth_worker_queue_messages".to_owned()]).collect()
}

#[test]
fn every_metric_that_is_named_exists() {
    let exported = exported();
    let mut named = BTreeSet::new();
    for (name, board) in boards() {
        for (title, expr) in exprs(&board) {
            let metrics = metrics_in(expr);
            assert!(!metrics.is_empty(), "{name}, {title}: no metric in {expr}");
            let unknown: Vec<_> = metrics.difference(&exported).collect();
            assert!(unknown.is_empty(), "{name}, {title}: {unknown:?} are not exported");
            named.extend(metrics);
        }
    }
    for rule in rules() {
        let unknown: Vec<_> = metrics_in(rule["expr"].as_str().unwrap()).difference(&exported).cloned().collect();
        assert!(unknown.is_empty(), "{rule}: {unknown:?} are not exported");
    }
    assert!(named.len() >= 25, "the dashboards show only {} metrics", named.len());
}

#[test]
fn a_board_is_as_the_linter_wants_it() {
    let mut uids = BTreeSet::new();
    for (name, board) in boards() {
        assert_eq!(board["uid"], format!("jitauth-{name}"), "{name}: uid");
        assert!(uids.insert(board["uid"].to_string()), "{name}: its uid is taken");
        assert!(board["id"].is_null() && board["editable"] == false && board["__inputs"].is_null(), "{name}: not as a provisioned file");
        assert_eq!((&board["graphTooltip"], &board["timezone"]), (&1.into(), &"utc".into()), "{name}");
        assert!(list(&board["tags"]).contains(&"jitauth".into()) && !list(&board["links"]).is_empty(), "{name}: tags, links");
        assert_eq!(board["schemaVersion"], 36, "{name}: the classic schema");
        let link = &board["links"][0];
        let led = (&link["type"], &link["tags"][0], &link["includeVars"], &link["keepTime"]);
        assert_eq!(led, (&"dashboards".into(), &"jitauth".into(), &true.into(), &true.into()), "{name}: a link to the others");
        let notes: Vec<_> = list(&board["annotations"]["list"]).iter().filter_map(|note| note["expr"].as_str()).collect();
        for wanted in ["jitauth_build_info{", "ALERTS{"] {
            assert!(notes.iter().any(|expr| expr.contains(wanted) && expr.contains(r#"job=~"$job""#)), "{name}: no marks of {wanted}");
        }
        let variables = list(&board["templating"]["list"]);
        let sources: Vec<_> = variables.iter().filter(|variable| variable["type"] == "datasource").collect();
        assert!(matches!(&sources[..], [one] if one["name"] == "datasource" && one["label"] == "Data source"), "{name}: data source");
        for wanted in ["job", "instance"] {
            let variable = variables.iter().find(|variable| variable["name"] == wanted).unwrap_or_else(|| panic!("{name}: no {wanted}"));
            let told = (&variable["label"], &variable["multi"], &variable["allValue"], &variable["refresh"], &variable["type"]);
            assert_eq!(told, (&wanted.into(), &true.into(), &".+".into(), &2.into(), &"query".into()), "{name}: {wanted}");
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{name}: {wanted}");
        }
    }
}

#[test]
fn a_panel_is_as_the_linter_wants_it() {
    for (name, board) in boards() {
        let mut places = BTreeSet::new();
        for panel in panels(&board) {
            let title = panel["title"].as_str().unwrap_or_default();
            let at = format!("{name}, {title:?}");
            assert!(!title.is_empty() && places.insert(title), "{at}: a title of its own");
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{at}: a description");
            assert!(panel["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|unit| UNITS.contains(&unit)), "{at}: a unit");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{at}: data source");
            assert!(!list(&panel["targets"]).is_empty(), "{at}: something to show");
            let place = &panel["gridPos"];
            assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{at}: {place}");
        }
        for (title, expr) in exprs(&board) {
            let at = format!("{name}, {title:?}: {expr}");
            let selectors = expr.matches('{').count();
            assert_eq!(expr.matches(r#"job=~"$job", instance=~"$instance""#).count(), selectors, "{at}: job and instance everywhere");
            let ranges = ["rate(", "irate(", "increase("].iter().map(|function| expr.matches(function).count()).sum::<usize>();
            // `irate(` ends in `rate(` too.
            let ranges = ranges - expr.matches("irate(").count();
            assert_eq!(expr.matches("[$__rate_interval]").count(), ranges, "{at}: $__rate_interval in every rate");
            assert_eq!(expr.matches('[').count(), ranges, "{at}: no interval of its own");
            let counted = expr.matches("_total{").count() + expr.matches("_bucket{").count() + expr.matches("_sum{").count();
            assert!(counted + expr.matches("_count{").count() == ranges, "{at}: counters are shown as rates, and nothing else is");
        }
    }
}

#[test]
fn every_alert_leads_to_a_runbook_and_a_board() {
    let uids: BTreeSet<_> = boards().iter().map(|(_, board)| board["uid"].as_str().unwrap().to_owned()).collect();
    let (mut alerts, mut pages) = (BTreeSet::new(), BTreeSet::new());
    for rule in rules() {
        let Some(alert) = rule["alert"].as_str() else { continue };
        assert!(alerts.insert(format!("{alert}.md")), "{alert} is there twice");
        let annotation = |name: &str| rule["annotations"][name].as_str().unwrap_or_else(|| panic!("{alert}: no {name}"));
        assert!(!annotation("summary").is_empty() && annotation("description").ends_with('.'), "{alert}");
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("page" | "ticket")), "{alert}: severity");
        assert!(uids.contains(annotation("dashboard")), "{alert}: no dashboard {}", annotation("dashboard"));
        let runbook =
            fs::read_to_string(directory().join("..").join(annotation("runbook"))).unwrap_or_else(|error| panic!("{alert}: {error}"));
        for heading in [&format!("# {alert}") as &str, "## What it means", "## Look", "## Do"] {
            assert!(runbook.lines().any(|line| line == heading), "{alert}: its runbook has no {heading}");
        }
        pages.insert(annotation("runbook").to_owned());
    }
    let files: BTreeSet<_> =
        fs::read_dir(directory().join("runbooks")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, alerts, "a runbook for each alert, and no other");
    assert!(alerts.len() >= 15, "{alerts:?}");
    let tested: String = TESTS.iter().map(|file| fs::read_to_string(directory().join(file)).unwrap()).collect();
    for alert in alerts.iter().map(|file| file.trim_end_matches(".md")) {
        let fires = tested.split(&format!("alertname: {alert}\n")).skip(1).any(|rest| rest.trim_start().starts_with("exp_alerts:\n"));
        assert!(fires, "no test makes {alert} fire");
    }
}

/// Runs promtool; without it the test is skipped aloud, or fails where nothing may be skipped.
fn promtool(arguments: &[&str]) {
    match Command::new("promtool").args(arguments).current_dir(directory()).output() {
        Ok(output) => {
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && !said.contains("lint"), "promtool {arguments:?}: {said}");
        }
        Err(error) => {
            let line = format!("skipped: needs promtool ({error}); run `make test`");
            assert!(env::var_os("JITAUTH_TEST_REQUIRE").is_none_or(|value| value != "1"), "{line}");
            // Past the test runner's capture, which would swallow it: a test that did not run must show.
            let mut stderr = std::io::stderr();
            writeln!(stderr, "promtool {arguments:?}: {line}").unwrap();
        }
    }
}

#[test]
fn promtool_has_nothing_to_say_about_the_rules() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "jitauth.rules.yml"]);
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    promtool(&[&["test", "rules"], TESTS].concat());
}

#[test]
fn the_shipped_prometheus_configuration_is_one() {
    promtool(&["check", "config", "--syntax-only", "../deploy/prometheus.yml"]);
}

#[test]
fn the_metrics_are_named_as_prometheus_wants_them() {
    let text = Telemetry::default().scrape(Exposition::Prometheus).unwrap();
    let mut child = match Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(_) => return promtool(&["check", "metrics"]),
    };
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}
