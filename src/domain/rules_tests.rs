#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::domain::{
    facts::{Account, Card, Program, ProgramKind, User, WeekStart},
    ids::{AccountId, CardId, CardToken, LimitId, MerchantId, ProgramId, RequestId, UserId, UserToken},
    limits::{Cap, Filter, Match, MccRange, Scope},
    money::{Currency, Money},
    request::{Channel, Country, Mcc, Merchant},
};
use proptest::prelude::*;
use std::{collections::HashMap, sync::Arc};

const STARTS: WindowStarts = WindowStarts { day: Timestamp(300), week: Timestamp(200), month: Timestamp(100) };
const NOW: Timestamp = Timestamp(1000);

/// Everything a decision depends on. As it is, a request for 100 is approved, and one minor unit more than 1000 is not.
#[derive(Clone, Debug)]
struct World {
    request: AuthRequest,
    card: Card,
    user: User,
    limits: Vec<Limit>,
    program: Program,
    balance: Balance,
    used: HashMap<CounterKey, Used>,
}

impl Position for World {
    fn balance(&self) -> Balance {
        self.balance
    }
    fn used(&self, key: &CounterKey) -> Used {
        self.used.get(key).copied().unwrap_or_default()
    }
}

impl World {
    fn new() -> Self {
        let eur = Currency::from_code("EUR").unwrap();
        let merchant = Merchant { id: mrc("mrc"), mcc: mcc("5812"), country: country("NLD") };
        Self {
            request: AuthRequest {
                id: RequestId::new("a").unwrap(),
                digest: [0; 16],
                card: CardToken::new("crd").unwrap(),
                user: None,
                amount: Money { minor: 100, currency: eur },
                merchant,
                channel: Channel::Chip,
                partial_approval: false,
            },
            card: Card {
                id: CardId(1),
                token: CardToken::new("crd").unwrap(),
                version: 1,
                user: UserId(2),
                user_version: 1,
                account: Account { id: AccountId(3), currency: eur, open: true },
                program: ProgramId(4),
                status: CardStatus::Active,
                expires: Timestamp(NOW.0 + 1),
                controls: Arc::default(),
                limits: Box::default(),
            },
            user: User { id: UserId(2), token: UserToken::new("usr").unwrap(), version: 1, active: true, kyc_verified: true },
            limits: Vec::new(),
            program: Program {
                id: ProgramId(4),
                version: 1,
                kind: ProgramKind::Personal,
                time_zone: "UTC".into(),
                week_start: WeekStart::Monday,
                kyc_required: true,
                partial_approval: true,
                controls: Arc::default(),
                limits: Vec::new(),
            },
            balance: Balance { posted: 1500, held: 400, floor: 100 },
            used: HashMap::new(),
        }
    }

    fn file(&self) -> CardFile {
        CardFile {
            card: Arc::new(Card { limits: self.limits.clone().into(), ..self.card.clone() }),
            user: Arc::new(self.user.clone()),
            program: Arc::new(self.program.clone()),
        }
    }

    fn decide(&self) -> Verdict {
        decide(&self.request, Some(&self.file()), &STARTS, NOW, self)
    }

    /// Adds a limit with the next id and says what its counter has seen.
    fn limit(&mut self, scope: Scope, window: Window, cap_amount: Option<i64>, cap_count: Option<i64>, used: (i64, i64)) -> &mut Limit {
        let id = LimitId(i64::try_from(self.limits.len()).unwrap() + 10);
        let cap = |most: Option<i64>| most.map(|most| Cap::new(most).unwrap());
        let limit = Limit { id, scope, window, filter: Arc::default(), cap_amount: cap(cap_amount), cap_count: cap(cap_count) };
        if let Some(key) = limit.counter(&self.card, &STARTS) {
            self.used.insert(key, Used { amount: used.0, count: used.1 });
        }
        self.limits.push(limit);
        self.limits.last_mut().unwrap()
    }

    fn partial(&mut self) -> &mut Self {
        self.request.partial_approval = true;
        self
    }
}

