//! Orders to the store: the transaction first, then everybody is told.
//!
//! A daemon that runs on the store needs no stop for any of it: the store tells it by itself, and refuses what was decided on the facts
//! of before.
#![expect(clippy::disallowed_methods, reason = "an order is given at an instant of this machine's clock")]

use super::{Error, Exit, card::CardCommand, limit::LimitCommand, say, user::UserCommand};
use crate::{
    app::schema_is_current,
    broker,
    codec::event::{EventKind, FactEvent},
    config::{Config, StoreKind},
    domain::time::Timestamp,
    facts::{
        change::{Change, FactStore, Subject},
        redis,
    },
    ledger::{
        administration::{Administration, AdministrationError},
        postgres::Postgres,
        sqlite::Sqlite,
    },
};
use serde_json::{Value, json};
use std::time::Duration;

/// How long Redis may take to be told.
const REDIS_PATIENCE: Duration = Duration::from_secs(2);

/// An order.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Card(CardCommand),
    User(UserCommand),
    Limit(LimitCommand),
}

/// Carries an order out and says what it did.
pub(super) async fn run(order: Order, config: &Config) -> Result<(), Error> {
    let said = match config.store {
        StoreKind::Postgres => carry_out(&Postgres::connect(&config.postgres).await?, order, config).await?,
        StoreKind::Sqlite => {
            let path = &config.sqlite.path;
            // Opening it would make one.
            if !path.exists() {
                let what = format!("there is no database file {}", path.display());
                return Err(Error::new(Exit::Misconfigured, what, "set JITAUTH_SQLITE__PATH to the file that the daemon runs on"));
            }
            carry_out(&Sqlite::visit(&config.sqlite).await?, order, config).await?
        }
    };
    say(said.trim_end())
}

/// What an order did, as it is printed.
pub(super) async fn carry_out(store: &impl Administration, order: Order, config: &Config) -> Result<String, Error> {
    schema_is_current(store).await?;
    match order {
        Order::Card(command) => super::card::run(store, command, config).await,
        Order::User(command) => super::user::run(store, command, config).await,
        Order::Limit(command) => super::limit::run(store, command, config).await,
    }
}

/// The instant, by this machine's clock.
pub(super) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

/// Whom a change concerned, and who could not be told of it.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) changes: Vec<Change>,
    untold: Vec<String>,
}

/// Tells of a change of `subject` beside the store, which has told the daemons already: Redis, whose rows are now old, and the exchange
/// for events. Either may fail; the store's word is enough.
pub(super) async fn announce(store: &impl FactStore, subject: &Subject, kind: EventKind, config: &Config) -> Result<Announced, Error> {
    let at = Some(now());
    let changes = store.concerned(subject).await.map_err(|error| {
        let next = "nothing: the daemons hear of it from the store";
        Error::new(Exit::Unavailable, format!("the order was carried out, but whom it concerns cannot be read: {error}"), next)
    })?;
    let mut untold = Vec::new();
    if let Some(settings) = &config.redis
        && let Err(error) = redis::tell(settings, &changes, at, REDIS_PATIENCE).await
    {
        untold.push(format!("Redis ({error})"));
    }
    if let Some(settings) = &config.broker
        && let Err(error) = broker::events::announce(settings, &[FactEvent { kind, subject: subject.clone(), at }]).await
    {
        untold.push(format!("the exchange for events ({error})"));
    }
    Ok(Announced { changes, untold })
}

impl Announced {
    /// Cards, users, programs; `None` when they are too many to count.
    fn counts(&self) -> Option<[usize; 3]> {
        let count = |kind: fn(&Change) -> bool| self.changes.iter().filter(|change| kind(change)).count();
        let cards = count(|change| matches!(change, Change::Card { version: Some(_), .. }));
        let users = count(|change| matches!(change, Change::User { .. }));
        let programs = count(|change| matches!(change, Change::Program { .. }));
        (!self.changes.contains(&Change::Everything)).then_some([cards, users, programs])
    }

    /// The last lines of what is printed.
    pub(super) fn print(&self, out: &mut String) {
        let concerned = match self.counts() {
            None => "more cards than are counted".to_owned(),
            Some([_, _, programs]) if programs > 0 => "the program, and with it all its cards".to_owned(),
            Some([1, users, _]) => format!("{}1 card", if users > 0 { "the user and " } else { "" }),
            Some([cards, users, _]) => format!("{}{cards} cards", if users > 0 { "the user and " } else { "" }),
        };
        line(out, "concerns", &concerned);
        for untold in &self.untold {
            line(out, "untold", &format!("{untold}; the daemons hear of it from the store"));
        }
    }

    pub(super) fn json(&self) -> Value {
        let concerns = self.counts().map(|[cards, users, programs]| json!({"cards": cards, "users": users, "programs": programs}));
        json!({"concerns": concerns, "untold": self.untold})
    }
}

/// One fact about what is printed.
pub(super) fn line(out: &mut String, name: &str, value: &str) {
    out.push_str(format!("  {name:<9} {value}").trim_end());
    out.push('\n');
}

impl From<AdministrationError> for Error {
    fn from(error: AdministrationError) -> Self {
        let what = error.to_string();
        match error {
            AdministrationError::Unknown(name) if name.kind == "limit" => {
                Self::new(Exit::Failed, what, "jitauth limit list shows the limits of a card, user, account or program with their ids")
            }
            AdministrationError::Unknown(_) => Self::new(Exit::Failed, what, "check the token, and the store that the profile points to"),
            AdministrationError::Impossible(_) => Self::new(Exit::Failed, what, "nothing was changed"),
            AdministrationError::Busy(_) => Self::new(Exit::Unavailable, what, "nothing was changed; run the same command again"),
            AdministrationError::Store(error) => error.into(),
        }
    }
}
