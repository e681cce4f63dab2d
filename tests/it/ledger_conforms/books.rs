//! The books: what must hold in a store whatever happened.

use super::fixture::Fixture;
use std::collections::BTreeMap;

/// Queries that find nothing while the books are right. The rows say what is wrong.
const FAULTS: &[&str] = &[
    "select 'held of ' || token || ' is not the sum of its open holds' from accounts a
      where held <> coalesce((select sum(h.amount) from holds h where h.account_id = a.id and h.status = 1), 0)",
    "select token || ' is below its floor' from accounts where posted - held < floor",
    "select 'posted of ' || token || ' is not the sum of its entries' from accounts a
      where posted <> coalesce((select sum(e.amount) from entries e where e.account_id = a.id), 0)",
    "select 'transfer ' || transfer || ' does not sum to zero' from entries group by transfer having sum(amount) <> 0",
    "select 'a counter of limit ' || cast(l.id as text) || ' is past its cap' from counters c join limits l on l.id = c.limit_id
      where c.amount > l.cap_amount or c.count > l.cap_count",
    "select a.id || ' is approved without its hold' from authorizations a left join holds h on h.authorization_id = a.id
      where a.decision > 0 and (h.id is null or h.amount <> a.amount or h.account_id <> a.account_id or h.status = 3)",
    "select h.id || ' holds for nothing' from holds h left join authorizations a on a.id = h.authorization_id
      where h.status = 1 and (a.id is null or a.decision = 0)",
];

/// What is wrong with the books.
pub(crate) async fn faults(store: &impl Fixture) -> Vec<String> {
    let mut faults = Vec::new();
    for query in FAULTS {
        faults.extend(store.rows(query).await);
    }
    let charged = charged(store).await;
    let counters = counters(store).await;
    for key in charged.keys().chain(counters.keys()) {
        let (charged, counted) = (charged.get(key).copied().unwrap_or_default(), counters.get(key).copied().unwrap_or_default());
        if charged != counted {
            faults.push(format!("counter {key:?} is {counted:?}, the journal says {charged:?}"));
        }
    }
    faults
}

/// Amount and count a counter, by limit, scope and window.
type Counters = BTreeMap<[i64; 3], (i64, i64)>;

/// What the journal's charges add up to.
async fn charged(store: &impl Fixture) -> Counters {
    let mut sums = Counters::new();
    let sql = "select cast(amount as text) || ' ' || cast(charges as text) from authorizations where decision > 0";
    for row in store.rows(sql).await {
        let (amount, charges) = row.split_once(' ').unwrap();
        let amount: i64 = amount.parse().unwrap();
        for charge in serde_json::from_str::<Vec<[i64; 7]>>(charges).unwrap() {
            let [limit, scope, window, amount_before, amount_after, count_before, count_after] = charge;
            assert_eq!((amount_after - amount_before, count_after - count_before), (amount, 1), "{charges}");
            let sum = sums.entry([limit, scope, window]).or_default();
            *sum = (sum.0 + amount, sum.1 + 1);
        }
    }
    sums
}

async fn counters(store: &impl Fixture) -> Counters {
    let columns = ["limit_id", "scope_id", "window_start", "amount", "count"].map(|column| format!("cast({column} as text)"));
    let rows = store.rows(&format!("select {} from counters", columns.join(" || ' ' || "))).await;
    let parse = |row: String| {
        let numbers: Vec<i64> = row.split(' ').map(|number| number.parse().unwrap()).collect();
        ([numbers[0], numbers[1], numbers[2]], (numbers[3], numbers[4]))
    };
    rows.into_iter().map(parse).collect()
}

/// Every row that a commit may touch, as text: `table column=value …`. Booleans are 0 or 1, JSON is without blanks.
pub(crate) async fn dump<F: Fixture>(store: &F) -> Vec<String> {
    let tables: [(&str, &[&str]); 4] = [
        ("accounts", &["token", "posted", "held", "floor"]),
        ("counters", &["limit_id", "scope_id", "window_start", "amount", "count"]),
        ("holds", &["authorization_id", "id", "account_id", "amount", "status", "placed_at"]),
        (
            "authorizations",
            &[
                "id",
                "hex digest",
                "card",
                "card_id",
                "account_id",
                "program_id",
                "requested",
                "amount",
                "currency",
                "decision",
                "reason",
                "hex response",
                "card_version",
                "program_version",
                "mcc",
                "merchant",
                "country",
                "channel",
                "json charges",
                "queue_us",
                "user_us",
                "card_us",
                "limits_us",
                "decision_us",
                "decided_at",
                "replays",
                "bool unheard",
            ],
        ),
    ];
    let mut rows = Vec::new();
    for (table, columns) in tables {
        let texts: Vec<String> = columns.iter().map(|column| text::<F>(column)).collect();
        let mut found = store.rows(&format!("select '{table}' || {} from {table}", texts.join(" || "))).await;
        found.sort();
        rows.extend(found);
    }
    rows
}

/// SQL for ` column=value`.
fn text<F: Fixture>(column: &str) -> String {
    let (kind, name) = column.split_once(' ').unwrap_or(("", column));
    let value = match kind {
        "hex" => F::hex(name),
        "bool" => format!("case when {name} then '1' else '0' end"),
        "json" => format!("replace(cast({name} as text), ' ', '')"),
        _ => format!("cast({name} as text)"),
    };
    format!("' {name}=' || coalesce({value}, 'null')")
}
