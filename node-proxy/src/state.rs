//! What the node knows of the mesh: an immutable snapshot, replaced whole when configuration changes.
//!
//! Pure: built from lists, asked by lookups; no clock, no lock, no I/O.

mod endpoints;
mod outbound;
mod snapshot;

pub use self::{
    endpoints::Endpoint,
    outbound::{Hop, Route, Transport},
    snapshot::{LocalWorkload, MeshState, ServiceEntry, WorkloadEntry},
};

#[cfg(test)]
mod tests;
