//! The control plane over real TLS sockets, spoken to by a gRPC client.

mod certificates;
mod client;
mod discovery;
mod lifetime;
mod plane;
