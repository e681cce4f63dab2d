//! A lane: one writer that decides batches on its working copies and commits them.
//!
//! While one commit is in flight the next batch gathers, so batches form by themselves and grow with the load.
//!
//! **Invariant**: a request leaves a lane only with a decision the store has, or with a decline while nothing of it is in flight.

use super::{
    Answer, FreshApproval, Job, Settings,
    ahead::Pieces,
    batch::{self, Case, Decided, Draft, Known, Moment, Ready},
    book::Book,
    calendar::Calendars,
    decline::{Declines, WallClock},
    job::{Approval, DeskOrder},
    queue::Queue,
};
use crate::{
    domain::{
        decision::{Decision, Verdict},
        hold::HoldId,
        ids::CardToken,
        reason::Reason,
        time::Timestamp,
    },
    facts::{FactError, FactSource, tiered::FactTiers},
    ledger::{Commit, Known as KnownId, Ledger, LedgerError, Outcome, Report},
    telemetry::{Answered, Recorder, Span, Telemetry, events::CommitOutcome},
};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// Shortest and longest pause before the store is asked again after it failed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// How often a batch waits for rows that somebody else has locked, before those who need them are declined.
const CONTENDED_TRIES: u32 = 3;
/// How often a batch is sent again after a deadlock or the like, before it counts as refused.
const TRANSIENT_TRIES: u32 = 8;

pub(super) struct Lane<L, S> {
    pub(super) ledger: L,
    pub(super) facts: FactTiers<S>,
    pub(super) queue: Queue,
    pub(super) ahead: Pieces,
    pub(super) book: Book,
    pub(super) calendars: Calendars,
    pub(super) declines: Declines,
    pub(super) desk: mpsc::Sender<DeskOrder>,
    pub(super) wall: WallClock,
    pub(super) settings: Settings,
    pub(super) telemetry: Telemetry,
    pub(super) recorder: Arc<Recorder>,
}

/// How a batch has fared with the store so far.
#[derive(Default)]
struct Tries {
    /// Rows locked by others are named instead of waited for.
    no_wait: bool,
    contended: u32,
    transient: u32,
    /// An answer to the commit was lost before it had one: what the journal has of it may be its own.
    lost: bool,
    /// How long the last try waited for a lock in vain: the next one may too.
    waited: Duration,
    pauses: u32,
}

impl<L: Ledger, S: FactSource> Lane<L, S> {
    /// Works until all senders of its queue are gone and everything is answered.
    pub(super) async fn run(mut self) {
        loop {
            let batch = tokio::select! { biased;
                batch = self.queue.batch(self.settings.batch_max) => batch,
                Some(files) = self.ahead.recv() => {
                    self.read_ahead(&files).await;
                    continue;
                }
            };
            let Some(mut left) = batch else { return };
            while !left.is_empty() {
                let (cases, others) = batch::fold(left.into_iter());
                self.settle(cases).await;
                // One that differs from its batch's first of the same id may still be what was decided long ago: the store says.
                left = others;
            }
        }
    }

    /// Sees a batch through: every case of it is answered when this returns.
    async fn settle(&mut self, mut cases: Vec<Case>) {
        let (began, mut tries) = (Instant::now(), Tries::default());
        cases.iter_mut().for_each(|case| case.each(|ready| ready.at_work(began)));
        while !cases.is_empty() {
            batch::agree(&mut cases);
            let Some(draft) = self.draft(&mut cases, &mut tries).await else { continue };
            match self.commit(&draft.commit, &mut tries).await {
                Ok(Outcome::Committed) => return self.committed(cases, draft),
                Ok(Outcome::Rejected(report)) => {
                    tries.no_wait = false;
                    cases = self.learn(cases, draft, *report, &mut tries).await;
                }
                Err(LedgerError::Contended(_)) if !tries.no_wait => {
                    tries.contended += 1;
                    tries.no_wait = tries.contended >= CONTENDED_TRIES;
                    cases = self.shed_before(cases, Instant::now() + tries.waited);
                }
                Err(LedgerError::Refused(error)) => cases = self.refused(cases, &error).await,
                // What stays after some tries does not heal by itself.
                Err(LedgerError::Transient(error)) if tries.transient >= TRANSIENT_TRIES => cases = self.refused(cases, &error).await,
                Err(error) => cases = self.pause(cases, &mut tries, &error).await,
            }
        }
    }