fn mrc(id: &str) -> MerchantId {
    MerchantId::new(id).unwrap()
}
fn mcc(code: &str) -> Mcc {
    Mcc::from_code(code).unwrap()
}
fn country(code: &str) -> Country {
    Country::from_code(code).unwrap()
}
fn own(filter: &mut Arc<Filter>) -> &mut Filter {
    Arc::make_mut(filter)
}

fn only<T>(values: Vec<T>) -> Match<T> {
    Match { only: Some(values), except: Vec::new() }
}
fn except<T>(values: Vec<T>) -> Match<T> {
    Match { only: None, except: values }
}

/// A verdict in one line: decision, amount or reason, claim.
fn shown(verdict: &Verdict) -> String {
    let what = match verdict {
        Verdict::Approved { amount, partial: false, .. } => format!("approved {amount}"),
        Verdict::Approved { amount, partial: true, .. } => format!("partial {amount}"),
        Verdict::Declined { reason, .. } => reason.name().to_string(),
    };
    match verdict.claim() {
        None => what,
        Some(Claim::Account { need }) => format!("{what}, no {need}"),
        Some(Claim::Amount { key, need }) => format!("{what}, no {need} in {}", key.limit.0),
        Some(Claim::Count { key }) => format!("{what}, no more in {}", key.limit.0),
    }
}

/// Decides in a world with changes.
fn check(line: u32, change: impl Fn(&mut World), expected: &str) {
    let mut world = World::new();
    change(&mut world);
    assert_eq!(shown(&world.decide()), expected, "line {line}");
}

macro_rules! table {
    ($($change:expr => $expected:literal;)*) => { $(check(line!(), $change, $expected);)* };
}

/// Changes a world so that a reason becomes true.
type Cause = fn(&mut World);

/// One way to cause each reason that `decide` can give, in order of precedence.
const FAULTS: &[(Reason, Cause)] = &[
    (Reason::InvalidAmount, |w| w.request.amount.minor = 0),
    (Reason::CardLost, |w| w.card.status = CardStatus::Lost),
    (Reason::CardStolen, |w| w.card.status = CardStatus::Stolen),
    (Reason::CardExpired, |w| w.card.expires = NOW),
    (Reason::CardInactive, |w| w.card.status = CardStatus::Inactive),
    (Reason::UserNotFound, |w| w.request.user = Some(UserToken::new("usr_other").unwrap())),
    (Reason::UserInactive, |w| w.user.active = false),
    (Reason::KycRequired, |w| w.user.kyc_verified = false),
    (Reason::AccountClosed, |w| w.card.account.open = false),
    (Reason::CurrencyMismatch, |w| w.card.account.currency = Currency::from_code("USD").unwrap()),
    (Reason::ChannelBlocked, |w| own(&mut w.card.controls).channels = except(vec![Channel::Chip])),
    (Reason::CountryBlocked, |w| own(&mut w.program.controls).countries = except(vec![country("NLD")])),
    (Reason::MccBlocked, |w| own(&mut w.card.controls).mccs = except(vec![MccRange { first: mcc("5812"), last: mcc("5812") }])),
    (Reason::MerchantBlocked, |w| own(&mut w.program.controls).merchants = except(vec![mrc("mrc")])),
    (Reason::TransactionLimit, |w| _ = w.limit(Scope::Card, Window::Transaction, Some(99), None, (0, 0))),
    (Reason::AmountLimit, |w| _ = w.limit(Scope::User, Window::Day, Some(150), None, (51, 0))),
    (Reason::CountLimit, |w| _ = w.limit(Scope::Account, Window::Month, None, Some(3), (0, 3))),
    (Reason::InsufficientFunds, |w| w.balance.held = 1301),
    (Reason::SystemError, |w| _ = w.limit(Scope::Card, Window::Lifetime, None, None, (i64::MAX - 99, 0))),
];

#[test]
fn every_fault_has_its_reason_and_the_first_of_two_is_given() {
    for (index, (first, cause)) in FAULTS.iter().enumerate() {
        let mut alone = World::new();
        cause(&mut alone);
        assert_eq!(alone.decide().reason(), Some(*first));
        for (later, other) in &FAULTS[index + 1..] {
            assert!(first < later, "the table follows the enum");
            let mut both = World::new();
            // The later one first, where both change the same thing.
            other(&mut both);
            cause(&mut both);
            assert_eq!(both.decide().reason(), Some(*first), "with {later:?}");
        }
    }
}

