//! Every card that can be used, put together from plain columns: a JSON document for each of a million cards would take the store
//! longer than everything else.
//!
//! Both stores run these queries, in one snapshot. What comes out for a card equals what `fetch` gives for it.

use crate::{
    domain::{
        facts::{Account, Card, CardFile, CardStatus, Program, User},
        ids::{AccountId, CardId, CardToken, LimitId, ProgramId, UserId, UserToken},
        limits::{Cap, Filter, Limit},
        money::Currency,
        time::Timestamp,
    },
    facts::document::{self, FilterFacts, KindName, ScopeName, WeekStartName, WindowName, named},
};
use std::{collections::HashMap, sync::Arc};

/// Every program.
pub(super) const PROGRAMS: &str = "select id, version, kind, time_zone, week_start, kyc_required, partial_approval, controls from programs";

/// Every limit.
pub(super) const LIMITS: &str = "select owner, owner_id, id, scope, period, filter, cap_amount, cap_count from limits";

/// Every card that can be used at the instant `$now`, an SQL expression in microseconds.
macro_rules! usable_cards {
    ($now:literal) => {
        concat!(
            "select c.id, c.token, c.version, c.expires_at, c.controls, u.id, u.token, u.version, u.status = 'active', u.kyc = 'verified', \
                    a.id, a.currency, a.status = 'open', c.program_id \
               from cards c join users u on u.id = c.user_id join accounts a on a.id = c.account_id \
              where c.status = 'active' and c.expires_at > ",
            $now
        )
    };
}
pub(super) use usable_cards;

/// A row of [`PROGRAMS`].
pub(super) type ProgramRow = (i64, i64, String, String, String, bool, bool, String);
/// A row of [`LIMITS`].
pub(super) type LimitRow = (String, i64, i64, String, String, String, Option<i64>, Option<i64>);
/// A row of [`usable_cards`].
pub(super) type CardRow = (i64, String, i64, i64, String, i64, String, i64, bool, bool, i64, String, bool, i64);

/// Different filters that are remembered so as to be shared; more than these are read for each card by itself.
const FILTERS_MAX: usize = 10_000;

/// Users that are remembered so as to be shared by their cards. Then it begins anew: cards of one user are mostly close to each other.
const USERS_MAX: usize = 65_536;

/// What the files of all cards are made from: first every limit, then every program, then the cards.
#[derive(Debug, Default)]
pub(super) struct Roster {
    programs: HashMap<i64, Arc<Program>>,
    /// In order of owner and id.
    limits: Vec<Owned>,
    users: HashMap<i64, Arc<User>>,
    filters: Filters,
    /// Cards that were left out, because they or what they rest on cannot be understood.
    garbled: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Card(i64),
    User(i64),
    Account(i64),
    Program(i64),
}

#[derive(Debug)]
struct Owned {
    owner: Owner,
    id: i64,
    /// `None` when it cannot be understood: whoever it bears on cannot be decided on.
    limit: Option<Limit>,
}

impl Roster {
    /// Takes in a limit.
    pub(super) fn limit(&mut self, row: LimitRow) {
        self.limits.extend(self.filters.owned(row));
    }

    /// Takes in the programs, once it has every limit.
    pub(super) fn programs(&mut self, rows: Vec<ProgramRow>) {
        self.limits.shrink_to_fit();
        self.limits.sort_unstable_by_key(|owned| (owned.owner, owned.id));
        for row in rows {
            let id = row.0;
            if let Some(program) = self.program(row) {
                self.programs.insert(id, Arc::new(program));
            }
        }
    }

    /// What it keeps until the last card, bytes: its limits. The rest is bounded, and small beside a million cards.
    pub(super) fn bytes(&self) -> u64 {
        size_of_val(&*self.limits) as u64
    }

    /// The file of a card; `None` when it cannot be understood, which costs a word in the log and no more.
    pub(super) fn file(&mut self, row: CardRow) -> Option<CardFile> {
        let file = self.assemble(row);
        self.garbled += u64::from(file.is_none());
        file
    }

    /// Says what was left out.
    pub(super) fn finish(self) {
        if self.garbled > 0 {
            tracing::warn!(
                event = "cards_unreadable",
                cards = self.garbled,
                "cards in the store cannot be understood and were left out; a request for one says in the log what is wrong with it"
            );
        }
    }

