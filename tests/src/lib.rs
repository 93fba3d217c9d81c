//! The lab: nodes, pods and services as network namespaces on one machine.
//!
//! A [`Lab`] has [`Node`]s joined by a wire; each node has [`Pod`]s behind a bridge. Programs run
//! unmodified in either (see [`Host`]), a [`Capture`] records what crosses the wire, and
//! [`FairleadNode`] runs the proxy under test with a configuration made by [`MeshConfig`], or by a
//! [`ControlPlane`] with a directory of YAML, which [`manifest`] writes.
//! Everything ends when the [`Lab`] is dropped, also by a panic; what a killed process left behind is
//! removed by the next lab. The lab needs root.

mod access_log;
mod adapter;
pub mod bookinfo;
mod capture;
mod certificate;
mod cgroup;
mod control_plane;
mod fairlead;
mod grpc;
mod host;
mod http;
mod lab;
mod leftovers;
mod link;
pub mod manifest;
pub mod mesh;
mod mesh_config;
mod metrics;
mod netns;
mod node;
mod pod;
mod process;
mod process_tree;
mod programs;
mod resolver;
mod resources;
mod socket_table;
mod wait;
mod waypoint;
mod whole_file;

pub use self::{
    access_log::AccessLine,
    adapter::{Adapter, AdapterSite},
    capture::{Capture, CaptureFile, CaptureOptions},
    certificate::shown_identity,
    cgroup::{Cgroup, InCgroup, cgroup_root},
    control_plane::{ControlPlane, ControlPlaneBuilder},
    fairlead::{FairleadBuilder, FairleadNode, Half, fairlead_program},
    grpc::{GrpcClient, GrpcServer, Report},
    host::Host,
    http::{Response, http_get},
    lab::Lab,
    mesh_config::{
        ApplicationTunnel, Gateway, MeshConfig, PeerAuthentication, PeerMode, Policy, PolicyAction,
        Port, PortList, Scope, ServiceEntry, Waypoint, WorkloadEntry,
    },
    metrics::{Metric, Metrics},
    netns::Netns,
    node::Node,
    pod::{Pod, PodSpec},
    process::{Child, IntoCommand, Output},
    process_tree::{TreeProcess, process_tree},
    programs::{program, python},
    resolver::resolving,
    resources::Resources,
    socket_table::{TcpSocket, TcpState},
    wait::wait_for,
    waypoint::WaypointProxy,
};
