//! This machine: the listener, and what a process may open.

use super::{DoctorArgs, Finding};
use crate::{
    cli::{Exit, daemon::Daemon},
    config::Config,
};
use std::{fs, net::TcpListener};

/// Files that a daemon opens beside connections: the store, logs, epoll, signals.
const FILES_BESIDE: u64 = 64;

pub(super) async fn http(args: &DoctorArgs, config: &Config) -> Vec<Finding> {
    let Some(settings) = &config.http else { return vec![Finding::ok("http", "not used (http.enabled is false)")] };
    let guarded = if settings.token.is_some() { "asks for a token" } else { "asks for no token, on loopback only" };
    let mut findings = vec![Finding::ok("http", format!("{} {guarded}", settings.listen))];
    let Ok(daemon) = Daemon::new(&args.daemon, config) else { return findings };
    findings.push(match daemon.ask("/ready").await {
        Ok(reply) if reply.status.is_success() => Finding::ok("http", format!("a daemon answers at {} and is ready", daemon.shown())),
        Ok(reply) => {
            let what = format!("a daemon answers at {}: {}", daemon.shown(), reply.text().trim());
            Finding::warn("http", what, format!("see {}/ready?verbose", daemon.shown()))
        }
        Err(error) if error.exit() == Exit::Refused => Finding::warn("http", "a daemon answers with another token", "give --token-file"),
        Err(_) => match TcpListener::bind(settings.listen) {
            Ok(_) => Finding::ok("http", "no daemon runs there, and the address is free"),
            Err(error) => {
                let what = format!("{} cannot be listened on, and nobody answers there: {error}", settings.listen);
                Finding::fail("http", what, "mend http.listen, or stop what has the address")
            }
        },
    });
    findings
}

pub(super) fn limits(config: &Config) -> Vec<Finding> {
    let connections = config.http.as_ref().map_or(0, |http| http.connections_max as u64);
    let needed = connections + u64::from(config.postgres.pool_max) + config.pipeline.lanes as u64 + FILES_BESIDE;
    // Other systems do not tell in this way.
    fs::read_to_string("/proc/self/limits").ok().and_then(|text| open_files(&text)).map(|limit| files(limit, needed)).into_iter().collect()
}

pub(super) fn files(limit: u64, needed: u64) -> Finding {
    if limit < needed {
        let what = format!("a process may open {limit} files, and a daemon needs up to {needed}");
        return Finding::warn("limits", what, "raise it: LimitNOFILE= of the unit, or ulimit -n; or lower http.connections_max");
    }
    let limit = if limit == u64::MAX { "as many files as there are".to_owned() } else { format!("{limit} files") };
    Finding::ok("limits", format!("a process may open {limit}, of which a daemon needs up to {needed}"))
}

/// The soft limit out of the system's table.
pub(super) fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}
