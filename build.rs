//! Tells a release which commit it was built from, as `BUILD_COMMIT`, and any build what compiled it, as `BUILD_RUSTC`.
//!
//! `JITAUTH_COMMIT` wins, for builds that have the sources and no history. Otherwise git is asked, if these sources are the top of a
//! working tree of theirs. A debug build does not ask: it would be linked anew after each commit. Not knowing is no fault.

use std::{env, path::Path, process::Command};

/// What goes into the program, or says how it is built.
const SOURCES: [&str; 9] =
    ["build.rs", "Cargo.toml", "Cargo.lock", "config.toml", "src", "load", "migrations", "profiles", "rust-toolchain.toml"];

fn main() {
    println!("cargo::rerun-if-env-changed=JITAUTH_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let given = env::var("JITAUTH_COMMIT").ok().filter(|commit| !commit.trim().is_empty());
    if let Some(compiler) = env::var("RUSTC").ok().and_then(|rustc| said(&rustc, &["--version"])) {
        println!("cargo::rustc-env=BUILD_RUSTC={compiler}");
    }
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if let Some(commit) = given.or_else(|| if release { asked() } else { None }) {
        // Another name than the variable above: cargo hands this one to what it runs, where `JITAUTH_` names settings.
        println!("cargo::rustc-env=BUILD_COMMIT={}", commit.trim());
    }
}

/// Twelve digits of the commit, with `-dirty` when a file that git knows was changed.
fn asked() -> Option<String> {
    // A checkout of another project around these sources has commits of its own.
    git(&["rev-parse", "--show-prefix"]).filter(|prefix| prefix.is_empty())?;
    for path in SOURCES.into_iter().filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    // Written whenever the commit that is checked out becomes another.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"])
}

/// What git says; `None` when it is not there or has nothing to say.
fn git(arguments: &[&str]) -> Option<String> {
    said("git", arguments)
}

/// What a program says; `None` when it is not there or fails.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
