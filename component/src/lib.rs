//! What every Fairlead process has: a clock that simulations replace, a log, counts of what its peers
//! have, and pages for operators.
#![forbid(unsafe_code)]

pub mod clock;
pub mod http;
pub mod logging;
pub mod operator;
pub mod readiness;
pub mod shares;
pub mod watched_file;