    /// Decides the batch, after reading what the book does not have. `None` when the store or a calendar failed and the batch has
    /// to be looked at again.
    async fn draft(&mut self, cases: &mut Vec<Case>, tries: &mut Tries) -> Option<Draft> {
        let moment = Moment { wall: (self.wall)(), now: Instant::now() };
        let mut opening = match batch::open(cases, &self.book, &mut self.calendars, moment) {
            Ok(opening) => opening,
            Err((place, error)) => {
                tracing::error!(event = "calendar_failed", error = %error, "mend the program's time zone");
                cases[place].first.known = Known::Nothing(Reason::SystemError);
                return None;
            }
        };
        if !opening.missing.accounts.is_empty() || !opening.missing.counters.is_empty() {
            let read = self.queue.alongside(self.ledger.positions(&opening.missing.accounts, &opening.missing.counters)).await;
            match read {
                Ok(read) => opening.sheet.fill(&opening.missing, &read, &mut self.book),
                Err(error) => {
                    *cases = self.pause(std::mem::take(cases), tries, &error).await;
                    return None;
                }
            }
        }
        let wall = moment.wall;
        Some(batch::decide(cases, opening, moment, || hold_id(wall)))
    }

    /// Sends a commit until its outcome is definite.
    async fn commit(&mut self, commit: &Commit, tries: &mut Tries) -> Result<Outcome, LedgerError> {
        tries.lost = false;
        loop {
            let sent = Instant::now();
            self.telemetry.commit_begun();
            let outcome = self.queue.alongside(self.ledger.commit(commit, !tries.no_wait)).await;
            let took = sent.elapsed();
            self.telemetry.committed(outcome_name(&outcome), commit.journal.len(), took);
            tries.waited = if let Err(LedgerError::Contended(_)) = outcome { took } else { Duration::ZERO };
            match outcome {
                Err(LedgerError::Unknown(error)) => {
                    tries.lost = true;
                    tracing::debug!(event = "commit_unknown", error, "a commit's answer was lost");
                }
                // While an earlier send may still turn out to have gone through, only an answer about its ids ends the wait.
                Err(error @ (LedgerError::Contended(_) | LedgerError::Transient(_) | LedgerError::Unreachable(_))) if tries.lost => {
                    tracing::warn!(event = "commit_unresolved", error = %error, "asking the store again what became of a commit");
                }
                Err(error) => return Err(error),
                Ok(outcome) => return Ok(outcome),
            }
            let pause = backoff(&mut tries.pauses);
            self.queue.alongside(tokio::time::sleep(pause)).await;
        }
    }

    /// The batch is durable: adopts its money and answers.
    fn committed(&mut self, cases: Vec<Case>, draft: Draft) {
        draft.sheet.close(&mut self.book);
        for (case, decided) in cases.into_iter().zip(draft.decided) {
            self.answer(case, decided);
        }
    }

    /// Answers everybody who asked for one decision that is durable now.
    fn answer(&mut self, mut case: Case, decided: Decided) {
        let done = Instant::now();
        case.each(|ready| ready.done(done));
        let Case { first, twins } = case;
        let file = match &first.known {
            Known::File(file) => Some(file),
            Known::Absent | Known::Nothing(_) => None,
        };
        let Decided { verdict, response, available_before } = decided;
        let (decision, reason) = (verdict.decision(), verdict.reason());
        if reason == Some(Reason::DeadlineExceeded) {
            let late_on_arrival = matches!(first.known, Known::Nothing(Reason::DeadlineExceeded));
            self.telemetry.deadline_exceeded(if late_on_arrival { Span::Queue } else { Span::Lane });
        }
        let approval = match (verdict, file) {
            (Verdict::Approved { amount, charges, .. }, Some(file)) => Some(Approval {
                id: first.job.request.id.clone(),
                account: file.card.account.id,
                held: amount,
                counters: charges.iter().map(|charge| charge.key).collect(),
                currency: first.job.request.amount.currency,
                available_without: available_before.unwrap_or_default(),
                response: response.clone(),
                decision,
            }),
            _ => None,
        };
        let Ready { job, slot, .. } = first;
        self.recorder.record(&job.spans);
        self.telemetry.decided(decision, reason, &job.spans);
        let latest = twins.iter().map(|twin| twin.job.deadline).chain([job.deadline]).max().unwrap_or(job.deadline);
        let approval = match approval {
            // Nobody listens any more, and nobody has seen it.
            Some(approval) if latest <= Instant::now() => {
                let mut spans = job.spans;
                spans.set(Span::Total, job.received.elapsed());
                self.telemetry.answered(&Answered { id: job.request.id.as_str(), decision, reason, spans: &spans });
                let requesters = std::iter::once(job.requester).chain(twins.into_iter().map(|twin| twin.job.requester)).collect();
                return self.order(DeskOrder::Void { approval, at: latest, requesters });
            }
            approval => approval,
        };
        let fresh = approval.map(|approval| match twins.is_empty() {
            true => FreshApproval::new(approval, job.deadline, self.desk.clone()),
            // The same bytes go to others as well: it can only be kept.
            false => FreshApproval::standing(&approval.id, &approval.response, decision, self.desk.clone()),
        });
        let (body, spans) = (response.clone(), job.spans);
        job.requester.answer(Answer { body, decision, reason, replayed: false, journaled: true, spans, fresh });
        drop(slot);
        for twin in twins {
            self.telemetry.replayed();
            replay(twin, response.clone(), decision, reason, &self.desk);
        }
    }

