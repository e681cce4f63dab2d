//! Whoever listens hears of every change of a fact, by whatever means it was made.

use super::{fixture::Fixture, stage::Stage};
use jitauth::{
    domain::{
        facts::CardFile,
        ids::{CardToken, ProgramId, UserId, UserToken},
        time::Timestamp,
    },
    facts::change::{Announced, Change, ChangeFeed, FactStore, Heard, Subject},
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRng, TestRunner},
};
use std::{collections::HashMap, time::Duration};
use tokio::time::timeout;

/// A hundred times what a change takes to be heard, and more.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whoever listens.
pub(crate) struct Ear<S: FactStore> {
    feed: S::Feed,
}

impl<S: FactStore> Ear<S> {
    pub(crate) async fn new(store: &S) -> Self {
        let mut ear = Self { feed: store.feed() };
        assert_eq!(ear.next().await, Heard::Listening);
        ear
    }

    pub(crate) async fn next(&mut self) -> Heard {
        timeout(PATIENCE, self.feed.next()).await.expect("nothing is heard")
    }

    /// What is heard until `last` is, it included.
    pub(crate) async fn until(&mut self, last: impl Fn(&Announced) -> bool) -> Vec<Announced> {
        let mut heard = Vec::new();
        loop {
            match self.next().await {
                Heard::Changes(changes) => heard.extend(changes),
                other => panic!("{other:?} after {heard:?}"),
            }
            if heard.iter().any(&last) {
                return heard;
            }
        }
    }
}

pub(crate) fn card(token: &str, version: Option<i64>) -> Change {
    Change::Card { token: CardToken::new(token).unwrap(), version }
}

pub(crate) fn user(id: i64, token: &str, version: Option<i64>) -> Change {
    Change::User { id: UserId(id), token: UserToken::new(token).unwrap(), version }
}

pub(crate) fn program(id: i64, version: Option<i64>) -> Change {
    Change::Program { id: ProgramId(id), version }
}

fn now() -> Timestamp {
    Timestamp(std::time::UNIX_EPOCH.elapsed().unwrap().as_micros().try_into().unwrap())
}

impl<F: Fixture> Stage<F> {
    /// The changes that telling of these cards, users and programs comes to, with their versions of now, in no order.
    async fn as_it_is(&self, cards: &[&str], users: &[i64], programs: &[i64]) -> Vec<Change> {
        let mut changes = Vec::new();
        for token in cards {
            changes.push(card(token, Some(self.number(&format!("select version from cards where token = '{token}'")).await)));
        }
        for id in users {
            let version = self.number(&format!("select version from users where id = {id}")).await;
            let token = self.fixture.rows(&format!("select token from users where id = {id}")).await;
            changes.push(user(*id, &token[0], Some(version)));
        }
        for id in programs {
            changes.push(program(*id, Some(self.number(&format!("select version from programs where id = {id}")).await)));
        }
        changes
    }
}

