//! `jitauth version`: what this binary is.

use super::{Error, say};
use crate::COMMIT;
use clap::Args;
use serde_json::json;
use std::env::consts::{ARCH, OS};

/// How to say it.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct VersionArgs {
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: VersionArgs) -> Result<(), Error> {
    let version = env!("CARGO_PKG_VERSION");
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let rust = env!("CARGO_PKG_RUST_VERSION");
    if args.json {
        let all =
            json!({"name": "jitauth", "version": version, "commit": COMMIT, "build": build, "arch": ARCH, "os": OS, "rust_min": rust});
        return say(&all.to_string());
    }
    let commit = COMMIT.map(|commit| format!("commit {commit}, ")).unwrap_or_default();
    say(&format!("jitauth {version} ({commit}{build}, {ARCH}-{OS}, Rust {rust} or newer)"))
}
