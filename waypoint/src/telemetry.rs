//! What operators see of requests: metrics and access log, with one vocabulary for what went wrong.

mod access_log;
mod clusters;
mod messages;
mod metrics;

pub use self::{
    access_log::{AccessLog, Record, Request},
    clusters::clusters,
    messages::Messages,
    metrics::{Bytes, GRPC, Metrics, RequestCounts, RequestLabels, RequestTotals, Side},
};