pub(crate) async fn every_kind_of_change_is_heard_with_its_version<F: Fixture>(stage: &mut Stage<F>) {
    let mut ear = Ear::new(&stage.fixture.facts()).await;
    let new_card = "insert into cards (id, token, user_id, account_id, program_id, expires_at) values";
    let new_limit = "insert into limits (id, owner, owner_id, scope, period, cap_amount) values";
    let none: (&[&str], &[i64], &[i64]) = (&[], &[], &[]);
    for (change, (cards, users, programs)) in [
        ("update cards set status = 'inactive' where token = 'crd_1'", (&["crd_1"][..], none.1, none.2)),
        ("update cards set expires_at = expires_at + 1 where id in (2, 3)", (&["crd_2", "crd_3"], none.1, none.2)),
        (&format!("{new_card} (5, 'crd_5', 1, 1, 1, 5)"), (&["crd_5"], none.1, none.2)),
        ("update users set status = 'suspended' where id = 2", (&["crd_3", "crd_4"], &[2], none.2)),
        ("update accounts set status = 'closed' where id = 1", (&["crd_1", "crd_4", "crd_5"], none.1, none.2)),
        (&format!("{new_limit} (20, 'card', 2, 'card', 'day', 1)"), (&["crd_2"], none.1, none.2)),
        (&format!("{new_limit} (21, 'user', 2, 'user', 'day', 1)"), (&["crd_3", "crd_4"], none.1, none.2)),
        (&format!("{new_limit} (22, 'account', 3, 'card', 'day', 1)"), (&["crd_3"], none.1, none.2)),
        (&format!("{new_limit} (23, 'program', 1, 'card', 'day', 1)"), (none.0, none.1, &[1])),
        ("update limits set cap_amount = 2 where id = 20", (&["crd_2"], none.1, none.2)),
        ("update limits set owner_id = 1 where id = 20", (&["crd_1", "crd_2"], none.1, none.2)),
        ("delete from limits where id = 21", (&["crd_3", "crd_4"], none.1, none.2)),
        ("delete from limits where id = 23", (none.0, none.1, &[1])),
        ("update programs set partial_approval = false where id = 1", (none.0, none.1, &[1])),
        ("insert into users (id, token, program_id) values (3, 'usr_3', 1)", (none.0, &[3], none.2)),
        (
            "insert into programs (id, token, kind, currency, time_zone) values (2, 'prg_2', 'personal', 'USD', 'UTC')",
            (none.0, none.1, &[2]),
        ),
    ] {
        let before = now();
        stage.sql(change).await;
        let after = now();
        let mut expected = stage.as_it_is(cards, users, programs).await;
        let mut heard = Vec::new();
        while !expected.iter().all(|expected| heard.iter().any(|it: &Announced| it.change == *expected)) {
            heard.extend(ear.until(|_| true).await);
        }
        for told in &heard {
            assert!(expected.contains(&told.change), "{change}: {:?} was told, and {expected:?} changed", told.change);
            // One store says it to the millisecond.
            assert!(told.at.is_none_or(|at| (before.0 - 2_000..=after.0 + 2_000).contains(&at.0)), "{change}: {told:?} after {before:?}");
        }
        assert!(heard.iter().any(|told| told.at.is_some()), "{change}: nobody says when");
        expected.retain(|expected| heard.iter().filter(|told| told.change == *expected).count() != 1);
        assert_eq!(expected, [], "{change}: told more than once");
    }
}

pub(crate) async fn what_is_gone_is_heard<F: Fixture>(stage: &mut Stage<F>) {
    stage
        .sql(
            "insert into programs (id, token, kind, currency, time_zone) values (2, 'prg_2', 'personal', 'USD', 'UTC');
             insert into users (id, token, program_id) values (3, 'usr_3', 2)",
        )
        .await;
    let version = async |stage: &Stage<F>, table: &str, token: &str| {
        stage.number(&format!("select version from {table} where token = '{token}'")).await
    };
    let (first, third) = (version(stage, "cards", "crd_1").await, version(stage, "cards", "crd_3").await);
    let mut ear = Ear::new(&stage.fixture.facts()).await;

    stage.sql("delete from cards where id = 1").await;
    let heard = ear.until(|_| true).await;
    assert!(
        matches!(&heard[..], [Announced { change: Change::Card { token, version: Some(version) }, .. }]
        if token.as_str() == "crd_1" && *version > first),
        "{heard:?}"
    );

    // The old token as well as the new one.
    stage.sql("update cards set token = 'crd_33' where id = 3").await;
    let renamed = version(stage, "cards", "crd_33").await;
    let heard = ear.until(|told| matches!(&told.change, Change::Card { token, .. } if token.as_str() == "crd_3")).await;
    assert!(heard.iter().any(|told| told.change == card("crd_33", Some(renamed))), "{heard:?}");
    assert!(
        heard.iter().any(|told| matches!(&told.change, Change::Card { token, version: Some(version) }
        if token.as_str() == "crd_3" && *version > third)),
        "{heard:?}"
    );

    // The user is still there under the id: no version is told that would make the user of now look old.
    stage.sql("update users set token = 'usr_33' where id = 3").await;
    let now = version(stage, "users", "usr_33").await;
    let heard = ear.until(|told| matches!(&told.change, Change::User { token, .. } if token.as_str() == "usr_3")).await;
    assert!(heard.iter().any(|told| told.change == user(3, "usr_33", Some(now))), "{heard:?}");
    for told in &heard {
        assert!(
            matches!(&told.change, Change::User { id: UserId(3), version, .. } if version.is_none_or(|version| version <= now)),
            "{told:?}"
        );
    }

    stage.sql("delete from users where id = 3").await;
    let heard = ear.until(|_| true).await;
    assert!(
        matches!(&heard[..], [Announced { change: Change::User { id: UserId(3), version: Some(version), .. }, .. }] if *version > now),
        "{heard:?}"
    );
    let now = version(stage, "programs", "prg_2").await;
    stage.sql("delete from programs where id = 2").await;
    let heard = ear.until(|_| true).await;
    assert!(
        matches!(&heard[..], [Announced { change: Change::Program { id: ProgramId(2), version: Some(version) }, .. }] if *version > now),
        "{heard:?}"
    );
}

