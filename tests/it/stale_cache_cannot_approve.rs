//! Whatever the caches believe, a request that the store has come to forbid is declined, for the reason that the store has.

use crate::{
    stale::{self, Case},
    support::world::{Held, Holder, Limit, Owner, Program},
};
use jitauth::domain::reason::Reason;

/// Each is approved before the change.
fn cases() -> Vec<Case> {
    let declined = |name, reason, change| Case::new(name, None, change, Some(reason));
    let day = |cap_amount, cap_count| Limit { cap_amount, cap_count, ..Limit::default() };
    vec![
        declined("card_frozen", Reason::CardInactive, |held, _| format!("update cards set status = 'inactive' where id = {}", held.card)),
        declined("card_lost", Reason::CardLost, |held, _| format!("update cards set status = 'lost' where id = {}", held.card)),
        declined("card_expired", Reason::CardExpired, |held, _| format!("update cards set expires_at = 1 where id = {}", held.card)),
        declined("card_deleted", Reason::CardNotFound, |held, _| format!("delete from cards where id = {}", held.card)),
        declined("channel_blocked", Reason::ChannelBlocked, |held, _| {
            format!(r#"update cards set controls = '{{"channels": {{"except": ["chip"]}}}}' where id = {}"#, held.card)
        }),
        declined("card_given_away", Reason::UserNotFound, |held, token| {
            let (user, program) = (held.user + 2_000_000, held.program);
            format!(
                "insert into users (id, token, program_id) values ({user}, 'usr_other_{token}', {program});
                 update cards set user_id = {user} where id = {}",
                held.card
            )
        }),
        declined("user_suspended", Reason::UserInactive, |held, _| {
            format!("update users set status = 'suspended' where id = {}", held.user)
        }),
        declined("kyc_revoked", Reason::KycRequired, |held, _| format!("update users set kyc = 'rejected' where id = {}", held.user)),
        declined("account_closed", Reason::AccountClosed, |held, _| {
            format!("update accounts set status = 'closed' where id = {}", held.account)
        }),
        declined("account_emptied", Reason::InsufficientFunds, |held, token| stale::transfer(held, token, -98_500)),
        declined("floor_raised", Reason::InsufficientFunds, |held, _| {
            format!("update accounts set floor = 98500 where id = {}", held.account)
        }),
        declined("card_limit_inserted", Reason::TransactionLimit, |held, _| insert_limit(held, "card", held.card, "transaction", 9_99)),
        declined("user_limit_inserted", Reason::AmountLimit, |held, _| insert_limit(held, "user", held.user, "day", 9_99)),
        declined("account_limit_inserted", Reason::AmountLimit, |held, _| insert_limit(held, "account", held.account, "month", 9_99)),
        declined("program_limit_inserted", Reason::AmountLimit, |held, _| insert_limit(held, "program", held.program, "lifetime", 9_99)),
        declined("card_limit_lowered", Reason::AmountLimit, |held, _| lower(held.card, "cap_amount = 1999"))
            .limit(|held| Owner::Card(held.card), day(Some(10_000), None)),
        declined("user_count_lowered", Reason::CountLimit, |held, _| lower(held.user, "cap_count = 1"))
            .limit(|held| Owner::User(held.user), day(None, Some(9))),
        declined("program_limit_lowered", Reason::AmountLimit, |held, _| lower(held.program, "cap_amount = 1999"))
            .limit(|held| Owner::Program(held.program), day(Some(10_000), None)),
        declined("limit_widened", Reason::TransactionLimit, |held, _| lower(held.card, "filter = '{}'")).limit(
            |held| Owner::Card(held.card),
            Limit { period: "transaction", filter: r#"{"mccs": {"only": ["7995"]}}"#, cap_amount: Some(1_00), ..Limit::default() },
        ),
        declined("program_control_changed", Reason::MccBlocked, |held, _| {
            format!(r#"update programs set controls = '{{"mccs": {{"except": ["5411"]}}}}' where id = {}"#, held.program)
        }),
        declined("program_asks_for_kyc", Reason::KycRequired, |held, _| {
            format!("update programs set kyc_required = true where id = {}", held.program)
        })
        .program(Program { kyc_required: false, ..Program::default() })
        .holder(Holder { kyc: "pending", ..Holder::default() }),
    ]
}

fn insert_limit(held: Held, owner: &str, owner_id: i64, period: &str, cap_amount: i64) -> String {
    let id = held.card + 3_000_000;
    format!(
        "insert into limits (id, owner, owner_id, scope, period, cap_amount) values ({id}, '{owner}', {owner_id}, '{owner}', '{period}', {cap_amount})"
    )
}

fn lower(owner_id: i64, to: &str) -> String {
    format!("update limits set {to} where owner_id = {owner_id}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_and_redis() {
    stale::check_services(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    stale::check_embedded(cases).await;
}
