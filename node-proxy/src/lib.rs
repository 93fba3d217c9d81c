//! Fairlead's node proxy.
//!
//! Two halves, each a process of its own: [`capture`] is privileged and hands out sockets, [`proxy`]
//! gets sockets and has all the parsing; [`link`] is what they say to each other. [`agent`] decides
//! which pods are enrolled where that is not left to operators. [`hbone`] is the tunnel protocol, [`state`] what the node
//! knows of the mesh, [`local_config`] and [`discovery`] where it knows it from, [`identity`] and [`tls`] its certificates, [`telemetry`] and [`explain`] what operators see,
//! [`profile`] what it spends time and memory on, [`api`] how pods are enrolled.
#![deny(unsafe_code)]

mod adaptive_read;
pub mod agent;
pub mod api;
pub mod capture;
pub mod cli;
pub mod discovery;
pub mod dns;
pub mod explain;
pub mod hbone;
pub mod identity;
pub mod limits;
pub mod link;
pub mod local_config;
pub mod profile;
pub mod proxy;
pub mod resolv_conf;
pub mod revocation_file;
pub mod sandbox;
pub mod state;
pub mod supervise;
#[expect(unsafe_code, reason = "system calls that no library wraps")]
pub mod sys;
pub mod telemetry;
pub mod tls;
mod watched_file;
