//! What the node knows of the mesh: an immutable snapshot, replaced when configuration changes.
//!
//! Pure: built from lists or change by change, asked by lookups; no clock, no lock, no I/O.

mod endpoints;
mod explain;
mod gateway;
mod lots;
mod menu;
mod names;
mod outbound;
mod proximity;
mod snapshot;
mod standing;
mod waypoint;

pub use self::{
    explain::{Bearings, workload_name},
    names::{Named, NamedPorts, Naming},
    outbound::{Hop, OutboundPolicy, Route, Transport, WithoutWaypoint},
    snapshot::{LocalWorkload, MeshState, ServiceEntry},
    standing::{Moment, Standing},
};

#[cfg(test)]
mod tests;
