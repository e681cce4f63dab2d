//! Orders of administration: one transaction each, told, and the same again changes nothing.

use super::{
    fixture::Fixture,
    news::{Ear, card},
    stage::Stage,
};
use jitauth::{
    domain::{
        ids::{CardToken, LimitId, UserToken},
        limits::{Cap, Filter, Scope},
        time::Window,
    },
    facts::{
        change::Subject,
        document::{self, FilterFacts},
    },
    ledger::administration::{self, AdministrationError, Caps, Terms, Turned},
};

fn token(token: &str) -> CardToken {
    CardToken::new(token).unwrap()
}

fn filter(json: &str) -> Filter {
    document::parse::<FilterFacts>(json.as_bytes()).unwrap().try_into().unwrap()
}

/// Whether it is said what is, and it is so.
async fn is<F: Fixture>(stage: &Stage<F>, table: &str, token: &str, turned: &Turned, was: &str, is: &str) {
    let status = stage.fixture.rows(&format!("select status from {table} where token = '{token}'")).await;
    assert_eq!((turned.was.as_str(), turned.is.as_str(), status), (was, is, vec![is.to_owned()]), "{token}");
    assert_eq!(turned.version, stage.number(&format!("select version from {table} where token = '{token}'")).await, "{token}");
}

pub(crate) async fn a_card_is_frozen_and_unfrozen<F: Fixture>(stage: &mut Stage<F>) {
    let store = stage.fixture.facts();
    let mut ear = Ear::new(&store).await;
    let before = stage.draft().await.approve("a", "crd_1", 1).close();
    let frozen = administration::freeze(&store, &token("crd_1")).await.unwrap();
    is(stage, "cards", "crd_1", &frozen, "active", "inactive").await;
    ear.until(|told| told.change == card("crd_1", Some(frozen.version))).await;
    // What was decided before cannot be committed after.
    assert!(!stage.rejected(&before).await.cards.is_empty());
    let again = administration::freeze(&store, &token("crd_1")).await.unwrap();
    is(stage, "cards", "crd_1", &again, "inactive", "inactive").await;
    assert_eq!((again.changed(), again.version), (false, frozen.version));
    let thawed = administration::unfreeze(&store, &token("crd_1")).await.unwrap();
    is(stage, "cards", "crd_1", &thawed, "inactive", "active").await;
    ear.until(|told| told.change == card("crd_1", Some(thawed.version))).await;
    assert!(!administration::unfreeze(&store, &token("crd_1")).await.unwrap().changed());
}

/// Freezing must not be a way to make a lost card usable again by unfreezing it.
pub(crate) async fn what_was_reported_stays_so<F: Fixture>(stage: &mut Stage<F>) {
    let store = stage.fixture.facts();
    for status in ["lost", "stolen"] {
        stage.sql(&format!("update cards set status = '{status}' where token = 'crd_2'")).await;
        let turned = administration::freeze(&store, &token("crd_2")).await.unwrap();
        is(stage, "cards", "crd_2", &turned, status, status).await;
        let refused = administration::unfreeze(&store, &token("crd_2")).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("card crd_2 was reported {status}, and stays so"));
        is(stage, "cards", "crd_2", &turned, status, status).await;
    }
    stage.sql("update users set status = 'closed' where token = 'usr_2'").await;
    let user = UserToken::new("usr_2").unwrap();
    let turned = administration::suspend(&store, &user).await.unwrap();
    is(stage, "users", "usr_2", &turned, "closed", "closed").await;
    assert!(matches!(administration::activate(&store, &user).await, Err(AdministrationError::Impossible(_))));
    is(stage, "users", "usr_2", &turned, "closed", "closed").await;
}

pub(crate) async fn a_user_is_suspended_with_all_cards<F: Fixture>(stage: &mut Stage<F>) {
    let store = stage.fixture.facts();
    let user = UserToken::new("usr_1").unwrap();
    let group = stage.draft().await.approve("a", "crd_2", 1).close();
    let turned = administration::suspend(&store, &user).await.unwrap();
    is(stage, "users", "usr_1", &turned, "active", "suspended").await;
    assert!(!stage.rejected(&group).await.cards.is_empty());
    assert!(!administration::suspend(&store, &user).await.unwrap().changed());
    let turned = administration::activate(&store, &user).await.unwrap();
    is(stage, "users", "usr_1", &turned, "suspended", "active").await;
    assert!(!administration::activate(&store, &user).await.unwrap().changed());
}

pub(crate) async fn who_is_unknown_is_named<F: Fixture>(stage: &mut Stage<F>) {
    let store = stage.fixture.facts();
    let mut said = Vec::new();
    let nobody = token("crd_none");
    let user = UserToken::new("usr_none").unwrap();
    said.push(administration::freeze(&store, &nobody).await.unwrap_err().to_string());
    said.push(administration::unfreeze(&store, &nobody).await.unwrap_err().to_string());
    said.push(administration::card(&store, &nobody).await.unwrap_err().to_string());
    said.push(administration::suspend(&store, &user).await.unwrap_err().to_string());
    said.push(administration::remove_limit(&store, LimitId(77)).await.unwrap_err().to_string());
    for subject in [Subject::Account("acc_none".to_owned()), Subject::Program("prg_none".to_owned())] {
        said.push(administration::owner(&store, &subject).await.unwrap_err().to_string());
    }
    let names = ["card crd_none", "card crd_none", "card crd_none", "user usr_none", "limit 77", "account acc_none", "program prg_none"];
    assert_eq!(said, names.map(|name| format!("there is no {name}")));
}

