//! What operators see of requests: metrics and access log, with one vocabulary for what went wrong.

mod access_log;
mod clusters;
mod metrics;

pub use self::{
    access_log::{AccessLog, RequestRecord},
    clusters::clusters,
    metrics::{Metrics, RequestCounts, RequestLabels, Side},
};
