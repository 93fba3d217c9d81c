//! Fairlead's node proxy.
//!
//! Two halves with a narrow interface: [`capture`] is privileged and hands out sockets, [`proxy`]
//! gets sockets and has all the parsing. [`hbone`] is the tunnel protocol, [`state`] what the node
//! knows of the mesh, [`identity`] and [`tls`] its certificates, [`telemetry`] what operators see,
//! [`api`] how pods are enrolled.
#![deny(unsafe_code)]

mod adaptive_read;
pub mod api;
pub mod capture;
pub mod cli;
pub mod hbone;
pub mod identity;
pub mod local_config;
pub mod proxy;
pub mod state;
#[expect(unsafe_code, reason = "system calls that no library wraps")]
pub mod sys;
pub mod telemetry;
pub mod tls;
