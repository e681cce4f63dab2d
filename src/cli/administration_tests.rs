#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{
    Cli, Command, Error, Exit,
    administration::{Order, carry_out},
};
use crate::{config::Config, ledger::sqlite::Sqlite};
use sqlx::AssertSqlSafe;
use std::ffi::OsString;
use tempfile::TempDir;

const WORLD: &str = r#"
insert into programs (id, token, kind, currency, time_zone, week_start) values (1, 'prg_1', 'personal', 'USD', 'America/New_York', 'sunday');
insert into users (id, token, program_id) values (1, 'usr_1', 1), (2, 'usr_2', 1);
insert into accounts (id, token, program_id, currency, posted, held, floor) values
  (1, 'acc_1', 1, 'USD', 50000, 6750, 0), (2, 'acc_2', 1, 'EUR', 0, 0, -10000);
insert into cards (id, token, user_id, account_id, program_id, status, expires_at, controls) values
  (1, 'crd_1', 1, 1, 1, 'active', 1893456000000000, '{"channels":{"except":["magstripe"]}}'),
  (2, 'crd_2', 2, 1, 1, 'lost', 1893456000000000, '{}'), (3, 'crd_3', 2, 2, 1, 'active', 1893456000000000, '{}');
insert into limits (id, owner, owner_id, scope, period, filter, cap_amount, cap_count) values
  (10, 'card', 1, 'card', 'lifetime', '{}', 30000, 1), (11, 'user', 1, 'user', 'month', '{"mccs":{"only":["5411","3000-3299"]}}', 8000, null),
  (12, 'program', 1, 'program', 'lifetime', '{}', null, 100), (13, 'program', 1, 'card', 'transaction', '{}', 100000, null);
insert into counters (limit_id, scope_id, window_start, amount, count) values (10, 1, 0, 1250, 2), (12, 1, 0, 777, 9)"#;

struct Office {
    store: Sqlite,
    config: Config,
    _directory: TempDir,
}

impl Office {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jitauth.db");
        let environment = vec![(OsString::from("JITAUTH_SQLITE__PATH"), path.into_os_string())];
        let config = Cli::from_arguments(["jitauth", "serve"].map(OsString::from)).unwrap().config(environment).unwrap();
        let store = Sqlite::visit(&config.sqlite).await.unwrap();
        store.migrate().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(WORLD)).execute(&mut store.writer().await.unwrap()).await.unwrap();
        Self { store, config, _directory: directory }
    }

    async fn order(&self, line: &str) -> Result<String, Error> {
        let order = match Cli::from_arguments(line.split(' ').map(OsString::from))?.command {
            Command::Card(command) => Order::Card(command),
            Command::User(command) => Order::User(command),
            Command::Limit(command) => Order::Limit(command),
            other => panic!("{other:?} is no order"),
        };
        carry_out(&self.store, order, &self.config).await
    }
}

/// What a person sees, one order after the other: `administration_snapshot.txt`.
#[tokio::test]
async fn orders_say_what_was_and_what_is() {
    let office = Office::new().await;
    let mut seen = String::new();
    for line in [
        "jitauth card show crd_1",
        "jitauth card freeze crd_1",
        "jitauth card freeze crd_1",
        "jitauth card unfreeze crd_1",
        "jitauth card unfreeze crd_1",
        "jitauth card freeze crd_2",
        "jitauth card unfreeze crd_2",
        "jitauth card freeze crd_none",
        "jitauth card show crd_3",
        "jitauth user suspend usr_1",
        "jitauth user activate usr_1",
        "jitauth user suspend usr_none",
        "jitauth limit set --card crd_1 --per day --amount 500.00 --count 10 --mcc 5411,3000-3299 --country-except PRK",
        "jitauth limit set --card crd_1 --per day --amount 300 --mcc 3000-3299,5411 --country-except PRK",
        "jitauth limit set --card crd_1 --per day --amount 300 --mcc 3000-3299,5411 --country-except PRK",
        "jitauth limit set --program prg_1 --per week --count 1 --scope card --channel ecommerce,moto",
        "jitauth limit list --card crd_1",
        "jitauth limit list --program prg_1",
        "jitauth limit list --account acc_1",
        "jitauth limit remove 2000000000",
        "jitauth limit remove 2000000000",
        "jitauth limit set --user usr_2 --per day --amount 5",
        "jitauth limit set --card crd_1 --per day --amount 5.001",
        "jitauth limit set --card crd_1 --per transaction --count 5",
        "jitauth limit set --card crd_1 --per day --count 5 --mcc 54",
        "jitauth limit set --card crd_none --per day --count 5",
        "jitauth card freeze crd_3 --json",
        "jitauth card show crd_1 --json",
        "jitauth limit set --account acc_2 --per month --amount 20.50 --json",
        "jitauth limit list --account acc_2 --json",
        "jitauth limit remove 2000000002 --json",
    ] {
        let said = match office.order(line).await {
            Ok(said) => said,
            Err(error) => format!("{error}\nexit {}", error.exit() as u8),
        };
        seen.push_str(&format!("$ {line}\n{}\n\n", said.trim_end()));
    }
    assert_eq!(seen, include_str!("administration_snapshot.txt"), "what is seen now:\n{seen}");
}

#[test]
fn what_cannot_be_meant_is_refused_by_the_command_line() {
    for (line, exit) in [
        ("jitauth card freeze", Exit::Usage),
        ("jitauth card freeze crd/1", Exit::BadFlagValue),
        ("jitauth user suspend usr/1", Exit::BadFlagValue),
        ("jitauth limit list", Exit::Usage),
        ("jitauth limit list --card crd_1 --user usr_1", Exit::Usage),
        ("jitauth limit set --card crd_1 --per day", Exit::Usage),
        ("jitauth limit set --card crd_1 --amount 5", Exit::Usage),
        ("jitauth limit set --card crd_1 --per hour --amount 5", Exit::BadFlagValue),
        ("jitauth limit set --card crd_1 --per day --count -1", Exit::Usage),
        ("jitauth limit set --card crd_1 --per day --count many", Exit::BadFlagValue),
        ("jitauth limit remove ten", Exit::BadFlagValue),
    ] {
        let error = Cli::from_arguments(line.split(' ').map(OsString::from)).unwrap_err();
        assert_eq!(error.exit(), exit, "{line}");
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.db");
    let environment = vec![(OsString::from("JITAUTH_SQLITE__PATH"), path.clone().into_os_string())];
    let cli = Cli::from_arguments(["jitauth", "card", "freeze", "crd_1"].map(OsString::from)).unwrap();
    let config = cli.config(environment).unwrap();
    let error = cli.run(config).await.unwrap_err();
    assert!(error.exit() == Exit::Misconfigured && error.to_string().contains("there is no database file"), "{error}");
    assert!(!path.exists());
}
