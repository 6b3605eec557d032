//! Ringmaster: outbound phone-call campaigns over Plivo that survive anything.
//!
//! One stateless binary, all state in MongoDB. The modules, in reading order:
//!
//! * Webhook: `middleware::plivo_signature` → `routes::webhooks` → `services::webhooks` → `services::calls` →
//!   `domain::transition` (pure) → `services::store::calls` (one guarded write) → wakes the dispatcher.
//! * Dispatch: `services::dispatcher` → `domain::{window, pacing}` → `services::store::calls` (intent and slots in one
//!   insert) → guarded campaign update → `services::carrier` → `services::calls`.

pub mod domain;

pub mod utils;

pub mod config;

pub mod services;

pub mod simulator;

pub mod state;

pub mod error;

pub mod middleware;

pub mod routes;

pub mod router;

pub mod app;

pub mod demo;

pub mod chaos;

pub mod commands;
