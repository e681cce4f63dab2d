//! `jitauth serve`: the daemon.

use super::{Error, Exit};
use crate::{
    app::{self, AppError},
    bench::spawn::leash,
    config::Config,
};
use std::{future::Future, io, pin::pin};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Runs until SIGTERM or SIGINT starts a drain and the drain has ended. A second signal ends at once. On a leash, the end of the standard
/// input counts as a signal.
pub(super) async fn run(config: Config, leashed: bool) -> Result<(), Error> {
    // Before anything else, so that no signal is missed.
    let mut signals =
        Signals::listen(leashed.then(leash)).map_err(|error| Error::bug(format!("signals cannot be listened to: {error}")))?;
    tracing::info!(
        event = "starting",
        version = env!("CARGO_PKG_VERSION"),
        profile = config.profile,
        config = config.fingerprint(),
        "starting"
    );
    let (drain, asked) = oneshot::channel::<()>();
    // A sender that is gone asks for nothing more than one that was used.
    let app = app::run(config, async { asked.await.unwrap_or_default() });
    supervise(app, drain, async || signals.next().await).await
}

async fn supervise(
    app: impl Future<Output = Result<(), AppError>>,
    drain: oneshot::Sender<()>,
    mut signal: impl AsyncFnMut() -> &'static str,
) -> Result<(), Error> {
    let mut app = pin!(app);
    select! {
        biased;
        done = &mut app => return Ok(done?),
        signal = signal() => tracing::info!(event = "drain_asked", signal, "draining; another signal ends at once"),
    }
    if drain.send(()).is_err() {
        tracing::info!(event = "drain_unneeded", "ending already");
    }
    select! {
        biased;
        done = &mut app => Ok(done?),
        signal = signal() => Err(Error::new(
            Exit::Interrupted,
            format!("{signal} while draining: ended at once"),
            "start again; what was in flight gets its stored answer, or is decided, when it is sent again",
        )),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    leash: Option<oneshot::Receiver<()>>,
}

impl Signals {
    fn listen(leash: Option<oneshot::Receiver<()>>) -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, leash })
    }

    async fn next(&mut self) -> &'static str {
        select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = let_go(&mut self.leash) => "the end of the process that started this",
        }
    }
}

/// Resolves once, when the leash is let go.
async fn let_go(leash: &mut Option<oneshot::Receiver<()>>) {
    match leash {
        Some(held) => drop(held.await),
        None => std::future::pending().await,
    }
    *leash = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::{pending, ready},
        time::Duration,
    };
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// What a daemon does once it is asked to drain.
    #[derive(Clone, Copy, Debug)]
    enum Drains {
        Well,
        TooLong,
        Never,
        /// It fails by itself, unasked, and drops the shutdown first.
        Unasked,
    }

    fn check(drains: Drains, signals: usize, expected: Option<Exit>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let Ok(runtime) = runtime else { panic!("no runtime") };
        let (drain, asked) = oneshot::channel();
        let app = async move {
            if matches!(drains, Drains::Unasked) {
                drop(asked);
                tokio::task::yield_now().await;
                return Err(AppError::Unavailable { what: "gone".to_owned(), next: "wait".to_owned() });
            }
            assert_eq!(asked.await, Ok(()), "the daemon is asked to drain");
            match drains {
                Drains::Well | Drains::Unasked => Ok(()),
                Drains::TooLong => Err(AppError::DrainTimedOut { what: "2 in flight".to_owned() }),
                Drains::Never => pending().await,
            }
        };
        let mut left = signals;
        let signal = async || {
            if left == 0 {
                pending::<()>().await;
            }
            left -= 1;
            ready("SIGTERM").await
        };
        let ended = runtime.block_on(async { timeout(PATIENCE, supervise(app, drain, signal)).await });
        let Ok(ended) = ended else { panic!("{drains:?} after {signals} signals does not end") };
        assert_eq!(ended.err().map(|error| error.exit()), expected, "{drains:?} after {signals} signals");
    }

    #[test]
    fn the_first_signal_drains_and_the_second_ends_at_once() {
        check(Drains::Well, 1, None);
        check(Drains::Well, 2, None);
        check(Drains::TooLong, 1, Some(Exit::DrainTimedOut));
        check(Drains::Never, 2, Some(Exit::Interrupted));
        check(Drains::Unasked, 0, Some(Exit::Unavailable));
        check(Drains::Unasked, 1, Some(Exit::Unavailable));
    }
}
