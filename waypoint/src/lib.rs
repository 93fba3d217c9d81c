//! Fairlead's waypoint: the L7 proxy of services that ask for one.
//!
//! [`route`] decides what is done with a request, [`balance`] which endpoint gets it; [`mesh`] is what
//! is known, from [`discovery`]; [`proxy`] does what is decided, and [`telemetry`] tells of it.
#![forbid(unsafe_code)]

pub mod balance;
pub mod cli;
pub mod discovery;
pub mod mesh;
pub mod proxy;
pub mod route;
pub mod telemetry;
