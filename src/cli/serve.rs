//! `jitauth serve`: the daemon.

use super::{Error, Exit};
use crate::{app, config::Config};
use std::{io, pin::pin};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Runs until SIGTERM or SIGINT starts a drain and the drain has ended. A second signal ends at once.
pub(super) async fn run(config: Config) -> Result<(), Error> {
    // Before anything else, so that no signal is missed.
    let mut signals = Signals::listen().map_err(|error| Error::bug(format!("signals cannot be listened to: {error}")))?;
    tracing::info!(
        event = "starting",
        version = env!("CARGO_PKG_VERSION"),
        profile = config.profile,
        config = config.fingerprint(),
        "starting"
    );
    let (drain, asked) = oneshot::channel::<()>();
    // A sender that is gone asks for nothing more than one that was used.
    let mut app = pin!(app::run(config, async { asked.await.unwrap_or_default() }));
    select! {
        biased;
        done = &mut app => return Ok(done?),
        signal = signals.next() => tracing::info!(event = "drain_asked", signal, "draining; another signal ends at once"),
    }
    drain.send(()).map_err(|()| Error::bug("the daemon runs on, but does not wait for its shutdown"))?;
    select! {
        biased;
        done = &mut app => Ok(done?),
        signal = signals.next() => Err(Error::new(
            Exit::Interrupted,
            format!("{signal} while draining: ended at once"),
            "start again; what was in flight gets its stored answer, or is decided, when it is sent again",
        )),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
