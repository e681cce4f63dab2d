//! What stands in a row and what is made of it. The scripts are tested on a real server, in `tests/it/fills_cannot_resurrect.rs`.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use super::row::{Row, card_key, fact, is_news, limits_key, news, program_key, rest_of_tombstone, stale, unread, user_key};
use crate::{
    domain::{
        ids::{CardToken, ProgramId, UserId, UserToken},
        time::Timestamp,
    },
    facts::{
        change::{Announced, Change},
        document::{CardDocument, CardFacts, LimitSet, LimitSetFacts, OwnedCard, ProgramFacts, UserFacts},
        sample::file,
    },
};

const AT: Timestamp = Timestamp(1_772_619_307_112_000);

fn tombstone(version: i64, exact: bool, at: Option<Timestamp>, id: i64) -> Row<'static> {
    Row::Tombstone { version, exact, at, id }
}

#[test]
fn rows_are_read_as_they_are_written_and_garbage_is_known() {
    let written = fact(7, br#"{"id":1}"#);
    assert_eq!(Row::read(&written), Some(Row::Fact { version: 7, json: br#"{"id":1}"# }));
    for (row, expected) in [
        (format!("7 - {}", rest_of_tombstone(Some(AT), 3)), Some(tombstone(7, true, Some(AT), 3))),
        (format!("9007199254740991 ! {}", rest_of_tombstone(None, 0)), Some(tombstone(9_007_199_254_740_991, false, None, 0))),
        (String::new(), None),
        ("{}".to_owned(), None),
        ("7".to_owned(), None),
        ("7 ".to_owned(), None),
        ("7 x".to_owned(), None),
        ("x {}".to_owned(), None),
        ("-7 {}".to_owned(), None),
        (" {}".to_owned(), None),
        ("99999999999999999999 {}".to_owned(), None),
        ("7 -".to_owned(), None),
        ("7 - 12".to_owned(), None),
        ("7 - x 3".to_owned(), None),
    ] {
        assert_eq!(Row::read(row.as_bytes()), expected, "{row:?}");
    }
}

#[test]
fn a_push_says_what_its_row_says() {
    let (token, user) = (CardToken::new("crd:1").unwrap(), UserToken::new("usr_1").unwrap());
    let card = |version| Change::Card { token: token.clone(), version };
    let person = |id, version| Change::User { id: UserId(id), token: user.clone(), version };
    let (card_row, user_row, program_row) = (card_key(&token), user_key(&user), program_key(ProgramId(4)));
    for (key, row, expected) in [
        (&*card_row, Some(r#"7 {"id":1}"#.to_owned()), Some((card(Some(7)), None))),
        (&*card_row, Some(format!("8 - {} 0", AT.0)), Some((card(Some(8)), Some(AT)))),
        // Only what is above 6 is current, and nobody can tell by how much.
        (&*card_row, Some(format!("6 ! {} 0", AT.0)), Some((card(None), Some(AT)))),
        (&*card_row, Some("garbage".to_owned()), Some((card(None), None))),
        (&*card_row, None, None),
        (&*user_row, Some(r#"7 {"id":3,"token":"usr_1"}"#.to_owned()), Some((person(3, Some(7)), None))),
        (&*user_row, Some(format!("8 - {} 3", AT.0)), Some((person(3, Some(8)), Some(AT)))),
        (&*program_row, Some("8 - 0 0".to_owned()), Some((Change::Program { id: ProgramId(4), version: Some(8) }, None))),
        ("jit:everything", Some(AT.0.to_string()), Some((Change::Everything, Some(AT)))),
        ("jit:card:", Some("8 - 0 0".to_owned()), None),
        ("jit:other:1", Some("8 - 0 0".to_owned()), None),
    ] {
        let expected = expected.map(|(change, at)| Announced { change, at });
        assert_eq!(news(key, row.as_deref().map(str::as_bytes)), expected, "{key} {row:?}");
    }
    assert_eq!(unread(&card_row), Some(Announced { change: card(None), at: None }));
    for (key, expected) in [(&*card_row, true), (&*limits_key(&token), false), ("jit:epoch", false), ("jit:everything", true), ("x", false)]
    {
        assert_eq!(is_news(key), expected, "{key}");
    }
}

#[test]
fn a_change_makes_its_own_rows_stale() {
    let (token, user) = (CardToken::new("crd_1").unwrap(), UserToken::new("usr_1").unwrap());
    for (change, keys, id, version) in [
        (Change::Card { token, version: Some(7) }, vec!["jit:card:crd_1", "jit:limits:crd_1"], 0, Some(7)),
        (Change::User { id: UserId(3), token: user, version: None }, vec!["jit:user:usr_1"], 3, None),
        (Change::Program { id: ProgramId(4), version: Some(9) }, vec!["jit:program:4"], 0, Some(9)),
        (Change::Everything, vec![], 0, None),
    ] {
        assert_eq!(stale(&change), (keys.into_iter().map(str::to_owned).collect(), id, version), "{change:?}");
    }
}

#[test]
fn a_card_takes_the_limits_of_its_own_version_only() {
    let (card, other) = (file(1, 7), file(1, 8));
    let parts = |limits| {
        let owned = OwnedCard::try_from(CardFacts::from(&card)).unwrap();
        assert_eq!(owned.owner, card.user.token);
        owned.with(LimitSet::try_from(limits).unwrap())
    };
    assert_eq!(parts(LimitSetFacts::from(&*card.card)).as_ref(), Some(&*card.card));
    assert_eq!(parts(LimitSetFacts::from(&*other.card)), None);
    for (limits, whole) in [(&card, true), (&other, false)] {
        let document = CardDocument {
            card: CardFacts::from(&card),
            user: UserFacts::from(&*card.user),
            limits: LimitSetFacts::from(&*limits.card),
            program: ProgramFacts::from(&*card.program),
        };
        let read = CardDocument::parse(&serde_json::to_vec(&document).unwrap());
        assert_eq!(read.is_ok(), whole, "{read:?}");
    }
}
