//! Ringmaster: outbound phone-call campaigns over Plivo that survive anything.
//!
//! One stateless binary, all state in MongoDB. The modules, in reading order:
//!
//! * [`domain`]: values and rules, pure: numbers, windows, retry, pacing, the call state machine.
//! * [`utils`]: the clock, start and stop, log set-up, jitter.
//! * [`config`]: reads and checks the environment, once.
//! * [`services`]: use cases; below them `services::store` (MongoDB) and `services::carrier` (Plivo).
//! * [`simulator`]: plays Plivo, with faults and books, for tests and the demonstration.
//! * [`state`]: what handlers can reach.
//! * [`error`]: the one error of the HTTP edge, a problem document.
//! * [`middleware`]: request ids, access log, authentication, signatures, limits.
//! * [`routes`]: HTTP in, HTTP out, and the wire types.
//! * [`router`]: the groups of routes, each behind its guards.
//! * [`app`]: builds everything once, starts and stops it.
//! * [`demo`]: database, simulator and server in one process, and a campaign through them.
//! * [`commands`]: the command line.
//!
//! Two ways through them explain most of the code:
//!
//! * Webhook: `middleware::plivo_signature` → `routes::webhooks` → `services::webhooks` → `services::calls` →
//!   `domain::transition` (pure) → `services::store::calls` (one guarded write) → wakes the dispatcher.
//! * Dispatch: `services::dispatcher` → `domain::{window, pacing}` → `services::store::calls` (intent and slots in one
//!   insert) → guarded campaign update → `services::carrier` → `services::calls`.

pub mod app;
pub mod chaos;
pub mod commands;
pub mod config;
pub mod demo;
pub mod domain;
pub mod error;
pub mod middleware;
pub mod router;
pub mod routes;
pub mod services;
pub mod simulator;
pub mod state;
pub mod utils;
