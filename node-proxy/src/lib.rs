//! Fairlead's node proxy.
//!
//! Two halves, each a process of its own: [`capture`] is privileged and hands out sockets, [`proxy`]
//! gets sockets and has all the parsing; [`link`] is what they say to each other. [`agent`] decides
//! which pods are enrolled where that is not left to operators. [`state`] is what the node knows of
//! the mesh, [`local_config`] and [`discovery`] where it knows it from, [`telemetry`] and [`explain`]
//! what operators see, [`profile`] what the proxy spends time and memory on, [`api`] how pods are
//! enrolled. Tunnels and certificates are [`fairlead_tunnel`]'s.
#![deny(unsafe_code)]

pub mod agent;
pub mod api;
pub mod capture;
pub mod cli;
pub mod discovery;
pub mod dns;
pub mod explain;
pub mod limits;
pub mod link;
pub mod local_config;
pub mod profile;
pub mod proxy;
pub mod resolv_conf;
pub mod sandbox;
pub mod state;
pub mod supervise;
pub mod telemetry;
