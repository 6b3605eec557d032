//! Use cases: load, decide (domain), one guarded write (store), effects. Nothing here knows HTTP or MongoDB.
//!
//! The dial path, from the top: [`dispatcher`] (which campaigns are ours) → `driver` (one campaign, contact by contact) →
//! [`slots`], [`pacer`], [`warmup`] (may we?) → [`dialer`] (guard, send, write down) → [`calls`] (every change of a call).
//! Webhooks enter at [`webhooks`] and meet it in [`calls`]; [`reconciler`] asks the carrier where neither brought an answer.

pub mod carrier;
pub mod store;

pub mod calls;
pub mod dialer;
pub mod heartbeat;
pub mod outbound;
pub mod pacer;
pub mod slots;
pub mod wake;
pub mod warmup;

pub mod parts;

mod breaker;
mod driver;
mod intent;

pub mod dispatcher;

pub mod campaigns;
pub mod reconciler;
pub mod single_calls;
pub mod webhooks;

pub mod auth;
pub mod clients;
pub mod idempotency;
pub mod imports;
pub mod lists;
pub mod monitoring;
