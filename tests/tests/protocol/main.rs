//! The control plane and programs that nobody here wrote: `protoc` reads and writes its messages, and
//! Envoy is its client.
#![allow(clippy::unwrap_used, reason = "tests")]

mod envoy;
mod messages;
mod plane;
mod protoc;
mod wire;