#[test]
fn every_reason_of_a_decision_is_in_the_table() {
    let elsewhere = |reason: &Reason| *reason < Reason::CardLost || *reason == Reason::SystemUnavailable;
    for reason in Reason::ALL.iter().filter(|reason| !elsewhere(reason)) {
        assert!(FAULTS.iter().any(|(known, _)| known == reason), "{reason:?}");
    }
}

#[test]
fn an_unknown_card_is_declined_before_anything_is_looked_at() {
    let world = World::new();
    assert_eq!(decide(&world.request, None, &STARTS, NOW, &world), Verdict::declined(Reason::CardNotFound));
}

#[test]
fn amounts_stop_exactly_at_the_guards() {
    use Scope::{Card, Program, User};
    use Window::{Day, Lifetime, Month, Transaction, Week};
    table! {
        |_| {} => "approved 100";
        |w| w.request.amount.minor = 1000 => "approved 1000";
        |w| w.request.amount.minor = 1001 => "insufficient_funds, no 1001";
        |w| w.request.amount.minor = -100 => "invalid_amount";
        |w| w.request.amount.minor = i64::MAX => "invalid_amount";
        |w| w.balance.floor = -500 => "approved 100";
        |w| (w.request.amount.minor, w.balance.floor) = (1600, -500) => "approved 1600";
        |w| (w.request.amount.minor, w.balance.floor) = (1601, -500) => "insufficient_funds, no 1601";
        |w| w.balance.posted = i64::MIN => "insufficient_funds, no 100";
        |w| w.balance = Balance { posted: i64::MIN, held: i64::MAX, floor: i64::MIN } => "insufficient_funds, no 100";
        |w| w.balance = Balance { posted: i64::MAX, held: 0, floor: i64::MIN } => "approved 100";
        |w| w.balance = Balance { posted: i64::MAX, held: i64::MAX - 99, floor: i64::MIN } => "system_error";
        |w| { w.limit(Card, Transaction, Some(100), None, (0, 0)); } => "approved 100";
        |w| { w.limit(Card, Transaction, Some(99), None, (0, 0)); } => "transaction_limit";
        |w| { w.limit(Card, Transaction, None, Some(0), (0, 0)); } => "approved 100";
        |w| { w.limit(Card, Day, Some(150), None, (50, 0)); } => "approved 100";
        |w| { w.limit(Card, Day, Some(150), None, (51, 0)); } => "amount_limit, no 100 in 10";
        |w| { w.limit(Card, Day, Some(i64::MAX), None, (-1, 0)); } => "approved 100";
        |w| { w.limit(Card, Day, Some(0), None, (i64::MAX, 0)); } => "amount_limit, no 100 in 10";
        |w| { w.limit(Card, Day, None, Some(3), (0, 2)); } => "approved 100";
        |w| { w.limit(Card, Day, None, Some(3), (0, 3)); } => "count_limit, no more in 10";
        |w| { w.limit(Card, Day, None, Some(0), (0, 0)); } => "count_limit, no more in 10";
        |w| { w.limit(Card, Day, None, None, (0, i64::MAX)); } => "system_error";
        // The first limit in order is named.
        |w| { w.limit(Card, Week, Some(99), None, (0, 0)); w.limit(User, Day, Some(9), None, (0, 0)); } => "amount_limit, no 100 in 10";
        // A counter of the amount kind does not hide a full one of the count kind, and the other way round.
        |w| { w.limit(Card, Month, Some(500), Some(1), (0, 1)); } => "count_limit, no more in 10";
        |w| { w.limit(Card, Lifetime, None, Some(1), (0, 1)); w.limit(Program, Day, Some(9), None, (0, 0)); } => "amount_limit, no 100 in 11";
    }
}

