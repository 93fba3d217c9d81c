//! What operators see: metrics, logs, and an admin interface on a local port.

pub mod admin;
pub mod metrics;
mod process;
