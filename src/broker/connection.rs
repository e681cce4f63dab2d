//! One connection to the broker, made again for ever.
//!
//! lapin's own recovery stays off. It heals connections but not channels, leaves confirms pending until it has reconnected
//! and replays declarations that an operator may have changed meanwhile; so channels had to be rebuilt by us anyway, and one
//! way back from every fault is easier to trust than two.

use super::{BrokerError, Phase, Settings};
use crate::telemetry::{Telemetry, events::Role};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::StreamExt;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event, uri::AMQPUri};
use std::{net::Ipv6Addr, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

/// The first pause before something is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// What lived this long was well: the next pause is the first again.
const WELL_AFTER: Duration = Duration::from_secs(1);
/// A loss that nobody is told of is seen after this long at the latest.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a goodbye may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Growing pauses with jitter, starting again once something has held for a while.
pub(super) struct Pauses {
    builder: ExponentialBuilder,
    series: ExponentialBackoff,
    max: Duration,
}

impl Pauses {
    pub(super) fn up_to(max: Duration) -> Self {
        // Jitter adds up to the pause itself, so the ceiling holds for half of it.
        let builder =
            ExponentialBuilder::new().with_min_delay(PAUSE_MIN).with_max_delay((max / 2).max(PAUSE_MIN)).with_jitter().without_max_times();
        Self { series: builder.build(), builder, max }
    }

    pub(super) fn next(&mut self) -> Duration {
        self.series.next().unwrap_or(self.max)
    }

    /// Notes how long the last success held.
    pub(super) fn held(&mut self, since: Instant) {
        if since.elapsed() >= WELL_AFTER {
            self.reset();
        }
    }

    /// Starts again with the shortest pause.
    pub(super) fn reset(&mut self) {
        self.series = self.builder.build();
    }
}

/// Where the broker is, checked.
pub(super) fn address(settings: &Settings) -> Result<AMQPUri, BrokerError> {
    // The parser's message is dropped: it quotes the URL, password and all.
    let mut uri: AMQPUri = settings.url.parse().map_err(|_quotes_the_url: String| BrokerError::Address)?;
    if let Some(host) = ipv6(&settings.url) {
        uri.authority.host = host.to_string();
    }
    uri.query.heartbeat = Some(u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX));
    Ok(uri)
}

/// The host of a URL, if it is written as an IPv6 address. The parser does not take one, and says `localhost` instead.
fn ipv6(url: &str) -> Option<Ipv6Addr> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.strip_prefix('[')?;
    host.split_once(']')?.0.parse().ok()
}

/// Connects once.
pub(super) async fn dial(address: &AMQPUri, name: &str, patience: Duration) -> Result<Connection, BrokerError> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connecting = async {
        listens(address).await?;
        Ok(Connection::connect_uri(address.clone(), properties).await?)
    };
    timeout(patience, connecting).await.unwrap_or_else(|_| Err(no_answer(patience)))
}

/// Whether anybody listens there. lapin leaves two tasks behind for ever when it is refused: in an outage it must not be asked.
async fn listens(AMQPUri { authority, .. }: &AMQPUri) -> Result<(), BrokerError> {
    let (host, port) = (authority.host.as_str(), authority.port);
    let tried = TcpStream::connect((host, port)).await;
    tried.map(drop).map_err(|error| BrokerError::Unreachable(format!("cannot connect to {host}:{port}: {error}")))
}

/// Waits for an answer of the broker, but no longer than the connection lasts: what is under way while it is lost may never
/// come to an end in lapin.
pub(super) async fn ask<T>(
    connection: &Connection,
    patience: Duration,
    question: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    tokio::pin!(question);
    let until = Instant::now() + patience;
    loop {
        match timeout(LOOK_EVERY, &mut question).await {
            Ok(answer) => return Ok(answer?),
            Err(_) if !connection.status().connected() => return Err(BrokerError::Unreachable("the connection was lost".into())),
            Err(_) if Instant::now() >= until => return Err(no_answer(patience)),
            Err(_) => {}
        }
    }
}

/// A new channel.
///
/// The id of a channel that the broker has closed (a missing exchange, a right that was taken away) is good for nothing any more: the
/// next channel that lapin gives it fails with the error of the first, and keeps the id. So another is asked for, until there is none: a
/// connection that is up and has no id left, which takes some thousands of such faults, is closed, to be made again.
pub(super) async fn channel(connection: &Connection) -> lapin::Result<Channel> {
    let mut created = connection.create_channel().await;
    for _ in 0..connection.configuration().channel_max() {
        match &created {
            Err(error) if connection.status().connected() && !matches!(error.kind(), ErrorKind::ChannelsLimitReached) => {
                created = connection.create_channel().await;
            }
            _ => break,
        }
    }
    if let Err(error) = &created
        && connection.status().connected()
    {
        tracing::warn!(event = "broker_channels_used_up", %error, "the connection has no more channels to give and is made again");
        let closed = timeout(CLOSE_MAX, connection.close(200, "no more channels".into())).await;
        tracing::debug!(event = "broker_connection_closed", clean = matches!(closed, Ok(Ok(()))));
    }
    created
}

fn no_answer(patience: Duration) -> BrokerError {
    BrokerError::Unreachable(format!("no answer within {} ms", patience.as_millis()))
}

/// What is known about a connection.
#[derive(Clone, Default)]
pub(super) struct LinkState {
    /// The connection, while it is up.
    pub(super) connection: Option<Arc<Connection>>,
    /// Whether the broker has stopped reading from it: a memory or disk alarm.
    pub(super) blocked: bool,
}