#[test]
fn a_partial_approval_grants_all_that_fits_and_claims_that_no_more_does() {
    use Scope::Card;
    use Window::{Day, Month, Transaction};
    table! {
        |w| { w.partial(); } => "approved 100";
        |w| w.partial().balance.held = 1340 => "partial 60, no 61";
        |w| w.partial().balance.held = 1399 => "partial 1, no 2";
        |w| w.partial().balance.held = 1400 => "insufficient_funds, no 1";
        |w| w.partial().balance.held = 1500 => "insufficient_funds, no 1";
        |w| (w.partial().balance.held, w.program.partial_approval) = (1340, false) => "insufficient_funds, no 100";
        |w| w.balance.held = 1340 => "insufficient_funds, no 100";
        |w| { w.partial().limit(Card, Transaction, Some(70), None, (0, 0)); } => "partial 70";
        |w| { w.partial().limit(Card, Transaction, Some(0), None, (0, 0)); } => "transaction_limit";
        |w| { w.partial().limit(Card, Day, Some(150), None, (100, 0)); } => "partial 50, no 51 in 10";
        |w| { w.partial().limit(Card, Day, Some(150), None, (150, 0)); } => "amount_limit, no 1 in 10";
        |w| { w.partial().limit(Card, Day, Some(150), None, (151, 0)); } => "amount_limit, no 1 in 10";
        |w| { w.partial().limit(Card, Day, None, Some(1), (0, 1)); } => "count_limit, no more in 10";
        // The tightest bound is claimed, whichever it is.
        |w| { w.partial().limit(Card, Transaction, Some(70), None, (0, 0)); w.balance.held = 1340; } => "partial 60, no 61";
        |w| { w.partial().limit(Card, Transaction, Some(60), None, (0, 0)); w.balance.held = 1330; } => "partial 60";
        |w| { w.partial().limit(Card, Day, Some(50), None, (0, 0)); w.limit(Card, Month, Some(40), None, (0, 0)); } => "partial 40, no 41 in 11";
        |w| { w.partial().limit(Card, Day, Some(40), None, (0, 0)); w.limit(Card, Month, Some(50), None, (0, 0)); } => "partial 40, no 41 in 10";
        |w| { w.partial().limit(Card, Day, Some(50), None, (0, 0)); w.balance.held = 1400; } => "insufficient_funds, no 1";
    }
}

#[test]
fn controls_and_filters_let_through_what_they_say() {
    let range = |first, last| MccRange { first: mcc(first), last: mcc(last) };
    table! {
        |w| own(&mut w.card.controls).channels = only(vec![Channel::Chip]) => "approved 100";
        |w| own(&mut w.card.controls).channels = only(vec![Channel::Atm]) => "channel_blocked";
        |w| own(&mut w.card.controls).channels = only(vec![]) => "channel_blocked";
        |w| own(&mut w.card.controls).channels = Match { only: Some(vec![Channel::Chip]), except: vec![Channel::Chip] } => "channel_blocked";
        |w| own(&mut w.program.controls).channels = except(vec![Channel::Chip]) => "channel_blocked";
        |w| own(&mut w.program.controls).countries = only(vec![country("BEL")]) => "country_blocked";
        |w| own(&mut w.program.controls).countries = except(vec![country("BEL")]) => "approved 100";
        |w| own(&mut w.card.controls).mccs = except(vec![range("5811", "5813")]) => "mcc_blocked";
        |w| own(&mut w.card.controls).mccs = except(vec![range("5813", "5899"), range("0000", "5811")]) => "approved 100";
        |w| own(&mut w.card.controls).mccs = only(vec![range("5812", "5812")]) => "approved 100";
        |w| own(&mut w.card.controls).merchants = only(vec![mrc("other")]) => "merchant_blocked";
        // A program cannot open what its card blocks.
        |w| { own(&mut w.card.controls).channels = except(vec![Channel::Chip]); own(&mut w.program.controls).channels = only(vec![Channel::Chip]); } => "channel_blocked";
        // A limit neither caps nor counts what its filter leaves out.
        |w| own(&mut w.limit(Scope::Card, Window::Day, Some(0), Some(0), (0, 0)).filter).channels = only(vec![Channel::Atm]) => "approved 100";
        |w| own(&mut w.limit(Scope::Card, Window::Day, Some(0), None, (0, 0)).filter).channels = except(vec![Channel::Atm]) => "amount_limit, no 100 in 10";
        |w| own(&mut w.limit(Scope::Card, Window::Transaction, Some(0), None, (0, 0)).filter).mccs = only(vec![range("6011", "6011")]) => "approved 100";
        |w| own(&mut w.limit(Scope::Card, Window::Day, Some(0), None, (0, 0)).filter).merchants = except(vec![mrc("mrc")]) => "approved 100";
        |w| own(&mut w.limit(Scope::Card, Window::Day, Some(0), None, (0, 0)).filter).countries = only(vec![country("NLD")]) => "amount_limit, no 100 in 10";
        // Facts that do not bear.
        |w| (w.user.kyc_verified, w.program.kyc_required) = (false, false) => "approved 100";
        |w| w.request.user = Some(UserToken::new("usr").unwrap()) => "approved 100";
    }
}

