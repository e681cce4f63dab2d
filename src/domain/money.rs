//! Money in integer minor units, and the currencies it comes in.

use std::fmt;

/// An ISO 4217 currency in use, with its exponent (decimals of the minor unit).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency {
    code: [u8; 3],
    exponent: u8,
}

/// ISO 4217 list one, currencies with other than two decimals, sorted.
const EXPONENTS: &[(&str, u8)] = &[
    ("BHD", 3),
    ("BIF", 0),
    ("CLF", 4),
    ("CLP", 0),
    ("DJF", 0),
    ("GNF", 0),
    ("IQD", 3),
    ("ISK", 0),
    ("JOD", 3),
    ("JPY", 0),
    ("KMF", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("LYD", 3),
    ("OMR", 3),
    ("PYG", 0),
    ("RWF", 0),
    ("TND", 3),
    ("UGX", 0),
    ("UYI", 0),
    ("UYW", 4),
    ("VND", 0),
    ("VUV", 0),
    ("XAF", 0),
    ("XOF", 0),
    ("XPF", 0),
];

/// ISO 4217 list one, currencies with two decimals, sorted. Funds codes, metals and test codes (X…) are left out: no card is issued in
/// them.
#[rustfmt::skip]
const TWO_DECIMALS: &[&str] = &[
    "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BMD", "BND", "BOB", "BRL", "BSD", "BTN", "BWP",
    "BYN", "BZD", "CAD", "CDF", "CHF", "CNY", "COP", "CRC", "CUP", "CVE", "CZK", "DKK", "DOP", "DZD", "EGP", "ERN", "ETB", "EUR", "FJD",
    "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GTQ", "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IRR", "JMD", "KES", "KGS",
    "KHR", "KPW", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR",
    "MWK", "MXN", "MYR", "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "PAB", "PEN", "PGK", "PHP", "PKR", "PLN", "QAR", "RON", "RSD",
    "RUB", "SAR", "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE", "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB", "TJS", "TMT",
    "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "USD", "UYU", "UZS", "VED", "VES", "WST", "XCD", "XCG", "YER", "ZAR", "ZMW", "ZWG",
];

impl Currency {
    /// The currency with this upper-case alphabetic code, if it is one in use.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        let bytes: [u8; 3] = code.as_bytes().try_into().ok()?;
        if !bytes.iter().all(u8::is_ascii_uppercase) {
            return None;
        }
        let exponent = match EXPONENTS.binary_search_by_key(&code, |(known, _)| *known) {
            Ok(place) => EXPONENTS[place].1,
            Err(_) => TWO_DECIMALS.binary_search(&code).ok().map(|_| 2)?,
        };
        Some(Self { code: bytes, exponent })
    }

    /// The alphabetic code.
    #[must_use]
    pub fn code(&self) -> &str {
        str::from_utf8(&self.code).unwrap_or_default()
    }

    /// Decimals of the minor unit: 2 for EUR, 0 for JPY, 3 for KWD.
    #[must_use]
    pub const fn exponent(&self) -> u8 {
        self.exponent
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount in minor units of its currency: `4250` EUR is 42.50.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// Minor units.
    pub minor: i64,
    /// What they are minor units of.
    pub currency: Currency,
}

/// The largest amount of one request, in minor units: what ISO 8583 field 4 (n 12) can carry.
pub const AMOUNT_MINOR_MAX: i64 = 999_999_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_currency_is_found() {
        let listed = EXPONENTS.iter().map(|(code, exponent)| (*code, *exponent)).chain(TWO_DECIMALS.iter().map(|code| (*code, 2)));
        let mut seen = std::collections::BTreeSet::new();
        for (code, exponent) in listed {
            assert_eq!(Currency::from_code(code).map(|currency| currency.exponent()), Some(exponent), "{code}");
            assert!(seen.insert(code), "{code} is listed twice");
        }
    }

    #[test]
    fn currencies_carry_their_exponent() {
        for (code, exponent) in [
            ("USD", Some(2)),
            ("EUR", Some(2)),
            ("JPY", Some(0)),
            ("KWD", Some(3)),
            ("CLF", Some(4)),
            ("usd", None),
            ("XAU", None),
            ("XXX", None),
            ("ZZZ", None),
            ("840", None),
            ("", None),
            ("US", None),
            ("USDX", None),
            ("D U", None),
        ] {
            assert_eq!(Currency::from_code(code).map(|c| c.exponent()), exponent, "{code}");
        }
    }
}
