//! A batch: requests decided together, and the one commit that makes their decisions durable.

use super::{
    Job,
    book::{Book, Missing, Sheet},
    calendar::{CalendarError, Calendars},
    drain::Slot,
};
use crate::{
    codec::response::{self, Response},
    domain::{
        decision::{Charge, Claim, Verdict},
        facts::CardFile,
        hold::HoldId,
        ids::{AccountId, CardId, ProgramId},
        limits::{CounterKey, Scope},
        reason::Reason,
        rules,
        time::{Timestamp, WindowStarts},
    },
    ledger::{AccountDelta, CardVersion, Commit, CounterClaim, JournalEntry},
    telemetry::Span,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// A job with what was gathered for it, waiting for its lane.
pub(super) struct Ready {
    pub(super) job: Job,
    pub(super) known: Known,
    pub(super) queued: Instant,
    /// The job's place among those in flight; given back when it is answered.
    pub(super) slot: Slot,
}

impl Ready {
    /// The lane begins to work on it: what it waited until now was the lane. Told again, of a batch that was halved, it says nothing new.
    pub(super) fn at_work(&mut self, now: Instant) {
        if self.job.spans.get(Span::Lane).is_none() {
            self.job.spans.set(Span::Lane, now.saturating_duration_since(self.queued));
        }
    }

    /// The lane is done with it, however that ended: what it took since it began was the commit, with all tries.
    pub(super) fn done(&mut self, now: Instant) {
        let lane = Duration::from_micros(self.job.spans.get(Span::Lane).unwrap_or(0).into());
        self.job.spans.set(Span::Commit, now.saturating_duration_since(self.queued).saturating_sub(lane));
    }

    /// It was given up before the lane began to work on it.
    pub(super) fn given_up(&mut self, now: Instant) {
        self.job.spans.set(Span::Lane, now.saturating_duration_since(self.queued));
    }
}

/// What a request is decided on.
#[derive(Clone)]
pub(super) enum Known {
    /// Everything about its card.
    File(CardFile),
    /// No card has its token.
    Absent,
    /// Nothing is needed: it is declined for this reason.
    Nothing(Reason),
}

/// One request id of a batch, with those who asked for it at the same time.
pub(super) struct Case {
    pub(super) first: Ready,
    pub(super) twins: Vec<Ready>,
}

/// The moment a batch is decided at, by both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) wall: Timestamp,
    pub(super) now: Instant,
}

/// A batch with its money, not all of which may be known yet.
pub(super) struct Opening {
    starts: Vec<Option<WindowStarts>>,
    pub(super) sheet: Sheet,
    pub(super) missing: Missing,
}

/// A decided batch.
pub(super) struct Draft {
    pub(super) commit: Commit,
    pub(super) decided: Vec<Decided>,
    pub(super) sheet: Sheet,
}

/// One decision of a batch, in the order of its cases.
pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) response: Arc<[u8]>,
    /// Available before this decision, for an account that is known.
    pub(super) available_before: Option<i64>,
}

impl Case {
    /// When the last of those who asked stops listening.
    pub(super) fn deadline(&self) -> Instant {
        self.everybody().map(|ready| ready.job.deadline).max().unwrap_or(self.first.job.deadline)
    }

    /// Whether a decline may answer it that the store knows nothing of.
    pub(super) fn may_be_shed(&self) -> bool {
        !self.everybody().any(|ready| ready.job.redelivered)
    }

    /// Tells everybody who asked.
    pub(super) fn each(&mut self, tell: impl FnMut(&mut Ready)) {
        std::iter::once(&mut self.first).chain(&mut self.twins).for_each(tell);
    }

    pub(super) fn everybody(&self) -> impl Iterator<Item = &Ready> {
        std::iter::once(&self.first).chain(&self.twins)
    }

    pub(super) fn file(&self) -> Option<&CardFile> {
        match &self.first.known {
            Known::File(file) => Some(file),
            Known::Absent | Known::Nothing(_) => None,
        }
    }

    /// The file its decision rests on, or a decline that rests on none.
    fn rests_on(&self, now: Instant) -> Result<Option<&CardFile>, Reason> {
        match &self.first.known {
            Known::Nothing(reason) => Err(*reason),
            _ if self.deadline() <= now => Err(Reason::DeadlineExceeded),
            Known::File(file) => Ok(Some(file)),
            Known::Absent => Ok(None),
        }
    }
}

/// Groups requests by id. A second one with the same material fields joins the first; one with others is a conflict.
pub(super) fn fold(batch: impl Iterator<Item = Ready>) -> (Vec<Case>, Vec<Ready>) {
    let mut places = HashMap::new();
    let (mut cases, mut conflicts) = (Vec::<Case>::new(), Vec::new());
    for ready in batch {
        match places.get(&ready.job.request.id).copied() {
            None => {
                places.insert(ready.job.request.id.clone(), cases.len());
                cases.push(Case { first: ready, twins: Vec::new() });
            }
            Some(place) => match cases.get_mut(place) {
                Some(case) if case.first.job.request.digest == ready.job.request.digest => case.twins.push(ready),
                _ => conflicts.push(ready),
            },
        }
    }
    (cases, conflicts)
}

