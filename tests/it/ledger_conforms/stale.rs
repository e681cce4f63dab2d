//! Versions: whoever changes a fact by whatever means makes what was decided on it stale.

use super::{draft::Draft, fixture::Fixture, stage::Stage};
use jitauth::domain::{
    ids::{CardId, ProgramId},
    reason::Reason,
};

const CARD: &str = "insert into cards (id, token, user_id, account_id, program_id, expires_at)";
const LIMIT: &str = "insert into limits (id, owner, owner_id, scope, period, cap_amount) values";

pub(crate) async fn a_decision_on_stale_facts_is_refused_in_both_directions<F: Fixture>(stage: &mut Stage<F>) {
    let all = &[1, 2, 3, 4][..];
    // What is changed, which cards rest on it, and whether the program does.
    let changes: Vec<(String, &[i64], bool)> = [
        ("update cards set status = 'inactive' where token = 'crd_1'", &[1][..], false),
        ("update cards set status = 'active' where token = 'crd_1'", &[1], false),
        ("update cards set expires_at = 5 where token = 'crd_2'", &[2], false),
        ("update cards set controls = '{\"channels\":{\"except\":[\"atm\"]}}' where token = 'crd_3'", &[3], false),
        ("update users set status = 'suspended' where token = 'usr_1'", &[1, 2], false),
        ("update users set status = 'active' where token = 'usr_1'", &[1, 2], false),
        ("update users set kyc = 'pending' where token = 'usr_2'", &[3, 4], false),
        ("update accounts set status = 'closed' where token = 'acc_1'", &[1, 4], false),
        ("update accounts set status = 'open' where token = 'acc_1'", &[1, 4], false),
        ("update accounts set currency = 'EUR' where token = 'acc_2'", &[2], false),
        ("update accounts set currency = 'USD' where token = 'acc_2'", &[2], false),
        (&format!("{LIMIT} (20, 'card', 2, 'card', 'day', 100000)"), &[2], false),
        (&format!("{LIMIT} (21, 'user', 2, 'user', 'day', 100000)"), &[3, 4], false),
        (&format!("{LIMIT} (22, 'account', 1, 'account', 'day', 100000)"), &[1, 4], false),
        (&format!("{LIMIT} (23, 'program', 1, 'card', 'day', 100000)"), &[], true),
        ("update limits set cap_amount = 90000 where id = 20", &[2], false),
        ("update limits set cap_amount = 110000 where id = 20", &[2], false),
        ("update limits set filter = '{\"mccs\":{\"only\":[\"5411\"]}}' where id = 21", &[3, 4], false),
        ("update limits set owner = 'user', owner_id = 1 where id = 22", &[1, 2, 4], false),
        ("update limits set cap_count = 1 where id = 23", &[], true),
        ("update limits set owner = 'card', owner_id = 3 where id = 23", &[3], true),
        ("delete from limits where id = 20", &[2], false),
        ("delete from limits where id in (21, 22)", all, false),
        ("delete from limits where id = 23", &[3], false),
        ("update programs set partial_approval = false where token = 'prg_1'", &[], true),
        ("update programs set time_zone = 'Asia/Tokyo' where token = 'prg_1'", &[], true),
        ("update cards set account_id = 3 where token = 'crd_4'", &[4], false),
        ("begin; update cards set status = 'lost' where id = 1; update cards set status = 'active' where id = 1; commit", &[1], false),
    ]
    .map(|(sql, cards, program)| (sql.to_owned(), cards, program))
    .into();
    for (at, (change, cards, program)) in changes.iter().enumerate() {
        let draft = stage.draft().await;
        stage.sql(change).await;
        let approvals =
            |draft: Draft| (1..=4).fold(draft, |draft, card| draft.approve(&format!("a{at}-{card}"), &format!("crd_{card}"), 1));
        let declines = |draft: Draft| {
            let decline = |draft: Draft, card| draft.decline(&format!("d{at}-{card}"), &format!("crd_{card}"), 1, Reason::MccBlocked, None);
            (1..=4).fold(draft, decline)
        };
        for group in [approvals(draft.clone()).close(), declines(draft).close()] {
            let mut report = stage.rejected(&group).await;
            report.cards.sort();
            let expected: Vec<_> = cards.iter().copied().map(CardId).collect();
            if change.starts_with("delete") && !group.counters.is_empty() {
                // A counter whose limit is gone may cast doubt on more cards than it has to.
                assert!(expected.iter().all(|card| report.cards.contains(card)), "{:?} after {change}", report.cards);
                continue;
            }
            assert_eq!(report.cards, expected, "cards after {change}");
            assert_eq!(report.programs, if *program { vec![ProgramId(1)] } else { vec![] }, "program after {change}");
        }
        // With the facts of now the declines pass.
        let group = declines(stage.draft().await).close();
        stage.committed(&group).await;
    }
}

