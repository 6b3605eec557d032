//! What the tests share.

pub(crate) mod app;
pub(crate) mod edge;
pub(crate) mod judge;
pub(crate) mod logs;
pub(crate) mod mongod;
pub(crate) mod process;
pub(crate) mod proxy;