#[test]
fn a_limit_charges_the_counter_of_its_scope_and_window() {
    for (scope, window, expected) in [
        (Scope::Card, Window::Day, Some((1, 300))),
        (Scope::User, Window::Week, Some((2, 200))),
        (Scope::Account, Window::Month, Some((3, 100))),
        (Scope::Program, Window::Lifetime, Some((4, 0))),
        (Scope::Card, Window::Transaction, None),
    ] {
        let mut world = World::new();
        world.limit(scope, window, Some(1000), None, (7, 2));
        let Verdict::Approved { charges, .. } = world.decide() else { panic!("declined") };
        let expected = expected
            .map(|(scope, window)| Charge { key: CounterKey { limit: LimitId(10), scope, window }, before: Used { amount: 7, count: 2 } });
        assert_eq!(charges, Vec::from_iter(expected));
    }
}

#[test]
fn the_limits_of_the_program_bind_as_well() {
    let mut world = World::new();
    let limit = world.limit(Scope::Program, Window::Day, Some(150), None, (51, 0)).clone();
    world.limits.clear();
    world.program.limits.push(limit);
    assert_eq!(shown(&world.decide()), "amount_limit, no 100 in 10");
}

/// Small numbers, where guards meet, and the ends of the range, where arithmetic breaks.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -20_i64..300, 1 => any::<i64>(), 1 => (i64::MAX - 300)..=i64::MAX, 1 => i64::MIN..(i64::MIN + 300)]
}

fn worlds() -> impl Strategy<Value = World> {
    let scope = prop::sample::select(vec![Scope::Card, Scope::User, Scope::Account, Scope::Program]);
    let window = prop::sample::select(vec![Window::Transaction, Window::Day, Window::Week, Window::Month, Window::Lifetime]);
    let cap = || prop::option::of(number().prop_map(|number| number.max(0)));
    let limit = (scope, window, cap(), cap(), (number(), number()), any::<bool>());
    let amount = prop_oneof![6 => 1_i64..300, 1 => number()];
    let balance = (number(), number(), number());
    (amount, any::<[bool; 2]>(), balance, prop::collection::vec(limit, 0..5), 0_usize..5).prop_map(
        |(amount, [partial, program_partial], (posted, held, floor), limits, split)| {
            let mut world = World::new();
            (world.request.amount.minor, world.request.partial_approval) = (amount, partial);
            (world.program.partial_approval, world.balance) = (program_partial, Balance { posted, held, floor });
            for (scope, window, cap_amount, cap_count, used, applies) in limits {
                let limit = world.limit(scope, window, cap_amount, cap_count, used);
                if !applies {
                    own(&mut limit.filter).channels = only(vec![Channel::Atm]);
                }
            }
            world.program.limits = world.limits.split_off(split.min(world.limits.len()));
            world
        },
    )
}

