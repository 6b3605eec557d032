//! Log lines: JSON for machines, text for people, and panics without what they said.

use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("RUST_LOG is not a filter such as info,ringmaster=debug")]
    Filter,
    /// Someone has set up a log already.
    #[error("the log is set up already")]
    Twice,
}

/// Sets up the log of this process: lines on standard output that pass `filter`, as JSON or as text. Panics are logged by
/// their place alone: their texts may hold what must not be logged (promise P8).
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(filter: &str, json: bool) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter).map_err(|_| TelemetryError::Filter)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(true)
        .with_span_events(FmtSpan::NONE);
    let set = if json {
        log.json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init()
    } else {
        log.compact().try_init()
    };
    set.map_err(|_| TelemetryError::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Whether [`init`] can use this filter.
#[must_use]
pub fn is_filter(filter: &str) -> bool {
    EnvFilter::try_new(filter).is_ok()
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    tracing::error!(panic.place = place, "panicked");
}
