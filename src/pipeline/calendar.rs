//! Where the windows of a program stand: days, weeks and months in its own time zone, through daylight saving.

use crate::domain::{
    facts::{Program, WeekStart},
    ids::ProgramId,
    time::{Timestamp, WindowStarts},
};
use jiff::{
    Zoned,
    civil::{Date, Weekday},
    tz::TimeZone,
};
use std::collections::HashMap;

/// A program whose windows cannot be resolved.
#[derive(Debug, thiserror::Error)]
#[error("the windows of program {program} cannot be cut in time zone {time_zone:?}: {cause}")]
pub struct CalendarError {
    program: i64,
    time_zone: String,
    cause: String,
}

/// The current windows of each program. One per lane; a new day is resolved once.
#[derive(Debug, Default)]
pub struct Calendars {
    programs: HashMap<ProgramId, Page>,
}

#[derive(Debug)]
struct Page {
    program_version: i64,
    starts: WindowStarts,
    /// Start of the next day, when the page is turned.
    until: Timestamp,
}

impl Calendars {
    /// The windows of `program` at `now`.
    ///
    /// # Errors
    /// [`CalendarError`] when the program's time zone is not in the IANA data.
    pub fn starts(&mut self, program: &Program, now: Timestamp) -> Result<WindowStarts, CalendarError> {
        if let Some(page) = self.programs.get(&program.id)
            && page.program_version == program.version
            && (page.starts.day..page.until).contains(&now)
        {
            return Ok(page.starts);
        }
        let (starts, until) = cut(&program.time_zone, program.week_start, now).map_err(|error| CalendarError {
            program: program.id.0,
            time_zone: program.time_zone.to_string(),
            cause: error.to_string(),
        })?;
        self.programs.insert(program.id, Page { program_version: program.version, starts, until });
        Ok(starts)
    }
}

/// Where windows stand at `now`, without a program at hand.
///
/// # Errors
/// When the time zone is not in the IANA data.
pub fn window_starts(time_zone: &str, week_start: WeekStart, now: Timestamp) -> Result<WindowStarts, jiff::Error> {
    cut(time_zone, week_start, now).map(|(starts, _)| starts)
}

/// The windows at `now`, and the start of the next day.
fn cut(time_zone: &str, week_start: WeekStart, now: Timestamp) -> Result<(WindowStarts, Timestamp), jiff::Error> {
    let zone = TimeZone::get(time_zone)?;
    let today: Zoned = jiff::Timestamp::from_microsecond(now.0)?.to_zoned(zone.clone());
    let date = today.date();
    let into_week = i64::from(date.weekday().since(first_weekday(week_start)));
    let start = |date: Date| -> Result<Timestamp, jiff::Error> {
        // A day that begins inside a gap of the clock begins after it.
        Ok(Timestamp(date.to_zoned(zone.clone())?.start_of_day()?.timestamp().as_microsecond()))
    };
    let starts = WindowStarts {
        day: start(date)?,
        week: start(date.checked_sub(jiff::Span::new().days(into_week))?)?,
        month: start(date.first_of_month())?,
    };
    Ok((starts, start(date.tomorrow()?)?))
}

fn first_weekday(start: WeekStart) -> Weekday {
    match start {
        WeekStart::Monday => Weekday::Monday,
        WeekStart::Sunday => Weekday::Sunday,
        WeekStart::Saturday => Weekday::Saturday,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;
    use crate::domain::facts::ProgramKind;

    fn program(time_zone: &str, week_start: WeekStart) -> Program {
        Program {
            id: ProgramId(1),
            version: 1,
            kind: ProgramKind::Personal,
            time_zone: time_zone.into(),
            week_start,
            kyc_required: false,
            partial_approval: false,
            controls: std::sync::Arc::default(),
            limits: Vec::new(),
        }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn windows_are_cut_in_the_programs_own_time() {
        use WeekStart::{Monday, Saturday, Sunday};
        // zone, first day of the week, now | day, week, month
        for (zone, week_start, now, day, week, month) in [
            ("UTC", Monday, "2026-03-04T10:15:07Z", "2026-03-04T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z"),
            ("UTC", Sunday, "2026-03-04T10:15:07Z", "2026-03-04T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z"),
            ("UTC", Saturday, "2026-03-06T23:59:59Z", "2026-03-06T00:00:00Z", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
            // Still yesterday in New York.
            ("America/New_York", Monday, "2026-03-04T04:59:59Z", "2026-03-03T05:00:00Z", "2026-03-02T05:00:00Z", "2026-03-01T05:00:00Z"),
            // The clocks went forward on 8 March at 2:00: the day began in winter time, the next one in summer time.
            ("America/New_York", Sunday, "2026-03-08T20:00:00Z", "2026-03-08T05:00:00Z", "2026-03-08T05:00:00Z", "2026-03-01T05:00:00Z"),
            ("America/New_York", Sunday, "2026-03-09T20:00:00Z", "2026-03-09T04:00:00Z", "2026-03-08T05:00:00Z", "2026-03-01T05:00:00Z"),
            // Cuba's clocks skip midnight itself: the day begins at 1:00.
            ("America/Havana", Monday, "2026-03-08T20:00:00Z", "2026-03-08T05:00:00Z", "2026-03-02T05:00:00Z", "2026-03-01T05:00:00Z"),
        ] {
            let starts = Calendars::default().starts(&program(zone, week_start), at(now)).unwrap();
            assert_eq!(starts, WindowStarts { day: at(day), week: at(week), month: at(month) }, "{zone} {now}");
        }
    }

    #[test]
    fn a_page_turns_at_midnight_and_back_when_the_clock_does() {
        let mut calendars = Calendars::default();
        let program = program("Asia/Tokyo", WeekStart::Monday);
        for (now, day) in [
            ("2026-03-04T14:59:59Z", "2026-03-03T15:00:00Z"),
            ("2026-03-04T15:00:00Z", "2026-03-04T15:00:00Z"),
            ("2026-03-04T14:59:59Z", "2026-03-03T15:00:00Z"),
        ] {
            assert_eq!(calendars.starts(&program, at(now)).unwrap().day, at(day), "{now}");
        }
    }

    #[test]
    fn an_unknown_time_zone_is_named() {
        let error = Calendars::default().starts(&program("Mars/Olympus", WeekStart::Monday), at("2026-03-04T00:00:00Z")).unwrap_err();
        assert!(error.to_string().contains("Mars/Olympus"), "{error}");
    }
}