/// The guards in wide numbers, written down once more and without regard to order: why an amount does not fit.
fn broken_by(world: &World, amount: i128) -> Vec<(Reason, Option<LimitId>)> {
    let mut broken = Vec::new();
    let Balance { posted, held, floor } = world.balance;
    if i128::from(posted) - i128::from(held) - amount < i128::from(floor) {
        broken.push((Reason::InsufficientFunds, None));
    }
    for limit in world.limits.iter().chain(&world.program.limits).filter(|limit| limit.filter.channels.only.is_none()) {
        let used = limit.counter(&world.card, &STARTS).map(|key| world.used(&key));
        let before = used.unwrap_or_default();
        if limit.cap_amount.is_some_and(|cap| i128::from(before.amount) + amount > i128::from(cap.get())) {
            broken.push((if used.is_some() { Reason::AmountLimit } else { Reason::TransactionLimit }, Some(limit.id)));
        }
        if used.is_some() && limit.cap_count.is_some_and(|cap| i128::from(before.count) + 1 > i128::from(cap.get())) {
            broken.push((Reason::CountLimit, Some(limit.id)));
        }
    }
    broken
}

fn overflows_somewhere(world: &World, amount: i64) -> bool {
    let counters = world.limits.iter().chain(&world.program.limits).filter(|limit| limit.filter.channels.only.is_none());
    let full = |used: Used| used.amount.checked_add(amount).is_none() || used.count == i64::MAX;
    world.balance.held.checked_add(amount).is_none()
        || counters.filter_map(|limit| limit.counter(&world.card, &STARTS)).any(|key| full(world.used(&key)))
}

/// Whether what a verdict claims is true of the position it was made on.
fn is_true(world: &World, claim: Claim) -> bool {
    match claim {
        Claim::Account { need } => broken_by(world, need.into()).contains(&(Reason::InsufficientFunds, None)),
        Claim::Amount { key, need } => broken_by(world, need.into()).contains(&(Reason::AmountLimit, Some(key.limit))),
        Claim::Count { key } => broken_by(world, 0).contains(&(Reason::CountLimit, Some(key.limit))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_approval_passes_a_guard_and_no_decline_lacks_one(world in worlds()) {
        let asked = world.request.amount.minor;
        let may_be_partial = world.request.partial_approval && world.program.partial_approval;
        match world.decide() {
            Verdict::Approved { amount, partial, charges, claim } => {
                prop_assert!(0 < amount && amount <= asked && asked <= AMOUNT_MINOR_MAX);
                prop_assert_eq!(broken_by(&world, amount.into()), vec![]);
                prop_assert!(!overflows_somewhere(&world, amount));
                prop_assert!(charges.iter().all(|charge| charge.before == world.used(&charge.key)));
                prop_assert_eq!(partial, amount < asked);
                prop_assert!(!partial || may_be_partial);
                // All that fits is granted, and the claim says so.
                prop_assert!(!partial || !broken_by(&world, i128::from(amount) + 1).is_empty());
                prop_assert!(claim.is_none_or(|claim| partial && is_true(&world, claim)));
                let by_transaction = broken_by(&world, i128::from(amount) + 1).iter().any(|(reason, _)| *reason == Reason::TransactionLimit);
                prop_assert!(!partial || claim.is_some() || by_transaction);
            }
            Verdict::Declined { reason: Reason::InvalidAmount, .. } => prop_assert!(!(1..=AMOUNT_MINOR_MAX).contains(&asked)),
            Verdict::Declined { reason: Reason::SystemError, claim } => {
                prop_assert!(claim.is_none() && overflows_somewhere(&world, asked));
            }
            Verdict::Declined { reason, claim } => {
                // The reason is true of the least that could have been granted, and the first that is.
                let least = if may_be_partial { 1 } else { asked.into() };
                let first = broken_by(&world, least).into_iter().map(|(reason, _)| reason).min();
                prop_assert_eq!(Some(reason), first);
                prop_assert_eq!(claim.is_some(), reason != Reason::TransactionLimit);
                prop_assert!(claim.is_none_or(|claim| is_true(&world, claim)));
            }
        }
    }

    #[test]
    fn whoever_gets_an_amount_in_full_gets_any_smaller_one(world in worlds(), smaller in any::<prop::sample::Index>()) {
        if world.decide().decision() == crate::domain::decision::Decision::Approved {
            let mut less = world.clone();
            let asked = usize::try_from(world.request.amount.minor).unwrap();
            less.request.amount.minor = i64::try_from(smaller.index(asked) + 1).unwrap();
            prop_assert_eq!(less.decide().held(), less.request.amount.minor);
        }
    }
}
