//! The data path: tunnels in, requests and connections decided, tunnels out.

mod body;
mod detect;
mod exchange;
mod forward;
mod http;
mod inbound;
mod local_executor;
mod prefixed;
mod replay;
mod tcp;
mod upstream;
pub mod worker;
