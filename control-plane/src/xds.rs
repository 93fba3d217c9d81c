//! Discovery: tells each client what changed since it was last told.
//!
//! ```text
//! Vec<Change> -> publisher (debounce) -> Store <- stream (one a client) -> client
//!                          \-- "there is news" --/
//! ```
//!
//! Nothing is queued for a client. The store keeps every resource once, in the order of its last
//! change, and a client is a position in that order ([`subscription`]). A client that is slow, or
//! does not acknowledge, finds the merged state when it comes back.
//!
//! A response that does not hold the whole news says so in its `system_version_info`
//! ([`INCOMPLETE`]); the rest follows when it is acknowledged. A client may wait for the last of
//! them before it holds its first state for complete.
//!
//! [`INCOMPLETE`]: mesh_api::xds_client::INCOMPLETE

pub mod clearance;
pub mod clients;
mod debounce;
#[cfg(test)]
pub(crate) mod fixtures;
mod frame;
mod handler;
pub mod limits;
mod publisher;
pub mod request;
mod requests;
pub mod resource_type;
mod session;
pub mod store;
mod stream;
pub mod subscription;

pub use self::{
    debounce::DebounceOptions,
    handler::{Discovery, METHOD, Peer},
    publisher::{Published, publish},
};

#[cfg(test)]
mod tests;
