//! Values and rules: pure, no IO, no clock, nothing async. May import nothing else of the crate.

pub mod ids;
pub mod phone;
pub mod role;

pub mod client;
pub mod patch;

pub mod contact;
pub mod list;

pub mod answer;
pub mod template;
pub mod web_address;

pub mod campaign;
pub mod pacing;
pub mod progress;
pub mod retry;
pub mod window;

pub mod call;
pub mod call_event;
pub mod outcome;
pub mod slots;
pub mod transition;
