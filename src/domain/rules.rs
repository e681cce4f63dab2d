//! The decision: one column of early returns, in the order of [`Reason`].

use super::{
    decision::{Charge, Claim, Verdict},
    facts::{Balance, CardFile, CardStatus},
    limits::{CounterKey, Limit, Used},
    money::AMOUNT_MINOR_MAX,
    reason::Reason,
    request::AuthRequest,
    time::{Timestamp, Window, WindowStarts},
};

/// The money a decision is made on. The commit checks it again in the store.
pub trait Position {
    /// The account's balance.
    fn balance(&self) -> Balance;
    /// What a counter has seen; zero when it does not exist yet.
    fn used(&self, key: &CounterKey) -> Used;
}

/// Decides one request.
///
/// `file` is `None` when no card has the token. `starts` are the windows of the card's program at `now`. The caller has made
/// sure that the file [agrees](CardFile::agrees) and that `now` is before the request's deadline.
#[must_use]
pub fn decide(request: &AuthRequest, file: Option<&CardFile>, starts: &WindowStarts, now: Timestamp, position: &impl Position) -> Verdict {
    if !(1..=AMOUNT_MINOR_MAX).contains(&request.amount.minor) {
        return Verdict::declined(Reason::InvalidAmount);
    }
    let Some(file) = file else {
        return Verdict::declined(Reason::CardNotFound);
    };
    if let Some(reason) = refuse_on_facts(request, file, now) {
        return Verdict::declined(reason);
    }
    let mut grant = Grant::new(request, file);
    if let Some(refusal) = grant.within_transaction_limits(request, file) {
        return refusal;
    }
    let charges = match grant.within_counted_limits(request, file, starts, position) {
        Ok(charges) => charges,
        Err(refusal) => return refusal,
    };
    let balance = position.balance();
    if let Some(refusal) = grant.within_funds(balance) {
        return refusal;
    }
    if overflows(grant.amount, balance, &charges) {
        return Verdict::declined(Reason::SystemError);
    }
    // Nothing can decline any more.
    Verdict::Approved { amount: grant.amount, partial: grant.amount < request.amount.minor, charges, claim: grant.bound }
}

/// The counters that an approval of `request` would add to, and that a decision therefore needs to know.
pub fn counters<'a>(
    request: &'a AuthRequest,
    file: &'a CardFile,
    starts: &'a WindowStarts,
) -> impl Iterator<Item = (&'a Limit, CounterKey)> {
    file.limits()
        .filter(|limit| limit.window != Window::Transaction && limit.filter.passes(request))
        .filter_map(move |limit| limit.counter(&file.card, starts).map(|key| (limit, key)))
}

/// The reasons that need no money to be known.
fn refuse_on_facts(request: &AuthRequest, file: &CardFile, now: Timestamp) -> Option<Reason> {
    let (card, user, program) = (&file.card, &file.user, &file.program);
    if card.status == CardStatus::Lost {
        return Some(Reason::CardLost);
    }
    if card.status == CardStatus::Stolen {
        return Some(Reason::CardStolen);
    }
    if now >= card.expires {
        return Some(Reason::CardExpired);
    }
    if card.status != CardStatus::Active {
        return Some(Reason::CardInactive);
    }
    if request.user.as_ref().is_some_and(|named| *named != user.token) {
        return Some(Reason::UserNotFound);
    }
    if !user.active {
        return Some(Reason::UserInactive);
    }
    if program.kyc_required && !user.kyc_verified {
        return Some(Reason::KycRequired);
    }
    if !card.account.open {
        return Some(Reason::AccountClosed);
    }
    if request.amount.currency != card.account.currency {
        return Some(Reason::CurrencyMismatch);
    }
    let controls = [&card.controls, &program.controls];
    if !controls.iter().all(|control| control.passes_channel(request)) {
        return Some(Reason::ChannelBlocked);
    }
    if !controls.iter().all(|control| control.passes_country(request)) {
        return Some(Reason::CountryBlocked);
    }
    if !controls.iter().all(|control| control.passes_mcc(request)) {
        return Some(Reason::MccBlocked);
    }
    if !controls.iter().all(|control| control.passes_merchant(request)) {
        return Some(Reason::MerchantBlocked);
    }
    None
}

/// What can be approved so far, and what bounds it.
struct Grant {
    amount: i64,
    /// Whether less than the full amount may be approved.
    partial: bool,
    /// For a partial approval: the claim that one minor unit more would not fit.
    bound: Option<Claim>,
}

impl Grant {
    fn new(request: &AuthRequest, file: &CardFile) -> Self {
        Self { amount: request.amount.minor, partial: request.partial_approval && file.program.partial_approval, bound: None }
    }

    /// Narrows the grant to `room`. `claim` says, for a need, what would not fit.
    fn narrow(&mut self, room: i64, reason: Reason, claim: impl Fn(i64) -> Option<Claim>) -> Option<Verdict> {
        if room >= self.amount {
            return None;
        }
        if !self.partial {
            return Some(Verdict::Declined { reason, claim: claim(self.amount) });
        }
        if room <= 0 {
            return Some(Verdict::Declined { reason, claim: claim(1) });
        }
        self.amount = room;
        self.bound = claim(room.saturating_add(1));
        None
    }

    fn within_transaction_limits(&mut self, request: &AuthRequest, file: &CardFile) -> Option<Verdict> {
        for limit in file.limits().filter(|limit| limit.window == Window::Transaction && limit.filter.passes(request)) {
            if let Some(cap) = limit.cap_amount
                && let Some(refusal) = self.narrow(cap.get(), Reason::TransactionLimit, |_| None)
            {
                return Some(refusal);
            }
        }
        None
    }

    /// Narrows the grant to what the counters leave, and gives what an approval charges. Looks each counter up once: to find it is
    /// most of what a decision costs.
    fn within_counted_limits(
        &mut self,
        request: &AuthRequest,
        file: &CardFile,
        starts: &WindowStarts,
        position: &impl Position,
    ) -> Result<Vec<Charge>, Verdict> {
        let mut charges = Vec::with_capacity(file.card.limits.len() + file.program.limits.len());
        let mut count_reached = None;
        for (limit, key) in counters(request, file, starts) {
            let before = position.used(&key);
            if let Some(cap) = limit.cap_amount {
                let room = cap.get().saturating_sub(before.amount);
                if let Some(refusal) = self.narrow(room, Reason::AmountLimit, |need| Some(Claim::Amount { key, need })) {
                    return Err(refusal);
                }
            }
            // Told only when no amount refuses: that reason comes first.
            if limit.cap_count.is_some_and(|cap| before.count >= cap.get()) {
                count_reached = count_reached.or(Some(key));
            }
            charges.push(Charge { key, before });
        }
        match count_reached {
            Some(key) => Err(Verdict::Declined { reason: Reason::CountLimit, claim: Some(Claim::Count { key }) }),
            None => Ok(charges),
        }
    }

    fn within_funds(&mut self, balance: Balance) -> Option<Verdict> {
        self.narrow(balance.room(), Reason::InsufficientFunds, |need| Some(Claim::Account { need }))
    }
}

/// Whether a sum that the approval is added to would not fit into 64 bits. The guards need not notice: a counter that only caps the
/// number of approvals adds up amounts as well.
fn overflows(amount: i64, balance: Balance, charges: &[Charge]) -> bool {
    let full = |Used { amount: before, count }: Used| before.checked_add(amount).is_none() || count.checked_add(1).is_none();
    balance.held.checked_add(amount).is_none() || charges.iter().any(|charge| full(charge.before))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
