//! Tries under way. Nobody is woken for what becomes of them.
//!
//! lapin tells of each publish twice: when it was written, and when it was confirmed. Only the ack waits for that, and acks wait for each
//! other anyway; to wake a thread for each would cost more than the publish. So tries are looked at whenever there is something else to do,
//! and a few milliseconds after they began at the latest. What they measure is stamped when it happens ([`super::stamp`]).

use futures_util::{Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep_until},
};

/// How long an end of a try may go unseen.
const LOOK_AFTER: Duration = Duration::from_millis(3);

/// Tries under way, and when they are looked at.
pub(super) struct Attempts<T> {
    under_way: FuturesUnordered<BoxFuture<'static, T>>,
    look_at: Option<Instant>,
    calls: Arc<Calls>,
}

/// Notes that a try may go on, and wakes nobody.
#[derive(Default)]
struct Calls(AtomicBool);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T> Attempts<T> {
    pub(super) fn new() -> Self {
        Self { under_way: FuturesUnordered::new(), look_at: None, calls: Arc::default() }
    }

    /// Adds a try, which begins with the next call of [`Attempts::next`].
    pub(super) fn push(&self, attempt: impl Future<Output = T> + Send + 'static) {
        self.under_way.push(Box::pin(attempt));
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The end of a try: at once where something waits for its channel, else a little later. Never, while there is none.
    pub(super) async fn next(&mut self, awaited: bool) -> T {
        loop {
            let ended = if awaited { Poll::Ready(self.under_way.next().await) } else { self.look() };
            match ended {
                Poll::Ready(Some(attempted)) => return attempted,
                Poll::Ready(None) => {
                    self.look_at = None;
                    std::future::pending::<()>().await;
                }
                // Some of them may not have been got to.
                Poll::Pending if self.calls.0.load(Ordering::Relaxed) => yield_now().await,
                Poll::Pending => {
                    sleep_until(*self.look_at.get_or_insert_with(|| Instant::now() + LOOK_AFTER)).await;
                    self.look_at = None;
                }
            }
        }
    }

    /// Lets every try go on as far as it can, without being woken for it.
    fn look(&mut self) -> Poll<Option<T>> {
        self.calls.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.calls));
        Pin::new(&mut self.under_way).poll_next(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tokio::{
        sync::oneshot,
        time::{sleep, timeout},
    };

    const MS: Duration = Duration::from_millis(1);

    /// A try that ends after 1 ms: when that is seen, in ms from the start.
    async fn check(awaited: bool, seen_ms: u128) {
        let mut attempts = Attempts::new();
        let (confirm, confirmed) = oneshot::channel();
        attempts.push(async { confirmed.await.is_ok() });
        let began = Instant::now();
        let confirming = async {
            sleep(MS).await;
            confirm.send(()).is_ok()
        };
        assert_eq!(tokio::join!(attempts.next(awaited), confirming), (true, true));
        assert_eq!(began.elapsed().as_millis(), seen_ms, "awaited: {awaited}");
        assert!(timeout(MS, attempts.next(awaited)).await.is_err(), "there is no other");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_seen_at_once_only_where_something_waits_for_it() {
        check(true, 1).await;
        check(false, 3).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_begins_at_once_whatever_the_others_do() {
        let (mut attempts, begun) = (Attempts::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..8 {
            let begun = Arc::clone(&begun);
            attempts.push(async move {
                yield_now().await;
                begun.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
            });
        }
        assert!(timeout(MS, attempts.next(false)).await.is_err(), "none of them ends");
        assert_eq!(begun.load(Ordering::Relaxed), 8);
    }
}
