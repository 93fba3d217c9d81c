//! The control plane: from cluster state to what proxies are told.
//!
//! ```text
//! source -> objects -> computation -> Vec<resource::Change> -> xds -> clients
//!                           \-------- ca::Placement ---------> ca --/
//! ```
#![forbid(unsafe_code)]

pub mod auth;
pub mod ca;
pub mod cli;
pub mod cluster;
pub mod feed;
pub mod mesh;
pub mod object;
pub mod resource;
pub mod run;
pub mod server;
pub mod source;
pub mod telemetry;
pub mod watch;
pub mod webhook;
pub mod xds;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
