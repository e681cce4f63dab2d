//! Facts in Redis, shared by all daemons: `jit:card:{token}`, `jit:limits:{token}`, `jit:user:{token}`, `jit:program:{id}`.
//!
//! Redis holds facts, never counters and never decisions. Whatever is wrong with it (down, slow, flushed, full of garbage) is an
//! outcome with a counter, and the store is asked instead. One that does not answer is left alone by a [breaker](super::breaker) until
//! it has answered a probe.
//!
//! Rows carry their version and are written by scripts that never replace a higher version by a lower one. A change does not delete
//! a row but puts a tombstone in its place, for longer than anybody who read the fact before may take to write it.

mod inspect;
mod row;
mod script;
mod tombstone;
mod tracking;

pub use inspect::{InspectError, Inspection, inspect};
pub use tombstone::tell;
pub use tracking::Tracking;

use self::{
    row::{Row, card_key, limits_key},
    script::Task,
};
use super::{
    FactError,
    breaker::Breaker,
    change::Announced,
    document::{self, CardFacts, LimitSet, LimitSetFacts, OwnedCard, ProgramFacts, UserFacts},
};
use crate::{
    domain::{
        facts::{Card, CardFile, Program, User},
        ids::{CardToken, UserToken},
    },
    telemetry::{
        Telemetry,
        events::{Dependency, RedisCommand, Tier},
    },
};
use fred::{
    error::ErrorKind,
    prelude::{Builder, Client, ClientLike, Config, FredResult, KeysInterface, Options, ReconnectPolicy, Value},
    types::{
        RespVersion,
        config::{TcpConfig, UnresponsiveConfig},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};

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
/// Pushes that wait for the one who hears them; when more come, they are known to be lost.
const PUSHES_WAITING_MAX: usize = 16_384;
/// What was read from the store longer ago is not written any more: the tombstone of a change since then may be gone.
const FILL_AGE_MAX: Duration = Duration::from_secs(30);
/// How long a tombstone stands: longer than any fill may take.
const TOMBSTONE_TTL: Duration = Duration::from_secs(60);
/// How long a probe, or anything else that nobody waits for, may take.
const BACKGROUND_TIMEOUT: Duration = Duration::from_millis(200);

/// Why Redis could not be asked, or what it said is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// It was not asked, because it did not answer lately.
    Bypassed,
    /// It did not answer in time, or with an error.
    Failed(String),
    /// What it holds is not a fact. It is removed.
    Garbage(String),
    /// What it holds of a card and of the card's limits is from different moments.
    Torn,
}

/// The Redis tier. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    settings: Settings,
    telemetry: Telemetry,
    breaker: Breaker,
    fills: Arc<Semaphore>,
    burials: mpsc::Sender<Announced>,
    /// Whether tombstones wait that could not be written.
    behind: AtomicBool,
    /// Whether everything has changed, and memory was not compared with the store since.
    doubted: AtomicBool,
}

impl Redis {
    /// Prepares a client and starts connecting in the background, for ever: a Redis that is down at start is a slow cache, no more.
    /// What it pushes is heard when `listen` says so.
    ///
    /// # Errors
    /// [`FactError::Malformed`] when the URL is not one of Redis.
    pub fn connect(settings: Settings, listen: bool, telemetry: &Telemetry) -> Result<(Self, Option<Tracking>), FactError> {
        let client = client(&settings)?;
        let (burials, orders) = mpsc::channel(tombstone::WAITING_MAX);
        let inner = Inner {
            client,
            settings,
            telemetry: telemetry.clone(),
            breaker: Breaker::default(),
            fills: Arc::new(Semaphore::new(FILLS_MAX)),
            burials,
            behind: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
        };
        let this = Self { inner: Arc::new(inner) };
        this.note_breaker();
        let tracking = tracking::start(this.clone(), listen);
        tokio::spawn(tombstone::bury(this.clone(), orders));
        drop(this.inner.client.connect());
        Ok((this, tracking))
    }

