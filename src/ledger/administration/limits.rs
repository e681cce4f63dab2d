//! Limits: whose they are, which there are, and setting and removing them.

use super::{Administration, AdministrationError, Name, Record, Session, Value};
use crate::{
    domain::{
        facts::WeekStart,
        ids::{CardToken, LimitId, UserToken},
        limits::{Filter, Scope},
        time::Window,
    },
    facts::{
        FactError,
        change::Subject,
        document::{self, FilterFacts, ScopeName, WeekStartName, WindowName},
    },
    ledger::StoreError,
};

/// Somebody whom limits are attached to, and what is needed to understand them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Who.
    pub subject: Subject,
    /// The store's keys.
    pub ids: OwnerIds,
    /// What amounts are in: that of the accounts of the owner's cards, where they agree. The ones that differ otherwise.
    pub currencies: Vec<String>,
    /// IANA name of the time zone that windows are cut in.
    pub time_zone: String,
    /// The first day of a week.
    pub week_start: WeekStart,
}

/// The keys of an owner, and of those whom the owner belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "one key for each scope")]
pub struct OwnerIds {
    pub card: Option<i64>,
    pub user: Option<i64>,
    pub account: Option<i64>,
    pub program: Option<i64>,
}

impl OwnerIds {
    /// Whose spending a counter of this scope adds up for this owner, where that is one.
    #[must_use]
    pub const fn of(&self, scope: Scope) -> Option<i64> {
        match scope {
            Scope::Card => self.card,
            Scope::User => self.user,
            Scope::Account => self.account,
            Scope::Program => self.program,
        }
    }
}

/// What may be spent; at least one of them caps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Minor units.
    pub amount: Option<i64>,
    /// Approvals.
    pub count: Option<i64>,
}

/// What a limit is found by, beside its owner.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Whose spending one counter adds up.
    pub scope: Scope,
    /// Over what span.
    pub window: Window,
    /// What counts.
    pub filter: Filter,
}

/// A limit as it is in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitRecord {
    /// Its id.
    pub id: LimitId,
    /// `card`, `user`, `account` or `program`: whom it is attached to.
    pub owner: String,
    /// What it is found by.
    pub terms: Terms,
    /// What may be spent.
    pub caps: Caps,
    /// Moves with every change of the limit.
    pub version: i64,
}

/// What setting a limit did.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitSetting {
    /// The caps before; `None` when there was no such limit.
    pub was: Option<Caps>,
    /// The limit now.
    pub is: LimitRecord,
}

/// A limit that is no more.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// What it was.
    pub limit: LimitRecord,
    /// Whom it was attached to; `None` when that is not there any more either.
    pub owner: Option<Owner>,
}

/// Looks an owner up.
///
/// # Errors
/// [`AdministrationError::Unknown`] when there is none, otherwise as [`Administration::begin`].
pub async fn owner(store: &impl Administration, subject: &Subject) -> Result<Owner, AdministrationError> {
    owner_in(&mut store.begin().await?, subject).await
}

/// The limits that are attached to an owner, and with `all` those that bear on the owner as well, in order of id.
///
/// # Errors
/// As [`Administration::begin`], and [`AdministrationError::Store`] when a limit cannot be understood.
pub async fn limits_of(store: &impl Administration, owner: &Owner, all: bool) -> Result<Vec<LimitRecord>, AdministrationError> {
    limits_in(&mut store.begin().await?, owner, all).await
}

/// Sets the caps of the owner's limit with these terms, or gives the owner one.
///
/// # Errors
/// [`AdministrationError`]; nothing was changed then.
pub async fn set_limit(store: &impl Administration, owner: &Owner, terms: &Terms, caps: Caps) -> Result<LimitSetting, AdministrationError> {
    let mut session = store.begin().await?;
    let setting = set_in(&mut session, owner, terms, caps).await?;
    session.commit().await?;
    Ok(setting)
}

/// Removes a limit. What was counted under it stays, and is never counted under another.
///
/// # Errors
/// [`AdministrationError::Unknown`] when there is none with that id; nothing was changed after any error.
pub async fn remove_limit(store: &impl Administration, id: LimitId) -> Result<Removal, AdministrationError> {
    let mut session = store.begin().await?;
    let removal = remove_in(&mut session, id).await?;
    session.commit().await?;
    Ok(removal)
}

/// A filter in the one way of writing it that equal filters have in common.
#[must_use]
pub fn canonical(filter: &Filter) -> FilterFacts {
    let mut facts = FilterFacts::from(filter);
    for matched in [&mut facts.channels, &mut facts.countries, &mut facts.mccs, &mut facts.merchants] {
        for list in matched.only.iter_mut().chain([&mut matched.except]) {
            list.sort_unstable();
            list.dedup();
        }
    }
    facts
}

