//! Reading every card at once gives what reading each of them gives.

use super::{fixture::Fixture, stage::Stage};
use jitauth::{
    domain::facts::CardFile,
    facts::change::{FactStore, Scanned},
};
use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

/// Cards of every kind: in other programs, with limits of every owner, controls, closed accounts, suspended users; and some that cannot
/// be used.
const MANY: &str = r#"
insert into programs (id, token, kind, currency, time_zone, week_start, kyc_required, partial_approval, controls)
  values (2, 'prg_2', 'business', 'JPY', 'Asia/Tokyo', 'saturday', false, false, '{"countries":{"except":["PRK"]}}');
insert into users (id, token, program_id, status, kyc) values (3, 'usr_3', 2, 'suspended', 'pending'), (4, 'usr_4', 2, 'closed', 'rejected');
insert into accounts (id, token, program_id, currency, status) values (4, 'acc_4', 2, 'JPY', 'closed'), (5, 'acc_5', 2, 'KWD', 'open');
insert into cards (id, token, user_id, account_id, program_id, status, expires_at, controls) values
  (5, 'crd_5', 3, 4, 2, 'active', 4000000000000000, '{}'),
  (6, 'crd_6', 3, 5, 2, 'active', 4000000000000000, '{"channels":{"only":["chip"]},"mccs":{"except":["7995","3000-3299"]}}'),
  (7, 'crd_7', 4, 5, 1, 'active', 4000000000000001, '{ "channels" : {"only":["chip"]}, "mccs":{"except":["7995","3000-3299"]}}'),
  (8, 'crd_8', 4, 5, 2, 'inactive', 4000000000000000, '{}'),
  (9, 'crd_9', 4, 5, 2, 'lost', 4000000000000000, '{}'),
  (10, 'crd_10', 4, 5, 2, 'stolen', 4000000000000000, '{}'),
  (11, 'crd_11', 4, 5, 2, 'active', 1600000000000000, '{}');
insert into limits (id, owner, owner_id, scope, period, filter, cap_amount, cap_count) values
  (24, 'card', 6, 'account', 'transaction', '{}', 1000, null), (23, 'user', 3, 'card', 'week', '{"mccs":{"only":["5411"]}}', null, 4),
  (22, 'account', 5, 'user', 'month', '{}', 9007199254740993, 0), (21, 'program', 2, 'program', 'lifetime', '{}', 7, null),
  (20, 'account', 5, 'account', 'day', '{"merchants":{"except":["mrc_1"]}}', 0, null), (26, 'card', 5, 'card', 'day', '{}', null, null),
  (25, 'account', 6, 'account', 'day', '{}', 1, null)"#;

const USABLE: [&str; 7] = ["crd_1", "crd_2", "crd_3", "crd_4", "crd_5", "crd_6", "crd_7"];

async fn every_card<F: Fixture>(stage: &Stage<F>) -> BTreeMap<String, CardFile> {
    let mut files = BTreeMap::new();
    let (mut aside, mut every) = (None, 0);
    let keep = |scanned: Scanned| {
        let file = match scanned {
            Scanned::Aside(bytes) => {
                assert!(aside.replace(bytes).is_none() && every == 0, "told once, and first");
                return ControlFlow::Continue(());
            }
            Scanned::Card(file) => file,
        };
        every += 1;
        assert!(file.agrees());
        assert!(files.insert(file.card.token.as_str().to_owned(), file).is_none(), "handed out twice");
        ControlFlow::Continue(())
    };
    let count = stage.fixture.facts().every_card(keep).await.unwrap();
    assert_eq!(usize::try_from(count).unwrap(), files.len());
    let limits = stage.number("select count(*) from limits").await;
    assert_eq!(aside, Some(u64::try_from(limits).unwrap() * 64), "what the reading keeps of each limit");
    files
}

pub(crate) async fn every_usable_card_is_handed_out_as_it_is_fetched<F: Fixture>(stage: &mut Stage<F>) {
    stage.sql(MANY).await;
    let files = every_card(stage).await;
    assert_eq!(files.keys().collect::<Vec<_>>(), USABLE);
    for (token, file) in &files {
        let fetched = stage.file(token).await.unwrap();
        assert_eq!((&file.card, &file.user, &file.program), (&fetched.card, &fetched.user, &fetched.program), "{token}");
    }
    assert_eq!(files["crd_6"].card.limits.len(), 4, "of card, user and account");
    // What is equal is there once.
    assert!(Arc::ptr_eq(&files["crd_5"].program, &files["crd_6"].program));
    assert!(Arc::ptr_eq(&files["crd_5"].user, &files["crd_6"].user));
    assert!(Arc::ptr_eq(&files["crd_1"].card.controls, &files["crd_5"].card.controls));
}

pub(crate) async fn what_cannot_be_understood_costs_its_own_cards_only<F: Fixture>(stage: &mut Stage<F>) {
    stage.sql(MANY).await;
    for (damage, lost) in [
        ("update cards set token = 'crd 1' where id = 1", &["crd_1"][..]),
        ("update cards set controls = '{\"mccs\":{\"only\":[\"many\"]}}' where id = 2", &["crd_2"]),
        ("update limits set filter = '{\"colours\":{}}' where id = 22", &["crd_6", "crd_7"]),
        ("update programs set controls = '{\"channels\":{\"only\":[\"smoke\"]}}' where id = 2", &["crd_5"]),
    ] {
        let before = every_card(stage).await;
        stage.sql(damage).await;
        let after = every_card(stage).await;
        let gone: Vec<_> = before.keys().filter(|token| !after.contains_key(*token)).collect();
        assert_eq!(gone, lost, "{damage}");
    }
}

pub(crate) async fn the_reading_ends_when_asked_to<F: Fixture>(stage: &mut Stage<F>) {
    let mut seen = 0;
    let keep = |scanned| {
        seen += u64::from(matches!(scanned, Scanned::Card(_)));
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert_eq!(stage.fixture.facts().every_card(keep).await.unwrap(), 2);
    assert_eq!(every_card(stage).await.len(), 4, "and can be begun again");
}
