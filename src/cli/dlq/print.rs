//! Dead letters as people and programs read them.

use crate::{
    broker::dead_letters::{Failure, Letter, Outcome, VISITS_MAX, Visited},
    cli::table::{plain, table},
    codec::timestamp,
    domain::time::Timestamp,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Characters of a letter's id that lists show; `show` takes them.
const ID_SHOWN: usize = 12;
/// Characters of a message's id that lists show.
const MESSAGE_ID_SHOWN: usize = 40;
/// Ages by which letters are counted: up to so many seconds, and its name.
const AGES: [(i64, &str); 6] =
    [(60, "1 minute"), (600, "10 minutes"), (3_600, "1 hour"), (21_600, "6 hours"), (86_400, "1 day"), (604_800, "7 days")];
const BAR_WIDTH: u64 = 30;

/// A letter for a list: bodies are not kept for ten thousand of them.
pub(super) fn without_body(mut letter: Letter) -> (Letter, usize) {
    let bytes = std::mem::take(&mut letter.body).len();
    letter.headers = Vec::new();
    (letter, bytes)
}

pub(super) fn list(queue: &str, letters: &[(Letter, usize)], visited: Visited) -> String {
    let row = |(letter, bytes): &(Letter, usize)| {
        [
            at(letter.failed_at),
            reason(letter),
            cut(letter.message_id.as_deref().unwrap_or("-"), MESSAGE_ID_SHOWN),
            letter.attempts.map_or_else(|| "-".to_owned(), |attempts| attempts.to_string()),
            letter.replays.to_string(),
            bytes.to_string(),
            cut(&letter.id, ID_SHOWN),
        ]
    };
    let rows: Vec<_> = letters.iter().map(row).collect();
    let head = ["FAILED AT", "REASON", "MESSAGE", "TRIES", "REPLAYS", "BYTES", "ID"];
    let listed = if rows.is_empty() { String::new() } else { format!("{}\n", table(head, &[3, 4, 5], &rows)) };
    let next = if rows.is_empty() { "" } else { "\nnext: jitauth dlq show ID, or jitauth dlq replay --dry-run" };
    format!("{listed}{} shown; {}{next}\n", count(letters.len(), "letter"), looked_at(queue, visited))
}

pub(super) fn list_json(queue: &str, letters: &[(Letter, usize)], visited: Visited) -> String {
    let letters: Vec<Value> = letters.iter().map(|(letter, bytes)| summary(letter, *bytes)).collect();
    format!("{}\n", json!({"queue": queue, "ready": visited.ready, "seen": visited.seen, "letters": letters}))
}

pub(super) fn letter(letter: &Letter) -> String {
    let mut lines = vec![
        ("id".to_owned(), letter.id.clone()),
        ("reason".to_owned(), reason(letter)),
        ("detail".to_owned(), letter.detail.clone()),
        ("failed at".to_owned(), letter.failed_at.map_or_else(|| "unknown".to_owned(), timestamp::format)),
        ("replays".to_owned(), letter.replays.to_string()),
    ];
    lines.extend(letter.properties.iter().map(|(name, value)| (format!("property {name}"), value.clone())));
    lines.extend(letter.headers.iter().map(|(name, value)| (format!("header {name}"), value.clone())));
    let redacted = if letter.redacted { ", card numbers blotted out" } else { "" };
    lines.push(("body".to_owned(), format!("{} bytes{redacted}", letter.body.len())));
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let text: String = lines.iter().map(|(name, value)| format!("{:<width$}  {}\n", plain(name), plain(value))).collect();
    format!("{text}\n{}\n", plain(&String::from_utf8_lossy(&letter.body)))
}

pub(super) fn letter_json(letter: &Letter) -> String {
    let mut value = summary(letter, letter.body.len());
    value["redacted"] = letter.redacted.into();
    value["properties"] = letter.properties.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    value["headers"] = letter.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    value["body"] = String::from_utf8_lossy(&letter.body).into();
    format!("{value}\n")
}

pub(super) fn outcome(letter: &Letter, outcome: &Outcome) -> String {
    let done = match outcome {
        Outcome::Replayed(nth) => format!("sent again ({nth} of 3)"),
        Outcome::WouldReplay(nth) => format!("would be sent again ({nth} of 3)"),
        Outcome::Refused(refusal) => format!("stays: {refusal}"),
        Outcome::Failed(failure) => format!("FAILED: {failure}"),
    };
    let message = cut(letter.message_id.as_deref().unwrap_or("-"), MESSAGE_ID_SHOWN);
    format!("{}  {:<18}  {message:<20}  {done}", cut(&letter.id, ID_SHOWN), reason(letter))
}

pub(super) fn outcome_json(letter: &Letter, outcome: &Outcome) -> String {
    let (name, detail) = match outcome {
        Outcome::Replayed(_) => ("replayed", None),
        Outcome::WouldReplay(_) => ("would_replay", None),
        Outcome::Refused(refusal) => ("refused", Some((refusal.name(), refusal.to_string()))),
        Outcome::Failed(failure) => ("failed", Some(("failed", failure.to_string()))),
    };
    let mut value = summary(letter, letter.body.len());
    value["outcome"] = name.into();
    if let Some((why, detail)) = detail {
        value["why"] = why.into();
        value["why_text"] = detail.into();
    }
    value.to_string()
}

/// What a replay came to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    replayed: u64,
    would_replay: u64,
    refused: BTreeMap<&'static str, u64>,
    pub(super) failure: Option<Failure>,
}

