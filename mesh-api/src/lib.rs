//! What more than one Fairlead component speaks: identities, workloads, services, L4 policies, the
//! local configuration file, and the way to a control plane.
//!
//! Pure types and decisions, but for [`control_plane`] and [`xds_client`], which talk to one.
#![forbid(unsafe_code)]

pub mod config;
pub mod control_plane;
pub mod convert;
pub mod crd;
pub mod enrolment;
pub mod identity;
pub mod l7;
pub mod policy;
pub mod proto;
pub mod workload;
pub mod xds_client;
