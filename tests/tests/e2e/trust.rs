//! Whom the proxy takes for a workload of its mesh: everybody else gets no byte of HTTP/2, and no
//! byte of an application.

mod clients;
mod handshakes;
mod servers;
