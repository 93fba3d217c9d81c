//! Fairlead's waypoint: the L7 proxy of services that ask for one.
//!
//! [`route`] decides what is done with a request, [`balance`] which endpoint gets it.
#![forbid(unsafe_code)]

pub mod balance;
pub mod route;
