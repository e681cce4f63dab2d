//! The port: what a lane hands to the store, and what it learns.

use super::store::{SchemaState, StoreError};
use crate::domain::{
    decision::Decision,
    facts::Balance,
    hold::HoldId,
    ids::{AccountId, CardId, CardToken, MerchantId, ProgramId, RequestId},
    limits::{CounterKey, Used},
    money::Currency,
    reason::Reason,
    request::{Channel, Country, Digest, Mcc},
    time::Timestamp,
};
use crate::facts::change::FactStore;
use std::{collections::HashMap, sync::Arc};

/// A store as the daemon holds it: it hands out ledgers and facts, and says how it is. Cheap to clone.
pub trait Store: FactStore + Clone {
    /// What [`Store::ledger`] gives.
    type Ledger: Ledger;

    /// `postgresql` or `sqlite`.
    const NAME: &'static str;

    /// Decisions in one commit, where the operator names no number.
    const BATCH_MAX: usize;

    /// A ledger with a connection of its own, made on first use.
    fn ledger(&self) -> Self::Ledger;

    /// How the schema compares with this build's.
    fn schema(&self) -> impl Future<Output = Result<SchemaState, StoreError>> + Send;

    /// The settings that decide what survives a power cut, in words.
    fn durability(&self) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// Whether it answers now.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A connection to the store that commits decisions. Each lane owns one, so nothing waits for a pool.
///
/// An implementation connects on first use and again after a failure, within bounded time. Dropping the future of a call
/// that writes before it is done is not allowed: a dropped query still runs.
pub trait Ledger: Send + 'static {
    /// Applies a group of decisions in one round trip and one transaction, or nothing of it.
    ///
    /// With `wait`, rows locked by somebody else are waited for, up to the store's lock timeout. Without, such rows are named
    /// in [`Report::busy_accounts`] and [`Report::busy_programs`].
    ///
    /// After [`LedgerError::Unknown`] the same `commit` must be sent again until the outcome is definite. What a lost call
    /// had committed after all then comes back as [`Known`] with `own` set.
    fn commit(&mut self, commit: &Commit, wait: bool) -> impl Future<Output = Result<Outcome, LedgerError>> + Send;

    /// Reads the money of accounts and counters in one round trip. Rows that do not exist are left out.
    fn positions(&mut self, accounts: &[AccountId], counters: &[CounterKey])
    -> impl Future<Output = Result<Positions, LedgerError>> + Send;

    /// Takes an approval back that was never sent: frees hold and counters and replaces the stored bytes by a decline. Does so only
    /// while the stored bytes are `void.response` and nobody has been replayed them. Sending the same void again is safe: once it
    /// was applied, it answers [`Voided::Done`].
    fn void(&mut self, void: &Void) -> impl Future<Output = Result<Voided, LedgerError>> + Send;

    /// Marks an approval whose response may not have been heard, so that it is listed until the processor settles it.
    fn mark_unheard(&mut self, id: &RequestId) -> impl Future<Output = Result<(), LedgerError>> + Send;
}

/// A group of decisions with everything they rest on. All lists are sorted by their key and name each key once.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// One row per decision, sorted bytewise by request id.
    pub journal: Vec<JournalEntry>,
    /// What the group holds on each account, summed.
    pub accounts: Vec<AccountDelta>,
    /// What the group adds to each counter, summed.
    pub counters: Vec<CounterDelta>,
    /// Card versions that were decided on.
    pub cards: Vec<CardVersion>,
    /// Cards that were decided not to exist.
    pub absent: Vec<AbsentCard>,
    /// Program versions that were decided on.
    pub programs: Vec<(ProgramId, i64)>,
    /// "This much more, on top of this group, would take the account past its floor."
    pub account_claims: Vec<(AccountId, i64)>,
    /// "This much more, on top of this group, would take the counter past its cap."
    pub counter_claims: Vec<CounterClaim>,
}

/// A summed change of `held` on an account, above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountDelta {
    /// Which account.
    pub account: AccountId,
    /// Minor units.
    pub held: i64,
}

/// A summed change of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterDelta {
    /// Which counter.
    pub key: CounterKey,
    /// Minor units and approvals to add.
    pub add: Used,
    /// A hint that the store has no row of it, so need not look for one first. Only for a counter that nobody charges without
    /// holding on an account of this group too: others are locked in the order of their keys.
    pub fresh: bool,
}

/// A card version that must still be current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardVersion {
    /// Which card.
    pub card: CardId,
    /// The version decided on.
    pub version: i64,
}

/// A token that no card may have.
pub type AbsentCard = CardToken;

/// A claim about a counter's caps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterClaim {
    /// Which counter.
    pub key: CounterKey,
    /// This much more would pass the amount cap.
    pub amount: Option<i64>,
    /// This many more would pass the count cap.
    pub count: Option<i64>,
}

