//! What people see: a progress bar on a terminal, plain lines elsewhere. No phone numbers.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::proof::Proof;
use super::world::{CLIENT_LIMIT, World};
use crate::simulator::Stats;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// Refused rows that are shown.
const SHOWN_ROWS: usize = 5;

/// The screen.
pub(super) struct Screen {
    is_terminal: bool,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Screen {
    pub(super) fn new(is_terminal: bool) -> Self {
        Self {
            is_terminal,
            bar: None,
            last_line: None,
        }
    }

    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => writeln!(io::stdout(), "{line}")?,
        }
        Ok(())
    }

    /// A line in the middle of the progress.
    pub(super) fn note(&mut self, line: &str) -> io::Result<()> {
        self.say(&format!("  {line}"))
    }

    pub(super) fn imported(&mut self, list: &Value, took: Duration) -> io::Result<()> {
        self.say(&format!(
            "  imported     {} rows in {} ms: {} good, {} duplicates, {} refused",
            list["total"],
            took.as_millis(),
            list["accepted"],
            list["duplicates"],
            list["rejected"],
        ))?;
        let errors = list["errors"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        for error in errors.iter().take(SHOWN_ROWS) {
            let column = error["column"].as_str().unwrap_or("row");
            let reason = error["reason"].as_str().unwrap_or_default();
            self.say(&format!(
                "                 line {}, {column}: {reason}",
                error["line"]
            ))?;
        }
        Ok(())
    }

    pub(super) fn progress(&mut self, progress: &Value, elapsed: Duration) -> io::Result<()> {
        let total = progress["total"].as_u64().unwrap_or_default();
        let percent = progress["percent"].as_f64().unwrap_or_default();
        let line = format!(
            "live {:>3}/{CLIENT_LIMIT}  answered {:>4}  busy {:>3}  no answer {:>3}  retry {:>3}  left {:>4}",
            progress["inFlight"],
            progress["final"]["answered"],
            progress["final"]["busy"],
            progress["final"]["no_answer"],
            progress["waitingRetry"],
            progress["pending"],
        );
        if self.is_terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("  {bar:32.green} {percent:>3}%  {msg}");
                ProgressBar::new(total)
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            });
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to the total"
            )]
            bar.set_position((percent / 100.0 * total as f64) as u64);
            bar.set_message(line);
            return Ok(());
        }
        if self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY) || percent >= 100.0 {
            self.last_line = Some(Instant::now());
            self.say(&format!(
                "  {:>4.1} s {percent:>5.1} %  {line}",
                elapsed.as_secs_f64()
            ))?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        self.say("")
    }

    pub(super) fn table(&mut self, proofs: &[Proof]) -> io::Result<()> {
        self.say("Proven from the carrier's own books:")?;
        for proof in proofs {
            let verdict = if proof.is_kept() { "kept" } else { "BROKEN" };
            self.say(&format!(
                "  {:<30} {verdict:<7} {}",
                proof.promise, proof.checked
            ))?;
            if let Some(violation) = &proof.violation {
                self.say(&format!("  {:<30} {violation}", ""))?;
            }
        }
        self.say("")
    }

    pub(super) fn report(
        &mut self,
        progress: &Value,
        took: Duration,
        stats: &Stats,
    ) -> io::Result<()> {
        self.say(&format!(
            "Report: {} contacts, {} calls in {:.1} s, at most {} dial requests in a second",
            progress["total"],
            stats.accepted,
            took.as_secs_f64(),
            stats.peak_requests_per_second,
        ))?;
        for (outcome, count) in progress["final"].as_object().into_iter().flatten() {
            if count.as_u64() != Some(0) {
                self.say(&format!("  {outcome:<16} {count:>5}"))?;
            }
        }
        self.say("")
    }

    pub(super) fn addresses(&mut self, world: &World, operator_key: &str) -> io::Result<()> {
        self.say(&format!("  Swagger UI    {}/docs/", world.base))?;
        self.say(&format!("  API           {}", world.base))?;
        self.say(&format!("  operator key  {operator_key}"))?;
        self.say(&format!("  admin key     {}", world.admin_key))?;
        let carrier = world.simulator.base_url();
        self.say(&format!("  the carrier   {carrier}/simulator/stats"))
    }
}
