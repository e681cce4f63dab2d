//! `jitauth card`: freezing, unfreezing, and everything about a card on one page.

use super::{
    Error,
    administration::{Announced, announce, line, now},
    limit::print::{filter_text, limit_json, money, rows},
};
use crate::{
    codec::event::EventKind,
    config::Config,
    domain::{ids::CardToken, limits::Filter, money::Currency},
    facts::{
        change::Subject,
        document::{self, FilterFacts},
    },
    ledger::administration::{self, Administration, CardRecord, Turned},
};
use clap::{Args, Subcommand};
use serde_json::json;

/// What to do with a card.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum CardCommand {
    /// Decline everything on the card from now on, until it is unfrozen
    Freeze(CardArgs),
    /// Let the card be used again; one that was reported lost or stolen stays as it is
    Unfreeze(CardArgs),
    /// Show the card, its user, its account with balances, and every limit with what is used of it
    Show(CardArgs),
}

/// Which card.
#[derive(Clone, Debug, Args)]
pub(super) struct CardArgs {
    /// The card's token
    #[arg(value_name = "TOKEN", value_parser = card_token)]
    token: CardToken,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// A card's token, or why it is none.
pub(super) fn card_token(text: &str) -> Result<CardToken, String> {
    CardToken::new(text).map_err(|error| format!("the token {error}"))
}

pub(super) async fn run(store: &impl Administration, command: CardCommand, config: &Config) -> Result<String, Error> {
    match command {
        CardCommand::Show(args) => show(store, &args).await,
        CardCommand::Freeze(args) => {
            let turned = administration::freeze(store, &args.token).await?;
            let announced = announced(store, &args, config).await?;
            Ok(turn_text("card", args.token.as_str(), &turned, &announced, args.json, &freezing(&turned, &args.token)))
        }
        CardCommand::Unfreeze(args) => {
            let turned = administration::unfreeze(store, &args.token).await?;
            let announced = announced(store, &args, config).await?;
            let head = if turned.changed() { "can be used again" } else { "was not frozen" };
            Ok(turn_text("card", args.token.as_str(), &turned, &announced, args.json, &[head.to_owned(), String::new()]))
        }
    }
}

/// Also when nothing was changed: whoever was not told the last time is told now.
async fn announced(store: &impl Administration, args: &CardArgs, config: &Config) -> Result<Announced, Error> {
    announce(store, &Subject::Card(args.token.clone()), EventKind::CardUpdated, config).await
}

/// How the card is, and what to do next.
fn freezing(turned: &Turned, token: &CardToken) -> [String; 2] {
    let undo = format!("jitauth card unfreeze {} undoes it", token.as_str());
    match turned.was.as_str() {
        "active" => ["is frozen: everything on it is declined from now on".to_owned(), undo],
        "inactive" => ["was frozen already".to_owned(), undo],
        other => [format!("was reported {other}: it cannot be used anyway, and stays so"), String::new()],
    }
}

/// What became of a status. `head` is how things are now, and what to do next.
pub(super) fn turn_text(kind: &str, token: &str, turned: &Turned, announced: &Announced, as_json: bool, head: &[String; 2]) -> String {
    if as_json {
        let Turned { was, is, version } = turned;
        let mut json = json!({kind: token, "changed": turned.changed(), "was": was, "is": is, "version": version});
        super::merge(&mut json, announced.json());
        return json.to_string();
    }
    let [now, next] = head;
    let mut out = format!("{kind} {token} {now}\n");
    let status = if turned.changed() { format!("{}, was {}", turned.is, turned.was) } else { turned.is.clone() };
    line(&mut out, "status", &status);
    line(&mut out, "version", &turned.version.to_string());
    announced.print(&mut out);
    if !next.is_empty() {
        line(&mut out, "next", next);
    }
    out
}

async fn show(store: &impl Administration, args: &CardArgs) -> Result<String, Error> {
    let card = administration::card(store, &args.token).await?;
    let limits = administration::limits_of(store, &card.owner, true).await?;
    let used = super::limit::used(store, &card.owner, &limits, now()).await?;
    let currency = Currency::from_code(&card.currency);
    let controls = document::parse::<FilterFacts>(card.controls.as_bytes()).and_then(Filter::try_from);
    if args.json {
        return Ok(json!({
            "card": card.token, "status": card.status, "version": card.version, "expires_at": day(&card),
            "controls": serde_json::from_str::<serde_json::Value>(&card.controls).ok(),
            "user": {"token": card.user.token, "status": card.user.status, "kyc": card.user.kyc, "version": card.user.version},
            "account": {"token": card.account, "status": card.account_status, "currency": card.currency,
                "available": money(card.posted.saturating_sub(card.held), currency), "posted": money(card.posted, currency),
                "held": money(card.held, currency), "floor": money(card.floor, currency)},
            "program": card.program,
            "limits": limits.iter().map(|limit| limit_json(limit, used.get(&limit.id), currency)).collect::<Vec<_>>(),
        })
        .to_string());
    }
    let mut out = format!("card {}\n", card.token);
    line(&mut out, "status", &format!("{}, expires {}", card.status, day(&card)));
    let controls = controls.as_ref().map_or_else(|error| format!("{} ({error})", card.controls), filter_text);
    line(&mut out, "controls", &controls);
    line(&mut out, "version", &card.version.to_string());
    line(&mut out, "user", &format!("{}, {}, identity {}", card.user.token, card.user.status, card.user.kyc));
    line(&mut out, "program", &card.program);
    line(&mut out, "account", &format!("{}, {}", card.account, card.account_status));
    let floor = if card.floor == 0 { String::new() } else { format!(", may go to {}", money(card.floor, currency)) };
    let (available, posted, held) = (card.posted.saturating_sub(card.held), card.posted, card.held);
    let balance = format!(
        "{} {} available = {} posted - {} held{floor}",
        money(available, currency),
        card.currency,
        money(posted, currency),
        money(held, currency)
    );
    line(&mut out, "balance", &balance);
    if limits.is_empty() {
        line(&mut out, "limits", "none");
    } else {
        line(&mut out, "limits", "");
        out.push_str(&rows(&limits, &used, currency));
    }
    Ok(out)
}

/// The day on which the card expires, UTC.
fn day(card: &CardRecord) -> String {
    jiff::Timestamp::from_microsecond(card.expires.0).map_or_else(|_| "never".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}
