//! The programs that cards are issued under, with the limits that bear on each of their cards.

use super::{
    ids,
    rows::{Account, Limit, Program},
};

/// A program and its own limits.
#[derive(Debug)]
pub struct Template {
    /// The row; its id is by position.
    pub program: Program,
    limits: &'static [Cap],
}

/// A limit of a program, in minor units of its currency.
#[derive(Debug)]
struct Cap {
    scope: &'static str,
    period: &'static str,
    amount: Option<i64>,
    count: Option<i64>,
}

/// Position of the consumer program in [`PROGRAMS`].
pub const PERSONAL: usize = 0;
/// Position of the company program.
pub const BUSINESS: usize = 1;
/// Position of the program of the test cards in US dollars.
pub const TEST: usize = 2;
/// Position of the program of the test card in yen, which have no decimals.
pub const TEST_JPY: usize = 3;
/// Position of the program of the test card in Kuwaiti dinars, which have three.
pub const TEST_KWD: usize = 4;

/// Every seeded program. Ids go by position: append, never insert.
pub const PROGRAMS: &[Template] = &[
    Template {
        program: Program {
            time_zone: "America/New_York",
            week_start: "sunday",
            controls: r#"{"countries":{"except":["CUB","IRN","PRK","SYR"]}}"#,
            ..program(PERSONAL, "prg_personal", "personal", "USD")
        },
        limits: &[
            Cap { scope: "card", period: "transaction", amount: Some(150_000), count: None },
            Cap { scope: "card", period: "day", amount: Some(250_000), count: Some(40) },
            Cap { scope: "card", period: "month", amount: Some(1_000_000), count: None },
        ],
    },
    Template {
        program: Program {
            time_zone: "America/Chicago",
            controls: r#"{"countries":{"except":["CUB","IRN","PRK","SYR"]},"mccs":{"except":["7800-7802","7995"]}}"#,
            ..program(BUSINESS, "prg_business", "business", "USD")
        },
        limits: &[
            Cap { scope: "card", period: "transaction", amount: Some(500_000), count: None },
            Cap { scope: "card", period: "day", amount: Some(750_000), count: Some(80) },
            Cap { scope: "account", period: "week", amount: Some(5_000_000), count: None },
        ],
    },
    Template { program: program(TEST, "prg_test", "personal", "USD"), limits: &[] },
    Template { program: Program { time_zone: "Asia/Tokyo", ..program(TEST_JPY, "prg_test_jpy", "personal", "JPY") }, limits: &[] },
    Template {
        program: Program { time_zone: "Asia/Kuwait", week_start: "saturday", ..program(TEST_KWD, "prg_test_kwd", "personal", "KWD") },
        limits: &[],
    },
];

const fn program(position: usize, token: &'static str, kind: &'static str, currency: &'static str) -> Program {
    Program {
        id: ids::top(position),
        token,
        kind,
        currency,
        time_zone: "UTC",
        week_start: "monday",
        kyc_required: true,
        partial_approval: true,
        controls: "{}",
    }
}

/// The account that a program's money comes from. It goes below zero by what has been handed out: its floor is out of reach.
#[must_use]
pub fn funding_account(position: usize) -> Account {
    let program = &PROGRAMS[position].program;
    Account {
        id: ids::of_program(position),
        token: program.token.replacen("prg_", "acc_funding_", 1),
        program_id: program.id,
        kind: "funding",
        currency: program.currency,
        status: "open",
        posted: 0,
        floor: -1_000_000_000_000_000_000,
    }
}

/// The limits that the programs own.
pub fn limits() -> impl Iterator<Item = Limit> {
    let caps = PROGRAMS.iter().flat_map(|template| template.limits.iter().map(|cap| (template.program.id, cap)));
    caps.enumerate().map(|(position, (owner_id, cap))| Limit {
        id: ids::of_program(position),
        owner: "program",
        owner_id,
        scope: cap.scope,
        period: cap.period,
        filter: "{}",
        cap_amount: cap.amount,
        cap_count: cap.count,
    })
}
