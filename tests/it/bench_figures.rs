//! `jitauth bench figures` has a figure for every row, or says why it has none.

use super::support::{PATIENCE, sandbox::Sandbox};
use jitauth::bench::figures::{BEGIN, END, ROWS};
use serde_json::Value;
use std::{fs, process::Output};
use tokio::time::timeout;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Measures these rows as shortly as can be, on services, into a file between two lines. The figures, and the file.
async fn quick(rows: impl Fn(&str) -> bool) -> Option<(Value, String)> {
    let sandbox = Sandbox::services().await?;
    let directory = tempfile::TempDir::new().unwrap();
    let (readme, out) = (directory.path().join("README.md"), directory.path().join("out"));
    fs::write(&readme, format!("before\n{BEGIN}\n{END}\nafter\n")).unwrap();
    let names: Vec<&str> = ROWS.iter().map(|row| row.name).filter(|name| rows(name)).collect();
    let mut arguments = vec!["bench", "figures", "--quick", "--into", readme.to_str().unwrap(), "--out", out.to_str().unwrap()];
    arguments.extend(names.iter().flat_map(|name| ["--only", *name]));
    // Several runs, one after the other.
    let output = timeout(4 * PATIENCE, sandbox.settings.start(&arguments).wait_with_output()).await.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let board: Value = serde_json::from_slice(&fs::read(out.join("figures.json")).unwrap()).unwrap();
    let figures = board["figures"].as_array().unwrap();
    assert_eq!(figures.iter().map(|figure| figure["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    for figure in figures {
        // A step of a second may fail by chance, and the ceiling with it; then the row says so.
        let ceiling = figure["name"].as_str().unwrap().starts_with("amqp_ceiling");
        let told = figure["notes"].as_array().is_some_and(|notes| !notes.is_empty());
        assert!(figure["value"].is_number() || (ceiling && told), "{figure}");
    }
    assert_eq!(board["meaningful"], false);
    let text = fs::read_to_string(&readme).unwrap();
    assert!(text.starts_with("before\n") && text.ends_with("after\n") && text.contains("These figures mean nothing"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("| ")).count(), names.len() + 1, "a row for each, and the head: {text}");
    Some((board, text))
}

#[tokio::test]
async fn every_row_behind_the_broker_has_a_figure() {
    let Some((board, text)) = quick(|name| name.starts_with("amqp_")).await else { return };
    assert!(board["versions"]["RabbitMQ"].is_string() && board["durability"]["postgresql"].is_string(), "{board}");
    assert!(text.contains("quorum queues: amqp p50") && text.contains("classic queues: amqp p50"), "{text}");
}

#[tokio::test]
async fn every_row_of_this_process_and_of_very_many_cards_has_a_figure() {
    let Some((board, _)) = quick(|name| !name.starts_with("amqp_")).await else { return };
    assert!(board["durability"]["postgresql"].is_string() && board["durability"]["sqlite"].is_string(), "{board}");
}

#[tokio::test]
async fn what_the_environment_does_not_have_is_said_in_the_row() {
    let sandbox = Sandbox::embedded();
    let only = ["--only", "decide", "--only", "postgres", "--only", "amqp_p99_quorum", "--only", "hot_account"];
    let output = sandbox.settings.run(&[&["bench", "figures", "--quick", "--json"], &only[..]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let board: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures: Vec<(&str, bool, String)> = board["figures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|figure| (figure["name"].as_str().unwrap(), figure["value"].is_number(), figure["notes"].to_string()))
        .collect();
    assert_eq!(
        figures.iter().map(|(name, there, _)| (*name, *there)).collect::<Vec<_>>(),
        [("amqp_p99_quorum", false), ("postgres", false), ("decide", true), ("hot_account", true)]
    );
    assert!(figures[..2].iter().all(|(_, _, notes)| notes.contains("--profile services")), "{figures:?}");
    let unknown = sandbox.settings.run(&["bench", "figures", "--only", "everything"]).await;
    assert_eq!(unknown.status.code(), Some(64), "{}", said(&unknown));
    assert!(said(&unknown).contains("there is no figure \"everything\"; there are"), "{}", said(&unknown));
    let markers = sandbox.settings.run(&["bench", "figures", "--quick", "--only", "decide", "--into", "Cargo.toml"]).await;
    assert_eq!(markers.status.code(), Some(1), "{}", said(&markers));
}
