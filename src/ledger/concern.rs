//! Whom a change concerns, by public token. Both stores run these queries.

use crate::{
    domain::ids::{CardToken, ProgramId, UserId, UserToken},
    facts::change::{Change, Subject},
};

/// More cards than this are told as [`Change::Everything`].
const CARDS_MAX: usize = 10_000;

/// The rows that a change of `subject` concerns: kind, id, token and version. Parameters: the token, and how many cards at most.
pub(super) const fn query(subject: &Subject) -> &'static str {
    match subject {
        Subject::Card(_) => "select 'card', id, token, version from cards where token = $1 limit $2",
        Subject::User(_) => {
            "select 'user', id, token, version from users where token = $1 \
             union all select * from (select 'card', c.id, c.token, c.version from users u join cards c on c.user_id = u.id \
                                       where u.token = $1 limit $2) as cards"
        }
        Subject::Account(_) => {
            "select 'card', c.id, c.token, c.version from accounts a join cards c on c.account_id = a.id where a.token = $1 limit $2"
        }
        Subject::Program(_) => "select 'program', id, token, version from programs where token = $1 limit $2",
    }
}

/// A row of [`query`].
pub(super) type Row = (String, i64, String, i64);

/// The second parameter of [`query`]: one more than are told.
pub(super) const fn limit() -> i64 {
    CARDS_MAX as i64 + 1
}

/// The first parameter of [`query`].
pub(super) fn token(subject: &Subject) -> &str {
    match subject {
        Subject::Card(token) => token.as_str(),
        Subject::User(token) => token.as_str(),
        Subject::Account(token) | Subject::Program(token) => token,
    }
}

/// What the rows mean.
pub(super) fn changes(subject: &Subject, rows: Vec<Row>) -> Vec<Change> {
    if rows.iter().filter(|row| row.0 == "card").count() > CARDS_MAX {
        return vec![Change::Everything];
    }
    match subject {
        // Somebody may remember that there is none.
        Subject::Card(token) if rows.is_empty() => vec![Change::Card { token: token.clone(), version: None }],
        // What has a token that no request can name, nobody remembers.
        _ => rows.iter().filter_map(change).collect(),
    }
}

fn change((kind, id, token, version): &Row) -> Option<Change> {
    let version = Some(*version);
    match kind.as_str() {
        "card" => CardToken::new(token).ok().map(|token| Change::Card { token, version }),
        "user" => UserToken::new(token).ok().map(|token| Change::User { id: UserId(*id), token, version }),
        _ => Some(Change::Program { id: ProgramId(*id), version }),
    }
}
