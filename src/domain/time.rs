//! Instants and the windows that limits count in. Calendars are resolved outside; in here a window is its start.

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// What span of time a limit counts over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// One transaction: nothing is counted.
    Transaction,
    /// A calendar day of the program.
    Day,
    /// A calendar week of the program.
    Week,
    /// A calendar month of the program.
    Month,
    /// For ever.
    Lifetime,
}

/// Where the windows of a program stand at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowStarts {
    /// Start of the day.
    pub day: Timestamp,
    /// Start of the week.
    pub week: Timestamp,
    /// Start of the month.
    pub month: Timestamp,
}

impl WindowStarts {
    /// The start that names `window` in a counter's key: 0 for the windows without a start.
    #[must_use]
    pub const fn start_of(&self, window: Window) -> Timestamp {
        match window {
            Window::Transaction | Window::Lifetime => Timestamp(0),
            Window::Day => self.day,
            Window::Week => self.week,
            Window::Month => self.month,
        }
    }
}
