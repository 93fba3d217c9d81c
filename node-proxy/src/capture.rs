//! Capture: the privileged half. Loads and pins the BPF programs, enters pod namespaces, owns the
//! listening sockets and enrols pods. Contains no parser of anything that comes from the network.

pub mod check;
pub mod control;
pub mod enrolment;
pub mod handover;
pub mod kubelet;
pub mod processes;
pub mod programs;
pub mod proxies;
pub mod routing;

mod counts;
mod links;
mod profiler;
mod records;
mod registry;
mod sockets;
mod vanish;