pub(crate) async fn a_card_that_appeared_is_told<F: Fixture>(stage: &mut Stage<F>) {
    let group = stage.draft().await.absent("a", "crd_7").absent("b", "crd_8").close();
    stage.sql(&format!("{CARD} values (7, 'crd_7', 1, 1, 1, 9)")).await;
    let report = stage.rejected(&group).await;
    assert_eq!(report.appeared.iter().map(|token| token.as_str()).collect::<Vec<_>>(), ["crd_7"]);
    let group = stage.draft().await.absent("b", "crd_8").close();
    stage.committed(&group).await;
    // And the other way round: a card that is gone is stale.
    let mut draft = stage.draft().await;
    draft.files.insert("crd_7".to_owned(), stage.file("crd_7").await.unwrap());
    stage.sql("delete from cards where token = 'crd_7'").await;
    let report = stage.rejected(&draft.approve("c", "crd_7", 1).close()).await;
    assert_eq!(report.cards, [CardId(7)]);
    assert!(stage.file("crd_7").await.is_none());
}

pub(crate) async fn a_version_never_repeats<F: Fixture>(stage: &mut Stage<F>) {
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..5 {
        stage.sql(&format!("{CARD} values (7, 'crd_7', 1, 1, 1, 9)")).await;
        let mut draft = stage.draft().await;
        let file = stage.file("crd_7").await.unwrap();
        assert!(seen.insert(file.card.version), "round {round}: version {} came back", file.card.version);
        draft.files.insert("crd_7".to_owned(), file);
        stage.sql("delete from cards where id = 7").await;
        stage.sql(&format!("{CARD} values (7, 'crd_7', 2, 3, 1, 9)")).await;
        let report = stage.rejected(&draft.approve("a", "crd_7", 1).close()).await;
        assert_eq!(report.cards, [CardId(7)]);
        assert!(seen.insert(stage.file("crd_7").await.unwrap().card.version));
        stage.sql("delete from cards where id = 7").await;
    }
    // A limit that is deleted and inserted again is another limit.
    for _ in 0..2 {
        let group = stage.draft().await.approve("a", "crd_1", 1).close();
        stage.sql(&format!("delete from limits where id = 10; {LIMIT} (10, 'card', 1, 'card', 'day', 5000)")).await;
        assert_eq!(stage.rejected(&group).await.cards, [CardId(1)]);
        assert!(seen.insert(stage.file("crd_1").await.unwrap().card.version));
    }
}

pub(crate) async fn money_moves_no_version<F: Fixture>(stage: &mut Stage<F>) {
    let group = stage.draft().await.approve("a", "crd_1", 100).close();
    stage.committed(&group).await;
    let group = stage.draft().await.approve("b", "crd_1", 100).approve("c", "crd_2", 1).approve("d", "crd_3", 1).close();
    stage.credit(1, 50).await;
    stage.sql("update accounts set floor = -10 where id = 1; update accounts set floor = 0 where id = 1").await;
    stage.sql("begin; update holds set status = 2 where authorization_id = 'a'; update accounts set held = 0 where id = 1; commit").await;
    stage.sql("update counters set amount = amount + 1; update counters set amount = amount - 1").await;
    stage.committed(&group).await;
}
