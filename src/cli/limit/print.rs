//! Limits as people read them, and as programs do.

use crate::{
    codec,
    domain::{
        ids::LimitId,
        limits::{Filter, Scope, Used},
        money::Currency,
        time::Window,
    },
    facts::document::{self, MatchFacts, ScopeName, WindowName},
    ledger::administration::{Caps, LimitRecord, canonical},
};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Minor units as a decimal; where the currency is not known, as they are.
pub(in crate::cli) fn money(minor: i64, currency: Option<Currency>) -> String {
    currency.map_or_else(|| format!("{minor} minor units"), |currency| codec::money::format(minor, currency))
}

fn money_text(minor: i64, currency: Option<Currency>) -> String {
    let code = currency.map(|currency| format!(" {}", currency.code())).unwrap_or_default();
    format!("{}{code}", money(minor, currency))
}

/// `500.00 USD, 3 approvals`.
pub(super) fn caps_text(caps: Caps, currency: Option<Currency>) -> String {
    let amount = caps.amount.map(|amount| money_text(amount, currency));
    let count = caps.count.map(|count| if count == 1 { "1 approval".to_owned() } else { format!("{count} approvals") });
    match [amount, count].into_iter().flatten().collect::<Vec<_>>() {
        caps if caps.is_empty() => "no cap".to_owned(),
        caps => caps.join(", "),
    }
}

/// `a day`, behind caps.
pub(super) const fn per_text(window: Window) -> &'static str {
    match window {
        Window::Transaction => "a transaction",
        Window::Day => "a day",
        Window::Week => "a week",
        Window::Month => "a month",
        Window::Lifetime => "for ever",
    }
}

/// Whose spending is added up.
pub(super) const fn scope_text(scope: Scope) -> &'static str {
    match scope {
        Scope::Card => "each card by itself",
        Scope::User => "each user, all cards together",
        Scope::Account => "each account, all cards together",
        Scope::Program => "the whole program together",
    }
}

/// `mcc 5411 3000-3299, country not PRK`.
pub(in crate::cli) fn filter_text(filter: &Filter) -> String {
    let facts = canonical(filter);
    let parts = [("mcc", facts.mccs), ("country", facts.countries), ("channel", facts.channels), ("merchant", facts.merchants)];
    let texts: Vec<_> = parts.iter().filter_map(|(name, part)| match_text(name, part)).collect();
    if texts.is_empty() { "everything".to_owned() } else { texts.join(", ") }
}

fn match_text(name: &str, part: &MatchFacts) -> Option<String> {
    let only = part.only.as_ref().map(|only| if only.is_empty() { " none".to_owned() } else { format!(" {}", only.join(" ")) });
    let except = (!part.except.is_empty()).then(|| format!(" not {}", part.except.join(" ")));
    (only.is_some() || except.is_some()).then(|| format!("{name}{}{}", only.unwrap_or_default(), except.unwrap_or_default()))
}

/// A table of limits.
pub(in crate::cli) fn rows(limits: &[LimitRecord], used: &HashMap<LimitId, Used>, currency: Option<Currency>) -> String {
    let header = ["id", "owner", "per", "cap", "used", "counts", "filter"].map(str::to_owned);
    let rows = limits.iter().map(|limit| {
        let used = match used.get(&limit.id) {
            Some(used) => caps_text(Caps { amount: Some(used.amount), count: Some(used.count) }, currency),
            // One transaction needs no counter; what has a counter for each card has none of its owner.
            None => "-".to_owned(),
        };
        let window = document::name(&WindowName::from(limit.terms.window));
        let counts = scope_text(limit.terms.scope).to_owned();
        [
            limit.id.0.to_string(),
            limit.owner.clone(),
            window,
            caps_text(limit.caps, currency),
            used,
            counts,
            filter_text(&limit.terms.filter),
        ]
    });
    let table: Vec<_> = std::iter::once(header).chain(rows).collect();
    let mut out = String::new();
    for row in &table {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = table.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            format!("{cell:<width$}")
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push_str("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A limit for programs.
pub(in crate::cli) fn limit_json(limit: &LimitRecord, used: Option<&Used>, currency: Option<Currency>) -> Value {
    json!({
        "id": limit.id.0, "owner": limit.owner, "scope": ScopeName::from(limit.terms.scope), "per": WindowName::from(limit.terms.window),
        "filter": canonical(&limit.terms.filter), "amount": limit.caps.amount.map(|amount| money(amount, currency)),
        "count": limit.caps.count, "currency": currency.map(|currency| currency.code().to_owned()), "version": limit.version,
        "used": used.map(|used| json!({"amount": money(used.amount, currency), "count": used.count})),
    })
}