    fn assemble(&mut self, row: CardRow) -> Option<CardFile> {
        let (
            id,
            token,
            version,
            expires,
            controls,
            user_id,
            user_token,
            user_version,
            active,
            kyc_verified,
            account,
            currency,
            open,
            program,
        ) = row;
        let limits = self.limits([Owner::Card(id), Owner::User(user_id), Owner::Account(account)])?;
        let program = Arc::clone(self.programs.get(&program)?);
        let user = match self.users.get(&user_id) {
            Some(user) => Arc::clone(user),
            None => {
                let token = UserToken::new(&user_token).ok()?;
                let user = Arc::new(User { id: UserId(user_id), token, version: user_version, active, kyc_verified });
                if self.users.len() >= USERS_MAX {
                    self.users.clear();
                }
                self.users.insert(user_id, Arc::clone(&user));
                user
            }
        };
        let card = Card {
            id: CardId(id),
            token: CardToken::new(&token).ok()?,
            version,
            user: user.id,
            user_version,
            account: Account { id: AccountId(account), currency: Currency::from_code(&currency)?, open },
            program: program.id,
            status: CardStatus::Active,
            expires: Timestamp(expires),
            controls: self.filters.get(&controls)?,
            limits: limits.into_boxed_slice(),
        };
        Some(CardFile { card: Arc::new(card), user, program })
    }

    fn program(&mut self, row: ProgramRow) -> Option<Program> {
        let (id, version, kind, time_zone, week_start, kyc_required, partial_approval, controls) = row;
        Some(Program {
            id: ProgramId(id),
            version,
            kind: named::<KindName>(&kind)?.into(),
            time_zone: time_zone.into(),
            week_start: named::<WeekStartName>(&week_start)?.into(),
            kyc_required,
            partial_approval,
            controls: self.filters.get(&controls)?,
            limits: self.limits([Owner::Program(id)])?,
        })
    }

    /// The limits of all the owners, in order of id.
    fn limits<const N: usize>(&self, owners: [Owner; N]) -> Option<Vec<Limit>> {
        let slices = owners.map(|owner| {
            let rest = &self.limits[self.limits.partition_point(|owned| owned.owner < owner)..];
            &rest[..rest.iter().take_while(|owned| owned.owner == owner).count()]
        });
        let mut limits = Vec::with_capacity(slices.iter().map(|slice| slice.len()).sum());
        for owned in slices.into_iter().flatten() {
            limits.push(owned.limit.clone()?);
        }
        limits.sort_unstable_by_key(|limit| limit.id);
        Some(limits)
    }
}

/// `None` for a cap that cannot be one.
fn cap(most: Option<i64>) -> Option<Option<Cap>> {
    most.map_or(Some(None), |most| Cap::new(most).map(Some))
}

/// Filters by their text, so that equal ones are read once and shared.
#[derive(Debug, Default)]
struct Filters {
    known: HashMap<String, Option<Arc<Filter>>>,
}

impl Filters {
    fn get(&mut self, text: &str) -> Option<Arc<Filter>> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let filter = document::parse::<FilterFacts>(text.as_bytes()).and_then(FilterFacts::shared).ok();
        if self.known.len() < FILTERS_MAX {
            self.known.insert(text.to_owned(), filter.clone());
        }
        filter
    }

    /// `None` for a limit that is nobody's.
    fn owned(&mut self, row: LimitRow) -> Option<Owned> {
        let (owner, owner_id, id, scope, window, filter, cap_amount, cap_count) = row;
        let owner = match owner.as_str() {
            "card" => Owner::Card(owner_id),
            "user" => Owner::User(owner_id),
            "account" => Owner::Account(owner_id),
            "program" => Owner::Program(owner_id),
            _ => return None,
        };
        let mut limit = || {
            let scope = named::<ScopeName>(&scope)?.into();
            Some(Limit {
                id: LimitId(id),
                scope,
                window: named::<WindowName>(&window)?.into(),
                filter: self.get(&filter)?,
                cap_amount: cap(cap_amount)?,
                cap_count: cap(cap_count)?,
            })
        };
        Some(Owned { owner, id, limit: limit() })
    }
}