/// A handle on a connection that is kept up.
#[derive(Clone)]
pub(super) struct Link {
    state: watch::Receiver<LinkState>,
    doubt: Arc<Notify>,
}

impl Link {
    /// A handle, and the work that keeps the connection up until the daemon closes.
    pub(super) fn new(
        role: Role,
        settings: &Settings,
        telemetry: Telemetry,
        phase: watch::Receiver<Phase>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), BrokerError> {
        let (sender, state) = watch::channel(LinkState::default());
        let doubt = Arc::new(Notify::new());
        let keeper = Keeper {
            role,
            address: address(settings)?,
            patience: settings.connect_timeout,
            pauses: Pauses::up_to(settings.reconnect_max),
            state: sender,
            doubt: Arc::clone(&doubt),
            telemetry,
        };
        Ok((Self { state, doubt }, keeper.run(phase)))
    }

    pub(super) fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }

    pub(super) fn blocked(&self) -> bool {
        self.state.borrow().blocked
    }

    /// Resolves when something changed that has not been looked at by [`Link::seen`]; never when the daemon has closed.
    pub(super) async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn seen(&mut self) -> LinkState {
        self.state.borrow_and_update().clone()
    }

    /// Waits until there is a connection.
    pub(super) async fn connection(&mut self) -> Arc<Connection> {
        loop {
            if let Some(connection) = self.seen().connection {
                return connection;
            }
            self.changed().await;
        }
    }

    /// Resolves once this connection is no longer the one that is up. What is under way on it may never come to an end in lapin.
    pub(super) async fn lost(&mut self, connection: &Arc<Connection>) {
        while self.seen().connection.is_some_and(|up| Arc::ptr_eq(&up, connection)) {
            self.changed().await;
        }
    }

    /// Says that something failed that may mean the connection is gone.
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }
}

struct Keeper {
    role: Role,
    address: AMQPUri,
    patience: Duration,
    pauses: Pauses,
    state: watch::Sender<LinkState>,
    doubt: Arc<Notify>,
    telemetry: Telemetry,
}

impl Keeper {
    async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        tokio::select! { biased;
            () = Phase::Closing.reached(&mut phase) => {}
            () = self.keep() => {}
        }
        let last = self.state.send_replace(LinkState::default());
        if let Some(connection) = last.connection {
            let closed = timeout(CLOSE_MAX, connection.close(200, "closing".into())).await;
            tracing::debug!(event = "broker_connection_closed", clean = matches!(closed, Ok(Ok(()))));
        }
    }

    async fn keep(&mut self) {
        loop {
            match dial(&self.address, self.name(), self.patience).await {
                Ok(connection) => self.watch_over(Arc::new(connection)).await,
                Err(error) => self.telemetry.broker_connection(self.role, false, &error.to_string()),
            }
            sleep(self.pauses.next()).await;
        }
    }

    async fn watch_over(&mut self, connection: Arc<Connection>) {
        let since = Instant::now();
        let mut events = connection.events_listener();
        self.telemetry.broker_connection(self.role, true, "connected");
        self.state.send_replace(LinkState { connection: Some(Arc::clone(&connection)), blocked: connection.status().blocked() });
        let mut why = String::from("the connection was lost");
        while connection.status().connected() {
            tokio::select! { biased;
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => self.block(Some(&reason)),
                    Some(Event::ConnectionUnblocked) => self.block(None),
                    Some(Event::Error(error)) => why = error.to_string(),
                    Some(_) => {}
                    None => break,
                },
                () = self.doubt.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
        self.state.send_replace(LinkState::default());
        self.telemetry.broker_connection(self.role, false, &why);
        self.pauses.held(since);
    }

    fn block(&self, reason: Option<&str>) {
        self.state.send_modify(|state| state.blocked = reason.is_some());
        match reason {
            Some(reason) => self.telemetry.broker_connection(self.role, false, &format!("blocked by the broker: {reason}")),
            None => self.telemetry.broker_connection(self.role, true, "no longer blocked"),
        }
    }

    const fn name(&self) -> &'static str {
        match self.role {
            Role::Consumer => "jitauth consume",
            Role::Publisher => "jitauth publish",
        }
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;
    use tokio::runtime::Handle;

    #[test]
    fn a_host_may_be_a_name_or_an_address_of_either_kind() {
        for (url, host, port) in [
            ("amqp://guest:guest@rabbit.example:5673/%2f", "rabbit.example", 5673),
            ("amqp://guest:guest@127.0.0.1/%2f", "127.0.0.1", 5672),
            ("amqp://guest:guest@[2001:db8::1]:5673/%2f", "2001:db8::1", 5673),
            ("amqps://guest:p%40ss@[::1]/%2f?frame_max=8192", "::1", 5671),
        ] {
            let settings = Settings { url: url.into(), ..crate::broker::tests::settings("", "") };
            let AMQPUri { authority, .. } = address(&settings).expect("a good address");
            assert_eq!((authority.host.as_str(), authority.port), (host, port), "{url}");
        }
    }

    #[tokio::test]
    async fn an_outage_leaves_no_tasks_behind() {
        // Nobody listens on the port for multiplexing.
        let address: AMQPUri = "amqp://guest:sesame@127.0.0.1:1/%2f".parse().expect("a URL");
        for _ in 0..20 {
            let error = dial(&address, "test", Duration::from_secs(20)).await.expect_err("nobody listens");
            let told = error.to_string();
            assert!(matches!(error, BrokerError::Unreachable(_)) && told.contains("refused") && !told.contains("sesame"), "{told}");
        }
        tokio::task::yield_now().await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }
}