impl Tally {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Replayed(_) => self.replayed += 1,
            Outcome::WouldReplay(_) => self.would_replay += 1,
            Outcome::Refused(refusal) => *self.refused.entry(refusal.name()).or_default() += 1,
            Outcome::Failed(failure) => self.failure = Some(*failure),
        }
    }

    pub(super) fn text(&self, queue: &str, visited: Visited, dry_run: bool) -> String {
        let refused: u64 = self.refused.values().sum();
        let by: Vec<String> = self.refused.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let why = if by.is_empty() { String::new() } else { format!(" ({})", by.join(", ")) };
        let (done, sent) = if dry_run { ("would be sent again", self.would_replay) } else { ("sent again", self.replayed) };
        format!("{sent} {done}, {refused} refused{why}; {}", looked_at(queue, visited))
    }

    pub(super) fn json(&self, queue: &str, visited: Visited) -> String {
        let failure = self.failure.map(|failure| failure.to_string());
        json!({
            "queue": queue, "ready": visited.ready, "seen": visited.seen, "replayed": self.replayed, "would_replay": self.would_replay,
            "refused": self.refused, "failure": failure,
        })
        .to_string()
    }
}

/// Letters, counted.
#[derive(Debug)]
pub(super) struct Stats {
    now: Timestamp,
    letters: u64,
    reasons: BTreeMap<String, u64>,
    /// One more than [`AGES`]: older than all of them. Letters without a time are in none.
    ages: [u64; AGES.len() + 1],
    replayed: u64,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
}

impl Stats {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { now, letters: 0, reasons: BTreeMap::new(), ages: [0; AGES.len() + 1], replayed: 0, oldest: None, newest: None }
    }

    pub(super) fn add(&mut self, letter: &Letter) {
        self.letters += 1;
        *self.reasons.entry(reason(letter)).or_default() += 1;
        self.replayed += u64::from(letter.replays > 0);
        if let Some(at) = letter.failed_at {
            let age = self.now.0.saturating_sub(at.0) / 1_000_000;
            let class = AGES.iter().position(|(seconds, _)| age < *seconds).unwrap_or(AGES.len());
            self.ages[class] += 1;
            self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
            self.newest = Some(self.newest.map_or(at, |newest| newest.max(at)));
        }
    }

    pub(super) fn text(&self, queue: &str, visited: Visited) -> String {
        let bar = |count: u64| "#".repeat(usize::try_from((count * BAR_WIDTH).div_ceil(self.letters.max(1))).unwrap_or_default());
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let reasons: Vec<_> = reasons.into_iter().map(|(reason, count)| [reason.clone(), count.to_string(), bar(*count)]).collect();
        let ages = self.ages.iter().enumerate().map(|(class, count)| {
            let name = AGES.get(class).map_or_else(|| "older".to_owned(), |(_, name)| format!("under {name}"));
            [name, count.to_string(), bar(*count)]
        });
        let mut text = String::new();
        if self.letters > 0 {
            text.push_str(&format!("{}\n", table(["REASON", "LETTERS", ""], &[1], &reasons)));
            text.push_str(&format!("{}\n", table(["AGE", "LETTERS", ""], &[1], &ages.collect::<Vec<_>>())));
            text.push_str(&format!("oldest {}, newest {}, sent again before: {}\n", at(self.oldest), at(self.newest), self.replayed));
        }
        format!("{text}{} counted; {}\n", count(usize::try_from(self.letters).unwrap_or(usize::MAX), "letter"), looked_at(queue, visited))
    }

    pub(super) fn json(&self, queue: &str, visited: Visited) -> String {
        let names = AGES.iter().map(|(seconds, _)| format!("under_{seconds}_s")).chain(["older".to_owned()]);
        let ages: BTreeMap<String, u64> = names.zip(self.ages).collect();
        let time = |at: Option<Timestamp>| at.map(timestamp::format);
        let value = json!({
            "queue": queue, "ready": visited.ready, "seen": visited.seen, "letters": self.letters, "reasons": self.reasons, "ages": ages,
            "oldest": time(self.oldest), "newest": time(self.newest), "replayed_before": self.replayed,
        });
        format!("{value}\n")
    }
}

fn summary(letter: &Letter, bytes: usize) -> Value {
    json!({
        "id": letter.id, "reason": letter.reason, "detail": letter.detail, "failed_at": letter.failed_at.map(timestamp::format),
        "message_id": letter.message_id, "attempts": letter.attempts, "replays": letter.replays, "bytes": bytes,
    })
}

/// To the second, which is enough for a list.
fn at(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "unknown".to_owned(), |at| format!("{}Z", &timestamp::format(at)[..19]))
}

fn reason(letter: &Letter) -> String {
    if letter.reason.is_empty() { "none given".to_owned() } else { cut(&letter.reason, MESSAGE_ID_SHOWN) }
}

fn cut(text: &str, characters: usize) -> String {
    let text = plain(text);
    match text.char_indices().nth(characters) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn looked_at(queue: &str, visited: Visited) -> String {
    let Visited { ready, seen } = visited;
    let more = if seen >= VISITS_MAX && ready > seen { " (no more are looked at in one go)" } else { "" };
    format!("looked at {seen} of {ready} in {queue}{more}")
}
