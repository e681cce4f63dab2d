//! Why an authorization is declined: one enum, in order of precedence.
//!
//! When two reasons are true at once the one that stands first is given, and `rules::decide` reads in the same order.
//! The response codes are those of ISO 8583:1987 field 39.

/// Who has to act on a decline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReasonClass {
    /// The request itself is wrong: the processor's business.
    Input,
    /// The program's rules or the cardholder's funds say no.
    Business,
    /// This service could not decide in time: ours.
    System,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $code:literal, $class:ident;)*) => {
        /// A reason for a decline. The numbers are stable and stored; they ascend in order of precedence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Reason { $($(#[$doc])* $name = $number,)* }

        impl Reason {
            /// Every reason, in order of precedence.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name on the wire, in metrics and in logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The ISO 8583 response code.
            #[must_use]
            pub const fn response_code(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }

            /// Who has to act.
            #[must_use]
            pub const fn class(self) -> ReasonClass {
                match self { $(Self::$name => ReasonClass::$class),* }
            }

            /// The reason with this stored number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// The body is not a request: broken JSON, a missing or misshapen field.
    Malformed = 10, "malformed", "30", Input;
    /// A version of the contract that is not spoken here.
    UnsupportedVersion = 20, "unsupported_version", "12", Input;
    /// The amount is missing, not a decimal string, not above zero or too large.
    InvalidAmount = 30, "invalid_amount", "13", Input;
    /// More decimals than the currency has.
    InvalidPrecision = 40, "invalid_precision", "13", Input;
    /// Not an ISO 4217 currency in use.
    InvalidCurrency = 50, "invalid_currency", "12", Input;
    /// A card number or card security data where a token belongs.
    PanPresent = 60, "pan_present", "30", Input;
    /// The id is known with other material fields.
    DuplicateConflict = 70, "duplicate_conflict", "94", Input;
    /// The requester has hung up, or will have before an answer can reach it.
    DeadlineExceeded = 80, "deadline_exceeded", "68", System;
    /// No card has this token.
    CardNotFound = 90, "card_not_found", "14", Business;
    /// Reported lost.
    CardLost = 100, "card_lost", "41", Business;
    /// Reported stolen.
    CardStolen = 110, "card_stolen", "43", Business;
    /// Past its expiry.
    CardExpired = 120, "card_expired", "54", Business;
    /// Not yet activated, frozen or closed.
    CardInactive = 130, "card_inactive", "62", Business;
    /// The user named in the request does not own the card.
    UserNotFound = 140, "user_not_found", "14", Business;
    /// The cardholder is suspended or closed.
    UserInactive = 150, "user_inactive", "62", Business;
    /// The program asks for a verified identity (know your customer) that the user lacks.
    KycRequired = 160, "kyc_required", "57", Business;
    /// The account is closed.
    AccountClosed = 170, "account_closed", "62", Business;
    /// The request is in another currency than the account.
    CurrencyMismatch = 180, "currency_mismatch", "57", Business;
    /// The channel is blocked for the card or its program.
    ChannelBlocked = 190, "channel_blocked", "57", Business;
    /// The merchant's country is blocked.
    CountryBlocked = 200, "country_blocked", "57", Business;
    /// The merchant category is blocked.
    MccBlocked = 210, "mcc_blocked", "57", Business;
    /// The merchant is blocked.
    MerchantBlocked = 220, "merchant_blocked", "57", Business;
    /// Over the cap of one transaction.
    TransactionLimit = 230, "transaction_limit", "61", Business;
    /// Over an amount cap of a day, week, month or lifetime.
    AmountLimit = 240, "amount_limit", "61", Business;
    /// Over a count cap of a day, week, month or lifetime.
    CountLimit = 250, "count_limit", "65", Business;
    /// The account would pass its floor.
    InsufficientFunds = 260, "insufficient_funds", "51", Business;
    /// The store or another dependency could not be used in time.
    SystemUnavailable = 270, "system_unavailable", "91", System;
    /// A fault of ours that retrying does not heal.
    SystemError = 280, "system_error", "96", System;
}

impl Reason {
    /// The stored number, see [`Reason::from_number`].
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_in_steps_of_ten_and_come_back() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(usize::from(reason.number()), (index + 1) * 10, "{reason:?}");
            assert_eq!(Reason::from_number(reason.number()), Some(*reason));
            assert_eq!(reason.response_code().len(), 2);
        }
        assert_eq!(Reason::from_number(15), None);
    }
}
