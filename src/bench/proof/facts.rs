//! What a decision must be by the facts in the store, worked out a second time: not with the daemon's rules, and from text instead of
//! its types.
//!
//! Cards, users, accounts, programs and limits are what the seed wrote; the daemon only reads them. Where windows begin is asked of
//! [`calendar`]: that is tested against time zones by itself, and what can go wrong here is that a limit is forgotten.

use super::store::Key;
use crate::{
    bench::traffic::Asked,
    domain::time::{Timestamp, Window, WindowStarts},
    facts::document::{FilterFacts, MatchFacts, WeekStartName, WindowName, named},
    pipeline::calendar,
};
use std::{collections::HashMap, sync::Arc};

/// All windows begin at a multiple of this: time zones differ from UTC by quarters of an hour.
const QUARTER_US: i64 = 15 * 60 * 1_000_000;

/// A card with what is known of its user and its account.
#[derive(Debug)]
pub(super) struct Card {
    pub(super) id: i64,
    pub(super) user_id: i64,
    pub(super) account_id: i64,
    pub(super) program_id: i64,
    pub(super) status: String,
    pub(super) expires_at: i64,
    pub(super) controls: FilterFacts,
    pub(super) version: i64,
    pub(super) user: String,
    pub(super) user_active: bool,
    pub(super) kyc_verified: bool,
    pub(super) currency: String,
    pub(super) account_open: bool,
}

/// A program.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) id: i64,
    pub(super) time_zone: String,
    pub(super) week_start: String,
    pub(super) kyc_required: bool,
    pub(super) partial_approval: bool,
    pub(super) controls: FilterFacts,
    pub(super) version: i64,
}

/// A limit.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) id: i64,
    pub(super) scope: String,
    pub(super) period: String,
    pub(super) filter: FilterFacts,
    pub(super) cap_amount: Option<i64>,
    pub(super) cap_count: Option<i64>,
}

/// The facts about every card that was asked about.
#[derive(Debug, Default)]
pub(super) struct Facts {
    cards: HashMap<String, Arc<Card>>,
    programs: HashMap<i64, Program>,
    limits: HashMap<(Owner, i64), Vec<Limit>>,
    starts: HashMap<(i64, i64), Option<WindowStarts>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Card,
    User,
    Account,
    Program,
}

/// A limit that a request has to keep, and the counter it is charged to; none for a limit of one transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) counter: Option<Key>,
    pub(super) cap_amount: Option<i64>,
    pub(super) cap_count: Option<i64>,
}

impl Facts {
    pub(super) fn add_card(&mut self, token: &str, card: Card) {
        self.cards.insert(token.to_owned(), Arc::new(card));
    }

    pub(super) fn add_program(&mut self, program: Program) {
        self.programs.insert(program.id, program);
    }

    pub(super) fn add_limit(&mut self, owner: &str, id: i64, limit: Limit) {
        let owner = match owner {
            "card" => Owner::Card,
            "user" => Owner::User,
            "account" => Owner::Account,
            _ => Owner::Program,
        };
        self.limits.entry((owner, id)).or_default().push(limit);
    }

    /// The card with this token, and its program.
    pub(super) fn card(&self, token: &str) -> Option<(&Arc<Card>, &Program)> {
        let card = self.cards.get(token)?;
        Some((card, self.programs.get(&card.program_id)?))
    }

    /// The limits that a request has to keep. `None` when the store does not say where their windows begin.
    pub(super) fn bounds(&mut self, card: &Card, asked: &Asked, decided_at: i64) -> Option<Vec<Bound>> {
        let starts = self.starts(card.program_id, decided_at)?;
        let owners =
            [(Owner::Card, card.id), (Owner::User, card.user_id), (Owner::Account, card.account_id), (Owner::Program, card.program_id)];
        let limits = owners.iter().filter_map(|owner| self.limits.get(owner)).flatten();
        limits.filter(|limit| first_blocked(&limit.filter, asked).is_none()).map(|limit| limit.bound(card, &starts)).collect()
    }

    /// Amount and count that each limit allows.
    pub(super) fn caps(&self) -> HashMap<i64, (Option<i64>, Option<i64>)> {
        self.limits.values().flatten().map(|limit| (limit.id, (limit.cap_amount, limit.cap_count))).collect()
    }

    fn starts(&mut self, program: i64, decided_at: i64) -> Option<WindowStarts> {
        let Self { programs, starts, .. } = self;
        *starts.entry((program, decided_at.div_euclid(QUARTER_US))).or_insert_with(|| {
            let program = programs.get(&program)?;
            let week_start = named::<WeekStartName>(&program.week_start)?;
            calendar::window_starts(&program.time_zone, week_start.into(), Timestamp(decided_at)).ok()
        })
    }
}

impl Limit {
    fn bound(&self, card: &Card, starts: &WindowStarts) -> Option<Bound> {
        let window: Window = named::<WindowName>(&self.period)?.into();
        let scope = match self.scope.as_str() {
            "card" => card.id,
            "user" => card.user_id,
            "account" => card.account_id,
            _ => card.program_id,
        };
        let counter = (window != Window::Transaction).then(|| (self.id, scope, starts.start_of(window).0));
        Some(Bound { counter, cap_amount: self.cap_amount, cap_count: self.cap_count.filter(|_| window != Window::Transaction) })
    }
}

/// Why a request is declined whatever the money; `None` when only limits and funds can decline it.
pub(super) fn refusal(asked: &Asked, card: Option<(&Card, &Program)>, decided_at: i64) -> Option<&'static str> {
    let Some((card, program)) = card else { return Some("card_not_found") };
    let blocked = || first_blocked(&card.controls, asked).into_iter().chain(first_blocked(&program.controls, asked)).min();
    match card.status.as_str() {
        "lost" => Some("card_lost"),
        "stolen" => Some("card_stolen"),
        _ if decided_at >= card.expires_at => Some("card_expired"),
        "active" if card.user != asked.user => Some("user_not_found"),
        "active" if !card.user_active => Some("user_inactive"),
        "active" if program.kyc_required && !card.kyc_verified => Some("kyc_required"),
        "active" if !card.account_open => Some("account_closed"),
        "active" if card.currency != asked.currency => Some("currency_mismatch"),
        "active" => blocked().map(|(_, reason)| reason),
        _ => Some("card_inactive"),
    }
}

/// The first part of a filter that a request does not pass: its place in the order of reasons, and its reason.
fn first_blocked(filter: &FilterFacts, asked: &Asked) -> Option<(usize, &'static str)> {
    let equal = |value: &'static str| move |entry: &str| entry == value;
    let parts = [
        ("channel_blocked", passes(&filter.channels, equal(asked.channel))),
        ("country_blocked", passes(&filter.countries, equal(asked.country))),
        ("mcc_blocked", passes(&filter.mccs, |entry| in_range(entry, asked.mcc))),
        ("merchant_blocked", passes(&filter.merchants, |entry| entry == asked.merchant)),
    ];
    parts.into_iter().enumerate().find(|(_, (_, passes))| !passes).map(|(place, (reason, _))| (place, reason))
}

fn passes(filter: &MatchFacts, same: impl Fn(&str) -> bool) -> bool {
    filter.only.as_ref().is_none_or(|only| only.iter().any(|entry| same(entry))) && !filter.except.iter().any(|entry| same(entry))
}

/// Categories have four digits, so that text sorts them.
fn in_range(entry: &str, mcc: &str) -> bool {
    let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
    (first..=last).contains(&mcc)
}
