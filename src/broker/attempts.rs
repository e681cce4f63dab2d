//! Tries under way. Mostly nobody is woken for what becomes of them.
//!
//! lapin tells of each publish twice: when it was written, and when it was confirmed. Only the ack waits for that, and acks wait for each
//! other anyway; to wake a thread for each would cost more than the publish. So tries are looked at whenever there is something else to do,
//! and a few milliseconds after they began at the latest. What they measure is stamped when it happens ([`super::stamp`]).
//!
//! Where that would cost more than it saves, an end is awaited after all: of a try whose ack must not wait, when so many are under way that
//! the broker may run out of what it may deliver, and while so little happens that a look would come late.

use super::acks::HELD_PART;
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
    /// Each with whether its end is awaited.
    under_way: FuturesUnordered<BoxFuture<'static, (T, bool)>>,
    awaited: usize,
    unseen_max: usize,
    pushed: Option<Instant>,
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
    /// `prefetch` is how many deliveries may be unacknowledged at once.
    pub(super) fn new(prefetch: u16) -> Self {
        Self {
            under_way: FuturesUnordered::new(),
            awaited: 0,
            unseen_max: usize::from(prefetch) / HELD_PART,
            pushed: None,
            look_at: None,
            calls: Arc::default(),
        }
    }

    /// Adds a try, which begins with the next call of [`Attempts::next`]; its end is seen at once if it is `awaited`, or the first for
    /// some time.
    pub(super) fn push(&mut self, attempt: impl Future<Output = T> + Send + 'static, awaited: bool) {
        let now = Instant::now();
        let calm = self.pushed.replace(now).is_none_or(|before| now - before >= LOOK_AFTER);
        let awaited = awaited || calm;
        self.awaited += usize::from(awaited);
        self.under_way.push(Box::pin(async move { (attempt.await, awaited) }));
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The end of a try: at once where one is awaited or something waits for its channel, else a little later. Never, while there is none.
    pub(super) async fn next(&mut self, channel_awaited: bool) -> T {
        loop {
            let at_once = channel_awaited || self.awaited > 0 || self.len() > self.unseen_max;
            let ended = if at_once { Poll::Ready(self.under_way.next().await) } else { self.look() };
            match ended {
                Poll::Ready(Some((attempted, awaited))) => {
                    self.awaited -= usize::from(awaited);
                    return attempted;
                }
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
    fn look(&mut self) -> Poll<Option<(T, bool)>> {
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

    #[derive(Clone, Copy)]
    struct Case {
        channel_awaited: bool,
        awaited: bool,
        others: usize,
        calm: Duration,
    }

    /// A try that ends after 1 ms, among `others` that do not end, `calm` after the one before: when that is seen, in ms from the start.
    async fn check(case: Case, seen_ms: u128) {
        let Case { channel_awaited, awaited, others, calm } = case;
        let mut attempts = Attempts::new(8);
        attempts.push(async { true }, false);
        assert!(attempts.next(false).await);
        sleep(calm).await;
        let (confirm, confirmed) = oneshot::channel();
        attempts.push(async { confirmed.await.is_ok() }, awaited);
        for _ in 0..others {
            attempts.push(std::future::pending(), false);
        }
        let began = Instant::now();
        let confirming = async {
            sleep(MS).await;
            confirm.send(()).is_ok()
        };
        assert_eq!(tokio::join!(attempts.next(channel_awaited), confirming), (true, true));
        assert_eq!(began.elapsed().as_millis(), seen_ms, "channel {channel_awaited}, try {awaited}, {others} others, after {calm:?}");
        assert_eq!((attempts.len(), attempts.awaited), (others, 0));
        assert!(timeout(MS, attempts.next(false)).await.is_err(), "there is no other that ends");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_seen_at_once_only_where_something_waits_for_it() {
        let nothing = Case { channel_awaited: false, awaited: false, others: 0, calm: Duration::ZERO };
        check(nothing, 3).await;
        check(Case { channel_awaited: true, ..nothing }, 1).await;
        check(Case { awaited: true, ..nothing }, 1).await;
        check(Case { others: 1, ..nothing }, 3).await;
        check(Case { others: 2, ..nothing }, 1).await;
        check(Case { calm: 2 * MS, ..nothing }, 3).await;
        check(Case { calm: 3 * MS, ..nothing }, 1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_begins_at_once_whatever_the_others_do() {
        let (mut attempts, begun) = (Attempts::new(u16::MAX), Arc::new(AtomicUsize::new(0)));
        attempts.push(async {}, false);
        attempts.next(false).await;
        for _ in 0..8 {
            let begun = Arc::clone(&begun);
            let attempt = async move {
                yield_now().await;
                begun.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
            };
            attempts.push(attempt, false);
        }
        assert!(timeout(MS, attempts.next(false)).await.is_err(), "none of them ends");
        assert_eq!(begun.load(Ordering::Relaxed), 8);
    }
}
