//! Fairlead's waypoint: the L7 proxy of services that ask for one.
//!
//! [`policy`] decides whether a request goes on, [`route`] what is done with it, [`balance`] which
//! endpoint gets it.
#![forbid(unsafe_code)]

pub mod balance;
pub mod policy;
pub mod route;
