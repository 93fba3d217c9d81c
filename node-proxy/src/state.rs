//! What the node knows of the mesh: an immutable snapshot, replaced when configuration changes.
//!
//! Pure: built from lists or change by change, asked by lookups; no clock, no lock, no I/O.

mod endpoints;
mod names;
mod outbound;
mod proximity;
mod snapshot;
mod waypoint;

pub use self::{
    names::{Named, Naming},
    outbound::{Hop, Route, Transport, WithoutWaypoint},
    snapshot::{LocalWorkload, MeshState, ServiceEntry},
};

#[cfg(test)]
mod tests;
