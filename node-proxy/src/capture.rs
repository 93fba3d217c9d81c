//! Capture: the privileged half. Loads and pins the BPF programs, enters pod namespaces, owns the
//! listening sockets and enrols pods. Contains no parser of anything that comes from the network.

pub mod check;
pub mod control;
pub mod enrolment;
pub mod programs;

mod links;
mod records;
pub mod routing;
mod vanish;
