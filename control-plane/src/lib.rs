//! The control plane: from cluster state to what proxies are told.
#![forbid(unsafe_code)]

pub mod resource;
