//! Where connections go, and that `fairlead-node explain` says so before.

mod endpoints;
mod explain;
mod hostnames;
mod proxied;
mod registry;
