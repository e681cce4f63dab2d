//! What a commit writes, and what it answers to ids it has seen.

use super::{
    draft::{Draft, response},
    fixture::Fixture,
    stage::Stage,
};
use jitauth::{
    domain::{
        decision::{Claim, Decision},
        facts::Balance,
        ids::{AccountId, LimitId},
        limits::{CounterKey, Used},
        reason::Reason,
    },
    ledger::{Commit, Known, Ledger, LedgerError, Outcome},
};

pub(crate) async fn a_group_is_written_in_every_column<F: Fixture>(stage: &mut Stage<F>) {
    // b is cut down to what limit 10 leaves after a, c fails on it, d has no card.
    let ten = CounterKey { limit: LimitId(10), scope: 1, window: 3_000 };
    let draft = stage.draft().await.approve("a", "crd_1", 1_000);
    let draft = draft.approve_of("b", "crd_1", 4_500, 4_000, Some(Claim::Amount { key: ten, need: 4_001 }));
    let draft = draft.decline("c", "crd_1", 700, Reason::AmountLimit, Some(Claim::Amount { key: ten, need: 700 })).absent("d", "crd_none");
    let mut group = draft.close();
    group.journal[1].unheard = true;
    stage.committed(&group).await;

    let versions = |at: usize| (group.journal[at].card_version, group.journal[at].program_version);
    let row = |at: usize, expected: &str| {
        let (entry, (card, program)) = (&group.journal[at], versions(at));
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let id = entry.id.as_str();
        let (digest, response) = (hex(&entry.digest), hex(&entry.response));
        let expected =
            expected.replace("$response", &response).replace("$versions", &format!("card_version={card} program_version={program}"));
        format!("authorizations id={id} digest={digest} {expected}")
    };
    let tail = "mcc=742 merchant=m-1 country=NLD channel=contactless";
    let stages = "queue_us=11 user_us=12 card_us=13 limits_us=14 decision_us=15 decided_at=3500 replays=0";
    let card = "card=crd_1 card_id=1 account_id=1 program_id=1";
    let mut expected = vec![
        row(
            0,
            &format!(
                "{card} requested=1000 amount=1000 currency=USD decision=1 reason=null response=$response $versions {tail} \
            charges=[[10,1,3000,0,1000,0,1],[11,1,1000,0,1000,0,1],[12,1,0,0,1000,0,1]] {stages} unheard=0"
            ),
        ),
        row(
            1,
            &format!(
                "{card} requested=4500 amount=4000 currency=USD decision=2 reason=null response=$response $versions {tail} \
            charges=[[10,1,3000,1000,5000,1,2],[11,1,1000,1000,5000,1,2],[12,1,0,1000,5000,1,2]] {stages} unheard=1"
            ),
        ),
        row(
            2,
            &format!(
                "{card} requested=700 amount=0 currency=USD decision=0 reason=240 response=$response $versions {tail} \
            charges=null {stages} unheard=0"
            ),
        ),
        row(
            3,
            &format!(
                "card=crd_none card_id=null account_id=null program_id=null requested=100 amount=0 currency=USD decision=0 reason=90 \
            response=$response $versions {tail} charges=null {stages} unheard=0"
            ),
        ),
    ];
    expected.extend(
        [
            "accounts token=acc_1 posted=10000 held=5000 floor=0",
            "accounts token=acc_2 posted=10000 held=0 floor=0",
            "accounts token=acc_3 posted=10000 held=0 floor=0",
            "accounts token=acc_9 posted=-30000 held=0 floor=-1000000000",
            "counters limit_id=10 scope_id=1 window_start=3000 amount=5000 count=2",
            "counters limit_id=11 scope_id=1 window_start=1000 amount=5000 count=2",
            "counters limit_id=12 scope_id=1 window_start=0 amount=5000 count=2",
            "holds authorization_id=a id=hld_a account_id=1 amount=1000 status=1 placed_at=3500",
            "holds authorization_id=b id=hld_b account_id=1 amount=4000 status=1 placed_at=3500",
        ]
        .map(str::to_owned),
    );
    let mut found = stage.dump().await;
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

/// The same decision in other bytes, as another daemon would have made it.
fn said_otherwise(mut group: Commit) -> Commit {
    for entry in &mut group.journal {
        entry.response = response(entry.id.as_str(), entry.decision, "b").into();
    }
    group
}

async fn replays<F: Fixture>(stage: &Stage<F>, id: &str) -> i64 {
    stage.number(&format!("select replays from authorizations where id = '{id}'")).await
}

fn the_only(known: Vec<Known>) -> Known {
    assert_eq!(known.len(), 1, "{known:?}");
    known.into_iter().next().unwrap()
}

async fn known<F: Fixture>(stage: &mut Stage<F>, group: &Commit) -> Known {
    match stage.ledger.commit(group, true).await {
        Ok(Outcome::Rejected(report)) => the_only(report.known),
        other => panic!("not rejected: {other:?}"),
    }
}

pub(crate) async fn a_replay_is_counted_and_gets_the_stored_bytes<F: Fixture>(stage: &mut Stage<F>) {
    let draft = stage.draft().await;
    stage.committed(&draft.clone().approve("a", "crd_1", 100).close()).await;
    let before = stage.dump().await;
    for times in 1..=2 {
        // Facts that went stale and a decision that changed do not matter: the id is known.
        stage.sql("update cards set status = 'lost' where token = 'crd_1'").await;
        let again = said_otherwise(draft.clone().decline("a", "crd_1", 100, Reason::CardLost, None).approve("z", "crd_3", 1).close());
        let known = known(stage, &again).await;
        assert_eq!((known.id.as_str(), known.digest, known.decision, known.own), ("a", again.journal[0].digest, Decision::Approved, false));
        assert_eq!(*known.response, *response("a", Decision::Approved, "a"));
        assert_eq!(replays(stage, "a").await, times);
    }
    let uncounted: Vec<_> = stage.dump().await.iter().map(|row| row.replace("replays=2", "replays=0")).collect();
    assert_eq!(uncounted, before, "only the replays changed");
}

pub(crate) async fn a_conflict_is_told_and_not_counted<F: Fixture>(stage: &mut Stage<F>) {
    let draft = stage.draft().await;
    let first = draft.clone().approve("a", "crd_1", 100).close();
    stage.committed(&first).await;
    let known = the_only(stage.rejected(&said_otherwise(draft.approve("a", "crd_1", 200).close())).await.known);
    assert_eq!((known.digest, known.own), (first.journal[0].digest, false));
    assert_eq!(*known.response, *first.journal[0].response);
}

pub(crate) async fn a_commit_that_went_through_comes_back_as_own<F: Fixture>(stage: &mut Stage<F>) {
    let group =
        stage.draft().await.approve("a", "crd_1", 100).decline("b", "crd_3", 5, Reason::MccBlocked, None).absent("c", "crd_none").close();
    stage.committed(&group).await;
    // Its facts may have changed since, and its money would not fit a second time.
    stage.sql("update accounts set posted = posted - 9900 where id = 1; update accounts set posted = posted + 9900 where id = 2").await;
    stage.sql("insert into entries (transfer, account_id, amount, posted_at) values ('m', 1, -9900, 0), ('m', 2, 9900, 0)").await;
    stage.sql("update cards set status = 'lost' where token = 'crd_1'").await;
    let report = stage.rejected(&group).await;
    let ids: Vec<_> = report.known.iter().map(|known| (known.id.as_str().to_owned(), known.own)).collect();
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(sorted, [("a".to_owned(), true), ("b".to_owned(), true), ("c".to_owned(), true)]);
}

pub(crate) async fn one_id_raced_by_two_ledgers_holds_once<F: Fixture>(stage: &mut Stage<F>) {
    for round in 0..20 {
        let id = format!("r{round}");
        // On two accounts, so that nothing but the id stands between them.
        let draft = stage.draft().await;
        let mine = draft.clone().approve(&id, "crd_2", 10).close();
        let theirs = said_otherwise(draft.approve(&id, "crd_3", 10).close());
        let (Stage { ledger, other, .. }, mut answers) = (&mut *stage, Vec::new());
        let (first, second) = tokio::join!(ledger.commit(&mine, true), other.commit(&theirs, true));
        for outcome in [first, second] {
            match outcome {
                Ok(Outcome::Committed) => answers.push(None),
                Ok(Outcome::Rejected(report)) => answers.push(Some(the_only(report.known))),
                Err(LedgerError::Contended(_) | LedgerError::Transient(_)) => answers.push(None),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(stage.number(&format!("select count(*) from holds where authorization_id = '{id}'")).await, 1);
        assert_eq!(stage.number("select sum(held) from accounts").await, (round + 1) * 10);
        let told: Vec<_> = answers.into_iter().flatten().collect();
        assert_eq!(i64::try_from(told.len()).unwrap(), replays(stage, &id).await);
    }
}

pub(crate) async fn one_bad_decision_keeps_the_whole_group_out<F: Fixture>(stage: &mut Stage<F>) {
    stage.sql("insert into limits (id, owner, owner_id, scope, period, cap_amount) values (13, 'account', 3, 'account', 'day', 50)").await;
    let good = |draft: Draft| {
        draft
            .approve("a", "crd_1", 100)
            .approve("m", "crd_2", 200)
            .decline("n", "crd_4", 5, Reason::MccBlocked, None)
            .absent("o", "crd_none")
    };
    let account = |need| Some(Claim::Account { need });
    type Spoil = fn(Draft) -> Draft;
    let cases: [(&str, &str, Spoil); 7] = [
        ("an account", "", |draft| draft.approve("z", "crd_4", 9_901)),
        ("a counter", "", |draft| draft.approve("z", "crd_3", 51)),
        ("a stale card", "update cards set status = 'lost' where id = 3", |draft| draft.approve("z", "crd_3", 1)),
        ("a stale decline", "update cards set status = 'active' where id = 3", |draft| {
            draft.decline("z", "crd_3", 1, Reason::CardLost, None)
        }),
        ("a stale program", "update programs set kyc_required = false", |draft| draft.decline("z", "crd_3", 1, Reason::KycRequired, None)),
        ("a present card", "", |draft| draft.absent("z", "crd_3")),
        ("a false claim", "", |draft| draft),
    ];
    for (what, sql, spoil) in cases {
        let draft = stage.draft().await;
        if !sql.is_empty() {
            stage.sql(sql).await;
        }
        let group = match what {
            "a false claim" => good(draft).decline("z", "crd_4", 9_900, Reason::InsufficientFunds, account(9_900)).close(),
            _ => spoil(good(draft)).close(),
        };
        let report = stage.rejected(&group).await;
        assert!(!report.is_empty(), "{what}");
    }
    let group = good(stage.draft().await).close();
    stage.committed(&group).await;
}

pub(crate) async fn a_poisoned_group_is_refused_and_its_halves_commit<F: Fixture>(stage: &mut Stage<F>) {
    let mut group = stage.draft().await.approve("a", "crd_1", 100).approve("b", "crd_3", 1).absent("c", "crd_none").close();
    group.journal[1].charges = Some("[[1,2".to_owned());
    stage.refused(&group).await;
    let draft = stage.draft().await;
    let mut culprit = draft.clone().approve("b", "crd_3", 1).close();
    culprit.journal[0].charges = Some("[[1,2".to_owned());
    stage.refused(&culprit).await;
    stage.committed(&draft.clone().approve("a", "crd_1", 100).close()).await;
    stage.committed(&draft.absent("c", "crd_none").close()).await;
}

pub(crate) async fn a_counter_that_can_count_no_further_stays<F: Fixture>(stage: &mut Stage<F>) {
    // It has no cap, so it is not a limit that says no. Whatever the store says, nothing may wrap.
    let full = i64::MAX;
    stage.sql("insert into limits (id, owner, owner_id, scope, period) values (14, 'user', 2, 'user', 'lifetime')").await;
    stage.sql(&format!("insert into counters (limit_id, scope_id, window_start, amount, count) values (14, 2, 0, {full}, 1)")).await;
    let group = stage.draft().await.approve("a", "crd_1", 100).approve("b", "crd_3", 1).close();
    let before = stage.dump().await;
    let outcome = stage.ledger.commit(&group, true).await;
    assert!(matches!(outcome, Ok(Outcome::Rejected(_)) | Err(LedgerError::Refused(_))), "{outcome:?}");
    assert_eq!(stage.dump().await, before);
    stage.sql("delete from counters where limit_id = 14").await;
}

pub(crate) async fn positions_leave_out_what_does_not_exist<F: Fixture>(stage: &mut Stage<F>) {
    let group = stage.draft().await.approve("a", "crd_1", 100).close();
    stage.committed(&group).await;
    let key = |limit, scope, window| CounterKey { limit: LimitId(limit), scope, window };
    let asked = [key(10, 1, 3_000), key(10, 1, 4_000), key(10, 2, 3_000), key(12, 1, 0), key(99, 1, 0)];
    let positions = stage.ledger.positions(&[AccountId(1), AccountId(9), AccountId(77)], &asked).await.unwrap();
    let (mut accounts, mut counters): (Vec<_>, Vec<_>) =
        (positions.accounts.into_iter().collect(), positions.counters.into_iter().collect());
    accounts.sort_by_key(|account| account.0);
    counters.sort_by_key(|counter| counter.0);
    let funding = Balance { posted: -30_000, held: 0, floor: -1_000_000_000 };
    assert_eq!(accounts, [(AccountId(1), Balance { posted: 10_000, held: 100, floor: 0 }), (AccountId(9), funding)]);
    let used = Used { amount: 100, count: 1 };
    assert_eq!(counters, [(key(10, 1, 3_000), used), (key(12, 1, 0), used)]);
    let nothing = stage.ledger.positions(&[], &[]).await.unwrap();
    assert!(nothing.accounts.is_empty() && nothing.counters.is_empty());
}
