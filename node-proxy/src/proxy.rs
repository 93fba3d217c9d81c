//! The proxy half: sockets in, decisions, mutual TLS, sockets out. Touches no namespace by itself;
//! the capture half hands it sockets.

pub mod dump;
pub mod intake;
pub mod node;
pub mod pod;
pub mod ready_sockets;
pub mod resolver;
pub mod worker;

mod admission;
pub(crate) mod connections;
mod delivery;
mod explain;
#[cfg(test)]
pub(crate) mod fixtures;
mod flow;
#[cfg(test)]
mod footprint;
mod hostnames;
mod inbound;
mod outbound;
mod relay;
mod shares;
mod upstream;
