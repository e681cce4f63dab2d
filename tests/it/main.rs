//! The integration tests: one binary, a file per promise.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod ledger_conforms;