/// SQL that inserts cards `first..first + count` for user 1.
fn cards(first: i64, count: i64) -> String {
    let rows: Vec<_> = (first..first + count).map(|id| format!("({id}, 'crd_{id}', 1, 1, 1, 4000000000000000)")).collect();
    format!("insert into cards (id, token, user_id, account_id, program_id, expires_at) values {}", rows.join(", "))
}

pub(crate) async fn many_changes_are_heard_as_everything<F: Fixture>(stage: &mut Stage<F>) {
    let mut ear = Ear::new(&stage.fixture.facts()).await;
    let everything = |told: &Announced| told.change == Change::Everything;
    stage.sql(&cards(1_001, 100)).await;
    let mut heard = Vec::new();
    while heard.len() < 100 {
        heard.extend(ear.until(|_| true).await);
    }
    assert!(heard.len() == 100 && !heard.iter().any(everything), "a hundred are told one by one: {heard:?}");
    // New ones make nothing stale, so that a store need not tell of so many.
    stage.sql(&cards(2_001, 101)).await;
    for (change, what) in [
        ("update users set kyc = 'pending' where id = 1".to_owned(), "a user with many cards"),
        ("update accounts set status = 'closed' where id = 1".to_owned(), "an account with many cards"),
        ("delete from cards where id >= 2001".to_owned(), "101 cards deleted"),
    ] {
        stage.sql(&change).await;
        ear.until(everything).await;
        // Whatever else is told of the same change.
        stage.sql("update programs set partial_approval = not partial_approval where id = 1").await;
        let [marker] = &stage.as_it_is(&[], &[], &[1]).await[..] else { unreachable!() };
        let heard = ear.until(|told| told.change == *marker).await;
        assert!(heard.len() <= 2, "{what}: {heard:?} besides everything");
    }
}

/// A change by plain SQL, from numbers.
fn random_change(kind: u8, a: i64, b: i64) -> String {
    let (id, other) = (1 + a % 6, 1 + b % 3);
    let (user, status) = (1 + a % 2, ["active", "inactive", "lost"][usize::try_from(b % 3).unwrap()]);
    let owner = ["card", "user", "account", "program"][usize::try_from(b % 4).unwrap()];
    match kind % 12 {
        0 => format!("update cards set status = '{status}' where id = {id}"),
        1 => format!("update cards set account_id = {other} where id <= {id}"),
        2 => format!("update cards set user_id = {user}, expires_at = {b} where id = {id}"),
        3 => format!("update cards set token = 'crd_{id}_{}' where id = {id}", b % 2),
        4 => format!("delete from cards where id = {id}"),
        5 => format!(
            "insert into cards (id, token, user_id, account_id, program_id, expires_at) values ({id}, 'crd_{id}_{}', {user}, {other}, 1, {b})
             on conflict (id) do update set token = excluded.token, controls = '{{\"mccs\":{{\"except\":[\"{:04}\"]}}}}'",
            b % 2,
            b % 1000
        ),
        6 => format!("update users set status = case status when 'active' then 'suspended' else 'active' end where id = {user}"),
        7 => format!("update accounts set status = case status when 'open' then 'closed' else 'open' end where id = {other}"),
        8 => format!(
            "insert into limits (id, owner, owner_id, scope, period, cap_amount) values ({}, '{owner}', {}, 'card', 'day', {b})
             on conflict (id) do update set cap_amount = excluded.cap_amount, owner_id = excluded.owner_id",
            100 + id,
            if owner == "program" { 1 } else { other }
        ),
        9 => format!("delete from limits where id = {}", 100 + id),
        10 => "update programs set kyc_required = not kyc_required where id = 1".to_owned(),
        _ => format!("begin; update cards set status = 'lost' where id = {id}; delete from cards where id = {other}; rollback"),
    }
}

/// What somebody who asked once believes, until told that it is not so any more.
struct Believer {
    cards: HashMap<String, Option<String>>,
    program: Option<String>,
}

impl Believer {
    const TOKENS: usize = 24;