    /// A card with its limits and its owner's token, when Redis has all of it.
    ///
    /// # Errors
    /// [`Missed`] when Redis is not asked, does not answer in time or holds what is no fact.
    pub async fn card(&self, token: &CardToken) -> Result<Option<(Card, UserToken)>, Missed> {
        let keys = [card_key(token), limits_key(token)];
        let [card, limits] = self.read(&keys).await?;
        let card = self.value::<CardFacts, OwnedCard>(&keys[0], card, OwnedCard::version).await?;
        let limits = self.value::<LimitSetFacts, LimitSet>(&keys[1], limits, |set| set.card_version).await?;
        let (Some(card), Some(limits)) = (card, limits) else { return Ok(None) };
        let owner = card.owner.clone();
        Ok(Some((card.with(limits).ok_or(Missed::Torn)?, owner)))
    }

    /// The owner and the program of a card, each where Redis has it.
    ///
    /// # Errors
    /// As [`Redis::card`].
    pub async fn surroundings(&self, card: &Card, owner: &UserToken) -> Result<(Option<User>, Option<Program>), Missed> {
        let keys = row::surroundings(card, owner);
        let [user, program] = self.read(&keys).await?;
        let user = self.value::<UserFacts, User>(&keys[0], user, |user| user.version).await?;
        Ok((user, self.value::<ProgramFacts, Program>(&keys[1], program, |program| program.version).await?))
    }

    /// Keeps what was read from the store since `began`, in the background.
    pub fn keep(&self, file: &CardFile, began: Instant) {
        if !self.inner.breaker.is_closed() {
            return;
        }
        let Ok(permit) = self.inner.fills.clone().try_acquire_owned() else { return };
        let (this, file) = (self.clone(), file.clone());
        tokio::spawn(async move {
            if began.elapsed() < FILL_AGE_MAX {
                // A fill that fails leaves Redis as it is; the reads that then miss are counted.
                drop(this.write(&file).await);
            }
            drop(permit);
        });
    }

    /// Puts tombstones in place of what a change made stale, in the background: at once, or when Redis can be reached again.
    pub fn bury(&self, announced: Announced) {
        if self.inner.burials.try_send(announced).is_err() {
            self.inner.telemetry.tombstone_lost();
        }
    }

    /// Everything may have changed, and no tombstone says what: nothing is read from here until memory was compared with the store,
    /// which corrects the rows of what has.
    pub fn doubt(&self, doubted: bool) {
        self.inner.doubted.store(doubted, Relaxed);
    }

    async fn write(&self, file: &CardFile) -> FredResult<i64> {
        let Settings { user_ttl, card_ttl, limits_ttl, .. } = self.inner.settings;
        let CardFile { card, user, program } = file;
        let [user_key, program_key] = row::surroundings(card, &user.token);
        let rows = [
            (program_key, program.version, json(&ProgramFacts::from(&**program)), card_ttl),
            (user_key, user.version, json(&UserFacts::from(&**user)), user_ttl),
            (limits_key(&card.token), card.version, json(&LimitSetFacts::from(&**card)), limits_ttl),
            (card_key(&card.token), card.version, json(&CardFacts::from(file)), card_ttl),
        ];
        let (mut keys, mut values) = (Vec::with_capacity(4), Vec::<Value>::with_capacity(12));
        for (key, version, json, ttl) in rows {
            let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            values.extend([version.into(), seconds.into(), Value::Bytes(row::fact(version, &json).into())]);
            keys.push(key);
        }
        self.run(Task::Keep, keys, values, self.inner.settings.command_timeout).await
    }

    async fn run(&self, task: Task, keys: Vec<String>, values: Vec<Value>, patience: Duration) -> FredResult<i64> {
        let began = Instant::now();
        let client = self.inner.client.with_options(&options(patience));
        let answer = task.run(&client, &keys, &values).await;
        self.inner.telemetry.redis_command(RedisCommand::Write, began.elapsed());
        self.note(&answer);
        if let Err(error) = &answer {
            self.inner.telemetry.cache_failed(Tier::Redis, &error.to_string());
        }
        answer
    }

