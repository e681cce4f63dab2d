//! What is ordered by command beside a running daemon holds for the next request, whatever the daemon's caches believed before.

use crate::{
    outcomes,
    support::{request::Request, sandbox::Sandbox},
};
use serde_json::Value;

/// An order, and the reason for which the next request on the card is declined; none when it is approved.
const ORDERS: &[(&str, Option<&str>)] = &[
    ("card freeze crd_approve", Some("card_inactive")),
    ("card unfreeze crd_approve", None),
    ("user suspend usr_approve", Some("user_inactive")),
    ("user activate usr_approve", None),
    ("limit set --card crd_approve --per transaction --amount 9.99", Some("transaction_limit")),
    ("limit set --card crd_approve --per transaction --amount 10.00", None),
    ("limit set --account acc_approve --per day --count 0 --mcc 5400-5499", Some("count_limit")),
    ("limit remove", None),
    ("limit set --user usr_approve --per month --amount 0 --country-except USA", None),
    ("limit set --user usr_approve --per month --amount 0", Some("amount_limit")),
    ("limit remove", None),
];

async fn orders_hold(sandbox: &Sandbox) {
    let daemon = sandbox.daemon().await;
    outcomes::prepare(&sandbox.store().await).await;
    let http = daemon.http();
    let mut limit = String::new();
    for (at, (order, declined)) in ORDERS.iter().enumerate() {
        // Facts of before, warm in memory.
        http.authorize(Request::new(&format!("before-{at}")).body()).await;
        let line = if *order == "limit remove" { format!("{order} {limit}") } else { (*order).to_owned() };
        let arguments: Vec<_> = line.split(' ').chain(["--json"]).collect();
        let output = sandbox.settings.run(&arguments).await;
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["untold"], serde_json::json!([]), "{line}: {said}");
        if let Some(id) = said["limit"]["id"].as_i64() {
            limit = id.to_string();
        }
        let reply = http.authorize(Request::new(&format!("after-{at}")).body()).await.json();
        assert_eq!(reply["reason"].as_str(), *declined, "{line}: {said} and then {reply}");
        assert_eq!(reply["decision"] == "approved", declined.is_none(), "{line}: {reply}");
    }
    let unknown = sandbox.settings.run(&["card", "freeze", "crd_nobody"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no card crd_nobody"));
    sandbox.store().await.check_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    orders_hold(&Sandbox::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_all_services() {
    let Some(sandbox) = Sandbox::services().await else { return };
    orders_hold(&sandbox).await;
}