/// Keys and program of an owner by token. Columns: card, user, account, program, time zone, start of the week, currency of the program.
const fn owner_query(subject: &Subject) -> &'static str {
    match subject {
        Subject::Card(_) => {
            "select cast(c.id as text), cast(c.user_id as text), cast(c.account_id as text), cast(p.id as text), p.time_zone, p.week_start, \
             p.currency from cards c join programs p on p.id = c.program_id where c.token = $1"
        }
        Subject::User(_) => {
            "select null, cast(o.id as text), null, cast(p.id as text), p.time_zone, p.week_start, p.currency \
             from users o join programs p on p.id = o.program_id where o.token = $1"
        }
        Subject::Account(_) => {
            "select null, null, cast(o.id as text), cast(p.id as text), p.time_zone, p.week_start, o.currency \
             from accounts o join programs p on p.id = o.program_id where o.token = $1"
        }
        Subject::Program(_) => {
            "select null, null, null, cast(p.id as text), p.time_zone, p.week_start, p.currency from programs p where p.token = $1"
        }
    }
}

/// Currencies of the accounts that spend under an owner.
const CURRENCIES: &str = "\
select distinct a.currency from cards c join accounts a on a.id = c.account_id \
 where c.id = $1 or c.user_id = $2 or c.account_id = $3 order by 1";

pub(super) async fn owner_in(session: &mut impl Session, subject: &Subject) -> Result<Owner, AdministrationError> {
    let name = Name::from(subject);
    let rows = session.rows(owner_query(subject).to_owned(), &[Value::Text(&name.token)]).await?;
    let Some(row) = rows.first() else { return Err(AdministrationError::Unknown(name)) };
    let ids = OwnerIds { card: row.optional(0)?, user: row.optional(1)?, account: row.optional(2)?, program: row.optional(3)? };
    let own = |kind: &str, id: Option<i64>| Value::Optional(id.filter(|_| name.kind == kind));
    let spending = [own("card", ids.card), own("user", ids.user), own("account", ids.account)];
    let mut currencies =
        session.rows(CURRENCIES.to_owned(), &spending).await?.iter().map(|row| row.text(0)).collect::<Result<Vec<_>, _>>()?;
    if currencies.is_empty() {
        currencies.push(row.text(6)?);
    }
    let week_start = document::named::<WeekStartName>(&row.text(5)?).ok_or_else(|| broken("programs.week_start"))?;
    Ok(Owner { subject: subject.clone(), ids, currencies, time_zone: row.text(4)?, week_start: week_start.into() })
}

const LIMIT: &str = "\
select cast(id as text), owner, scope, period, filter, cast(cap_amount as text), cast(cap_count as text), cast(version as text), \
       cast(owner_id as text) \
  from limits where ";

async fn limits_in(session: &mut impl Session, owner: &Owner, all: bool) -> Result<Vec<LimitRecord>, AdministrationError> {
    let own = |kind: &str, id: Option<i64>| Value::Optional(id.filter(|_| all || Name::from(&owner.subject).kind == kind));
    let OwnerIds { card, user, account, program } = owner.ids;
    let owners = [own("card", card), own("user", user), own("account", account), own("program", program)];
    let sql = format!(
        "{LIMIT}(owner = 'card' and owner_id = $1) or (owner = 'user' and owner_id = $2) or (owner = 'account' and owner_id = $3) \
         or (owner = 'program' and owner_id = $4) order by limits.id"
    );
    session.rows(sql, &owners).await?.iter().map(limit).collect()
}

async fn set_in<S: Session>(session: &mut S, owner: &Owner, terms: &Terms, caps: Caps) -> Result<LimitSetting, AdministrationError> {
    session.rows(S::ALONE.to_owned(), &[]).await?;
    let wanted = canonical(&terms.filter);
    let same = |limit: &LimitRecord| {
        limit.terms.scope == terms.scope && limit.terms.window == terms.window && canonical(&limit.terms.filter) == wanted
    };
    let mut there = limits_in(session, owner, false).await?;
    there.retain(same);
    let mut there = there.into_iter();
    let before = there.next();
    // Only by plain SQL can there be more than one; the caps that are set now would not be the ones that hold.
    for double in there {
        session.rows("delete from limits where id = $1".to_owned(), &[Value::Integer(double.id.0)]).await?;
    }
    let (amount, count) = (Value::Optional(caps.amount), Value::Optional(caps.count));
    let id = match &before {
        Some(before) if before.caps == caps => before.id,
        Some(before) => {
            let update = "update limits set cap_amount = $2, cap_count = $3 where id = $1";
            session.rows(update.to_owned(), &[Value::Integer(before.id.0), amount, count]).await?;
            before.id
        }
        None => {
            let id = unused_id(session).await?;
            let (kind, owner_id) = key(owner)?;
            let filter = serde_json::to_string(&wanted).map_err(|error| broken(&error.to_string()))?;
            let (scope, period) = (document::name(&ScopeName::from(terms.scope)), document::name(&WindowName::from(terms.window)));
            let insert = "insert into limits (id, owner, owner_id, scope, period, filter, cap_amount, cap_count) \
                          values ($1, $2, $3, $4, $5, $6, $7, $8)";
            let values = [Value::Integer(id), Value::Text(kind), Value::Integer(owner_id), Value::Text(&scope), Value::Text(&period)];
            session.rows(insert.to_owned(), &[&values[..], &[Value::Text(&filter), amount, count]].concat()).await?;
            LimitId(id)
        }
    };
    let is = find(session, id).await?.ok_or_else(|| broken("the limit that was just set is not there"))?.0;
    Ok(LimitSetting { was: before.map(|before| before.caps), is })
}

