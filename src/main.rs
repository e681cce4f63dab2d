//! Arguments, configuration, logging, runtime, command, exit code.

use jitauth::{
    cli::{self, Cli, Error, Exit},
    telemetry::log,
};
use std::{env, process::ExitCode};
use tokio::runtime::Builder;

/// One worker for what takes its time and one for everything else, however small the machine; a daemon's requests have threads of their own.
const WORKERS_MIN: usize = 2;

fn main() -> ExitCode {
    match run() {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            error.print();
            error.exit().into()
        }
    }
}

fn run() -> Result<(), Error> {
    let tls = rustls::crypto::ring::default_provider().install_default();
    tls.map_err(|_| Error::bug("another TLS provider was installed first"))?;
    let cli = Cli::from_arguments(env::args_os())?;
    let config = cli.config(env::vars_os())?;
    // Dropped last, so that the last lines get out.
    let _log = log::init(&config.log, cli.speaker())
        .map_err(|error| Error::new(Exit::Misconfigured, error.to_string(), "set RUST_LOG or log.filter to a filter such as info"))?;
    let runtime = Builder::new_multi_thread().worker_threads(cli::cores().max(WORKERS_MIN)).enable_all().build();
    let runtime = runtime.map_err(|error| {
        Error::new(Exit::Unavailable, format!("no threads can be started: {error}"), "raise the limits on threads and open files")
    })?;
    let done = runtime.block_on(cli.run(config));
    // What still runs has been cancelled or given up on; waiting for it would only delay the exit.
    runtime.shutdown_background();
    done
}
