//! The mesh from outside: unmodified programs in pods, the wire between the nodes, and what the
//! proxies say about themselves.

mod adapter;
mod bookinfo;
mod bpf;
mod certificates;
mod clients;
mod config;
mod conformance;
mod control_plane;
mod datagrams;
mod descriptors;
mod dns;
mod enrol;
mod envoy;
mod halves;
mod hbone;
mod kernel;
mod lifecycle;
mod outbound;
mod paths;
mod peer;
mod policy;
mod restart;
mod revocation;
mod state;
mod streams;
mod telemetry;
mod traffic;
mod trust;
mod waypoint;

use fairlead_lab::mesh;
