//! `jitauth authorize` asks a running daemon, or decides in its own process, and both come to the same.

use crate::support::{
    daemon::{Daemon, Settings},
    request::Request,
    sandbox::Sandbox,
};
use serde_json::Value;

const CARD: &str = "crd_test_approve";

async fn seeded() -> Sandbox {
    let sandbox = Sandbox::embedded();
    sandbox.settings.run_well(&["seed", "--cards", "10"]).await;
    sandbox
}

/// Runs `authorize`: exit code, what it said, and what went wrong.
async fn authorize(settings: &Settings, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = settings.run(&[&["authorize"], arguments].concat()).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn json(settings: &Settings, arguments: &[&str]) -> Value {
    let (code, said, error) = authorize(settings, &[arguments, &["--json"]].concat()).await;
    assert_eq!(code, Some(0), "{arguments:?}: {said}{error}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_daemon_is_asked() {
    let sandbox = seeded().await;
    let daemon = sandbox.daemon().await;
    let settings = &sandbox.settings;
    let purchase = ["--card", CARD, "--amount", "12.50"];
    let (code, said, error) = authorize(settings, &purchase).await;
    assert_eq!(code, Some(0), "{error}");
    for part in ["APPROVED (response code 00)\n", "approved    12.50 USD", "hold        hld_", "journaled\n", "  commit  "] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    let once = [&purchase[..], &["--id", "same"]].concat();
    let (first, second) = (json(settings, &once).await, json(settings, &once).await);
    assert_eq!((first["response"].clone(), first["replayed"].clone()), (second["response"].clone(), false.into()));
    assert_eq!((second["replayed"].clone(), first["journaled"].clone()), (true.into(), true.into()));
    assert!(first["stages_us"]["commit"].is_u64() && first["took_us"].is_u64(), "{first}");

    let declined = json(settings, &["--card", "crd_nobody", "--amount", "1.00"]).await;
    assert_eq!(declined["response"]["reason"], "card_not_found");
    let conflict = json(settings, &["--card", CARD, "--amount", "99.00", "--id", "same"]).await;
    assert_eq!(conflict["response"]["reason"], "duplicate_conflict");
    let many = json(settings, &["--card", CARD, "--amount", "0.01", "--repeat", "5"]).await;
    assert_eq!((many["requests"].clone(), many["replayed"].clone()), (5.into(), 0.into()));
    assert!(many["took_us"]["p99"].as_u64() >= many["took_us"]["p50"].as_u64(), "{many}");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Request::new("from-file").card(CARD).body()).unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(json(settings, &["--file", path]).await["response"]["id"], "from-file");
    for (arguments, code, part) in [
        (&["--card", CARD, "--amount", "1.005"][..], 64, "this is no request (invalid_precision)"),
        (&["--card", "4111111111111111", "--amount", "1.00"], 64, "this is no request (pan_present)"),
        (&["--file", "/nonexistent"], 64, "cannot be read"),
        (&["--amount", "1.00"], 2, "--card"),
        (&["--card", CARD, "--amount", "1.00", "--offline"], 69, "in use by process"),
        (&["--card", CARD, "--amount", "1.00", "--url", "http://127.0.0.1:1"], 69, "no daemon answers at http://127.0.0.1:1"),
    ] {
        let (got, said, error) = authorize(settings, arguments).await;
        assert_eq!(got, Some(code), "{arguments:?}: {said}{error}");
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
    assert!(authorize(settings, &["--card", CARD, "--amount", "1.00", "--offline"]).await.2.contains(&daemon.pid().to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_decides_as_a_daemon_would() {
    let sandbox = seeded().await;
    let settings = &sandbox.settings;
    let offline = |id: &'static str| ["--card", CARD, "--amount", "12.50", "--offline", "--id", id];
    let (first, again) = (json(settings, &offline("off")).await, json(settings, &offline("off")).await);
    assert_eq!((first["response"]["decision"].clone(), first["journaled"].clone()), ("approved".into(), true.into()));
    assert_eq!((again["response"].clone(), again["replayed"].clone()), (first["response"].clone(), true.into()));
    let bad = authorize(settings, &["--card", CARD, "--amount", "1.005", "--offline"]).await;
    assert_eq!((bad.0, bad.2.contains("(invalid_precision)")), (Some(64), true), "{}", bad.2);
    let many = json(settings, &["--card", CARD, "--amount", "0.01", "--offline", "--repeat", "20"]).await;
    assert_eq!(many["outcomes"]["approved"], 20, "{many}");

    // A daemon that is started afterwards knows it all.
    let daemon = Daemon::serve(settings.clone()).await;
    let online = json(settings, &["--card", CARD, "--amount", "12.50", "--id", "off"]).await;
    assert_eq!((online["response"].clone(), online["replayed"].clone()), (first["response"].clone(), true.into()));
    drop(daemon);
    sandbox.store().await.check_books().await;
}
