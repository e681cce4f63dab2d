//! Moments as a person gives them: an instant, or how long ago.

use crate::{codec::timestamp, domain::time::Timestamp};

/// A moment that may depend on when it is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    /// Microseconds before now.
    Ago(i64),
}

impl When {
    pub(super) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(us) => Timestamp(now.0.saturating_sub(us)),
        }
    }
}

/// Reads an RFC 3339 instant, or a whole number of `s`, `m`, `h` or `d` ago, with or without a minus.
pub(super) fn parse(text: &str) -> Result<When, String> {
    let ago = text.strip_prefix('-').unwrap_or(text);
    let unit = |seconds: i64| {
        let number: Option<i64> = ago.get(..ago.len() - 1).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok();
        number?.checked_mul(seconds)?.checked_mul(1_000_000).map(When::Ago)
    };
    let relative = match ago.bytes().last() {
        Some(b's') => unit(1),
        Some(b'm') => unit(60),
        Some(b'h') => unit(3_600),
        Some(b'd') => unit(86_400),
        _ => None,
    };
    let wrong = |why: &str| format!("{why}; give an instant such as 2026-03-04T10:15:00Z, or an age such as 90s, 15m, 2h or 7d");
    relative.map_or_else(|| timestamp::parse(text).map(When::At).map_err(|error| wrong(&error.to_string())), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_ages_are_read() {
        let now = Timestamp(1_772_619_307_000_000);
        for (text, expected) in [
            ("2026-03-04T10:15:07Z", Some(now.0)),
            ("2026-03-04T11:15:07+01:00", Some(now.0)),
            ("90s", Some(now.0 - 90_000_000)),
            ("15m", Some(now.0 - 900_000_000)),
            ("-15m", Some(now.0 - 900_000_000)),
            ("2h", Some(now.0 - 7_200_000_000)),
            ("7d", Some(now.0 - 604_800_000_000)),
            ("2026-03-04T10:15:07", None),
            ("yesterday", None),
            ("m", None),
            ("--5m", None),
            ("+5m", None),
            ("5é", None),
            ("99999999999999999d", None),
            ("", None),
        ] {
            assert_eq!(parse(text).ok().map(|when| when.at(now).0), expected, "{text:?}");
        }
    }
}
