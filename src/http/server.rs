//! The listener: who gets in, for how long, and how it ends.

use super::{
    auth, health,
    ingress::{self, Edge},
    report,
    settings::Settings,
    wire::{Outbox, Wire},
};
use crate::{
    pipeline::Intake,
    telemetry::{Readiness, Recorder, Reports, Telemetry},
};
use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    routing::{get, post},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioTimer, service::TowerToHyperService};
use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, JoinSet},
    time::sleep,
};

/// Headers of one request: how many, and how many bytes of head and buffered body. The body's own bound is the codec's.
const HEADERS_MAX: usize = 64;
const BUFFER_BYTES_MAX: usize = 32 * 1024;
/// When the process is out of file descriptors, accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the server is given by the wiring.
pub struct Parts<I> {
    /// Where jobs go.
    pub intake: I,
    /// Who is told.
    pub telemetry: Telemetry,
    /// What `/ready` answers.
    pub readiness: Readiness,
    /// What `/report` answers.
    pub reports: Reports,
    /// Deadline of a request that names none.
    pub deadline_default: Duration,
    /// Taken off every deadline for the way back.
    pub deadline_reserve: Duration,
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {error}; choose another http.listen, or stop what listens there")]
    Address {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The address can be reached from elsewhere, and nothing would ask who calls.
    #[error("http.listen is {0}, which is not loopback: set http.token_file, so that not everybody can spend")]
    Unprotected(SocketAddr),
}

/// A listener that is bound and not yet served: its address is known before the daemon is ready.
pub struct Server<I> {
    listener: TcpListener,
    address: SocketAddr,
    edge: Arc<Edge<I>>,
    settings: Settings,
}

impl<I: Intake> Server<I> {
    /// Takes the address. Nothing is accepted before [`run`](Self::run), though the system lets clients queue.
    ///
    /// # Errors
    /// [`BindError`] says what to change.
    pub async fn bind(settings: Settings, parts: Parts<I>) -> Result<Self, BindError> {
        let wanted = settings.listen;
        if !wanted.ip().is_loopback() && settings.token.is_none() {
            return Err(BindError::Unprotected(wanted));
        }
        let failed = |error| BindError::Address { address: wanted, error };
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, edge: Arc::new(Edge::new(&settings, parts)), settings })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready, then drains and returns once every answer is written and every connection closed.
    ///
    /// A drain keeps the listener open while jobs are in work: probes go on to see `/ready` fail and `/livez` succeed, and new
    /// authorizations are declined `system_unavailable`. It takes as long as the pipeline takes to answer; dropping this future cuts
    /// all connections.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, address: _, edge, settings } = self;
        let acceptor = Acceptor::new(&edge, &settings);
        let mut connections = JoinSet::new();
        let mut finished = pin!(finished(&edge, settings.in_flight_max, shutdown));
        loop {
            tokio::select! {
                biased;
                () = &mut finished => break,
                Some(ended) = connections.join_next() => note(ended),
                (stream, permit) = acceptor.accept(&listener) => {
                    connections.spawn(acceptor.serve(stream, permit));
                }
            }
        }
        drop(listener);
        acceptor.close.send_replace(true);
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    }
}

/// Waits for `shutdown`, then for the last job in work.
async fn finished<I: Intake>(edge: &Edge<I>, in_flight_max: usize, shutdown: impl Future<Output = ()>) {
    shutdown.await;
    edge.draining.store(true, Relaxed);
    // Every permit back means that every job was answered and its bytes taken. The semaphore is never closed.
    drop(edge.in_flight.acquire_many(u32::try_from(in_flight_max).unwrap_or(u32::MAX)).await);
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(event = "connection_panicked", %error, "a connection's task panicked; please report this");
    }
}

/// Takes connections and knows how to serve one.
struct Acceptor {
    slots: Arc<Semaphore>,
    router: Router,
    close: watch::Sender<bool>,
    protocol: http1::Builder,
    telemetry: Telemetry,
    recorder: Arc<Recorder>,
    write_timeout: Duration,
}

impl Acceptor {
    fn new<I: Intake>(edge: &Arc<Edge<I>>, settings: &Settings) -> Self {
        let mut protocol = http1::Builder::new();
        protocol
            .timer(TokioTimer::new())
            // Between two requests of a connection this is how long it may idle.
            .header_read_timeout(settings.header_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(BUFFER_BYTES_MAX);
        Self {
            slots: Arc::new(Semaphore::new(settings.connections_max)),
            router: router(Arc::clone(edge)),
            close: watch::Sender::new(false),
            protocol,
            telemetry: edge.telemetry.clone(),
            recorder: edge.telemetry.recorder(),
            write_timeout: settings.body_timeout,
        }
    }

    /// The next connection that there is a slot for. The slot comes first, so that those beyond the cap wait in the system's queue.
    async fn accept(&self, listener: &TcpListener) -> (TcpStream, Option<OwnedSemaphorePermit>) {
        // The semaphore is never closed, so there always is a permit.
        let permit = Arc::clone(&self.slots).acquire_owned().await.ok();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, permit),
                Err(error) if gone_again(&error) => {}
                Err(error) => {
                    tracing::warn!(event = "accept_failed", %error, "connections cannot be accepted; is the limit of open files reached?");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, permit: Option<OwnedSemaphorePermit>) -> impl Future<Output = ()> + use<> {
        // Answers are small and awaited: they must not wait for the peer's delayed ack. Without the option they are slow, not wrong.
        drop(stream.set_nodelay(true));
        let outbox = Outbox::new(self.telemetry.clone(), Arc::clone(&self.recorder));
        let wire = Wire::new(stream, outbox.clone(), self.write_timeout);
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(outbox.clone());
            router.call(request)
        });
        let connection = self.protocol.serve_connection(wire, service);
        let mut close = self.close.subscribe();
        async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = async { drop(close.wait_for(|close| *close).await) } => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(event = "connection_ended", %error, "a client broke off");
            }
            drop(permit);
        }
    }
}

fn gone_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

fn router<I: Intake>(edge: Arc<Edge<I>>) -> Router {
    let guard = |State(edge): State<Arc<Edge<I>>>, request: Request, next: Next| auth::check(edge.token, request, next);
    let guarded = Router::new()
        .route("/v1/authorizations", post(ingress::authorize::<I>))
        .route("/metrics", get(health::metrics::<I>))
        .route("/report", get(report::report::<I>))
        .fallback(unknown_path)
        .layer(from_fn_with_state(Arc::clone(&edge), guard));
    let open = Router::new()
        .route("/livez", get(health::livez))
        .route("/ready", get(health::ready::<I>))
        .route("/health", get(report::health::<I>));
    open.merge(guarded).with_state(edge)
}

async fn unknown_path() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "no such path; there are POST /v1/authorizations and GET /livez, /ready, /health, /metrics, /report\n")
}
