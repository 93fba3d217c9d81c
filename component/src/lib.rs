//! What every Fairlead process has: a clock that simulations replace, a log, and pages for operators.
#![forbid(unsafe_code)]

pub mod clock;
pub mod http;
pub mod logging;
pub mod operator;
pub mod readiness;
pub mod watched_file;