    /// Every token that the random changes can make.
    fn tokens() -> impl Iterator<Item = String> {
        (1..=6).flat_map(|id| [format!("crd_{id}"), format!("crd_{id}_0"), format!("crd_{id}_1"), format!("crd_{id}_2")])
    }

    fn hear(&mut self, heard: &[Announced]) {
        for told in heard {
            match &told.change {
                Change::Card { token, .. } => drop(self.cards.remove(token.as_str())),
                Change::Program { id: ProgramId(1), .. } => self.program = None,
                Change::Everything => (self.cards.clear(), self.program = None).1,
                Change::User { .. } | Change::Program { .. } => {}
            }
        }
    }

    /// Compares what is still believed with what is, and asks for the rest. Says how much was believed.
    async fn look<F: Fixture>(&mut self, stage: &Stage<F>, changes: &str) -> usize {
        let believed = self.cards.len();
        for token in Self::tokens() {
            let file = stage.file(&token).await;
            let card = file.as_ref().map(|CardFile { card, user, .. }| format!("{card:?} {user:?}"));
            if let Some(believed) = self.cards.get(&token) {
                assert_eq!(*believed, card, "nobody was told that {token} has changed, by one of {changes}");
            }
            self.cards.insert(token, card);
            if let Some(file) = file {
                let program = format!("{:?}", file.program);
                let believed = self.program.get_or_insert_with(|| program.clone());
                assert_eq!(*believed, program, "nobody was told that the program has changed, by one of {changes}");
            }
        }
        believed
    }
}

pub(crate) async fn no_change_goes_unheard<F: Fixture>(stage: &mut Stage<F>) {
    stage.sql("insert into programs (id, token, kind, currency, time_zone) values (9, 'prg_9', 'personal', 'USD', 'UTC')").await;
    let mut ear = Ear::new(&stage.fixture.facts()).await;
    let mut believer = Believer { cards: HashMap::new(), program: None };
    believer.look(stage, "").await;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(Default::default(), &[7; 32]));
    let step = (any::<u8>(), 0..1_000_i64, 0..1_000_i64).prop_map(|(kind, a, b)| random_change(kind, a, b));
    let batches = prop::collection::vec(step, 1..5);
    let mut kept = 0;
    for _ in 0..60 {
        let changes = batches.new_tree(&mut runner).unwrap().current();
        for change in &changes {
            // Some break a constraint, and change nothing by that.
            drop(stage.fixture.try_sql(change).await);
        }
        // What was changed before this is told before it.
        stage.sql("update programs set partial_approval = not partial_approval where id = 9").await;
        let [marker] = &stage.as_it_is(&[], &[], &[9]).await[..] else { unreachable!() };
        believer.hear(&ear.until(|told| told.change == *marker).await);
        kept += believer.look(stage, &changes.join("; ")).await;
    }
    // Told of everything, one would believe nothing, and be right.
    assert!(kept > 60 * Believer::TOKENS / 2, "only {kept} beliefs outlived the changes of others");
}

pub(crate) async fn a_subject_concerns_its_cards<F: Fixture>(stage: &mut Stage<F>) {
    let token = |token: &str| CardToken::new(token).unwrap();
    let user_token = |token: &str| UserToken::new(token).unwrap();
    for (subject, cards, users, programs) in [
        (Subject::Card(token("crd_2")), &["crd_2"][..], &[][..], &[][..]),
        (Subject::User(user_token("usr_1")), &["crd_1", "crd_2"], &[1], &[]),
        (Subject::Account("acc_1".to_owned()), &["crd_1", "crd_4"], &[], &[]),
        (Subject::Account("acc_9".to_owned()), &[], &[], &[]),
        (Subject::Program("prg_1".to_owned()), &[], &[], &[1]),
        (Subject::User(user_token("usr_none")), &[], &[], &[]),
        (Subject::Account("acc_none".to_owned()), &[], &[], &[]),
        (Subject::Program("prg_none".to_owned()), &[], &[], &[]),
    ] {
        let mut concerned = stage.fixture.facts().concerned(&subject).await.unwrap();
        let expected = stage.as_it_is(cards, users, programs).await;
        assert_eq!(concerned.len(), expected.len(), "{subject:?}: {concerned:?}");
        concerned.retain(|change| !expected.contains(change));
        assert_eq!(concerned, [], "{subject:?}");
    }
    let unknown = stage.fixture.facts().concerned(&Subject::Card(token("crd_none"))).await.unwrap();
    assert_eq!(unknown, [card("crd_none", None)], "somebody may remember that there is none");
}
