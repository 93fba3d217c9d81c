//! The mesh from outside: unmodified programs in pods, the wire between the nodes, and what the
//! proxies say about themselves.

mod clients;
mod config;
mod mesh;
mod paths;
mod policy;
mod telemetry;
