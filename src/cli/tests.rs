#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::{app::AppError, ledger::StoreError};
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, Error> {
    Cli::from_arguments(line.split(' ').map(OsString::from))
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn a_command_line_that_is_not_understood_has_its_exit_code() {
    for (line, expected) in [
        ("jitauth", Exit::Usage),
        ("jitauth nonsense", Exit::Usage),
        ("jitauth serve --nonsense", Exit::Usage),
        ("jitauth serve --log-format loud", Exit::BadFlagValue),
        ("jitauth --help", Exit::Ok),
        ("jitauth --version", Exit::Ok),
        ("jitauth serve --help", Exit::Ok),
    ] {
        assert_eq!(parse(line).unwrap_err().exit(), expected, "{line}");
    }
    for line in
        ["jitauth serve --profile services", "jitauth --log-format json topology check", "jitauth topology apply", "jitauth version --json"]
    {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn the_flags_and_the_environment_reach_the_configuration() {
    let environment = |value: &str| vec![(OsString::from("JITAUTH_PIPELINE__BATCH_MAX"), OsString::from(value))];
    let config = parse("jitauth serve --profile services --log-format json").unwrap().config(environment("7")).unwrap();
    assert_eq!((config.profile.as_str(), config.pipeline.batch_max), ("services", 7));
    assert_eq!(config.log.format, crate::telemetry::log::Format::Json);

    let error = parse("jitauth serve --profile embedded").unwrap().config(environment("-1")).unwrap_err();
    let expected = "error: the configuration has 1 problem\n  JITAUTH_PIPELINE__BATCH_MAX: pipeline.batch_max is -1; must be 0 to 1024 (0 is \
                    what suits the store)\n  next: mend it and start again; config.toml of this release explains every key";
    assert_eq!((error.exit(), error.to_string().as_str()), (Exit::Misconfigured, expected));

    // What brings its own configuration works whatever is configured.
    for line in [
        "jitauth version --profile nonsense",
        "jitauth completions bash --profile nonsense",
        "jitauth man --profile nonsense",
        "jitauth demo --profile nonsense --config /nonexistent",
    ] {
        assert!(parse(line).unwrap().config(environment("-1")).is_ok(), "{line}");
    }
}

#[test]
fn every_error_has_its_exit_code_and_says_what_to_do_next() {
    let (what, next) = ("it is so".to_owned(), "do that".to_owned());
    for (error, exit, code) in [
        (Error::from(AppError::Unavailable { what: what.clone(), next: next.clone() }), Exit::Unavailable, 69),
        (AppError::Refused { what: what.clone(), next: next.clone() }.into(), Exit::Refused, 77),
        (AppError::Misconfigured { what: what.clone(), next }.into(), Exit::Misconfigured, 78),
        (AppError::DrainTimedOut { what: what.clone() }.into(), Exit::DrainTimedOut, 75),
        (AppError::Broken { what: what.clone() }.into(), Exit::Bug, 70),
        (StoreError::Unreachable(what.clone()).into(), Exit::Unavailable, 69),
        (StoreError::Refused(what.clone()).into(), Exit::Refused, 77),
        (StoreError::Locked { holder: what.clone() }.into(), Exit::Unavailable, 69),
        (StoreError::Broken(what).into(), Exit::Misconfigured, 78),
    ] {
        assert_eq!((error.exit(), error.exit() as u8), (exit, code), "{error}");
        let (what, next) = error.to_string().split_once("\n  next: ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(what.starts_with("error: ") && what.contains("it is so") && next.len() > 5, "{error}");
    }
}

#[test]
fn only_the_daemon_logs_to_the_standard_output() {
    for (line, speaker) in [
        ("jitauth serve", Speaker::Daemon),
        ("jitauth migrate", Speaker::Command),
        ("jitauth config show --json", Speaker::Command),
        ("jitauth topology check", Speaker::Command),
    ] {
        assert_eq!(parse(line).unwrap().speaker(), speaker, "{line}");
    }
}

#[test]
fn every_command_and_every_flag_says_what_it_is_for() {
    fn look_at(command: &clap::Command, path: &str) {
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path}: {} has no help", argument.get_id());
        }
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let path = format!("{path} {}", inner.get_name());
            let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.ends_with('.'), "{path}: {about:?}");
            look_at(inner, &path);
        }
    }
    let mut command = Cli::command();
    command.build();
    look_at(&command, "jitauth");
}
