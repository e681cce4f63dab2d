//! Against a real RabbitMQ, where `JITAUTH_TEST_BROKER` names one. Every test has its own queues and exchanges there.
#![expect(clippy::expect_used, clippy::print_stderr, reason = "a test says what it expects, and aloud when it is skipped")]

mod answers;
mod events;
mod faults;
mod rig;

pub(super) use rig::settings;
