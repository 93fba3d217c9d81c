//! The program, as the clients of a node proxy find it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod client;
mod cluster;
mod directory;
mod outage;
mod permissions;
mod plane;
mod replicas;
mod routes;
mod status;
mod waypoints;
mod webhook;