/// Gives every case of a card, and of a program, the newest version that any of them has seen: a batch may not rest on two.
pub(super) fn agree(cases: &mut [Case]) {
    let mut cards = HashMap::<CardId, CardFile>::new();
    let mut programs = HashMap::<ProgramId, Arc<crate::domain::facts::Program>>::new();
    for file in cases.iter().filter_map(Case::file) {
        let card = cards.entry(file.card.id).or_insert_with(|| file.clone());
        if card.card.version < file.card.version {
            card.clone_from(file);
        }
        let program = programs.entry(file.program.id).or_insert_with(|| file.program.clone());
        if program.version < file.program.version {
            program.clone_from(&file.program);
        }
    }
    for case in cases {
        if let Known::File(file) = &mut case.first.known {
            if let Some(newest) = cards.get(&file.card.id).filter(|newest| newest.card.version > file.card.version) {
                file.clone_from(newest);
            }
            if let Some(newest) = programs.get(&file.program.id).filter(|newest| newest.version > file.program.version) {
                file.program.clone_from(newest);
            }
        }
    }
}

/// Finds the money a batch needs, in the book or as missing from it.
///
/// # Errors
/// The place of a case whose program has no calendar.
pub(super) fn open(cases: &[Case], book: &Book, calendars: &mut Calendars, moment: Moment) -> Result<Opening, (usize, CalendarError)> {
    let (mut sheet, mut missing) = (Sheet::default(), Missing::default());
    let mut starts = Vec::with_capacity(cases.len());
    for (place, case) in cases.iter().enumerate() {
        let Ok(Some(file)) = case.rests_on(moment.now) else {
            starts.push(None);
            continue;
        };
        let cut = calendars.starts(&file.program, moment.wall).map_err(|error| (place, error))?;
        sheet.want_account(file.card.account.id, book, &mut missing);
        for (limit, key) in rules::counters(&case.first.job.request, file, &cut) {
            // Whoever charges these locks the account first. What several accounts share is locked in order, whether it is there or not.
            let own = matches!(limit.scope, Scope::Card | Scope::Account);
            sheet.want_counter(key, own, book, &mut missing);
        }
        starts.push(Some(cut));
    }
    Ok(Opening { starts, sheet, missing })
}

/// Decides every case, in order, each on the money that the ones before it left.
pub(super) fn decide(cases: &mut [Case], opening: Opening, moment: Moment, mut hold_id: impl FnMut() -> HoldId) -> Draft {
    let Opening { starts, mut sheet, .. } = opening;
    let mut claims = Claims::default();
    let mut commit = Commit::default();
    let mut decided = Vec::with_capacity(cases.len());
    for (case, starts) in cases.iter_mut().zip(starts) {
        let began = Instant::now();
        let account = starts.and_then(|_| case.file()).map(|file| file.card.account.id);
        let position = sheet.position(account);
        let available_before = account.map(|_| rules::Position::balance(&position).available());
        // A case that opened without windows rests on no card; which of the two it was is asked again at the same moment.
        let verdict = match (case.rests_on(moment.now), starts) {
            (Err(reason), _) => Verdict::declined(reason),
            (Ok(file), Some(starts)) => rules::decide(&case.first.job.request, file, &starts, moment.wall, &position),
            (Ok(_), None) => Verdict::declined(Reason::CardNotFound),
        };
        if let (Some(claim), Some(account)) = (verdict.claim(), account) {
            claims.note(claim, account, &sheet);
        }
        if let (Verdict::Approved { amount, charges, .. }, Some(account)) = (&verdict, account) {
            sheet.hold(account, *amount);
            for charge in charges {
                sheet.charge(&charge.key, *amount);
            }
        }
        let hold = verdict.decision().holds().then(&mut hold_id);
        let response: Arc<[u8]> = respond(case, &verdict, hold.as_ref(), available_before, moment.wall).into();
        case.first.job.spans.set(Span::Decision, began.elapsed());
        guard(&mut commit, case, &verdict, moment.now);
        commit.journal.push(journal(case, &verdict, hold, response.clone(), moment.wall));
        decided.push(Decided { verdict, response, available_before });
    }
    finish(&mut commit, &sheet, claims);
    Draft { commit, decided, sheet }
}

fn respond(case: &Case, verdict: &Verdict, hold: Option<&HoldId>, available_before: Option<i64>, wall: Timestamp) -> Vec<u8> {
    let request = &case.first.job.request;
    response::encode(&Response {
        id: Some(&request.id),
        decision: verdict.decision(),
        reason: verdict.reason(),
        approved: verdict.held(),
        currency: Some(request.amount.currency),
        available: available_before.map(|available| available.saturating_sub(verdict.held())),
        hold,
        decided_at: wall,
    })
}

