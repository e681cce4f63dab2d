//! Whatever the caches believe, a request that the store has come to allow is approved.

use crate::{
    stale::{self, Case},
    support::world::{Held, Holder, Limit, NEVER_US, Owner, Program},
};
use jitauth::domain::reason::Reason;

/// Each is declined before the change, for this reason.
fn cases() -> Vec<Case> {
    let approved = |name, reason, change| Case::new(name, Some(reason), change, None);
    let day = |cap_amount, cap_count| Limit { cap_amount, cap_count, ..Limit::default() };
    vec![
        approved("card_unfrozen", Reason::CardInactive, |held, _| format!("update cards set status = 'active' where id = {}", held.card))
            .holder(Holder { card_status: "inactive", ..Holder::default() }),
        approved("card_renewed", Reason::CardExpired, |held, _| {
            format!("update cards set expires_at = {NEVER_US} where id = {}", held.card)
        })
        .holder(Holder { expires_at_us: 1, ..Holder::default() }),
        approved("card_created", Reason::CardNotFound, |held, token| {
            let Held { program, user, account, card } = held;
            format!(
                "insert into cards (id, token, user_id, account_id, program_id, expires_at)
                 values ({card}, 'crd_{token}', {user}, {account}, {program}, {NEVER_US})"
            )
        })
        .without_card(),
        approved("channel_opened", Reason::ChannelBlocked, |held, _| {
            format!("update cards set controls = '{{}}' where id = {}", held.card)
        })
        .holder(Holder { controls: r#"{"channels": {"except": ["chip"]}}"#, ..Holder::default() }),
        approved("user_reinstated", Reason::UserInactive, |held, _| format!("update users set status = 'active' where id = {}", held.user))
            .holder(Holder { user_status: "suspended", ..Holder::default() }),
        approved("kyc_passed", Reason::KycRequired, |held, _| format!("update users set kyc = 'verified' where id = {}", held.user))
            .holder(Holder { kyc: "pending", ..Holder::default() }),
        approved("account_reopened", Reason::AccountClosed, |held, _| {
            format!("update accounts set status = 'open' where id = {}", held.account)
        })
        .holder(Holder { account_status: "closed", ..Holder::default() }),
        approved("account_credited", Reason::InsufficientFunds, |held, token| stale::transfer(held, token, 1))
            .holder(Holder { posted: 9_99, ..Holder::default() }),
        approved("floor_lowered", Reason::InsufficientFunds, |held, _| {
            format!("update accounts set floor = -1 where id = {}", held.account)
        })
        .holder(Holder { posted: 9_99, ..Holder::default() }),
        approved("card_limit_raised", Reason::TransactionLimit, |held, _| change(held.card, "cap_amount = 1000"))
            .limit(|held| Owner::Card(held.card), Limit { period: "transaction", ..day(Some(9_99), None) }),
        approved("user_limit_raised", Reason::AmountLimit, |held, _| change(held.user, "cap_amount = 1000"))
            .limit(|held| Owner::User(held.user), day(Some(9_99), None)),
        approved("account_count_raised", Reason::CountLimit, |held, _| change(held.account, "cap_count = 1"))
            .limit(|held| Owner::Account(held.account), day(None, Some(0))),
        approved("program_limit_raised", Reason::AmountLimit, |held, _| change(held.program, "cap_amount = 1000"))
            .limit(|held| Owner::Program(held.program), day(Some(9_99), None)),
        approved("limit_lifted", Reason::AmountLimit, |held, _| change(held.card, "cap_amount = null"))
            .limit(|held| Owner::Card(held.card), day(Some(9_99), None)),
        approved("card_limit_deleted", Reason::AmountLimit, |held, _| delete(held.card))
            .limit(|held| Owner::Card(held.card), day(Some(9_99), None)),
        approved("program_limit_deleted", Reason::CountLimit, |held, _| delete(held.program))
            .limit(|held| Owner::Program(held.program), day(None, Some(0))),
        approved("limit_narrowed", Reason::AmountLimit, |held, _| change(held.user, r#"filter = '{"mccs": {"only": ["7995"]}}'"#))
            .limit(|held| Owner::User(held.user), day(Some(9_99), None)),
        approved("program_control_lifted", Reason::MccBlocked, |held, _| {
            format!("update programs set controls = '{{}}' where id = {}", held.program)
        })
        .program(Program { controls: r#"{"mccs": {"except": ["5411"]}}"#, ..Program::default() }),
        approved("program_asks_for_no_kyc", Reason::KycRequired, |held, _| {
            format!("update programs set kyc_required = false where id = {}", held.program)
        })
        .holder(Holder { kyc: "pending", ..Holder::default() }),
    ]
}

fn change(owner_id: i64, to: &str) -> String {
    format!("update limits set {to} where owner_id = {owner_id}")
}

fn delete(owner_id: i64) -> String {
    format!("delete from limits where owner_id = {owner_id}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_and_redis() {
    stale::check_services(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    stale::check_embedded(cases).await;
}
