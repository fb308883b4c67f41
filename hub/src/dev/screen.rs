//! What `dev` says while it works: plain words and a progress bar on stderr. Nothing of it is data.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Says what happens.
#[derive(Debug)]
pub(super) struct Screen {
    quiet: bool,
    start: Instant,
}

impl Screen {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, start: Instant::now() }
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Something begins.
    pub(super) fn step(&self, what: &str) {
        self.say(&format!("{:>6} ms  {what}", self.elapsed_ms()));
    }

    /// Something is done.
    pub(super) fn done(&self, what: &str) {
        self.say(&format!("{:>6} ms    ok: {what}", self.elapsed_ms()));
    }

    /// A line of talk.
    #[expect(clippy::print_stderr, reason = "the talk of a command")]
    pub(super) fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    /// A bar of payments; hidden where nobody looks.
    pub(super) fn bar(&self, payments: u64) -> ProgressBar {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(payments), target);
        let style = ProgressStyle::with_template("           [{bar:40}] {pos}/{len} payments, {per_sec}");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar
    }
}