/// Notes the facts that the decision rests on.
fn guard(commit: &mut Commit, case: &Case, verdict: &Verdict, now: Instant) {
    match case.rests_on(now) {
        Err(_) => {}
        Ok(Some(file)) => {
            commit.cards.push(CardVersion { card: file.card.id, version: file.card.version });
            commit.programs.push((file.program.id, file.program.version));
        }
        Ok(None) => {
            debug_assert_eq!(verdict.reason(), Some(Reason::CardNotFound), "only an absent card is decided without a file");
            commit.absent.push(case.first.job.request.card.clone());
        }
    }
}

fn journal(case: &Case, verdict: &Verdict, hold: Option<HoldId>, response: Arc<[u8]>, wall: Timestamp) -> JournalEntry {
    let Job { request, spans, lossy_reply, .. } = &case.first.job;
    let us = |span| i32::try_from(spans.get(span).unwrap_or(0)).unwrap_or(i32::MAX);
    let file = case.file();
    let decision = verdict.decision();
    JournalEntry {
        id: request.id.clone(),
        digest: request.digest,
        card: request.card.clone(),
        card_id: file.map(|file| file.card.id),
        account: file.map(|file| file.card.account.id),
        program: file.map(|file| file.program.id),
        requested: request.amount.minor,
        held: verdict.held(),
        currency: request.amount.currency,
        decision,
        reason: verdict.reason(),
        response,
        hold,
        card_version: file.map_or(0, |file| file.card.version),
        program_version: file.map_or(0, |file| file.program.version),
        mcc: request.merchant.mcc,
        merchant: request.merchant.id.clone(),
        country: request.merchant.country,
        channel: request.channel,
        charges: match verdict {
            Verdict::Approved { amount, charges, .. } => Some(charges_json(charges, *amount)),
            Verdict::Declined { .. } => None,
        },
        stage_us: [Span::Queue, Span::User, Span::Card, Span::Limits, Span::Decision].map(us),
        decided_at: wall,
        unheard: decision.holds() && *lossy_reply,
    }
}

fn charges_json(charges: &[Charge], amount: i64) -> String {
    let mut json = String::with_capacity(2 + charges.len() * 48);
    json.push('[');
    for (place, Charge { key: CounterKey { limit, scope, window }, before }) in charges.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let (after, count, counted) = (before.amount.saturating_add(amount), before.count, before.count.saturating_add(1));
        let written = write!(json, "{comma}[{},{scope},{window},{},{after},{count},{counted}]", limit.0, before.amount);
        debug_assert!(written.is_ok(), "writing to a String does not fail");
    }
    json.push(']');
    json
}

/// Claims per key. Each is noted with what the batch had added before it, so that all of a key can be compared.
#[derive(Default)]
struct Claims {
    accounts: BTreeMap<AccountId, i64>,
    counters: BTreeMap<CounterKey, (Option<i64>, Option<i64>)>,
}

impl Claims {
    fn note(&mut self, claim: Claim, account: AccountId, sheet: &Sheet) {
        let least = |slot: Option<i64>, need: i64| Some(slot.map_or(need, |known| known.min(need)));
        match claim {
            Claim::Account { need } => {
                let need = sheet.added_to_account(account).saturating_add(need);
                self.accounts.entry(account).and_modify(|known| *known = need.min(*known)).or_insert(need);
            }
            Claim::Amount { key, need } => {
                let entry = self.counters.entry(key).or_default();
                entry.0 = least(entry.0, sheet.added_to_counter(&key).amount.saturating_add(need));
            }
            Claim::Count { key } => {
                let entry = self.counters.entry(key).or_default();
                entry.1 = least(entry.1, sheet.added_to_counter(&key).count.saturating_add(1));
            }
        }
    }
}

/// Sums and sorts. The store checks claims on top of the whole batch, so what the batch adds is taken off them.
fn finish(commit: &mut Commit, sheet: &Sheet, claims: Claims) {
    commit.journal.sort_by(|a, b| a.id.as_str().as_bytes().cmp(b.id.as_str().as_bytes()));
    commit.cards.sort_by_key(|guard| guard.card);
    commit.cards.dedup();
    commit.programs.sort_unstable();
    commit.programs.dedup();
    commit.absent = std::mem::take(&mut commit.absent).into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    commit.accounts = sheet.account_sums().map(|(account, held)| AccountDelta { account, held }).collect();
    commit.accounts.sort_by_key(|delta| delta.account);
    commit.counters = sheet.counter_sums().collect();
    commit.counters.sort_by_key(|delta| delta.key);
    commit.account_claims =
        claims.accounts.into_iter().map(|(account, need)| (account, need.saturating_sub(sheet.added_to_account(account)))).collect();
    commit.counter_claims = claims
        .counters
        .into_iter()
        .map(|(key, (amount, count))| {
            let added = sheet.added_to_counter(&key);
            let (amount, count) =
                (amount.map(|need| need.saturating_sub(added.amount)), count.map(|need| need.saturating_sub(added.count)));
            CounterClaim { key, amount, count }
        })
        .collect();
}
