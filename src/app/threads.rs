//! Threads of their own for a request's way from the broker through a lane and back: it does not queue behind a report or a scan of the
//! store, and it stays on few threads. Each step of it wakes the next one, and to wake another thread costs as much as the step.

use std::io;
use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};

/// Lanes for each thread: a lane spends most of its time waiting for the store.
const LANES_PER_THREAD: usize = 2;

/// Threads that end with this, whatever still runs on them.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    /// As many as these lanes need.
    ///
    /// # Errors
    /// The system gives no more threads or files.
    pub(super) fn start(lanes: usize) -> io::Result<Self> {
        let threads = (lanes / LANES_PER_THREAD).max(1);
        Builder::new_multi_thread().worker_threads(threads).thread_name("request").enable_all().build().map(Some).map(Self)
    }

    pub(super) fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }

    /// What is started while the guard lasts runs on these threads.
    pub(super) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for them is not for an asynchronous task.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
