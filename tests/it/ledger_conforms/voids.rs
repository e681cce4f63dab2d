//! Taking approvals back, and the replays that stand in the way.

use super::{draft::response, fixture::Fixture, stage::Stage};
use jitauth::{
    domain::{decision::Decision, limits::CounterKey, reason::Reason},
    ledger::{Commit, Ledger, LedgerError, Outcome, Void, Voided},
};

/// The void of the only approval in `group`.
fn void(group: &Commit) -> Void {
    let entry = &group.journal[0];
    Void {
        id: entry.id.clone(),
        account: entry.account.unwrap(),
        held: entry.held,
        counters: group.counters.iter().map(|delta| delta.key).collect(),
        response: entry.response.clone(),
        decline: response(entry.id.as_str(), Decision::Declined, "late").into(),
        reason: Reason::DeadlineExceeded,
    }
}

/// The same request as another daemon would hand it in.
async fn replay<F: Fixture>(stage: &mut Stage<F>, group: &Commit) -> Vec<u8> {
    let mut group = group.clone();
    group.journal[0].response = response(group.journal[0].id.as_str(), Decision::Approved, "b").into();
    match stage.other.commit(&group, true).await {
        Ok(Outcome::Rejected(report)) => report.known[0].response.to_vec(),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_void_frees_the_money_and_stores_the_decline<F: Fixture>(stage: &mut Stage<F>) {
    let kept = stage.draft().await.approve("k", "crd_1", 300).close();
    stage.committed(&kept).await;
    let empty = stage.dump().await;
    let mut group = stage.draft().await.approve("a", "crd_1", 100).close();
    group.journal[0].unheard = true;
    stage.committed(&group).await;
    let void = void(&group);
    assert!(matches!(stage.ledger.void(&void).await, Ok(Voided::Done)));
    let after = stage.dump().await;
    let hex: String = void.decline.iter().map(|byte| format!("{byte:02x}")).collect();
    let journal = after.iter().find(|row| row.starts_with("authorizations id=a ")).unwrap();
    for part in ["requested=100 amount=0 ", "decision=0 reason=80 ", &format!("response={hex} "), "charges=null ", "replays=0 unheard=0"] {
        assert!(journal.contains(part), "{part} in {journal}");
    }
    assert!(after.contains(&"holds authorization_id=a id=hld_a account_id=1 amount=100 status=3 placed_at=3500".to_owned()));
    let rest: Vec<_> = after.iter().filter(|row| !row.contains("id=a ")).cloned().collect();
    assert_eq!(rest, empty, "nothing else remains of it");

    for ledger in [&mut stage.ledger, &mut stage.other] {
        assert!(matches!(ledger.void(&void).await, Ok(Voided::Done)), "sending it again is safe");
    }
    assert_eq!(stage.dump().await, after);
    assert_eq!(replay(stage, &group).await, *void.decline, "a replay reads the decline");
    assert_eq!(stage.number("select replays from authorizations where id = 'a'").await, 1);
    assert!(matches!(stage.ledger.void(&void).await, Ok(Voided::Done)), "also after that");
}

pub(crate) async fn a_void_after_a_replay_stands<F: Fixture>(stage: &mut Stage<F>) {
    let group = stage.draft().await.approve("a", "crd_1", 100).close();
    stage.committed(&group).await;
    assert_eq!(replay(stage, &group).await, *group.journal[0].response);
    let before = stage.dump().await;
    match stage.ledger.void(&void(&group)).await {
        Ok(Voided::Stands(bytes)) => assert_eq!(*bytes, *group.journal[0].response),
        other => panic!("{other:?}"),
    }
    let after: Vec<_> = stage.dump().await.iter().map(|row| row.replace("replays=2", "replays=1")).collect();
    assert_eq!(after, before, "nothing but the count of replays changed");
    assert_eq!(stage.number("select replays from authorizations").await, 2, "the bytes were read to be sent");
}

pub(crate) async fn a_void_and_a_replay_race_to_one_answer<F: Fixture>(stage: &mut Stage<F>) {
    let (mut voided, mut stood) = (0, 0);
    for round in 0..30 {
        let group = stage.draft().await.approve(&format!("r{round}"), "crd_3", 1).close();
        stage.committed(&group).await;
        let mut again = group.clone();
        again.journal[0].response = response(group.journal[0].id.as_str(), Decision::Approved, "b").into();
        let void = void(&group);
        let Stage { ledger, other, .. } = &mut *stage;
        let (void_first, replay_first) = (ledger.void(&void), other.commit(&again, true));
        let (done, told) = if round % 2 == 0 {
            tokio::join!(void_first, replay_first)
        } else {
            let (told, done) = tokio::join!(replay_first, void_first);
            (done, told)
        };
        let Ok(Outcome::Rejected(report)) = told else { panic!("{told:?}") };
        match done.unwrap() {
            Voided::Done => {
                assert_eq!(*report.known[0].response, *void.decline, "round {round}: voided, but the approval was sent");
                voided += 1;
            }
            Voided::Stands(bytes) => {
                assert_eq!(*bytes, *void.response);
                assert_eq!(*report.known[0].response, *void.response);
                stood += 1;
            }
        }
    }
    assert_eq!(voided + stood, 30);
    assert_eq!(stage.number("select held from accounts where id = 3").await, stood);
}

pub(crate) async fn a_void_of_something_else_is_refused<F: Fixture>(stage: &mut Stage<F>) {
    let group = stage.draft().await.approve("a", "crd_1", 100).close();
    stage.committed(&group).await;
    let before = stage.dump().await;
    let unknown = Void { id: jitauth::domain::ids::RequestId::new("never").unwrap(), ..void(&group) };
    assert!(matches!(stage.ledger.void(&unknown).await, Err(LedgerError::Refused(_))));
    assert_eq!(stage.dump().await, before);
}

pub(crate) async fn an_unheard_approval_is_listed_until_it_is_void<F: Fixture>(stage: &mut Stage<F>) {
    let group = stage.draft().await.approve("a", "crd_1", 100).close();
    stage.committed(&group).await;
    let declined = stage.draft().await.decline("d", "crd_1", 100, Reason::MccBlocked, None).close();
    stage.committed(&declined).await;
    let listed = "select id from authorizations where unheard order by id";
    for id in ["a", "a", "d", "never"] {
        stage.ledger.mark_unheard(&jitauth::domain::ids::RequestId::new(id).unwrap()).await.unwrap();
    }
    assert_eq!(stage.fixture.rows(listed).await, ["a"]);
    // Limits may be gone by then; the counters they had are given back all the same.
    let void = void(&group);
    assert_eq!(void.counters.len(), 3);
    assert!(void.counters.iter().any(|key: &CounterKey| key.limit.0 == 10));
    stage.sql("delete from limits where id = 10").await;
    assert!(matches!(stage.ledger.void(&void).await, Ok(Voided::Done)));
    stage.ledger.mark_unheard(&void.id).await.unwrap();
    assert!(stage.fixture.rows(listed).await.is_empty());
}