    async fn read<const N: usize>(&self, keys: &[String; N]) -> Result<[Option<Vec<u8>>; N], Missed> {
        // While it has not been told what has changed, it would tell what was.
        if !self.inner.breaker.is_closed() || self.inner.behind.load(Relaxed) || self.inner.doubted.load(Relaxed) {
            return Err(Missed::Bypassed);
        }
        let began = Instant::now();
        let client = self.inner.client.with_options(&options(self.inner.settings.command_timeout));
        let answer: FredResult<Vec<Option<Vec<u8>>>> = client.mget(keys.to_vec()).await;
        self.inner.telemetry.redis_command(RedisCommand::Read, began.elapsed());
        self.note(&answer);
        let found = answer.map_err(|error| Missed::Failed(error.to_string()))?;
        found.try_into().map_err(|_| Missed::Failed("MGET answered with another number of values".to_owned()))
    }

    /// Reads a row. A tombstone is as good as nothing, and garbage goes.
    async fn value<F, T>(&self, key: &str, bytes: Option<Vec<u8>>, version_of: fn(&T) -> i64) -> Result<Option<T>, Missed>
    where
        F: DeserializeOwned,
        T: TryFrom<F, Error = FactError>,
    {
        let Some(bytes) = bytes else { return Ok(None) };
        let fact = match Row::read(&bytes) {
            Some(Row::Tombstone { .. }) => return Ok(None),
            Some(Row::Fact { version, json }) => document::parse::<F>(json)
                .and_then(T::try_from)
                .map_err(|error| error.to_string())
                .and_then(|fact| if version_of(&fact) == version { Ok(fact) } else { Err("the row has another version".to_owned()) }),
            None => Err("the row is neither a fact nor a tombstone".to_owned()),
        };
        match fact {
            Ok(fact) => Ok(Some(fact)),
            Err(error) => {
                // At once, so that it does not stand in the way of what is going to be read from the store; if it is still there.
                let garbage = vec![Value::Bytes(bytes.into())];
                drop(self.run(Task::Discard, vec![key.to_owned()], garbage, self.inner.settings.command_timeout).await);
                // The name of the row without whom it is about.
                let kind = key.split(':').nth(1).unwrap_or_default();
                Err(Missed::Garbage(format!("a row of {kind}: {error}")))
            }
        }
    }

    /// An error that the server answered took no longer than an answer.
    fn note<T>(&self, answer: &FredResult<T>) {
        if answer.as_ref().is_err_and(silent) {
            self.inner.breaker.failed(Instant::now());
            self.note_breaker();
        } else {
            self.inner.breaker.succeeded(false);
        }
    }

    fn note_breaker(&self) {
        self.inner.telemetry.breaker(Dependency::Redis, self.inner.breaker.state());
    }
}

fn client(settings: &Settings) -> Result<Client, FactError> {
    // The text of the error may quote the URL with its password.
    let mut config = Config::from_url(&settings.url).map_err(|_| FactError::Malformed("redis.url is not a Redis URL".to_owned()))?;
    config.version = RespVersion::RESP3;
    Builder::from_config(config)
        .with_connection_config(|connection| {
            connection.connection_timeout = settings.connect_timeout;
            connection.internal_command_timeout = settings.connect_timeout;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = COMMANDS_WAITING_MAX;
            connection.tcp = TcpConfig { nodelay: Some(true), ..Default::default() };
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: Some(Duration::from_secs(1)), interval: Duration::from_millis(200) };
        })
        .with_performance_config(|performance| {
            performance.default_command_timeout = settings.command_timeout.max(BACKGROUND_TIMEOUT);
            performance.broadcast_channel_capacity = PUSHES_WAITING_MAX;
        })
        .set_policy(ReconnectPolicy::new_exponential(0, 20, 2_000, 2))
        .build()
        .map_err(|error| FactError::Malformed(error.to_string()))
}

/// A command waits for nothing but its answer: not for a connection, not for another attempt.
fn options(patience: Duration) -> Options {
    Options { fail_fast: true, max_attempts: Some(1), timeout: Some(patience), ..Default::default() }
}

/// Numbers, names and lists of them: there is nothing in it that could fail.
/// Whether there was no answer; anything else, an error too, is one.
fn silent(error: &fred::error::Error) -> bool {
    matches!(error.kind(), ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Backpressure | ErrorKind::Routing)
}

fn json(facts: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(facts).unwrap_or_default()
}

#[cfg(test)]
mod tests;
