//! What more than one Fairlead component speaks: identities, workloads, services, L4 policies
//! and the local configuration file. Pure types and decisions; no I/O but reading a file's text.
#![forbid(unsafe_code)]

pub mod config;
pub mod convert;
pub mod crd;
pub mod enrolment;
pub mod identity;
pub mod policy;
pub mod proto;
pub mod workload;
