//! A real browser without a screen, driven by its own protocol over two pipes, and what it has to say about a page.
//!
//! Messages are JSON, each ended by a zero byte: requests with an `id`, answers with the same `id`, and events without one.

use super::PATIENCE;
use serde_json::{Value, json};
use std::{
    env,
    io::Write,
    path::Path,
    process::{Command as Quick, Stdio},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Names that Chromium goes by, the smallest first.
const NAMES: [&str; 5] = ["chromium-headless-shell", "chromium", "google-chrome-stable", "google-chrome", "chromium-browser"];
/// What is looked for in a page, in the browser.
const LOOK: &str = include_str!("look.js");
/// Marks the upper and the lower edge of every chart, so that the document on paper says on which page each of them is.
const MARK_EDGES: &str = include_str!("edges.js");

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) name: &'static str,
    pub(crate) width: u32,
    pub(crate) dark: bool,
}

/// At a desk and on a telephone, by day and by night.
pub(crate) const VIEWS: [View; 4] = [
    View { name: "wide", width: 1280, dark: false },
    View { name: "wide-dark", width: 1280, dark: true },
    View { name: "narrow", width: 390, dark: false },
    View { name: "narrow-dark", width: 390, dark: true },
];

/// A browser with one page.
#[derive(Debug)]
pub(crate) struct Browser {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    requests: u64,
    session: Option<String>,
    /// What came without being asked for.
    events: Vec<Value>,
    _profile: TempDir,
}

/// A document on paper: how many pages, and which charts lie on more than one.
#[derive(Debug)]
pub(crate) struct Paper {
    pub(crate) bytes: Vec<u8>,
    pub(crate) pages: usize,
    pub(crate) torn: Vec<String>,
}

impl Browser {
    /// Starts one; `None` with a line that says what was skipped. `JITAUTH_TEST_REQUIRE=1` makes that a failure.
    pub(crate) async fn start() -> Option<Self> {
        let given = env::var("JITAUTH_TEST_BROWSER").ok().filter(|name| !name.is_empty());
        let starts = |name: &String| Quick::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        let Some(program) = given.into_iter().chain(NAMES.map(str::to_owned)).find(starts) else {
            let line = "skipped: needs Chromium; run `scripts/services install` as root, or name one in JITAUTH_TEST_BROWSER";
            assert!(env::var_os("JITAUTH_TEST_REQUIRE").is_none_or(|value| value != "1"), "{line}");
            // Past the test runner's capture: a test that did not run must show.
            let (mut stderr, thread) = (std::io::stderr(), std::thread::current());
            writeln!(stderr, "{}: {line}", thread.name().unwrap_or("a test")).unwrap();
            return None;
        };
        let profile = TempDir::new().unwrap();
        // The protocol is spoken on the descriptors 3 and 4. The sandbox wants a user other than root and namespaces; the pages are ours.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, &program])
            .args(["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--font-render-hinting=none"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a shell");
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Self { _child: child, input, output, requests: 0, session: None, events: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true})).await;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        Some(browser)
    }

    /// Opens a file and waits until it is loaded.
    pub(crate) async fn open(&mut self, file: &Path) {
        self.events.clear();
        self.call("Page.navigate", json!({"url": format!("file://{}", file.display())})).await;
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive().await;
            self.events.push(event);
        }
    }

    /// Looks at the page in another way.
    pub(crate) async fn view(&mut self, view: View) {
        let (width, height, mobile) = (view.width, 900, view.width < 600);
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if view.dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Runs a script in the page and gives its value.
    pub(crate) async fn evaluate(&mut self, script: &str) -> Value {
        let found = self.call("Runtime.evaluate", json!({"expression": script, "returnByValue": true, "awaitPromise": true})).await;
        assert!(found.get("exceptionDetails").is_none(), "{found}");
        found["result"]["value"].clone()
    }

    /// What is wrong with the page as it is looked at: parts without size, things that stick out, text that is cut, covered or pale.
    pub(crate) async fn faults(&mut self) -> Vec<String> {
        let found = self.evaluate(LOOK).await;
        found.as_array().expect("a list").iter().filter_map(|fault| fault.as_str().map(str::to_owned)).collect()
    }

    /// What the browser complained about, and what it asked others for, since the page was opened.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let complaint = |event: &Value| {
            let about = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(format!("exception: {}", about["exceptionDetails"])),
                "Runtime.consoleAPICalled" => Some(format!("console: {}", about["args"])),
                "Log.entryAdded" => Some(format!("log: {}", about["entry"]["text"])),
                "Network.requestWillBeSent" if about["type"] != "Document" => Some(format!("asked for {}", about["request"]["url"])),
                _ => None,
            }
        };
        self.events.iter().filter_map(complaint).collect()
    }

    /// A picture of the whole page.
    pub(crate) async fn picture(&mut self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true})).await;
        decode(&shot["data"])
    }

    /// The page on A4.
    pub(crate) async fn print(&mut self) -> Paper {
        let charts = usize::try_from(self.evaluate(MARK_EDGES).await.as_u64().expect("a number")).unwrap();
        let printed = self.call("Page.printToPDF", json!({"preferCSSPageSize": true, "printBackground": true})).await;
        Paper::read(decode(&printed["data"]), charts)
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.requests += 1;
        let id = self.requests;
        let mut request = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&request).unwrap();
        bytes.push(0);
        self.input.write_all(&bytes).await.expect("the browser listens");
        loop {
            let mut message = self.receive().await;
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    async fn receive(&mut self) -> Value {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.output.read_until(0, &mut bytes)).await.expect("the browser speaks").unwrap();
        assert!(read > 0, "the browser is gone");
        serde_json::from_slice(&bytes[..bytes.len() - 1]).expect("JSON")
    }
}

impl Paper {
    /// Named places are listed with their page: `/name [2 0 R /XYZ 36 105 0]`.
    fn read(bytes: Vec<u8>, charts: usize) -> Self {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let page =
            |name: &str| text.split_once(&format!("/{name} [")).and_then(|(_, place)| place.split_whitespace().next()).map(str::to_owned);
        let pages = text.match_indices("/Type /Page\n").count();
        let torn = (0..charts).filter_map(|chart| {
            let (top, bottom) = (page(&format!("edge-{chart}-top")), page(&format!("edge-{chart}-bottom")));
            (top.is_none() || top != bottom).then(|| format!("chart {chart} begins on {top:?} and ends on {bottom:?}"))
        });
        Self { pages, torn: torn.collect(), bytes }
    }
}

fn decode(text: &Value) -> Vec<u8> {
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text.as_str().expect("base64")).expect("base64")
}
