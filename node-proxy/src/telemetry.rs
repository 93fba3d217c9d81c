//! What operators see: logs, metrics, readiness, and one vocabulary for why a connection ended.

pub mod access_log;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod metrics;
pub mod reason;
pub mod server;

pub use fairlead_component::readiness;
