//! `jitauth limit`: setting, listing and removing spending limits.

pub(super) mod print;

use super::{
    Error, Exit,
    administration::{announce, line, now},
    card::card_token,
    user::user_token,
};
use crate::{
    codec::{event::EventKind, money},
    config::Config,
    domain::{
        ids::{CardToken, LimitId, UserToken},
        limits::{CounterKey, Filter, Scope, Used},
        money::Currency,
        time::{Timestamp, Window},
    },
    facts::{
        change::Subject,
        document::{FilterFacts, MatchFacts},
    },
    ledger::{
        Ledger,
        administration::{self, Administration, Caps, LimitRecord, Name, Owner, Terms},
    },
    pipeline::calendar,
};
use clap::{Args, Subcommand, ValueEnum};
use print::{caps_text, filter_text, limit_json, per_text, rows, scope_text};
use serde_json::json;
use std::collections::HashMap;

/// What to do about limits.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum LimitCommand {
    /// Cap what may be spent; the same owner, period, scope and filter again replaces the caps
    Set(Box<SetArgs>),
    /// Show the limits of a card, user, account or program with what is used of them
    List(ListArgs),
    /// Remove a limit
    Remove(RemoveArgs),
}

/// Whose limits.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct OwnerArgs {
    /// Of this card
    #[arg(long, value_name = "TOKEN", value_parser = card_token)]
    card: Option<CardToken>,
    /// Of this user, for all cards of the user
    #[arg(long, value_name = "TOKEN", value_parser = user_token)]
    user: Option<UserToken>,
    /// Of this account, for all its cards
    #[arg(long, value_name = "TOKEN")]
    account: Option<String>,
    /// Of this program, for all its cards
    #[arg(long, value_name = "TOKEN")]
    program: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct SetArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// Over what span spending is added up, in the program's time zone
    #[arg(long, value_name = "PERIOD")]
    per: Per,
    /// Most that may be spent, as in 500.00, in the owner's currency
    #[arg(long, value_name = "AMOUNT", required_unless_present = "count")]
    amount: Option<String>,
    /// Most approvals
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    count: Option<i64>,
    /// Whose spending one counter adds up [default: the owner's]
    #[arg(long, value_name = "SCOPE")]
    scope: Option<Counted>,
    #[command(flatten)]
    filter: FilterArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Which transactions are meant; all of them when nothing is said. Lists are separated by commas.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct FilterArgs {
    /// Only these merchant categories, as in 5411,3000-3299
    #[arg(long, value_name = "MCC", value_delimiter = ',')]
    mcc: Vec<String>,
    /// Not these merchant categories
    #[arg(long, value_name = "MCC", value_delimiter = ',')]
    mcc_except: Vec<String>,
    /// Only these countries, as in NLD,BEL
    #[arg(long, value_name = "COUNTRY", value_delimiter = ',')]
    country: Vec<String>,
    /// Not these countries
    #[arg(long, value_name = "COUNTRY", value_delimiter = ',')]
    country_except: Vec<String>,
    /// Only these channels, as in chip,contactless
    #[arg(long, value_name = "CHANNEL", value_delimiter = ',')]
    channel: Vec<String>,
    /// Not these channels
    #[arg(long, value_name = "CHANNEL", value_delimiter = ',')]
    channel_except: Vec<String>,
    /// Only these merchants
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    merchant: Vec<String>,
    /// Not these merchants
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    merchant_except: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct RemoveArgs {
    /// The limit's id, as jitauth limit list shows it
    #[arg(value_name = "ID")]
    id: i64,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Per {
    /// One transaction by itself
    Transaction,
    /// A calendar day
    Day,
    /// A calendar week
    Week,
    /// A calendar month
    Month,
    /// For ever
    Lifetime,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Counted {
    /// Each card by itself
    Card,
    /// All cards of a user
    User,
    /// All cards of an account
    Account,
    /// All cards of the program
    Program,
}

pub(super) async fn run(store: &impl Administration, command: LimitCommand, config: &Config) -> Result<String, Error> {
    match command {
        LimitCommand::Set(args) => set(store, &args, config).await,
        LimitCommand::List(args) => list(store, &args).await,
        LimitCommand::Remove(args) => remove(store, args, config).await,
    }
}

async fn set(store: &impl Administration, args: &SetArgs, config: &Config) -> Result<String, Error> {
    let filter = args.filter.read()?;
    let owner = administration::owner(store, &args.owner.subject()?).await?;
    let terms = Terms { scope: args.scope.map_or_else(|| own_scope(&owner), Counted::scope), window: args.per.window(), filter };
    let (caps, currency) = args.caps(&owner)?;
    let set = administration::set_limit(store, &owner, &terms, caps).await?;
    let announced = announce(store, &owner.subject, EventKind::LimitsUpdated, config).await?;
    let name = Name::from(&owner.subject);
    let changed = set.was != Some(set.is.caps);
    if args.json {
        let mut json = json!({name.kind: name.token, "changed": changed, "limit": limit_json(&set.is, None, currency),
            "was": set.was.map(|was| json!({"amount": was.amount.map(|amount| print::money(amount, currency)), "count": was.count}))});
        super::merge(&mut json, announced.json());
        return Ok(json.to_string());
    }
    let how = if changed { "is set" } else { "was set so already" };
    let mut out = format!("limit {} of {name} {how}\n", set.is.id.0);
    let was = set.was.filter(|_| changed).map(|was| format!(", was {}", caps_text(was, currency))).unwrap_or_default();
    line(&mut out, "caps", &format!("{} {}{was}", caps_text(caps, currency), per_text(terms.window)));
    line(&mut out, "counts", scope_text(terms.scope));
    line(&mut out, "filter", &filter_text(&terms.filter));
    line(&mut out, "version", &set.is.version.to_string());
    announced.print(&mut out);
    line(&mut out, "next", &format!("jitauth limit remove {} takes it away", set.is.id.0));
    Ok(out)
}

async fn list(store: &impl Administration, args: &ListArgs) -> Result<String, Error> {
    let owner = administration::owner(store, &args.owner.subject()?).await?;
    let limits = administration::limits_of(store, &owner, false).await?;
    let used = used(store, &owner, &limits, now()).await?;
    let (name, currency) = (Name::from(&owner.subject), single_currency(&owner));
    if args.json {
        let limits: Vec<_> = limits.iter().map(|limit| limit_json(limit, used.get(&limit.id), currency)).collect();
        return Ok(json!({name.kind: name.token, "limits": limits}).to_string());
    }
    if limits.is_empty() {
        return Ok(format!("{name} has no limits of its own"));
    }
    Ok(format!("limits of {name}\n{}", rows(&limits, &used, currency)))
}

async fn remove(store: &impl Administration, args: RemoveArgs, config: &Config) -> Result<String, Error> {
    let removal = administration::remove_limit(store, LimitId(args.id)).await?;
    let limit = &removal.limit;
    let (mut json, mut out) = (json!({"removed": limit.id.0}), format!("limit {} is removed\n", limit.id.0));
    if let Some(owner) = &removal.owner {
        let announced = announce(store, &owner.subject, EventKind::LimitsUpdated, config).await?;
        let (name, currency) = (Name::from(&owner.subject), single_currency(owner));
        super::merge(&mut json, json!({name.kind: name.token, "limit": limit_json(limit, None, currency)}));
        super::merge(&mut json, announced.json());
        line(&mut out, "owner", &name.to_string());
        line(&mut out, "caps", &format!("were {} {}", caps_text(limit.caps, currency), per_text(limit.terms.window)));
        line(&mut out, "filter", &filter_text(&limit.terms.filter));
        announced.print(&mut out);
    }
    Ok(if args.json { json.to_string() } else { out })
}

/// What is used of limits in the windows of `now`, of those that have one counter for this owner.
pub(super) async fn used(
    store: &impl Administration,
    owner: &Owner,
    limits: &[LimitRecord],
    now: Timestamp,
) -> Result<HashMap<LimitId, Used>, Error> {
    let starts = calendar::window_starts(&owner.time_zone, owner.week_start, now).map_err(Error::bug)?;
    let counted = limits.iter().filter(|limit| limit.terms.window != Window::Transaction);
    let mut keys: Vec<CounterKey> = counted
        .filter_map(|limit| {
            let scope = owner.ids.of(limit.terms.scope)?;
            Some(CounterKey { limit: limit.id, scope, window: starts.start_of(limit.terms.window).0 })
        })
        .collect();
    keys.sort_unstable();
    let positions = store.ledger().positions(&[], &keys).await;
    let counters = positions.map_err(|error| Error::new(Exit::Unavailable, error.to_string(), "run the same command again"))?.counters;
    Ok(keys.iter().map(|key| (key.limit, counters.get(key).copied().unwrap_or_default())).collect())
}

/// The currency of everything that is spent under an owner, where it is one.
fn single_currency(owner: &Owner) -> Option<Currency> {
    match &owner.currencies[..] {
        [code] => Currency::from_code(code),
        _ => None,
    }
}

fn own_scope(owner: &Owner) -> Scope {
    match owner.subject {
        Subject::Card(_) => Scope::Card,
        Subject::User(_) => Scope::User,
        Subject::Account(_) => Scope::Account,
        Subject::Program(_) => Scope::Program,
    }
}

impl OwnerArgs {
    fn subject(&self) -> Result<Subject, Error> {
        let card = self.card.clone().map(Subject::Card);
        let user = self.user.clone().map(Subject::User);
        let account = self.account.clone().map(Subject::Account);
        let subject = card.or(user).or(account).or_else(|| self.program.clone().map(Subject::Program));
        subject.ok_or_else(|| Error::bug("the command line names no owner"))
    }
}

impl SetArgs {
    fn caps(&self, owner: &Owner) -> Result<(Caps, Option<Currency>), Error> {
        let bad = |what: String| Error::new(Exit::BadFlagValue, what, "nothing was changed; jitauth limit set --help explains the flags");
        if self.count.is_some() && matches!(self.per, Per::Transaction) {
            return Err(bad("--count means nothing for one transaction: leave it out, or choose another --per".to_owned()));
        }
        let currency = single_currency(owner);
        let amount = match (&self.amount, currency) {
            (None, _) => None,
            (Some(_), None) => {
                let (name, currencies) = (Name::from(&owner.subject), owner.currencies.join(" and "));
                return Err(bad(format!("{name} spends in {currencies}: an amount can be set on a card or an account only")));
            }
            (Some(text), Some(currency)) => {
                let amount = money::parse(text, currency).map_err(|error| bad(format!("--amount {text} {error} ({})", currency.code())))?;
                if amount < 0 {
                    return Err(bad(format!("--amount {text} is below zero")));
                }
                Some(amount)
            }
        };
        Ok((Caps { amount, count: self.count }, currency))
    }
}

impl FilterArgs {
    /// The filter, or which flag has what that is none.
    fn read(&self) -> Result<Filter, Error> {
        let mut facts = FilterFacts::default();
        type Part = fn(&mut FilterFacts) -> &mut MatchFacts;
        let parts: [(&str, Part, &Vec<String>, &Vec<String>); 4] = [
            ("mcc", |facts| &mut facts.mccs, &self.mcc, &self.mcc_except),
            ("country", |facts| &mut facts.countries, &self.country, &self.country_except),
            ("channel", |facts| &mut facts.channels, &self.channel, &self.channel_except),
            ("merchant", |facts| &mut facts.merchants, &self.merchant, &self.merchant_except),
        ];
        for (flag, part, only, except) in parts {
            for (suffix, value) in only.iter().map(|value| ("", value)).chain(except.iter().map(|value| ("-except", value))) {
                let mut alone = FilterFacts::default();
                part(&mut alone).except.push(value.clone());
                // The same reader that reads it out of the store.
                if Filter::try_from(alone).is_err() {
                    let next =
                        "a category is four digits or a range of them, a country three capitals (NLD), a channel a name such as chip";
                    return Err(Error::new(Exit::BadFlagValue, format!("--{flag}{suffix} {value:?} is none"), next));
                }
            }
            *part(&mut facts) = MatchFacts { only: (!only.is_empty()).then(|| only.clone()), except: except.clone() };
        }
        Filter::try_from(facts).map_err(Error::bug)
    }
}

impl Per {
    const fn window(self) -> Window {
        match self {
            Self::Transaction => Window::Transaction,
            Self::Day => Window::Day,
            Self::Week => Window::Week,
            Self::Month => Window::Month,
            Self::Lifetime => Window::Lifetime,
        }
    }
}

impl Counted {
    const fn scope(self) -> Scope {
        match self {
            Self::Card => Scope::Card,
            Self::User => Scope::User,
            Self::Account => Scope::Account,
            Self::Program => Scope::Program,
        }
    }
}
