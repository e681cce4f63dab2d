//! Cards and users: what they are, and turning them off and on.

use super::{Administration, AdministrationError, Name, Session, Value, limits};
use crate::domain::{
    ids::{CardToken, UserToken},
    time::Timestamp,
};

/// What an order made of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The status before.
    pub was: String,
    /// The status now.
    pub is: String,
    /// The version now.
    pub version: i64,
}

impl Turned {
    /// Whether anything was changed.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.was != self.is
    }
}

/// Everything about a card that a person asks for, but its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are columns of the store; amounts are minor units")]
pub struct CardRecord {
    pub token: String,
    pub status: String,
    pub version: i64,
    pub expires: Timestamp,
    /// JSON, as the store has it.
    pub controls: String,
    pub user: UserRecord,
    pub account: String,
    pub account_status: String,
    pub currency: String,
    pub posted: i64,
    pub held: i64,
    pub floor: i64,
    pub program: String,
    /// What limits of the card are looked for under.
    pub owner: limits::Owner,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are columns of the store")]
pub struct UserRecord {
    pub token: String,
    pub status: String,
    pub kyc: String,
    pub version: i64,
}

const CARD: &str = "\
select c.status, cast(c.version as text), cast(c.expires_at as text), c.controls, u.token, u.status, u.kyc, cast(u.version as text), \
       a.token, a.status, a.currency, cast(a.posted as text), cast(a.held as text), cast(a.floor as text), p.token \
  from cards c join users u on u.id = c.user_id join accounts a on a.id = c.account_id join programs p on p.id = c.program_id \
 where c.token = $1";

/// Looks a card up.
///
/// # Errors
/// [`AdministrationError::Unknown`] when there is none, otherwise as [`Administration::begin`].
pub async fn card(store: &impl Administration, token: &CardToken) -> Result<CardRecord, AdministrationError> {
    let mut session = store.begin().await?;
    let subject = crate::facts::change::Subject::Card(token.clone());
    let rows = session.rows(CARD.to_owned(), &[Value::Text(token.as_str())]).await?;
    let row = rows.first().ok_or_else(|| AdministrationError::Unknown((&subject).into()))?;
    let owner = limits::owner_in(&mut session, &subject).await?;
    Ok(CardRecord {
        token: token.as_str().to_owned(),
        status: row.text(0)?,
        version: row.number(1)?,
        expires: Timestamp(row.number(2)?),
        controls: row.text(3)?,
        user: UserRecord { token: row.text(4)?, status: row.text(5)?, kyc: row.text(6)?, version: row.number(7)? },
        account: row.text(8)?,
        account_status: row.text(9)?,
        currency: row.text(10)?,
        posted: row.number(11)?,
        held: row.number(12)?,
        floor: row.number(13)?,
        program: row.text(14)?,
        owner,
    })
}

/// Makes an active card inactive. One that cannot be used anyway stays as it is.
///
/// # Errors
/// [`AdministrationError`]; nothing was changed then.
pub async fn freeze(store: &impl Administration, token: &CardToken) -> Result<Turned, AdministrationError> {
    turn(store, "card", token.as_str(), Turn { table: "cards", from: "active", to: "inactive", never: &[] }).await
}

/// Makes an inactive card active.
///
/// # Errors
/// [`AdministrationError::Impossible`] for a card that was reported lost or stolen; nothing was changed after any error.
pub async fn unfreeze(store: &impl Administration, token: &CardToken) -> Result<Turned, AdministrationError> {
    let never = &[("lost", "was reported lost"), ("stolen", "was reported stolen")];
    turn(store, "card", token.as_str(), Turn { table: "cards", from: "inactive", to: "active", never }).await
}

/// Suspends an active user, and with that all cards of the user. One who is closed stays so.
///
/// # Errors
/// [`AdministrationError`]; nothing was changed then.
pub async fn suspend(store: &impl Administration, token: &UserToken) -> Result<Turned, AdministrationError> {
    turn(store, "user", token.as_str(), Turn { table: "users", from: "active", to: "suspended", never: &[] }).await
}

/// Makes a suspended user active.
///
/// # Errors
/// [`AdministrationError::Impossible`] for a user who is closed; nothing was changed after any error.
pub async fn activate(store: &impl Administration, token: &UserToken) -> Result<Turned, AdministrationError> {
    let never = &[("closed", "is closed")];
    turn(store, "user", token.as_str(), Turn { table: "users", from: "suspended", to: "active", never }).await
}

/// A step from one status to another.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    table: &'static str,
    from: &'static str,
    to: &'static str,
    /// Statuses from which there is no such step, and what they mean.
    never: &'static [(&'static str, &'static str)],
}

async fn turn(store: &impl Administration, kind: &'static str, token: &str, turn: Turn) -> Result<Turned, AdministrationError> {
    let mut session = store.begin().await?;
    let turned = turn_in(&mut session, kind, token, turn).await?;
    session.commit().await?;
    Ok(turned)
}

async fn turn_in<S: Session>(session: &mut S, kind: &'static str, token: &str, turn: Turn) -> Result<Turned, AdministrationError> {
    let Turn { table, from, to, never } = turn;
    let sql = format!("select status, cast(version as text) from {table} where token = $1{}", S::LOCKING);
    let rows = session.rows(sql, &[Value::Text(token)]).await?;
    let name = Name { kind, token: token.to_owned() };
    let Some(row) = rows.first() else { return Err(AdministrationError::Unknown(name)) };
    let was = row.text(0)?;
    if let Some((_, meaning)) = never.iter().find(|(status, _)| *status == was) {
        return Err(AdministrationError::Impossible(format!("{name} {meaning}, and stays so")));
    }
    if was != from {
        return Ok(Turned { is: was.clone(), was, version: row.number(1)? });
    }
    session.rows(format!("update {table} set status = $2 where token = $1"), &[Value::Text(token), Value::Text(to)]).await?;
    // Asked for afterwards: on SQLite the version is given by a trigger that runs after the statement.
    let version = session.rows(format!("select cast(version as text) from {table} where token = $1"), &[Value::Text(token)]).await?;
    let version = version.first().ok_or(AdministrationError::Unknown(name))?.number(0)?;
    Ok(Turned { was, is: to.to_owned(), version })
}
