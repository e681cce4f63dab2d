//! Every store keeps the promises of the ledger port: one suite, run on each of them.
//!
//! A case gets a fresh store with a small [`world`](stage) in it. It acts through the port and by plain SQL, which must mean the
//! same on every store. After each case the books are checked.

mod administration;
mod books;
mod commits;
mod draft;
mod facts;
mod fixture;
mod guards;
mod news;
mod postgres;
mod roster;
mod sqlite;
mod stage;
mod stale;
mod torture;
mod voids;

/// Makes a test of every case for one store.
macro_rules! conforms {
    ($store:ident: $fixture:ty { $($module:ident { $($case:ident)* })* }) => {
        mod $store {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::ledger_conforms::stage::run::<$fixture>($crate::ledger_conforms::$module::$case).await;
                })*
            })*
        }
    };
}

/// Makes a test of every case for every store.
macro_rules! on_every_store {
    ($($cases:tt)*) => {
        conforms! { on_sqlite: $crate::ledger_conforms::sqlite::SqliteFixture { $($cases)* } }
        conforms! { on_postgres: $crate::ledger_conforms::postgres::PostgresFixture { $($cases)* } }
    };
}

on_every_store! {
    commits {
        a_group_is_written_in_every_column
        a_replay_is_counted_and_gets_the_stored_bytes
        a_conflict_is_told_and_not_counted
        a_commit_that_went_through_comes_back_as_own
        one_id_raced_by_two_ledgers_holds_once
        one_bad_decision_keeps_the_whole_group_out
        a_poisoned_group_is_refused_and_its_halves_commit
        a_counter_that_can_count_no_further_stays
        positions_leave_out_what_does_not_exist
    }
    guards {
        money_fits_to_the_last_unit_and_no_further
        a_claim_about_money_is_true_or_refused
        a_claim_that_turned_wrong_comes_back_with_fresh_values
        limits_shared_by_accounts_hold_for_two_ledgers
        a_cap_of_null_caps_nothing
    }
    stale {
        a_decision_on_stale_facts_is_refused_in_both_directions
        a_card_that_appeared_is_told
        a_version_never_repeats
        money_moves_no_version
    }
    voids {
        a_void_frees_the_money_and_stores_the_decline
        a_void_after_a_replay_stands
        a_void_and_a_replay_race_to_one_answer
        a_void_of_something_else_is_refused
        an_unheard_approval_is_listed_until_it_is_void
    }
    facts {
        the_document_has_every_column
        an_unknown_card_has_no_file
        limits_are_those_of_card_user_account_and_program
        a_read_tells_how_long_it_waited_for_its_connection
    }
    news {
        every_kind_of_change_is_heard_with_its_version
        what_is_gone_is_heard
        many_changes_are_heard_as_everything
        no_change_goes_unheard
        a_subject_concerns_its_cards
    }
    roster {
        every_usable_card_is_handed_out_as_it_is_fetched
        what_cannot_be_understood_costs_its_own_cards_only
        the_reading_ends_when_asked_to
    }
    administration {
        a_card_is_frozen_and_unfrozen
        what_was_reported_stays_so
        a_user_is_suspended_with_all_cards
        who_is_unknown_is_named
        a_limit_is_set_replaced_and_removed
        one_limit_set_by_many_is_one
    }
    torture {
        lanes_and_administrators_keep_the_books
    }
}
