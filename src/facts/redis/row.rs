//! What stands in Redis: facts with their version, and tombstones of what has changed.
//!
//! ```text
//! 7 {"id":1,…}                     a fact in version 7
//! 7 - 1772619307112000 3           it has changed: version 7 and above may be written again; when it changed (µs, 0 for unknown),
//!                                  and the store's key, where the name of the row does not tell it (0 otherwise)
//! 6 ! 1772619307112000 3           as before, where only what is above version 6 may be written
//! ```

use crate::{
    domain::{
        facts::Card,
        ids::{CardToken, ProgramId, UserId, UserToken},
        time::Timestamp,
    },
    facts::change::{Announced, Change},
};

/// All our rows begin with this.
pub(super) const PREFIX: &str = "jit:";
/// Exists as long as nobody flushes the database.
pub(super) const EPOCH_KEY: &str = "jit:epoch";
/// When more changed than is worth telling one by one, µs.
pub(super) const EVERYTHING_KEY: &str = "jit:everything";

/// A row, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row<'a> {
    Fact { version: i64, json: &'a [u8] },
    Tombstone { version: i64, exact: bool, at: Option<Timestamp>, id: i64 },
}

impl<'a> Row<'a> {
    /// `None` is garbage.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let version = number(&bytes[..space])?;
        let rest = &bytes[space + 1..];
        match rest.first()? {
            b'{' => Some(Self::Fact { version, json: rest }),
            mark @ (b'-' | b'!') => {
                let mut words = rest.get(2..)?.split(|byte| *byte == b' ');
                let (at, id) = (number(words.next()?)?, number(words.next()?)?);
                Some(Self::Tombstone { version, exact: *mark == b'-', at: Some(Timestamp(at)).filter(|at| at.0 > 0), id })
            }
            _ => None,
        }
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Writes a fact.
pub(super) fn fact(version: i64, json: &[u8]) -> Vec<u8> {
    let mut row = version.to_string().into_bytes();
    row.push(b' ');
    row.extend_from_slice(json);
    row
}

/// What the script puts behind the version of a tombstone.
pub(super) fn rest_of_tombstone(at: Option<Timestamp>, id: i64) -> String {
    format!("{} {id}", at.map_or(0, |at| at.0.max(0)))
}

pub(super) fn card_key(token: &CardToken) -> String {
    format!("{PREFIX}card:{}", token.as_str())
}

pub(super) fn limits_key(token: &CardToken) -> String {
    format!("{PREFIX}limits:{}", token.as_str())
}

pub(super) fn user_key(token: &UserToken) -> String {
    format!("{PREFIX}user:{}", token.as_str())
}

pub(super) fn program_key(id: ProgramId) -> String {
    format!("{PREFIX}program:{}", id.0)
}

/// The keys of a card's owner and program.
pub(super) fn surroundings(card: &Card, owner: &UserToken) -> [String; 2] {
    [user_key(owner), program_key(card.program)]
}

/// The rows that a change makes stale, and the store's key that goes into their tombstones.
pub(super) fn stale(change: &Change) -> (Vec<String>, i64, Option<i64>) {
    match change {
        Change::Card { token, version } => (vec![card_key(token), limits_key(token)], 0, *version),
        Change::User { id, token, version } => (vec![user_key(token)], id.0, *version),
        Change::Program { id, version } => (vec![program_key(*id)], 0, *version),
        Change::Everything => (Vec::new(), 0, None),
    }
}

/// Whether a row that was pushed is worth reading. The limits of a card are written together with the card, and change with it.
pub(super) fn is_news(key: &str) -> bool {
    key.starts_with(PREFIX) && key != EPOCH_KEY && !key.starts_with("jit:limits:")
}

/// What a row that was pushed says now. A row that has gone says nothing: it expires by itself, and a fact does not change by that.
/// A row that cannot be read, or is garbage, says that something changed.
pub(super) fn news(key: &str, bytes: Option<&[u8]>) -> Option<Announced> {
    let bytes = bytes?;
    if key == EVERYTHING_KEY {
        return Some(Announced { change: Change::Everything, at: number(bytes).map(Timestamp) });
    }
    let (version, at, id) = match Row::read(bytes) {
        Some(Row::Fact { version, json }) => (Some(version), None, user_id(key, json)),
        Some(Row::Tombstone { version, exact: true, at, id }) => (Some(version), at, Some(id)),
        Some(Row::Tombstone { exact: false, at, id, .. }) => (None, at, Some(id)),
        None => (None, None, None),
    };
    Some(Announced { change: change(key, version, id.unwrap_or(0))?, at })
}

/// What to believe of a row that was pushed and cannot be read.
pub(super) fn unread(key: &str) -> Option<Announced> {
    if key == EVERYTHING_KEY {
        return Some(Announced { change: Change::Everything, at: None });
    }
    Some(Announced { change: change(key, None, 0)?, at: None })
}

fn change(key: &str, version: Option<i64>, id: i64) -> Option<Change> {
    let (kind, name) = key.strip_prefix(PREFIX)?.split_once(':')?;
    Some(match kind {
        "card" => Change::Card { token: CardToken::new(name).ok()?, version },
        "user" => Change::User { id: UserId(id), token: UserToken::new(name).ok()?, version },
        "program" => Change::Program { id: ProgramId(name.parse().ok()?), version },
        _ => return None,
    })
}

/// A user's row tells its key in the store; those of others do not need to.
fn user_id(key: &str, json: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: i64,
    }
    if !key.starts_with("jit:user:") {
        return None;
    }
    serde_json::from_slice::<Id>(json).ok().map(|user| user.id)
}
