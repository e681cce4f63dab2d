//! Decimal strings to minor units and back.

use crate::domain::money::Currency;
use rust_decimal::{Decimal, prelude::ToPrimitive};

/// Longest decimal string that is looked at, bytes.
pub const DECIMAL_BYTES_MAX: usize = 32;

/// More digits than this before the point are out of range in every currency: `i64::MAX` has 19.
const WHOLE_DIGITS_MAX: usize = 19;

/// Why a text is not an amount of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not `-?[0-9]+(\.[0-9]+)?`, or longer than [`DECIMAL_BYTES_MAX`].
    #[error("is not a decimal string")]
    NotDecimal,
    /// Does not fit 64 bits of minor units.
    #[error("is out of range")]
    OutOfRange,
    /// Has more decimals than the currency. Zeros at the end do not count: `"42.500"` is exactly 42.50.
    #[error("has more decimals than the currency")]
    Precision,
}

/// Reads a decimal string as minor units of `currency`: `"42.50"` EUR is 4250. Nothing is ever rounded.
///
/// # Errors
/// [`MoneyError`] names what is wrong with the text.
pub fn parse(text: &str, currency: Currency) -> Result<i64, MoneyError> {
    to_minor(decimal(text)?, currency)
}

/// Writes minor units of `currency` with all its decimals: 4250 EUR is `"42.50"`, 100 JPY is `"100"`.
#[must_use]
pub fn format(minor: i64, currency: Currency) -> String {
    let mut out = Vec::with_capacity(24);
    write(&mut out, minor, currency);
    out.iter().copied().map(char::from).collect()
}

/// Appends what [`format()`] gives.
pub(super) fn write(out: &mut Vec<u8>, minor: i64, currency: Currency) {
    // 19 digits of the largest i64, and room for the widest exponent with a zero before the point.
    let mut digits = [b'0'; 24];
    let exponent = usize::from(currency.exponent());
    let mut first = digits.len();
    let mut rest = minor.unsigned_abs();
    while rest > 0 {
        first -= 1;
        digits[first] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    let point = digits.len() - exponent;
    if minor < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[first.min(point - 1)..point]);
    if exponent > 0 {
        out.push(b'.');
        out.extend_from_slice(&digits[point..]);
    }
}

/// The text as an exact decimal, whatever the currency.
pub(super) fn decimal(text: &str) -> Result<Decimal, MoneyError> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').map_or((unsigned, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if text.len() > DECIMAL_BYTES_MAX || !digits(whole) || !fraction.is_none_or(digits) {
        return Err(MoneyError::NotDecimal);
    }
    if whole.trim_start_matches('0').len() > WHOLE_DIGITS_MAX {
        return Err(MoneyError::OutOfRange);
    }
    // Zeros at the end say nothing and must not use up the 28 digits of a `Decimal`. What still does not fit has too many decimals.
    let exact = if fraction.is_some() { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    Decimal::from_str_exact(exact).map_err(|_| MoneyError::Precision)
}

