//! What people see: one line a thing that happens, each with the second of the run. The same on a terminal and in a file.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The screen. Clones write to the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Screen(Arc<Mutex<Option<Instant>>>);

impl Screen {
    /// The run begins now: seconds count from here.
    pub(super) fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// A line without time.
    pub(super) fn say(&self, line: &str) {
        // A reader that went away must not end the run: its result is the exit code.
        drop(writeln!(io::stdout(), "{line}"));
    }

    /// A line about something that happens now.
    pub(super) fn note(&self, line: &str) {
        let begun = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        self.say(&format!("{seconds:>7.1} s  {line}"));
    }
}
