//! Streams between workloads: what each of Fairlead's proxies needs to speak for workloads.
//!
//! [`hbone`] is the tunnel protocol, [`tls`] and [`identity`] the certificates under it,
//! [`revocation_file`] tells which of them hold no more, [`limits`] is what a peer may cost.
//! [`proxy_header`] tells applications that are proxies themselves who connects.
#![deny(unsafe_code)]

pub mod adaptive_read;
pub mod hbone;
pub mod identity;
pub mod limits;
pub mod proxy_header;
pub mod revocation_file;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tls;
