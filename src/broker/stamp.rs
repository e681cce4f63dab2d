//! When something ended, whenever it is looked at.

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Wake, Waker},
};
use tokio::time::Instant;

/// Wakes whoever waits, and remembers when.
#[derive(Default)]
struct Stamp {
    at: Mutex<Option<Instant>>,
    waker: AtomicWaker,
}

impl Wake for Stamp {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.at.lock() = Some(Instant::now());
        self.waker.wake();
    }
}

/// What a future gives, and when it was ready: the moment it woke its task, however much later that came to look. One that is ready when
/// it is first looked at gives that moment, which is late and never early.
pub(super) async fn stamped<F: Future>(future: F) -> (F::Output, Instant) {
    let stamp = Arc::new(Stamp::default());
    let waker = Waker::from(Arc::clone(&stamp));
    let mut future = pin!(future);
    poll_fn(|context| {
        stamp.waker.register(context.waker());
        let woken = stamp.at.lock().take();
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        polled.map(|output| (output, woken.or_else(|| stamp.at.lock().take()).unwrap_or_else(Instant::now)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{task::Poll, time::Duration};
    use tokio::{sync::oneshot, time::advance};

    /// Looked at 3 ms after something was sent, or not before: when it is said to have come, in ms from the start.
    async fn check(looked_at_first: bool, came_ms: u128) {
        let began = Instant::now();
        let (sender, receiver) = oneshot::channel();
        let mut waiting = pin!(stamped(receiver));
        let mut idle = Context::from_waker(Waker::noop());
        if looked_at_first {
            assert!(waiting.as_mut().poll(&mut idle).is_pending());
        }
        advance(Duration::from_millis(2)).await;
        assert!(sender.send("confirmed").is_ok());
        advance(Duration::from_millis(3)).await;
        let Poll::Ready((said, at)) = waiting.poll(&mut idle) else { panic!("it was sent") };
        assert_eq!((said, (at - began).as_millis()), (Ok("confirmed"), came_ms), "looked at first: {looked_at_first}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_waited_for_counts_from_when_it_came() {
        check(true, 2).await;
        check(false, 5).await;
    }
}
