//! Custom resources of Istio and of the Gateway API, as they are written, as far as Fairlead uses
//! them.
//!
//! Resources of security refuse fields that they do not know: a policy whose misspelt condition was
//! ignored would say something else than it seems to.

mod authorization_policy;
mod gateway;
mod mesh_config;
mod peer_authentication;
mod selector;
mod service_entry;

pub use self::{
    authorization_policy::{
        AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Condition, From, Operation,
        Provider, Source, TargetReference, To,
    },
    gateway::{
        AllowedRoutes, Gateway, GatewayAddress, GatewayStatus, Listener, RouteNamespaces,
        RouteOrigin,
    },
    mesh_config::{MeshConfig, OutboundMode, OutboundTrafficPolicy},
    peer_authentication::{MutualTls, PeerAuthentication},
    selector::{LabelSelector, Operator, Requirement, WorkloadSelector},
    service_entry::{
        EntryPort, EntryStatus, HostAddress, Location, Resolution, ServiceEntry, WorkloadCondition,
        WorkloadEntry, WorkloadLabels, WorkloadStatus,
    },
};

#[cfg(test)]
mod tests;
