//! The facts a store hands out.

use super::{fixture::Fixture, stage::Stage};
use jitauth::{
    domain::{
        facts::{CardStatus, ProgramKind, WeekStart},
        ids::CardToken,
    },
    facts::{
        FactSource,
        document::{CardFacts, LimitFacts, LimitSetFacts, ProgramFacts, UserFacts},
    },
    telemetry::{Exposition, Telemetry},
};
use serde_json::{Value, json};

fn as_json(facts: impl serde::Serialize) -> Value {
    serde_json::to_value(facts).unwrap()
}

pub(crate) async fn the_document_has_every_column<F: Fixture>(stage: &mut Stage<F>) {
    let controls = r#"{"channels":{"only":["chip","atm"]},"countries":{"except":["PRK"]},"mccs":{"except":["7995"]},"merchants":{"except":["mrc_1"]}}"#;
    let filter = r#"{"mccs":{"only":["5411","3000-3299"]}}"#;
    stage
        .sql(&format!(
            "insert into programs (id, token, kind, currency, time_zone, week_start, kyc_required, partial_approval, controls)
               values (5, 'prg_5', 'business', 'JPY', 'Asia/Tokyo', 'saturday', false, false, '{controls}');
             insert into users (id, token, program_id, status, kyc) values (6, 'usr_6', 5, 'closed', 'rejected');
             insert into accounts (id, token, program_id, currency, status) values (7, 'acc_7', 5, 'JPY', 'closed');
             insert into cards (id, token, user_id, account_id, program_id, status, expires_at, controls)
               values (8, 'crd_8', 6, 7, 5, 'stolen', 1893456000000000, '{controls}');
             insert into limits (id, owner, owner_id, scope, period, filter, cap_amount, cap_count)
               values (31, 'user', 6, 'card', 'week', '{filter}', null, 4), (30, 'card', 8, 'account', 'transaction', '{{}}', 1000, null),
                      (32, 'program', 5, 'user', 'month', '{{}}', 9007199254740993, 5)"
        ))
        .await;
    let file = stage.file("crd_8").await.unwrap();
    let version = stage.number("select version from cards where id = 8").await;
    let user_version = stage.number("select version from users where id = 6").await;
    let program_version = stage.number("select version from programs where id = 5").await;
    let controls: Value = serde_json::from_str(controls).unwrap();
    let filter: Value = serde_json::from_str(filter).unwrap();
    assert_eq!(
        as_json(CardFacts::from(&file)),
        json!({"id": 8, "token": "crd_8", "version": version, "user_id": 6, "user": "usr_6", "user_version": user_version, "account_id": 7,
            "currency": "JPY", "account_open": false, "program_id": 5, "status": "stolen", "expires_at": 1_893_456_000_000_000_i64,
            "controls": controls})
    );
    assert_eq!(
        as_json(UserFacts::from(&*file.user)),
        json!({"id": 6, "token": "usr_6", "version": user_version, "active": false, "kyc_verified": false})
    );
    assert_eq!(
        as_json(LimitSetFacts::from(&*file.card)),
        json!({"card_version": version, "limits": [
            {"id": 30, "scope": "account", "window": "transaction", "filter": {}, "cap_amount": 1000, "cap_count": null},
            {"id": 31, "scope": "card", "window": "week", "filter": filter, "cap_amount": null, "cap_count": 4}]})
    );
    assert_eq!(
        as_json(ProgramFacts::from(&*file.program)),
        json!({"id": 5, "version": program_version, "kind": "business", "time_zone": "Asia/Tokyo", "week_start": "saturday",
            "kyc_required": false, "partial_approval": false, "controls": controls, "limits": [
                {"id": 32, "scope": "user", "window": "month", "filter": {}, "cap_amount": 9_007_199_254_740_993_i64, "cap_count": 5}]})
    );
    // And the other values of what has two.
    let plain = stage.file("crd_1").await.unwrap();
    assert!(plain.card.account.open && plain.user.active && plain.user.kyc_verified);
    assert!(plain.program.kyc_required && plain.program.partial_approval);
    assert_eq!((plain.program.kind, plain.program.week_start), (ProgramKind::Personal, WeekStart::Sunday));
    assert_eq!(plain.card.status, CardStatus::Active);
    for (status, expected) in [("inactive", CardStatus::Inactive), ("lost", CardStatus::Lost)] {
        stage.sql(&format!("update cards set status = '{status}' where id = 1")).await;
        assert_eq!(stage.file("crd_1").await.unwrap().card.status, expected);
    }
    for status in ["suspended", "closed"] {
        stage.sql(&format!("update users set status = '{status}', kyc = 'pending' where id = 1")).await;
        let user = stage.file("crd_1").await.unwrap().user;
        assert!(!user.active && !user.kyc_verified);
    }
}

pub(crate) async fn an_unknown_card_has_no_file<F: Fixture>(stage: &mut Stage<F>) {
    for token in ["crd_none", "crd_11", "CRD_1", "usr_1"] {
        assert!(stage.file(token).await.is_none(), "{token}");
    }
}

pub(crate) async fn a_read_tells_how_long_it_waited_for_its_connection<F: Fixture>(stage: &mut Stage<F>) {
    let (mut facts, telemetry) = (stage.fixture.facts(), Telemetry::default());
    facts.tell_waits(&telemetry);
    for reads in 1..=3 {
        assert!(facts.fetch(&CardToken::new("crd_1").unwrap()).await.unwrap().is_some());
        let page = telemetry.scrape(Exposition::Prometheus).unwrap();
        assert!(page.contains(&format!("jitauth_pool_wait_seconds_count {reads}\n")), "{page}");
    }
}

pub(crate) async fn limits_are_those_of_card_user_account_and_program<F: Fixture>(stage: &mut Stage<F>) {
    stage
        .sql(
            "insert into limits (id, owner, owner_id, scope, period, cap_amount) values (43, 'account', 1, 'account', 'day', 1),
             (41, 'account', 2, 'account', 'day', 1), (42, 'card', 2, 'card', 'day', 1), (40, 'program', 1, 'card', 'day', 1)",
        )
        .await;
    for (card, own, program) in [
        ("crd_1", &[10, 11, 43][..], &[12, 40][..]),
        ("crd_2", &[11, 41, 42], &[12, 40]),
        ("crd_3", &[], &[12, 40]),
        ("crd_4", &[43], &[12, 40]),
    ] {
        let file = stage.file(card).await.unwrap();
        let ids = |limits: &[_]| limits.iter().map(|limit| LimitFacts::from(limit).id).collect::<Vec<_>>();
        assert_eq!(ids(&file.card.limits), own, "{card}");
        assert_eq!(ids(&file.program.limits), program, "{card}");
    }
}