    fn order(&self, order: DeskOrder) {
        if self.desk.try_send(order).is_err() {
            tracing::error!(event = "desk_gone", "a late approval stays as it is in the store");
        }
    }

    /// Takes over what stood against a commit, answers what is settled by it, and gives back what has to be decided again.
    async fn learn(&mut self, cases: Vec<Case>, draft: Draft, report: Report, tries: &mut Tries) -> Vec<Case> {
        for (account, balance) in &report.accounts {
            self.book.set_account(*account, *balance);
        }
        for (key, used) in &report.counters {
            self.book.set_counter(*key, *used);
        }
        let mut open = Vec::with_capacity(cases.len());
        for (case, decided) in cases.into_iter().zip(draft.decided) {
            match report.known.iter().find(|known| known.id == case.first.job.request.id) {
                Some(known) => self.known(case, decided, known, tries.lost),
                None => open.push(case),
            }
        }
        for case in &mut open {
            let busy = case.file().is_some_and(|file| {
                report.busy_accounts.contains(&file.card.account.id) || report.busy_programs.contains(&file.program.id)
            });
            if busy {
                case.first.known = Known::Nothing(Reason::SystemUnavailable);
            }
        }
        if let Err(error) = self.refresh(&mut open, &report).await {
            return self.pause(open, tries, &LedgerError::Unreachable(error.to_string())).await;
        }
        open
    }

    /// Answers a case whose id the journal has already. Bytes like its own are its own only when an answer was `lost`: two declines of
    /// one millisecond, by another daemon or by this one's last batch, have the same.
    fn known(&mut self, mut case: Case, decided: Decided, known: &KnownId, lost: bool) {
        if known.own && lost {
            // An earlier try went through after all. How it moved money that others move too is read again.
            let account = case.file().map(|file| file.card.account.id);
            let charges: Vec<_> = match &decided.verdict {
                Verdict::Approved { charges, .. } => charges.iter().map(|charge| charge.key).collect(),
                Verdict::Declined { .. } => Vec::new(),
            };
            self.book.forget(account, charges.into_iter());
            return self.answer(case, decided);
        }
        let now = Instant::now();
        case.each(|ready| ready.done(now));
        let Case { first, twins } = case;
        for ready in std::iter::once(first).chain(twins) {
            if ready.job.request.digest == known.digest {
                self.telemetry.replayed();
                replay(ready, known.response.clone(), known.decision, None, &self.desk);
            } else {
                self.declines.conflict(ready.job);
            }
        }
    }

    /// Reads the facts that were stale again, from the store.
    async fn refresh(&mut self, cases: &mut [Case], report: &Report) -> Result<(), FactError> {
        let cards: HashSet<_> = report.cards.iter().copied().collect();
        let mut programs: HashSet<_> = report.programs.iter().copied().collect();
        let appeared: HashSet<_> = report.appeared.iter().collect();
        let mut stale = BTreeSet::<CardToken>::new();
        for case in cases.iter() {
            let token = &case.first.job.request.card;
            let is_stale = match &case.first.known {
                // One card is enough to learn a program's new version: the others take it over.
                Known::File(file) => cards.contains(&file.card.id) || programs.remove(&file.program.id),
                Known::Absent => appeared.contains(token),
                Known::Nothing(_) => false,
            };
            if is_stale {
                stale.insert(token.clone());
            }
        }
        let facts = &self.facts;
        let reads = stale.iter().map(|token| async move { (token, facts.refresh(token).await) });
        let found = self.queue.alongside(futures_util::future::join_all(reads)).await;
        let mut unread = Ok(());
        for (token, found) in found {
            let known = match found {
                Ok(found) => found.map_or(Known::Absent, Known::File),
                Err(error @ FactError::Malformed(_)) => {
                    // Only this card's requests pay for a row that nobody can read.
                    tracing::error!(event = "facts_malformed", error = %error, "mend the card's rows in the store");
                    Known::Nothing(Reason::SystemError)
                }
                Err(error) => {
                    unread = Err(error);
                    continue;
                }
            };
            take_over(cases, token, &known);
        }
        unread
    }

