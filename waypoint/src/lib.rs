//! Fairlead's waypoint: the L7 proxy of services that ask for one.
//!
//! [`policy`] decides whether a request goes on, [`route`] what is done with it, [`balance`] which
//! endpoint gets it; [`mesh`] is what is known, from [`discovery`]; [`proxy`] does what is decided,
//! and [`telemetry`] tells of it.
#![forbid(unsafe_code)]

pub mod balance;
pub mod cli;
pub mod discovery;
pub mod mesh;
pub mod policy;
pub mod proxy;
pub mod route;
pub mod telemetry;