async fn remove_in(session: &mut impl Session, id: LimitId) -> Result<Removal, AdministrationError> {
    let name = Name { kind: "limit", token: id.0.to_string() };
    let Some((limit, owner_id)) = find(session, id).await? else { return Err(AdministrationError::Unknown(name)) };
    let table = match limit.owner.as_str() {
        "card" => "cards",
        "user" => "users",
        "account" => "accounts",
        _ => "programs",
    };
    let rows = session.rows(format!("select token from {table} where id = $1"), &[Value::Integer(owner_id)]).await?;
    let subject = rows.first().and_then(|row| row.get(0)).and_then(|token| subject(&limit.owner, token));
    let owner = match subject {
        Some(subject) => Some(owner_in(session, &subject).await?),
        None => None,
    };
    session.rows("delete from limits where id = $1".to_owned(), &[Value::Integer(id.0)]).await?;
    Ok(Removal { limit, owner })
}

/// An id that no limit has, nor ever had from here.
async fn unused_id<S: Session>(session: &mut S) -> Result<i64, AdministrationError> {
    const TRIES_MAX: u32 = 100;
    for _ in 0..TRIES_MAX {
        let rows = session.rows(S::LIMIT_ID.to_owned(), &[]).await?;
        let id = rows.first().ok_or_else(|| broken("no limit id"))?.number(0)?;
        // Somebody may use ids of this range by plain SQL.
        if find(session, LimitId(id)).await?.is_none() {
            return Ok(id);
        }
    }
    Err(AdministrationError::Impossible(format!("no unused limit id was found in {TRIES_MAX} tries")))
}

async fn find(session: &mut impl Session, id: LimitId) -> Result<Option<(LimitRecord, i64)>, AdministrationError> {
    let rows = session.rows(format!("{LIMIT}id = $1"), &[Value::Integer(id.0)]).await?;
    rows.first().map(|row| Ok((limit(row)?, row.number(8)?))).transpose()
}

fn limit(row: &Record) -> Result<LimitRecord, AdministrationError> {
    let id = row.number(0)?;
    let fault = |what: &str| broken(&format!("limits.{what} of limit {id}"));
    let filter = document::parse::<FilterFacts>(row.text(4)?.as_bytes()).and_then(Filter::try_from);
    Ok(LimitRecord {
        id: LimitId(id),
        owner: row.text(1)?,
        terms: Terms {
            scope: document::named::<ScopeName>(&row.text(2)?).ok_or_else(|| fault("scope"))?.into(),
            window: document::named::<WindowName>(&row.text(3)?).ok_or_else(|| fault("period"))?.into(),
            filter: filter.map_err(|error: FactError| fault(&format!("filter ({error})")))?,
        },
        caps: Caps { amount: row.optional(5)?, count: row.optional(6)? },
        version: row.number(7)?,
    })
}

fn key(owner: &Owner) -> Result<(&'static str, i64), AdministrationError> {
    let kind = Name::from(&owner.subject).kind;
    let id = match owner.subject {
        Subject::Card(_) => owner.ids.card,
        Subject::User(_) => owner.ids.user,
        Subject::Account(_) => owner.ids.account,
        Subject::Program(_) => owner.ids.program,
    };
    Ok((kind, id.ok_or_else(|| broken("an owner without a key"))?))
}

fn subject(kind: &str, token: &str) -> Option<Subject> {
    match kind {
        "card" => CardToken::new(token).ok().map(Subject::Card),
        "user" => UserToken::new(token).ok().map(Subject::User),
        "account" => Some(Subject::Account(token.to_owned())),
        _ => Some(Subject::Program(token.to_owned())),
    }
}

fn broken(what: &str) -> AdministrationError {
    AdministrationError::Store(StoreError::Broken(format!("it cannot be understood: {what}")))
}
