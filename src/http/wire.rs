//! Whether an answer's bytes went out. HTTP libraries do not say, but an approval's fate depends on it.
//!
//! The library takes the bytes out of a `Reply`, writes them to the [`Wire`] and flushes it. Bytes it never
//! took are certainly unsent; once a flush succeeds they are on their way; a connection that dies in between leaves their fate unknown.

use crate::{
    domain::{decision::Decision, ids::RequestId, reason::Reason},
    pipeline::FreshApproval,
    telemetry::{Answered, Recorder, Span, Spans, Telemetry},
};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// An answer that the library took to write.
pub(super) struct Outgoing {
    /// Dropped unsaid, as when the connection dies, it counts as unheard.
    pub(super) fresh: Option<FreshApproval>,
    pub(super) id: RequestId,
    pub(super) decision: Decision,
    pub(super) reason: Option<Reason>,
    pub(super) spans: Spans,
    pub(super) received: Instant,
    pub(super) answered: Instant,
}

/// The answers of one connection that are between the library and the socket.
#[derive(Clone)]
pub(super) struct Outbox {
    outgoing: Arc<Mutex<Vec<Outgoing>>>,
    telemetry: Telemetry,
    recorder: Arc<Recorder>,
}

impl Outbox {
    pub(super) fn new(telemetry: Telemetry, recorder: Arc<Recorder>) -> Self {
        Self { outgoing: Arc::default(), telemetry, recorder }
    }

    pub(super) fn push(&self, outgoing: Outgoing) {
        self.outgoing.lock().push(outgoing);
    }

    /// Everything pushed so far is with the operating system.
    fn flushed(&self) {
        let written = std::mem::take(&mut *self.outgoing.lock());
        if written.is_empty() {
            return;
        }
        let now = Instant::now();
        for Outgoing { fresh, id, decision, reason, mut spans, received, answered } in written {
            if let Some(fresh) = fresh {
                fresh.heard();
            }
            // The lane has recorded the others.
            let mut tail = Spans::default();
            for (span, since) in [(Span::Publish, answered), (Span::Total, received)] {
                tail.set(span, now.saturating_duration_since(since));
                spans.set(span, now.saturating_duration_since(since));
            }
            self.recorder.record(&tail);
            self.telemetry.answered(&Answered { id: id.as_str(), decision, reason, spans: &spans });
        }
    }
}

/// A socket that tells the outbox when it was flushed, and gives up on a peer that does not read.
pub(super) struct Wire {
    stream: TokioIo<TcpStream>,
    outbox: Outbox,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, outbox: Outbox, write_timeout: Duration) -> Self {
        Self { stream: TokioIo::new(stream), outbox, write_timeout, stalled: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.stalled = None;
            return progress;
        }
        let within = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(within)));
        if stalled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, progress)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(cx, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            self.outbox.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
