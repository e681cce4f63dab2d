//! Figures as people read them.

use indicatif::HumanCount;
use std::collections::BTreeMap;

/// Microseconds for people, three digits and a unit.
#[must_use]
pub fn time(us: u64) -> String {
    let digits = |value: f64| if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.*} ms", digits(us as f64 / 1e3), us as f64 / 1e3),
        _ => format!("{:.*} s", digits(us as f64 / 1e6), us as f64 / 1e6),
    }
}

/// An RFC 3339 instant to the second; as it is when it cannot be read.
pub(super) fn instant(text: &str) -> String {
    text.parse::<jiff::Timestamp>().map_or_else(|_| text.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// A share of one as a percentage.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A time at an axis: no digit too many.
pub(super) fn tick_time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{} µs", plain(us)),
        us if us < 1e6 => format!("{} ms", plain(us / 1e3)),
        us => format!("{} s", plain(us / 1e6)),
    }
}

/// A number with as many decimals as it needs, three at most.
pub(super) fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A count: thousands set apart.
pub(super) fn count(count: u64) -> String {
    HumanCount(count).to_string()
}

/// A rate: thousands set apart, one decimal where it is small.
pub(super) fn rate(per_second: f64) -> String {
    let value = per_second.max(0.0);
    if value >= 1_000.0 {
        return count(value.round() as u64);
    }
    plain((value * 10.0).round() / 10.0)
}

/// By count, most first; equal ones by name.
pub(super) fn most_first(counts: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut ordered: Vec<(&str, u64)> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    ordered.sort_by_key(|(name, count)| (u64::MAX - count, *name));
    ordered
}

/// How much one figure is above or below another: `+12 %`.
pub(super) fn change(now: u64, before: u64) -> String {
    if before == 0 {
        return "–".to_owned();
    }
    let share = (now as f64 / before as f64 - 1.0) * 100.0;
    match share.round() {
        rounded if rounded > 0.0 => format!("+{rounded} %"),
        rounded if rounded < 0.0 => format!("−{} %", rounded.abs()),
        _ => "0 %".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (us, expected) in
            [(0, "0 µs"), (999, "999 µs"), (1_000, "1.00 ms"), (12_345, "12.3 ms"), (123_456, "123 ms"), (60_000_000, "60.0 s")]
        {
            assert_eq!(time(us), expected);
        }
        for (us, expected) in [(1.0, "1 µs"), (62.5, "62.5 µs"), (2e3, "2 ms"), (5e5, "500 ms"), (2.5e6, "2.5 s")] {
            assert_eq!(tick_time(us), expected);
        }
        for (text, expected) in [("2026-03-04T10:15:07.112Z", "2026-03-04 10:15:07 UTC"), ("yesterday", "yesterday"), ("", "")] {
            assert_eq!(instant(text), expected);
        }
        for (per_second, expected) in [(0.0, "0"), (-1.0, "0"), (99.54, "99.5"), (100.0, "100"), (4_321.5, "4,322")] {
            assert_eq!(rate(per_second), expected);
        }
        for (now, before, expected) in [(112, 100, "+12 %"), (90, 100, "−10 %"), (100, 100, "0 %"), (999, 1_000, "0 %"), (1, 0, "–")] {
            assert_eq!(change(now, before), expected);
        }
    }

    #[test]
    fn counts_come_most_first() {
        let counts = BTreeMap::from([("b".to_owned(), 2), ("a".to_owned(), 2), ("c".to_owned(), 9)]);
        assert_eq!(most_first(&counts), [("c", 9), ("a", 2), ("b", 2)]);
    }
}
