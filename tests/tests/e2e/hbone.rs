//! HBONE as a peer sees it that is not our own: requests, answers, streams and parameters.

mod client;
pub(crate) mod excess;
mod first_bytes;
pub(crate) mod frames;
mod parameters;
mod peers;
pub(crate) mod requests;
mod streams;
mod tunnels;
