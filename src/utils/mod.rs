//! Small tools without any knowledge of the crate.

pub mod backoff;
pub mod clock;
pub mod crash_points;
pub mod leash;
pub mod lifecycle;
pub mod telemetry;
