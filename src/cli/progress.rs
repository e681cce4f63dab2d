//! A progress bar on a terminal, plain lines elsewhere.

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};

/// Shows on stderr how far a piece of work is.
pub(in crate::cli) struct Progress {
    what: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    /// Tenths of the work that a line was printed for.
    tenths: u64,
}

impl Progress {
    /// Begins at zero of `total`.
    pub(in crate::cli) fn start(what: &'static str, total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
            let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {human_pos}/{human_len} {elapsed} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.set_prefix(what);
            bar
        });
        Self { what, total, bar, tenths: 0 }
    }

    /// Notes that `done` of the total are done; `message` stands beside the bar.
    pub(in crate::cli) fn at(&mut self, done: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message.to_owned());
            return;
        }
        let tenths = (done * 10).checked_div(self.total).unwrap_or(0);
        if tenths > self.tenths {
            self.tenths = tenths;
            let line = format!("{}: {} of {} {message}", self.what, HumanCount(done), HumanCount(self.total));
            // Progress that nobody can see is no reason to stop the work.
            drop(writeln!(io::stderr(), "{}", line.trim_end()));
        }
    }

    /// Takes the bar away.
    pub(in crate::cli) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
