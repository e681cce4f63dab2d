//! Facts in Redis, shared by all daemons: `jit:card:{token}`, `jit:limits:{token}`, `jit:user:{token}`, `jit:program:{id}`.
//!
//! Redis holds facts, never counters and never decisions. Whatever is wrong with it (down, slow, flushed, full of garbage) is an
//! outcome with a counter, and the store is asked instead.

use super::{
    FactError,
    document::{self, CardFacts, LimitSetFacts, ProgramFacts, UserFacts},
};
use crate::domain::{
    facts::{Card, CardFile, LimitSet, Program, User},
    ids::CardToken,
};
use fred::{
    prelude::{Builder, Client, ClientLike, Config, Expiration, FredResult, KeysInterface, Options, ReconnectPolicy},
    types::config::{TcpConfig, UnresponsiveConfig},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// The redis section of the configuration, resolved.
#[derive(Clone)]
pub struct Settings {
    /// `redis://` or `rediss://` URL. Never logged.
    pub url: String,
    /// How long a command may take before the store is asked instead.
    pub command_timeout: Duration,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long a user is kept.
    pub user_ttl: Duration,
    /// How long a card is kept.
    pub card_ttl: Duration,
    /// How long a card's limits are kept.
    pub limits_ttl: Duration,
}

/// Secrets stay out.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("command_timeout", &self.command_timeout).finish_non_exhaustive()
    }
}

/// Fills on their way to Redis at once; further ones are left out, because the next reader fills again.
const FILLS_MAX: usize = 256;
/// Commands waiting for a connection; a Redis that is down must not cost memory.
const COMMANDS_WAITING_MAX: usize = 10_000;

/// The Redis tier.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    settings: Settings,
    fills: Arc<Semaphore>,
}

impl Redis {
    /// Prepares a client and starts connecting in the background, for ever: a Redis that is down at start is a slow cache, no more.
    ///
    /// # Errors
    /// [`FactError::Malformed`] when the URL is not one of Redis.
    pub fn connect(settings: Settings) -> Result<Self, FactError> {
        // The text of the error may quote the URL with its password.
        let config = Config::from_url(&settings.url).map_err(|_| FactError::Malformed("redis.url is not a Redis URL".to_owned()))?;
        let client = Builder::from_config(config)
            .with_connection_config(|connection| {
                connection.connection_timeout = settings.connect_timeout;
                connection.internal_command_timeout = settings.connect_timeout;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = COMMANDS_WAITING_MAX;
                connection.tcp = TcpConfig { nodelay: Some(true), ..Default::default() };
                connection.unresponsive =
                    UnresponsiveConfig { max_timeout: Some(Duration::from_secs(1)), interval: Duration::from_millis(200) };
            })
            .with_performance_config(|performance| performance.default_command_timeout = settings.command_timeout)
            .set_policy(ReconnectPolicy::new_exponential(0, 20, 2_000, 2))
            .build()
            .map_err(|error| FactError::Malformed(error.to_string()))?;
        drop(client.connect());
        Ok(Self { client, settings, fills: Arc::new(Semaphore::new(FILLS_MAX)) })
    }

    /// A card and its limits, each where Redis has it.
    ///
    /// # Errors
    /// [`FactError`] when Redis does not answer in time or holds what is no fact.
    pub async fn card(&self, token: &CardToken) -> Result<(Option<Card>, Option<LimitSet>), FactError> {
        let [card, limits] = self.read([card_key(token), limits_key(token)]).await?;
        Ok((value::<CardFacts, _>(card)?, value::<LimitSetFacts, _>(limits)?))
    }

    /// The owner and the program of a card, each where Redis has it.
    ///
    /// # Errors
    /// [`FactError`] when Redis does not answer in time or holds what is no fact.
    pub async fn surroundings(&self, card: &Card) -> Result<(Option<User>, Option<Program>), FactError> {
        let [user, program] = self.read([user_key(card), program_key(card)]).await?;
        Ok((value::<UserFacts, _>(user)?, value::<ProgramFacts, _>(program)?))
    }

    /// Keeps what is known about a card, in the background.
    pub fn keep(&self, file: &CardFile) {
        let Ok(permit) = self.fills.clone().try_acquire_owned() else { return };
        let (this, file) = (self.clone(), file.clone());
        tokio::spawn(async move {
            // A fill that fails leaves Redis as it is; the reads that then miss are counted.
            drop(this.write(&file).await);
            drop(permit);
        });
    }

    /// Whether Redis answers now.
    pub async fn ping(&self) -> Result<(), FactError> {
        self.client.with_options(&self.options()).ping::<()>(None).await.map_err(unavailable)
    }

    async fn write(&self, file: &CardFile) -> FredResult<()> {
        let Settings { user_ttl, card_ttl, limits_ttl, .. } = self.settings;
        let token = &file.card.token;
        let rows = [
            (program_key(&file.card), json(&ProgramFacts::from(&*file.program)), card_ttl),
            (user_key(&file.card), json(&UserFacts::from(&*file.user)), user_ttl),
            (limits_key(token), json(&LimitSetFacts::from(&*file.limits)), limits_ttl),
            (card_key(token), json(&CardFacts::from(&*file.card)), card_ttl),
        ];
        let pipeline = self.client.pipeline();
        for (key, value, ttl) in rows {
            if let Some(value) = value {
                let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
                pipeline.set::<(), _, _>(key, value, Some(Expiration::EX(seconds)), None, false).await?;
            }
        }
        tokio::time::timeout(self.settings.command_timeout, pipeline.all::<()>()).await.unwrap_or(Ok(()))
    }

    async fn read<const N: usize>(&self, keys: [String; N]) -> Result<[Option<Vec<u8>>; N], FactError> {
        let found: Vec<Option<Vec<u8>>> = self.client.with_options(&self.options()).mget(keys.to_vec()).await.map_err(unavailable)?;
        found.try_into().map_err(|_| FactError::Malformed("MGET answered with another number of values".to_owned()))
    }

    /// A cache read waits for nothing: not for a connection, not for a slow server.
    fn options(&self) -> Options {
        Options { fail_fast: true, max_attempts: Some(1), timeout: Some(self.settings.command_timeout), ..Default::default() }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn unavailable(error: fred::error::Error) -> FactError {
    FactError::Unavailable(error.to_string())
}

fn json(facts: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_vec(facts).ok()
}

fn value<F, T>(bytes: Option<Vec<u8>>) -> Result<Option<T>, FactError>
where
    F: DeserializeOwned,
    T: TryFrom<F, Error = FactError>,
{
    let Some(bytes) = bytes else { return Ok(None) };
    let facts: F = document::parse(&bytes)?;
    T::try_from(facts).map(Some)
}

fn card_key(token: &CardToken) -> String {
    format!("jit:card:{}", token.as_str())
}

fn limits_key(token: &CardToken) -> String {
    format!("jit:limits:{}", token.as_str())
}

fn user_key(card: &Card) -> String {
    format!("jit:user:{}", card.user_token.as_str())
}

fn program_key(card: &Card) -> String {
    format!("jit:program:{}", card.program.0)
}
