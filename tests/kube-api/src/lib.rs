//! A small Kubernetes API server for tests: what `kubectl` and controllers need, in one process,
//! with faults on demand.
//!
//! Objects are kept as they come, without schemas, defaults or authorization. Validating webhooks
//! are called as their configurations say, by `url`.
#![forbid(unsafe_code)]

mod admission;
mod answer;
mod discovery;
mod faults;
mod object;
mod patch;
mod path;
mod query;
mod requests;
mod resource;
mod server;
mod store;
mod token;
mod view;
mod watch;

pub use self::{faults::Faults, object::Object, server::ApiServer, token::TokenUser};
