//! What operators see of requests: metrics and access log, with one vocabulary for what went wrong.

mod access_log;
mod metrics;

pub use self::{
    access_log::{AccessLog, RequestRecord},
    metrics::{Metrics, RequestCounts, RequestLabels, Side},
};
