//! The data path: tunnels in, requests and connections decided, tunnels out.

mod body;
mod calming;
mod checked;
pub mod clients;
mod counted;
mod detect;
mod exchange;
mod forward;
mod hash;
mod http;
mod idle;
mod inbound;
mod local_executor;
mod prefixed;
pub mod progress;
mod replay;
mod session;
mod tcp;
mod upgrade;
mod upstream;
mod watched;
pub mod worker;
