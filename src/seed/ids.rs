//! Which row ids belong to the seed.
//!
//! Everything seeded lies in [`RESERVED`], in every table, so ids below and above are free for others. Load rows count up from the
//! bottom of the range; programs and test rows count down from its top. The very top is always taken, so ids that SQLite hands out
//! by itself (highest plus one) fall above the range and never into it.

use std::ops::RangeInclusive;

/// The ids that seeded rows use, in `programs`, `users`, `accounts`, `cards` and `limits` alike.
pub const RESERVED: RangeInclusive<i64> = 1_000_000_000..=1_999_999_999;

/// The most load cards there can be: their tokens have seven digits.
pub const CARDS_MAX: u64 = 9_999_999;

const LOAD: i64 = 1_000_000_000;
const USER_LIMIT: i64 = 1_100_000_000;
const ACCOUNT_LIMIT: i64 = 1_200_000_000;
const CARD_LIMIT: i64 = 1_300_000_000;
const PROGRAM: i64 = 1_999_900_000;
const TOP: i64 = 1_999_999_999;

/// The id of load card, user or account number `number` (1 is the first).
#[must_use]
pub const fn load(number: u64) -> i64 {
    LOAD + number.cast_signed()
}

/// The id of the limit owned by load user `number`.
pub(super) const fn user_limit(number: u64) -> i64 {
    USER_LIMIT + number.cast_signed()
}

/// The id of the limit owned by load account `number`.
pub(super) const fn account_limit(number: u64) -> i64 {
    ACCOUNT_LIMIT + number.cast_signed()
}

/// The id of the limit owned by load card `number`.
pub(super) const fn card_limit(number: u64) -> i64 {
    CARD_LIMIT + number.cast_signed()
}

/// The id of the funding account or of the limit of a program, by position.
pub(super) const fn of_program(position: usize) -> i64 {
    PROGRAM - position as i64
}

/// The id of a program or a test row, by position.
pub(super) const fn top(position: usize) -> i64 {
    TOP - position as i64
}