/// An exact decimal in minor units.
pub(super) fn to_minor(decimal: Decimal, currency: Currency) -> Result<i64, MoneyError> {
    let exponent = u32::from(currency.exponent());
    let mut value = decimal.normalize();
    if value.scale() > exponent {
        return Err(MoneyError::Precision);
    }
    // Only ever adds zeros. Where they do not fit into 96 bits the scale stays short, and the amount is out of range anyway.
    value.rescale(exponent);
    if value.scale() != exponent {
        return Err(MoneyError::OutOfRange);
    }
    value.mantissa().to_i64().ok_or(MoneyError::OutOfRange)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use proptest::prelude::*;

    const NOT_DECIMAL: Result<i64, MoneyError> = Err(MoneyError::NotDecimal);
    const OUT_OF_RANGE: Result<i64, MoneyError> = Err(MoneyError::OutOfRange);
    const PRECISION: Result<i64, MoneyError> = Err(MoneyError::Precision);

    fn check(text: &str, code: &str, expected: Result<i64, MoneyError>) {
        assert_eq!(parse(text, Currency::from_code(code).unwrap()), expected, "{text:?} {code}");
    }

    #[test]
    fn decimal_strings_become_exact_minor_units_or_an_error() {
        for (text, code, expected) in [
            ("42.50", "USD", Ok(4250)),
            ("42.5", "USD", Ok(4250)),
            ("42", "USD", Ok(4200)),
            ("42.500", "USD", Ok(4250)),
            ("0042.50", "USD", Ok(4250)),
            ("0", "USD", Ok(0)),
            ("-0.00", "USD", Ok(0)),
            ("-3.00", "USD", Ok(-300)),
            ("100", "JPY", Ok(100)),
            ("100.0", "JPY", Ok(100)),
            ("100.5", "JPY", PRECISION),
            ("42.505", "USD", PRECISION),
            ("1.234", "KWD", Ok(1234)),
            ("1.2345", "KWD", PRECISION),
            ("1.2345", "CLF", Ok(12345)),
            ("0.000000000000000000000000000001", "USD", PRECISION),
            ("1.000000000000000000000000000000", "USD", Ok(100)),
            ("92233720368547758.07", "USD", Ok(i64::MAX)),
            ("-92233720368547758.08", "USD", Ok(i64::MIN)),
            ("92233720368547758.08", "USD", OUT_OF_RANGE),
            ("9999999999999999999", "CLF", OUT_OF_RANGE),
            ("79228162514264337593543950336", "USD", OUT_OF_RANGE),
            ("00000000000000000000000000042.50", "USD", Ok(4250)),
            ("000000000000000000000000000042.50", "USD", NOT_DECIMAL),
            ("", "USD", NOT_DECIMAL),
            (" 1", "USD", NOT_DECIMAL),
            ("1 ", "USD", NOT_DECIMAL),
            ("+1", "USD", NOT_DECIMAL),
            ("--1", "USD", NOT_DECIMAL),
            ("1e3", "USD", NOT_DECIMAL),
            ("1_000", "USD", NOT_DECIMAL),
            ("1,000", "USD", NOT_DECIMAL),
            (".5", "USD", NOT_DECIMAL),
            ("5.", "USD", NOT_DECIMAL),
            ("1.2.3", "USD", NOT_DECIMAL),
            ("1.-2", "USD", NOT_DECIMAL),
            ("٤٢", "USD", NOT_DECIMAL),
            ("NaN", "USD", NOT_DECIMAL),
            ("inf", "USD", NOT_DECIMAL),
            ("1\0", "USD", NOT_DECIMAL),
        ] {
            check(text, code, expected);
        }
    }

    #[test]
    fn minor_units_are_written_with_all_decimals_of_the_currency() {
        for (minor, code, expected) in [
            (4250, "EUR", "42.50"),
            (-300, "EUR", "-3.00"),
            (5, "EUR", "0.05"),
            (-5, "EUR", "-0.05"),
            (0, "EUR", "0.00"),
            (100, "JPY", "100"),
            (0, "JPY", "0"),
            (1234, "KWD", "1.234"),
            (1, "KWD", "0.001"),
            (1, "CLF", "0.0001"),
            (i64::MIN, "USD", "-92233720368547758.08"),
            (i64::MAX, "JPY", "9223372036854775807"),
        ] {
            assert_eq!(format(minor, Currency::from_code(code).unwrap()), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(minor in any::<i64>(), code in prop::sample::select(vec!["JPY", "USD", "KWD", "CLF"])) {
            let currency = Currency::from_code(code).unwrap();
            prop_assert_eq!(parse(&format(minor, currency), currency), Ok(minor));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}", decimal in "-?[0-9]{0,24}\\.?[0-9]{0,24}") {
            let currency = Currency::from_code("KWD").unwrap();
            let _ = parse(&text, currency).is_ok() | parse(&decimal, currency).is_ok();
        }
    }
}