    /// The store will not have this batch: finds the culprit by halving, and declines it alone.
    async fn refused(&mut self, mut cases: Vec<Case>, error: &str) -> Vec<Case> {
        if cases.len() > 1 {
            let second_half = cases.split_off(cases.len() / 2);
            Box::pin(self.settle(cases)).await;
            return second_half;
        }
        self.telemetry.decision_refused(error);
        let refused_bare = cases.iter().any(|case| matches!(case.first.known, Known::Nothing(Reason::SystemError)));
        if refused_bare {
            self.shed(cases, Reason::SystemError);
            return Vec::new();
        }
        // Once more as a bare decline, so that the journal knows of it.
        for case in &mut cases {
            case.first.known = Known::Nothing(Reason::SystemError);
        }
        cases
    }

    /// The store failed and nothing of the batch is in flight: declines what would be too late, waits, gives the rest back.
    async fn pause(&mut self, cases: Vec<Case>, tries: &mut Tries, error: &LedgerError) -> Vec<Case> {
        tries.transient += u32::from(matches!(error, LedgerError::Transient(_)));
        tracing::debug!(event = "commit_failed", %error, "a batch waits for the store");
        let pause = backoff(&mut tries.pauses);
        let soon = Instant::now() + pause + tries.waited + self.settings.shed_before;
        let (due, open): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.may_be_shed() && case.deadline() <= soon);
        self.shed(due, Reason::SystemUnavailable);
        if !open.is_empty() {
            self.queue.alongside(tokio::time::sleep(pause)).await;
        }
        open
    }

    /// Nothing of the batch is in flight, and the next try may last until `then`: declines what would be answered too late after it.
    /// What is too late already stays, to be journaled as such: nobody waits for it.
    fn shed_before(&mut self, cases: Vec<Case>, then: Instant) -> Vec<Case> {
        let (now, soon) = (Instant::now(), then + self.settings.shed_before);
        let (due, open) = cases.into_iter().partition(|case| case.may_be_shed() && now < case.deadline() && case.deadline() <= soon);
        self.shed(due, Reason::SystemUnavailable);
        open
    }

    fn shed(&mut self, cases: Vec<Case>, reason: Reason) {
        if cases.is_empty() {
            return;
        }
        let now = Instant::now();
        let ids = cases.iter().map(|case| case.first.job.request.id.clone()).collect();
        for mut case in cases {
            case.each(|ready| ready.done(now));
            for ready in std::iter::once(case.first).chain(case.twins) {
                self.declines.shed(ready.job, reason, now);
            }
        }
        self.queue.shed_repeats(&ids, reason);
    }
}

/// Gives fresh facts to everybody who asked about the card, and its program to everybody of the program, whatever version they had.
fn take_over(cases: &mut [Case], token: &CardToken, known: &Known) {
    for case in cases {
        match &mut case.first.known {
            Known::Nothing(_) => {}
            old if case.first.job.request.card == *token => *old = known.clone(),
            Known::File(file) => {
                if let Known::File(fresh) = known
                    && fresh.program.id == file.program.id
                {
                    file.program.clone_from(&fresh.program);
                }
            }
            Known::Absent => {}
        }
    }
}

fn replay(ready: Ready, body: Arc<[u8]>, decision: Decision, reason: Option<Reason>, desk: &mpsc::Sender<DeskOrder>) {
    let Job { request, requester, spans, .. } = ready.job;
    // Whoever decided it may not have been heard; if this answer is not either, the approval is listed.
    let fresh = decision.holds().then(|| FreshApproval::standing(&request.id, &body, decision, desk.clone()));
    requester.answer(Answer { body, decision, reason, replayed: true, journaled: true, spans, fresh });
}

fn hold_id(wall: Timestamp) -> HoldId {
    let milliseconds = u64::try_from(wall.0 / 1000).unwrap_or_default();
    let mut text = [0; ulid::ULID_LEN];
    HoldId::new(&format!("hld_{}", ulid::Ulid::from_parts(milliseconds, rand::random()).array_to_str(&mut text)))
}

fn backoff(pauses: &mut u32) -> Duration {
    let pause = BACKOFF.0.saturating_mul(1 << (*pauses).min(10)).min(BACKOFF.1);
    *pauses = pauses.saturating_add(1);
    pause.mul_f64(rand::random_range(0.5..1.0))
}

fn outcome_name(outcome: &Result<Outcome, LedgerError>) -> CommitOutcome {
    match outcome {
        Ok(Outcome::Committed) => CommitOutcome::Committed,
        Ok(Outcome::Rejected(_)) => CommitOutcome::Rejected,
        Err(LedgerError::Contended(_)) => CommitOutcome::Contended,
        Err(LedgerError::Transient(_)) => CommitOutcome::Transient,
        Err(LedgerError::Unreachable(_)) => CommitOutcome::Unreachable,
        Err(LedgerError::Unknown(_)) => CommitOutcome::Unknown,
        Err(LedgerError::Refused(_)) => CommitOutcome::Refused,
    }
}
