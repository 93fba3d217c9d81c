//! HBONE as a peer sees it that is not our own: requests, answers, streams and parameters.

mod client;
mod excess;
mod first_bytes;
mod frames;
mod parameters;
mod peers;
mod requests;
mod streams;
mod tunnels;
