//! The service manager hears when the daemon is ready, that it is alive, what it does, and that it ends.

use crate::support::{daemon::Daemon, eventually, outside::Outside, request::Request, sandbox::Sandbox, store::Store, world};
use parking_lot::Mutex;
use std::{process::Command, sync::Arc};
use tempfile::TempDir;
use tokio::{net::UnixDatagram, task::JoinHandle};

/// How long the fake service manager waits for a sign of life. The daemon gives one every half of it.
const WATCHDOG_USEC: &str = "1000000";

/// A service manager that only listens.
struct Manager {
    heard: Arc<Mutex<Vec<String>>>,
    path: String,
    task: JoinHandle<()>,
    _directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("notify").to_str().unwrap().to_owned();
        let socket = UnixDatagram::bind(&path).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let length = socket.recv(&mut buffer).await.expect("a datagram");
                let text = std::str::from_utf8(&buffer[..length]).expect("a text");
                into.lock().extend(text.lines().map(str::to_owned));
            }
        });
        Self { heard, path, task, _directory: directory }
    }

    fn count(&self, start: &str) -> usize {
        self.heard.lock().iter().filter(|line| line.starts_with(start)).count()
    }

    /// Waits until this was said so often, all in all.
    async fn hears(&self, start: &str, often: usize) {
        eventually(&format!("{often} times {start}"), async || (self.count(start) >= often).then_some(())).await;
    }

    /// Where in all that was said this was said first.
    fn place(&self, start: &str) -> usize {
        let heard = self.heard.lock();
        heard.iter().position(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start}: {heard:?}"))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn prepared(store: &Store) {
    let world = world::World::new(store);
    let program = world.program("systemd", world::Program::default()).await;
    world.holder(program, "systemd", world::Holder::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_alive_busy_and_draining() {
    let (sandbox, manager) = (Sandbox::embedded(), Manager::new());
    let settings = sandbox.settings.clone().with("NOTIFY_SOCKET", &manager.path).with("WATCHDOG_USEC", WATCHDOG_USEC);
    let mut daemon = Daemon::serve(settings).await;
    manager.hears("READY=1", 1).await;
    manager.hears("STATUS=decides 0/s, 0 so far", 1).await;
    let store = sandbox.store().await;
    prepared(&store).await;

    // Somebody else has the database: a request hangs, and no restart would help it.
    let outside = Outside::holding(&store, "").await;
    let http = daemon.http();
    let hanging = tokio::spawn(async move { http.authorize(Request::new("hangs").card("crd_systemd").deadline_ms(60_000).body()).await });
    eventually("a request in flight", async || {
        let metrics = crate::support::metrics::Metrics::of(&daemon.http()).await;
        (metrics.get("jitauth_inflight_messages") == 1.0).then_some(())
    })
    .await;
    let before = manager.count("WATCHDOG=1");
    manager.hears("WATCHDOG=1", before + 4).await;

    // The drain goes on for as long as the request hangs, and says so.
    assert_eq!(manager.count("STOPPING=1"), 0);
    let (status, ()) = tokio::join!(daemon.terminate(), async {
        manager.hears("STATUS=draining, 1 in flight", 3).await;
        outside.release().await;
    });
    assert_eq!(status.code(), Some(0), "{}", daemon.text());
    assert_eq!(hanging.await.unwrap().json()["decision"], "approved");
    manager.hears("EXTEND_TIMEOUT_USEC=", 3).await;
    assert_eq!((manager.count("READY=1"), manager.count("STOPPING=1")), (1, 1));
    assert!(manager.place("READY=1") < manager.place("STATUS=decides"));
    assert!(manager.place("STOPPING=1") < manager.place("STATUS=draining"));
    let stopping = manager.place("STOPPING=1");
    let extension = |line: &String| line.strip_prefix("EXTEND_TIMEOUT_USEC=")?.parse().ok();
    let drained: Vec<u64> = manager.heard.lock()[stopping..].iter().filter_map(extension).collect();
    // The drain's 20 s and the exit's 5 s, less what has passed.
    assert!(drained.is_sorted_by(|one, next| one >= next) && drained[0] <= 25_000_000 && drained[0] > 20_000_000, "{drained:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_where_nobody_listens() {
    let sandbox = Sandbox::embedded();
    // The socket is gone, as after a restart of the manager: no reason to stop deciding.
    let directory = TempDir::new().unwrap();
    let nowhere = directory.path().join("nobody");
    let settings = sandbox.settings.clone().with("NOTIFY_SOCKET", nowhere.to_str().unwrap()).with("WATCHDOG_USEC", WATCHDOG_USEC);
    let mut daemon = Daemon::serve(settings).await;
    prepared(&sandbox.store().await).await;
    let reply = daemon.http().authorize(Request::new("alone").card("crd_systemd").body()).await;
    assert_eq!(reply.json()["decision"], "approved", "{}", reply.text());
    assert_eq!(daemon.terminate().await.code(), Some(0));
}

/// What systemd itself says about the unit, where there is a systemd.
#[test]
fn the_unit_is_one() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/jitauth.service");
    let directory = TempDir::new().unwrap();
    // The program that the unit starts need not be installed for the check: the one just built stands in for it.
    let text = std::fs::read_to_string(unit).unwrap().replace("/usr/local/bin/jitauth", env!("CARGO_BIN_EXE_jitauth"));
    let checked = directory.path().join("jitauth.service");
    std::fs::write(&checked, text).unwrap();
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&checked).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let about_us: Vec<_> = said.lines().filter(|line| line.contains("jitauth")).collect();
            assert!(output.status.success() && about_us.is_empty(), "{said}");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
    }
}
