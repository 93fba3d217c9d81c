//! Wire types, generated from `proto/`.
//!
//! The same types are read from the local configuration file (`yaml`) and from the control plane.

mod credential;
pub(crate) mod yaml;

/// Workloads and services (`istio.workload`).
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; its documentation is in proto/workload.proto"
)]
pub mod workload {
    include!(concat!(env!("OUT_DIR"), "/istio.workload.rs"));
}

/// Authorization policies (`istio.security`).
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; its documentation is in proto/authorization.proto"
)]
pub mod security {
    include!(concat!(env!("OUT_DIR"), "/istio.security.rs"));
}

/// The delta discovery service (`envoy.service.discovery.v3`).
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; its documentation is in proto/discovery.proto"
)]
pub mod discovery {
    include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));
}

/// The certificate service (`istio.v1.auth`).
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; its documentation is in proto/ca.proto"
)]
pub mod ca {
    include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.rs"));
}

/// Parts of service entries (`istio.networking.v1alpha3`).
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; its documentation is in proto/service_entry.proto"
)]
pub mod networking {
    include!(concat!(env!("OUT_DIR"), "/istio.networking.v1alpha3.rs"));
}

/// Parts of the mesh configuration (`istio.mesh.v1alpha1`).
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; its documentation is in proto/mesh_config.proto"
)]
pub mod mesh_config {
    include!(concat!(env!("OUT_DIR"), "/istio.mesh.v1alpha1.rs"));
}

/// What waypoints are told (`fairlead.l7`).
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; its documentation is in proto/l7.proto"
)]
pub mod l7 {
    include!(concat!(env!("OUT_DIR"), "/fairlead.l7.rs"));
}
