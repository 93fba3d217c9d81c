//! Where connections go, and that `fairlead-node explain` says so before.

mod endpoints;
mod explain;
mod proxied;
mod registry;
