//! A real Prometheus scrapes a daemon under load, and every panel of every dashboard has a number to show.

use crate::{
    crowd::{Load, load, prepare_load, tell},
    support::{PATIENCE, http::Http, request::Request, sandbox::Sandbox},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

/// Panels that have nothing to show as long as nothing of the kind has happened, with why.
const SILENT: &[(&str, &str)] = &[
    ("Freeze to forgotten, p99", "no fact changes while this test looks"),
    ("Wait for a connection, p99", "memory is warm, so the store is asked for no facts"),
];

/// A request that says when it was sent: how long it waited for us is shown too.
#[expect(clippy::disallowed_methods, reason = "a processor reads its own clock")]
fn sent_now(number: usize) -> Request {
    load(number).sent_at(&jiff::Timestamp::now().to_string())
}

/// A Prometheus of this test's own.
struct Prometheus {
    http: Http,
    _child: Child,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes the daemon twice a second and evaluates the shipped rules. `None` where it is not installed, aloud.
    async fn scraping(daemon: SocketAddr) -> Self {
        let directory = TempDir::new().unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/jitauth.rules.yml");
        let configuration = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 1s}}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs:\n- {{job_name: jitauth, static_configs: [{{targets: [\"{daemon}\"]}}]}}\n",
            rules.display()
        );
        fs::write(directory.path().join("prometheus.yml"), configuration).unwrap();
        // Free a moment ago; whoever takes it in between makes this test fail, not pass.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", &format!("--web.listen-address={address}")])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus is installed: scripts/services install");
        let http = Http::new(address);
        let end = Instant::now() + PATIENCE;
        while !http.get("/-/ready").await.is_ok_and(|reply| reply.status == 200) {
            let log = fs::read_to_string(directory.path().join("log")).unwrap();
            assert!(Instant::now() < end, "prometheus is not ready after {PATIENCE:?}:\n{log}");
            sleep(Duration::from_millis(50)).await;
        }
        Self { http, _child: child, _directory: directory }
    }

    /// Whether a query gives a number now.
    async fn has_number(&self, query: &str) -> bool {
        let encoded: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let reply = self.http.get(&format!("/api/v1/query?query={encoded}")).await.expect("prometheus answers");
        let answer = reply.json();
        assert_eq!(answer["status"], "success", "{query}: {}", reply.text());
        let values =
            answer["data"]["result"].as_array().expect("a vector").iter().map(|series| series["value"][1].as_str().unwrap_or("NaN"));
        values.filter_map(|value| value.parse::<f64>().ok()).any(f64::is_finite)
    }

    /// Every rule with its health.
    async fn rules(&self) -> BTreeMap<String, String> {
        let reply = self.http.get("/api/v1/rules").await.expect("prometheus answers").json();
        let groups = reply["data"]["groups"].as_array().expect("groups");
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
        rules
            .map(|rule| {
                (
                    rule["name"].as_str().unwrap().to_owned(),
                    format!("{}{}", rule["health"].as_str().unwrap(), rule["lastError"].as_str().unwrap_or_default()),
                )
            })
            .collect()
    }
}

/// Every query of every panel, with the variables filled in as Grafana does.
fn queries() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let mut queries = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let board: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expr = target["expr"].as_str().unwrap();
                let query = expr.replace("$__rate_interval", "10s").replace("$job", ".+").replace("$instance", ".+");
                assert!(!query.contains('$'), "a variable that Grafana does not fill in: {expr}");
                queries.push((panel["title"].as_str().unwrap().to_owned(), query));
            }
        }
    }
    assert!(queries.len() > 40, "only {} queries", queries.len());
    queries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_of_every_dashboard() {
    let Some(sandbox) = Sandbox::services().await else { return };
    prepare_load(&sandbox.store().await).await;
    let daemon = sandbox.daemon().await;
    let prometheus = Prometheus::scraping(daemon.address()).await;
    let load = Load::start(&sandbox, 2, 40, sent_now).await;

    let (mut open, end) = (queries(), Instant::now() + PATIENCE);
    let (all, silent): (usize, BTreeSet<_>) = (open.len(), SILENT.iter().map(|(title, _)| *title).collect());
    while open.iter().any(|(title, _)| !silent.contains(title.as_str())) {
        assert!(Instant::now() < end, "no number after {PATIENCE:?}:\n{open:#?}");
        sleep(Duration::from_millis(500)).await;
        let mut still = Vec::new();
        for (title, query) in open {
            if !prometheus.has_number(&query).await {
                still.push((title, query));
            }
        }
        open = still;
    }
    let faulty: Vec<_> = loop {
        let rules = prometheus.rules().await;
        if rules.values().all(|health| health != "unknown") {
            break rules.into_iter().filter(|(_, health)| health != "ok").collect();
        }
        assert!(Instant::now() < end, "rules are not evaluated: {rules:?}");
        sleep(Duration::from_millis(200)).await;
    };
    assert!(faulty.is_empty(), "{faulty:?}");
    tell(&format!("{all} queries; nothing to show for {:?}", open.iter().map(|(title, _)| title).collect::<Vec<_>>()));
    let (ids, replies) = load.stop().await;
    replies.responses(&ids).await;
}
