//! The authority as its callers see it.

mod csr;
mod pki;
mod plugged_in;
mod rotation;
mod secret;
mod service;