/// A decision as it is journaled.
#[derive(Clone, Debug)]
pub struct JournalEntry {
    /// The processor's id; unique in the journal.
    pub id: RequestId,
    /// Fingerprint of the material fields.
    pub digest: Digest,
    /// The card's token as requested.
    pub card: CardToken,
    /// The card, where it exists.
    pub card_id: Option<CardId>,
    /// The account, where known.
    pub account: Option<AccountId>,
    /// The program, where known.
    pub program: Option<ProgramId>,
    /// Minor units asked for.
    pub requested: i64,
    /// Minor units held; 0 for a decline.
    pub held: i64,
    /// Of both amounts.
    pub currency: Currency,
    /// What was decided.
    pub decision: Decision,
    /// Why not.
    pub reason: Option<Reason>,
    /// The response, byte for byte as it is sent.
    pub response: Arc<[u8]>,
    /// The hold placed; `Some` exactly when `decision` holds.
    pub hold: Option<HoldId>,
    /// The card version decided on; 0 for none.
    pub card_version: i64,
    /// The program version decided on; 0 for none.
    pub program_version: i64,
    /// Merchant category.
    pub mcc: Mcc,
    /// The merchant.
    pub merchant: MerchantId,
    /// The merchant's country.
    pub country: Country,
    /// How the card met the merchant.
    pub channel: Channel,
    /// JSON `[[limit, scope, window, amount before, amount after, count before, count after], …]`: which counters were
    /// charged, for a later give-back. `None` for a decline.
    pub charges: Option<String>,
    /// Microseconds spent waiting in the queue, and in user, card, limits and decision.
    pub stage_us: [i32; 5],
    /// When it was decided, by the lane's clock.
    pub decided_at: Timestamp,
    /// Whether the response goes by a way that loses messages (direct reply-to), so that an approval may never be heard.
    pub unheard: bool,
}

/// The store's answer to a commit.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// All of it is durable.
    Committed,
    /// Nothing was applied; this is what differs. An empty report means that whatever was wrong is not any more: send again.
    Rejected(Box<Report>),
}

/// What stood against a commit, with fresh values.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Request ids that the journal has already.
    pub known: Vec<Known>,
    /// Cards that changed or are gone.
    pub cards: Vec<CardId>,
    /// Tokens that do have a card now.
    pub appeared: Vec<CardToken>,
    /// Programs that changed or are gone.
    pub programs: Vec<ProgramId>,
    /// Accounts whose guard failed or about which a claim is wrong, as they are now.
    pub accounts: Vec<(AccountId, Balance)>,
    /// Counters whose guard failed or about which a claim is wrong, as they are now.
    pub counters: Vec<(CounterKey, Used)>,
    /// Accounts locked by somebody else (only without `wait`).
    pub busy_accounts: Vec<AccountId>,
    /// Programs locked by somebody else (only without `wait`).
    pub busy_programs: Vec<ProgramId>,
}

impl Report {
    /// Whether nothing stood against the commit any more when the report was made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
            && self.cards.is_empty()
            && self.appeared.is_empty()
            && self.programs.is_empty()
            && self.accounts.is_empty()
            && self.counters.is_empty()
            && self.busy_accounts.is_empty()
            && self.busy_programs.is_empty()
    }
}

/// A request id that was decided before.
///
/// When the digest is the same and the bytes are not our own, reading it counted a replay in the store: from then on the
/// decision cannot be voided, because its bytes are about to be sent.
#[derive(Clone, Debug)]
pub struct Known {
    /// The id.
    pub id: RequestId,
    /// Fingerprint of the material fields it was decided with.
    pub digest: Digest,
    /// The stored response.
    pub response: Arc<[u8]>,
    /// What was decided.
    pub decision: Decision,
    /// Whether the stored bytes are those of this very commit. After [`LedgerError::Unknown`] an earlier try of it went through;
    /// otherwise somebody else decided the same in the same millisecond, a decline.
    pub own: bool,
}

/// Money read from the store.
#[derive(Clone, Debug, Default)]
pub struct Positions {
    /// Balances of the accounts that exist.
    pub accounts: HashMap<AccountId, Balance>,
    /// The counters that exist.
    pub counters: HashMap<CounterKey, Used>,
}

/// An approval to take back.
#[derive(Clone, Debug)]
pub struct Void {
    /// The request.
    pub id: RequestId,
    /// The account that holds for it.
    pub account: AccountId,
    /// Minor units held.
    pub held: i64,
    /// The counters charged, sorted; each was charged `held` and one approval.
    pub counters: Vec<CounterKey>,
    /// The bytes of the approval, as committed.
    pub response: Arc<[u8]>,
    /// The bytes of the decline that replaces it.
    pub decline: Arc<[u8]>,
    /// The reason of the decline.
    pub reason: Reason,
}

/// What became of a void.
#[derive(Clone, Debug)]
pub enum Voided {
    /// The approval is gone; the decline is the decision.
    Done,
    /// Somebody was replayed these bytes first: they stand.
    Stands(Arc<[u8]>),
}

/// Why a call gave no outcome. Each kind says what is known about the store.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Nothing was applied: a lock was not had in time, or the statement ran out of time.
    #[error("the store was busy for too long: {0}")]
    Contended(String),
    /// Nothing was applied: a deadlock, a serialization failure or the like. Sending the same again is right.
    #[error("the store asks to try again: {0}")]
    Transient(String),
    /// Nothing was sent: no connection could be had.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// The call may or may not have been applied.
    #[error("the store's answer was lost: {0}")]
    Unknown(String),
    /// Nothing was applied, and the same again would fail the same way: something in the group is not acceptable.
    #[error("the store refused: {0}")]
    Refused(String),
}
