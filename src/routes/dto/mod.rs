//! Wire types. They never are domain or stored types: those may change when the contract may not.

pub mod answer;
pub mod call;
pub mod campaign;
pub mod client;
pub mod list;
pub mod monitoring;
pub mod page;
pub mod rules;

use crate::domain::phone::PhoneNumber;

/// A phone number for somebody who may or may not see it.
fn number(number: &PhoneNumber, may_see: bool) -> String {
    if may_see {
        number.as_str().to_owned()
    } else {
        number.masked()
    }
}