pub(crate) async fn a_limit_is_set_replaced_and_removed<F: Fixture>(stage: &mut Stage<F>) {
    let store = stage.fixture.facts();
    let mut ids = std::collections::BTreeSet::new();
    for (subject, scope, cards) in [
        (Subject::Card(token("crd_3")), Scope::Card, &["crd_3"][..]),
        (Subject::User(UserToken::new("usr_2").unwrap()), Scope::User, &["crd_3", "crd_4"]),
        (Subject::Account("acc_3".to_owned()), Scope::Card, &["crd_3"]),
        (Subject::Program("prg_1".to_owned()), Scope::Program, &["crd_1", "crd_2", "crd_3", "crd_4"]),
    ] {
        let owner = administration::owner(&store, &subject).await.unwrap();
        assert_eq!((owner.currencies.as_slice(), owner.time_zone.as_str()), (&["USD".to_owned()][..], "America/New_York"));
        let own = administration::limits_of(&store, &owner, false).await.unwrap().len();
        let terms = |json: &str| Terms { scope, window: Window::Day, filter: filter(json) };
        let caps = |amount, count| Caps { amount: Some(amount), count };
        let written = r#"{"mccs":{"only":["5411","3000-3299","5411-5411"]},"countries":{"except":["PRK","NLD"]}}"#;
        let otherwise = r#"{"countries":{"except":["NLD","PRK"]},"mccs":{"only":["3000-3299","5411"]}}"#;

        let set = administration::set_limit(&store, &owner, &terms(written), caps(500, Some(3))).await.unwrap();
        assert_eq!((set.was, set.is.caps), (None, caps(500, Some(3))));
        assert!(ids.insert(set.is.id), "{subject:?}: an id was used twice");
        let version = set.is.version;
        let same = administration::set_limit(&store, &owner, &terms(otherwise), caps(500, Some(3))).await.unwrap();
        assert_eq!((same.was, same.is.id, same.is.version), (Some(set.is.caps), set.is.id, version), "nothing was changed");
        let replaced = administration::set_limit(&store, &owner, &terms(otherwise), caps(700, None)).await.unwrap();
        assert_eq!((replaced.was, replaced.is.id, replaced.is.caps), (Some(set.is.caps), set.is.id, caps(700, None)));
        assert!(replaced.is.version > version);
        for other in [terms("{}"), Terms { window: Window::Week, ..terms(written) }, Terms { scope: Scope::Account, ..terms(written) }] {
            let set = administration::set_limit(&store, &owner, &other, caps(1, None)).await.unwrap();
            assert_eq!(set.was, None, "another limit");
            assert!(ids.insert(set.is.id));
        }
        for token in cards {
            let file = stage.file(token).await.unwrap();
            let limit = file.limits().find(|limit| limit.id == set.is.id).expect("bears on the card");
            assert_eq!((limit.cap_amount.map(Cap::get), limit.cap_count, limit.scope), (Some(700), None, scope), "{token}");
        }
        assert_eq!(administration::limits_of(&store, &owner, false).await.unwrap().len(), own + 4, "{subject:?}");

        let group = stage.draft().await.decline("d", cards[0], 1, jitauth::domain::reason::Reason::MccBlocked, None).close();
        let removal = administration::remove_limit(&store, set.is.id).await.unwrap();
        assert_eq!((removal.limit, removal.owner.unwrap()), (replaced.is, owner.clone()));
        let report = stage.rejected(&group).await;
        assert!(!report.cards.is_empty() || !report.programs.is_empty(), "{subject:?}: nobody was told");
        assert!(matches!(administration::remove_limit(&store, set.is.id).await, Err(AdministrationError::Unknown(_))));
    }
    // An id is not used again, not even the highest after its removal: what was counted under it is still there.
    let highest = *ids.last().unwrap();
    administration::remove_limit(&store, highest).await.unwrap();
    let owner = administration::owner(&store, &Subject::Card(token("crd_1"))).await.unwrap();
    let terms = Terms { scope: Scope::Card, window: Window::Lifetime, filter: Filter::default() };
    let set = administration::set_limit(&store, &owner, &terms, Caps { amount: None, count: Some(1) }).await.unwrap();
    assert!(set.is.id > highest);
}

/// Two people who set the same limit at once make one.
pub(crate) async fn one_limit_set_by_many_is_one<F: Fixture>(stage: &mut Stage<F>) {
    let store = stage.fixture.facts();
    let owner = administration::owner(&store, &Subject::Card(token("crd_3"))).await.unwrap();
    let terms = Terms { scope: Scope::Card, window: Window::Day, filter: Filter::default() };
    let set = |amount| administration::set_limit(&store, &owner, &terms, Caps { amount: Some(amount), count: None });
    let (a, b, c) = tokio::join!(set(1), set(2), set(3));
    assert!([a, b, c].iter().filter(|set| set.as_ref().unwrap().was.is_none()).count() == 1, "one was first");
    assert_eq!(administration::limits_of(&store, &owner, false).await.unwrap().len(), 1);
}
