//! Fairlead's waypoint: the L7 proxy of services that ask for one.
//!
//! [`policy`] decides whether a request goes on, [`route`] what is done with it, [`balance`] which
//! endpoint gets it; [`mesh`] is what is known, from [`discovery`] and [`lookups`]; [`proxy`] does what
//! is decided, and [`telemetry`] tells of it.
//!
//! What it does not do: it sends upgrades (WebSocket) on in HTTP/1.1, and as extended CONNECTs (RFC 8441)
//! to endpoints that are declared to speak HTTP/2, of which those that take none are not asked: the
//! answer is 503 with the flag `UR`, as if they had reset it; it reaches no endpoints behind gateways of
//! other networks; it asks nobody else whether a request may pass, so what a CUSTOM policy matches is
//! refused; `perTryTimeout` holds until an answer begins. Of secrets that destination rules name
//! (`credentialName`) it knows those of its own namespace, by the names of Kubernetes and no other
//! providers.
#![forbid(unsafe_code)]

pub mod balance;
pub mod cli;
pub mod discovery;
pub mod http1;
pub mod limits;
pub mod lookups;
pub mod mesh;
pub mod policy;
pub mod proxy;
pub mod route;
pub mod telemetry;
