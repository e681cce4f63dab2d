//! `jitauth bench compare` finds what became slower, refuses what cannot be compared, and never looks at a run that went wrong.

use super::support::sandbox::Sandbox;
use jitauth::bench::summary::Summary;
use serde_json::Value;
use std::{fs, path::Path, process::Output};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a short load, and writes its result there.
async fn measure(sandbox: &Sandbox, out: &Path, rate: &str) {
    let out = out.to_str().unwrap();
    let arguments = ["bench", "run", "smoke", "--target", "inproc", "--rate", rate, "--duration", "2", "--warm-up", "1", "--out", out];
    let output = sandbox.settings.run(&arguments).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

/// The same result with one thing changed.
fn doctored(from: &Path, to: &Path, change: impl FnOnce(&mut Summary)) {
    let mut summary: Summary = serde_json::from_slice(&fs::read(from.join("summary.json")).unwrap()).unwrap();
    change(&mut summary);
    fs::create_dir_all(to).unwrap();
    fs::write(to.join("summary.json"), serde_json::to_vec(&summary).unwrap()).unwrap();
}

#[tokio::test]
async fn two_runs_are_compared_and_a_slower_one_ends_with_98() {
    let sandbox = Sandbox::embedded();
    let directory = tempfile::TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    for run in ["before/1", "before/2", "after/1"] {
        measure(&sandbox, &at(run), "200").await;
    }
    measure(&sandbox, &at("other"), "300").await;
    doctored(&at("after/1"), &at("slow"), |it| {
        it.response_time.percentiles_us.values_mut().for_each(|us| *us = *us * 20 + 100_000);
    });
    doctored(&at("after/1"), &at("wrong"), |it| it.requests.lost = 1);
    let compare = async |before: &str, after: &str, extra: &[&str]| {
        let (before, after) = (at(before), at(after));
        let arguments = [&["bench", "compare", before.to_str().unwrap(), after.to_str().unwrap()], extra].concat();
        sandbox.settings.run(&arguments).await
    };

    // Nothing changed, and what else the machine did is nobody's fault: either is right, and says why.
    let output = compare("before", "after", &[]).await;
    let text = said(&output);
    assert!(matches!(output.status.code(), Some(0 | 98)), "{text}");
    assert_eq!(output.status.code() == Some(98), text.contains("REGRESSION:"), "{text}");
    assert!(text.contains("p50") && text.contains("commit.p99") && text.contains("achieved a second"), "{text}");

    let output = compare("before", "slow", &["--json"]).await;
    assert_eq!(output.status.code(), Some(98), "{}", said(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["regression"], &json["before"]["runs"]), (&Value::Bool(true), &Value::from(2)));
    let p50 = json["rows"].as_array().unwrap().iter().find(|row| row["figure"] == "p50").expect("the median");
    assert_eq!(p50["grade"], "regression", "{p50}");
    // What else became slower on the way is the machine's; the figure that may is told, and is no regression.
    let output = compare("before", "slow", &["--tolerance", "p50=9999999%", "--json"]).await;
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let p50 = json["rows"].as_array().unwrap().iter().find(|row| row["figure"] == "p50").expect("the median");
    assert_ne!(p50["grade"], "regression", "{p50}");
    let output = compare("before", "slow", &["--markdown"]).await;
    assert!(said(&output).contains("| p50 |"), "{}", said(&output));

    for (after, extra, code, part) in [
        ("other", &[][..], 64, "rate_per_s: 200 before, 300 after"),
        ("wrong", &["--force"], 64, "1 requests had no answer"),
        ("nowhere", &[], 64, "cannot be read"),
        ("after", &["--tolerance", "p98=1%"], 64, "no figure of"),
        ("after", &["--min-effect", "1"], 64, "needs a unit"),
    ] {
        let output = compare("before", after, extra).await;
        assert_eq!(output.status.code(), Some(code), "{after}: {}", said(&output));
        assert!(said(&output).contains(part) && output.stdout.is_empty(), "{after}: {}", said(&output));
    }
    let forced = compare("before", "other", &["--force"]).await;
    assert!(said(&forced).contains("Forced: rate_per_s: 200 before, 300 after"), "{}", said(&forced));
}
