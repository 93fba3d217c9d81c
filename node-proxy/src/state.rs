//! What the node knows of the mesh: an immutable snapshot, replaced when configuration changes.
//!
//! Pure: built from lists or change by change, asked by lookups; no clock, no lock, no I/O.

mod endpoints;
mod outbound;
mod proximity;
mod snapshot;
mod waypoint;

pub use self::{
    outbound::{Hop, Route, Transport, WithoutWaypoint},
    snapshot::{LocalWorkload, MeshState, ServiceEntry},
};

#[cfg(test)]
mod tests;
