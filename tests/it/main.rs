//! The one integration-test binary: the service from outside, on a real MongoDB and the carrier simulator.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and its tasks end with its runtime"
)]

mod helpers;

mod ambiguous;
mod auth;
mod breaker;
mod campaign_flow;
mod campaign_input;
mod carrier_faults;
mod clients;
mod clocks;
mod counts;
mod crash;
mod crash_points;
mod demo;
mod embedded;
mod errors;
mod failpoints;
mod handover;
mod idempotency;
mod limits;
mod lists;
mod logs;
mod lost_webhooks;
mod migrate_cli;
mod mongo_away;
mod openapi;
mod operations;
mod pause;
mod signature;
mod simulator;
mod tidy;
mod webhooks_order;
mod zombie;
