//! The control plane: from cluster state to what proxies are told.
#![forbid(unsafe_code)]

pub mod mesh;
pub mod object;
pub mod resource;
pub mod source;

#[cfg(test)]
mod fixture;
