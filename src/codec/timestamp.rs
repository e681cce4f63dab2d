//! RFC 3339 instants.

use crate::domain::time::Timestamp;

/// Longest text that is looked at, bytes.
const TEXT_BYTES_MAX: usize = 48;
const MILLIS_A_DAY: i64 = 86_400_000;
/// 0001-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z, milliseconds: four digits of year are all there is on the wire.
const MILLIS_MIN: i64 = -62_135_596_800_000;
const MILLIS_MAX: i64 = 253_402_300_799_999;

/// Why a text is not an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// A date and a time, but nobody knows where.
    #[error("has no time zone")]
    NoZone,
    /// Not RFC 3339.
    #[error("is not an RFC 3339 instant")]
    Malformed,
}

/// Reads an RFC 3339 instant with any offset; digits below a microsecond are cut off. A leap second is the second before it.
///
/// # Errors
/// [`TimestampError`] names what is wrong with the text.
pub fn parse(text: &str) -> Result<Timestamp, TimestampError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(TimestampError::Malformed);
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(instant) => Ok(Timestamp(instant.as_microsecond())),
        Err(_) if text.parse::<jiff::civil::DateTime>().is_ok() => Err(TimestampError::NoZone),
        Err(_) => Err(TimestampError::Malformed),
    }
}

/// Writes an instant in UTC with milliseconds, `2026-03-04T10:15:07.114Z`; what is below a millisecond is cut off. Instants
/// outside the years 1 to 9999 are written as the nearest one inside.
#[must_use]
pub fn format(at: Timestamp) -> String {
    let mut out = Vec::with_capacity(24);
    write(&mut out, at);
    out.iter().copied().map(char::from).collect()
}

/// Appends what [`format()`] gives.
pub(super) fn write(out: &mut Vec<u8>, at: Timestamp) {
    let millis = at.0.div_euclid(1000).clamp(MILLIS_MIN, MILLIS_MAX);
    let (year, month, day) = civil(millis.div_euclid(MILLIS_A_DAY));
    let in_day = millis.rem_euclid(MILLIS_A_DAY);
    let fields = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (in_day / 3_600_000, 2, b':'),
        (in_day / 60_000 % 60, 2, b':'),
        (in_day / 1000 % 60, 2, b'.'),
        (in_day % 1000, 3, b'Z'),
    ];
    for (value, width, end) in fields {
        let mut digits = [b'0'; 4];
        let mut rest = value;
        for digit in digits[..width].iter_mut().rev() {
            *digit += u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        out.extend_from_slice(&digits[..width]);
        out.push(end);
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years begin in March here, so that
/// the leap day comes last and the months before it have fixed lengths: 153 days in every five.
fn civil(day: i64) -> (i64, i64, i64) {
    const DAYS_TO_0000_03_01: i64 = 719_468;
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let day = day + DAYS_TO_0000_03_01;
    let (era, in_era) = (day.div_euclid(DAYS_IN_400_YEARS), day.rem_euclid(DAYS_IN_400_YEARS));
    let year_in_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
    let month_from_march = (5 * in_year + 2) / 153;
    let day_of_month = in_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_in_era + i64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn instants_are_read_in_any_offset_and_refused_without() {
        const AT: i64 = 1_772_619_307_112_000;
        for (text, expected) in [
            ("2026-03-04T10:15:07.112Z", Ok(AT)),
            ("2026-03-04T10:15:07.112+00:00", Ok(AT)),
            ("2026-03-04T11:15:07.112+01:00", Ok(AT)),
            ("2026-03-04T10:15:07.1129999Z", Ok(AT + 999)),
            ("2026-03-04t10:15:07.112z", Ok(AT)),
            ("1970-01-01T00:00:00Z", Ok(0)),
            ("2016-12-31T23:59:60Z", Ok(1_483_228_799_000_000)),
            ("2026-03-04T10:15:07.112", Err(TimestampError::NoZone)),
            ("2026-03-04", Err(TimestampError::NoZone)),
            ("2026-02-30T10:15:07Z", Err(TimestampError::Malformed)),
            ("yesterday", Err(TimestampError::Malformed)),
            ("1772619307112", Err(TimestampError::Malformed)),
            ("", Err(TimestampError::Malformed)),
            ("2026-03-04T10:15:07.112000000000000000000000000000Z", Err(TimestampError::Malformed)),
        ] {
            assert_eq!(parse(text), expected.map(Timestamp), "{text:?}");
        }
    }

    #[test]
    fn the_ends_of_time_are_written_as_the_nearest_year_with_four_digits() {
        for (at, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (1_772_619_307_114_999, "2026-03-04T10:15:07.114Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000Z"),
            (i64::MIN, "0001-01-01T00:00:00.000Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(format(Timestamp(at)), expected);
        }
    }

    proptest! {
        #[test]
        fn writes_what_jiff_writes(micros in MILLIS_MIN * 1000..=MILLIS_MAX * 1000) {
            let millis = jiff::Timestamp::from_microsecond(micros.div_euclid(1000) * 1000);
            let expected = millis.map(|at| format!("{at:.3}")).unwrap_or_default();
            prop_assert_eq!(format(Timestamp(micros)), expected);
        }
    }
}
