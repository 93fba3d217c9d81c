//! What the waypoint knows of the mesh: an immutable snapshot that every request sees whole.
//!
//! A change costs what it is about: snapshots share everything else, and only the services that are
//! concerned are put together anew.

mod apply;
mod binding;
mod credential;
mod preamble;
mod service;
mod snapshot;

pub use self::{
    apply::{MeshResource, subscriptions},
    binding::Binding,
    credential::{Credential, Part},
    preamble::{Material, OriginTls, Preamble, ProxyVersion, Unsupported},
    service::{Backend, ServiceView, Way},
    snapshot::{Snapshot, Target},
};

#[cfg(test)]
mod tests;
