//! Kubernetes and Istio objects, as far as the mesh depends on them.
//!
//! Objects are slim: what is not used is not kept, as a cluster has many pods. They are read from
//! JSON ([`read`]), which is also what YAML becomes, and checked on their own ([`validate`]); what
//! holds between objects is checked where it is computed.

mod error;
mod metadata;
mod network;
mod pod;
mod read;
mod secret;
mod validate;
pub(crate) mod yaml;

use std::{fmt, sync::Arc};

use mesh_api::crd;

pub use self::{
    error::{InvalidObject, Problem},
    metadata::{Labels, Metadata, Owner},
    network::{
        AddressType, EndpointSlice, Service, ServicePort, ServiceType, SliceEndpoint, SlicePort,
        TargetPort,
    },
    pod::{NamedPort, Phase, Pod},
    read::{Read, read},
    secret::Secret,
    validate::validate,
};
pub(crate) use self::{
    metadata::is_name,
    read::range,
    secret::UNUSED_TYPES,
    validate::{
        address,
        header::{self, Whose},
        traffic::{base64, grpc_status, is_expression},
    },
};

/// Kinds of objects that the mesh depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// The mesh configuration, which is a config map.
    MeshConfig,
    /// A namespace.
    Namespace,
    /// A node.
    Node,
    /// A service account.
    ServiceAccount,
    /// A secret.
    Secret,
    /// A gateway of the Gateway API.
    Gateway,
    /// A service.
    Service,
    /// An Istio service entry.
    ServiceEntry,
    /// Some endpoints of a service.
    EndpointSlice,
    /// An Istio workload entry.
    WorkloadEntry,
    /// An Istio virtual service.
    VirtualService,
    /// An Istio destination rule.
    DestinationRule,
    /// A route of the Gateway API for HTTP.
    HttpRoute,
    /// A route of the Gateway API for gRPC.
    GrpcRoute,
    /// A route of the Gateway API for TLS that is passed on as it is.
    TlsRoute,
    /// A route of the Gateway API for TCP.
    TcpRoute,
    /// A permission of the Gateway API to refer to objects of its namespace.
    ReferenceGrant,
    /// An Istio authorization policy.
    AuthorizationPolicy,
    /// An Istio peer authentication.
    PeerAuthentication,
    /// A pod.
    Pod,
}

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its namespace; empty for objects of the cluster.
    pub namespace: Arc<str>,
    /// Its name, unique in the namespace for its kind.
    pub name: Arc<str>,
}

/// Names an object among those of all kinds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
}

/// An object of which only the metadata matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    /// Its metadata.
    pub metadata: Metadata,
}

/// An object with a specification as it is written, and a status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Custom<Spec, Status = ()> {
    /// Its metadata.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: Spec,
    /// What is reported.
    pub status: Status,
}

/// An authorization policy.
pub type AuthorizationPolicy = Custom<crd::AuthorizationPolicy>;
/// A peer authentication.
pub type PeerAuthentication = Custom<crd::PeerAuthentication>;
/// A service entry.
pub type ServiceEntry = Custom<crd::ServiceEntry, crd::EntryStatus>;
/// A workload entry.
pub type WorkloadEntry = Custom<crd::WorkloadEntry, crd::WorkloadStatus>;
/// A virtual service.
pub type VirtualService = Custom<crd::VirtualService>;
/// A destination rule.
pub type DestinationRule = Custom<crd::DestinationRule>;
/// A route for HTTP.
pub type HttpRoute = Custom<crd::HttpRoute>;
/// A route for gRPC.
pub type GrpcRoute = Custom<crd::GrpcRoute>;
/// A route for connections.
pub type StreamRoute = Custom<crd::StreamRoute>;
/// A permission to refer to objects of its namespace.
pub type ReferenceGrant = Custom<crd::ReferenceGrant>;
/// A gateway.
pub type Gateway = Custom<crd::Gateway, crd::GatewayStatus>;
/// The mesh configuration.
pub type MeshConfig = Custom<crd::MeshConfig>;

/// An object that the mesh depends on; a clone shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// The mesh configuration.
    MeshConfig(Arc<MeshConfig>),
    /// A namespace.
    Namespace(Arc<Plain>),
    /// A node.
    Node(Arc<Plain>),
    /// A service account.
    ServiceAccount(Arc<Plain>),
    /// A secret.
    Secret(Arc<Secret>),
    /// A gateway.
    Gateway(Arc<Gateway>),
    /// A service.
    Service(Arc<Service>),
    /// A service entry.
    ServiceEntry(Arc<ServiceEntry>),
    /// An endpoint slice.
    EndpointSlice(Arc<EndpointSlice>),
    /// A workload entry.
    WorkloadEntry(Arc<WorkloadEntry>),
    /// A virtual service.
    VirtualService(Arc<VirtualService>),
    /// A destination rule.
    DestinationRule(Arc<DestinationRule>),
    /// A route for HTTP.
    HttpRoute(Arc<HttpRoute>),
    /// A route for gRPC.
    GrpcRoute(Arc<GrpcRoute>),
    /// A route for TLS.
    TlsRoute(Arc<StreamRoute>),
    /// A route for TCP.
    TcpRoute(Arc<StreamRoute>),
    /// A permission to refer to objects of its namespace.
    ReferenceGrant(Arc<ReferenceGrant>),
    /// An authorization policy.
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    /// A peer authentication.
    PeerAuthentication(Arc<PeerAuthentication>),
    /// A pod.
    Pod(Arc<Pod>),
}

// === impl ObjectKind ===

impl ObjectKind {
    /// All kinds.
    pub const ALL: [Self; 20] = [
        Self::MeshConfig,
        Self::Namespace,
        Self::Node,
        Self::ServiceAccount,
        Self::Secret,
        Self::Gateway,
        Self::Service,
        Self::ServiceEntry,
        Self::EndpointSlice,
        Self::WorkloadEntry,
        Self::VirtualService,
        Self::DestinationRule,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::ReferenceGrant,
        Self::AuthorizationPolicy,
        Self::PeerAuthentication,
        Self::Pod,
    ];

    /// Returns the kind as it is written in objects.
    pub fn name(self) -> &'static str {
        match self {
            Self::MeshConfig => "ConfigMap",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::ServiceAccount => "ServiceAccount",
            Self::Secret => "Secret",
            Self::Gateway => "Gateway",
            Self::Service => "Service",
            Self::ServiceEntry => "ServiceEntry",
            Self::EndpointSlice => "EndpointSlice",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Pod => "Pod",
        }
    }

    /// Returns the group of the kind's API; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::MeshConfig
            | Self::Namespace
            | Self::Node
            | Self::ServiceAccount
            | Self::Secret
            | Self::Service
            | Self::Pod => "",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::Gateway
            | Self::HttpRoute
            | Self::GrpcRoute
            | Self::TlsRoute
            | Self::TcpRoute
            | Self::ReferenceGrant => "gateway.networking.k8s.io",
            Self::ServiceEntry
            | Self::WorkloadEntry
            | Self::VirtualService
            | Self::DestinationRule => "networking.istio.io",
            Self::AuthorizationPolicy | Self::PeerAuthentication => "security.istio.io",
        }
    }

    /// Returns the version of the kind's API that every cluster with such objects has.
    pub fn version(self) -> &'static str {
        match self {
            Self::ReferenceGrant => "v1beta1",
            Self::TlsRoute | Self::TcpRoute => "v1alpha2",
            Self::MeshConfig
            | Self::Namespace
            | Self::Node
            | Self::ServiceAccount
            | Self::Secret
            | Self::Gateway
            | Self::Service
            | Self::ServiceEntry
            | Self::EndpointSlice
            | Self::WorkloadEntry
            | Self::VirtualService
            | Self::DestinationRule
            | Self::HttpRoute
            | Self::GrpcRoute
            | Self::AuthorizationPolicy
            | Self::PeerAuthentication
            | Self::Pod => "v1",
        }
    }

    /// Returns whether objects of the kind are routes of the Gateway API.
    pub fn is_route(self) -> bool {
        matches!(self, Self::HttpRoute | Self::GrpcRoute | Self::TlsRoute | Self::TcpRoute)
    }

    /// Returns whether objects of the kind are policies.
    pub fn is_policy(self) -> bool {
        matches!(self, Self::AuthorizationPolicy | Self::PeerAuthentication)
    }

    /// Returns whether objects of the kind belong to no namespace.
    pub fn is_of_cluster(self) -> bool {
        matches!(self, Self::Namespace | Self::Node)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl ObjectName ===

impl ObjectName {
    /// Names an object of a namespace, or of the cluster if that is empty.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

// === impl ObjectKey ===

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

// === impl Object ===

impl Object {
    /// Returns what the object is called.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind(), name: self.metadata().name.clone() }
    }

    /// Returns the kind of the object.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::MeshConfig(_) => ObjectKind::MeshConfig,
            Self::Namespace(_) => ObjectKind::Namespace,
            Self::Node(_) => ObjectKind::Node,
            Self::ServiceAccount(_) => ObjectKind::ServiceAccount,
            Self::Secret(_) => ObjectKind::Secret,
            Self::Gateway(_) => ObjectKind::Gateway,
            Self::Service(_) => ObjectKind::Service,
            Self::ServiceEntry(_) => ObjectKind::ServiceEntry,
            Self::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Self::WorkloadEntry(_) => ObjectKind::WorkloadEntry,
            Self::VirtualService(_) => ObjectKind::VirtualService,
            Self::DestinationRule(_) => ObjectKind::DestinationRule,
            Self::HttpRoute(_) => ObjectKind::HttpRoute,
            Self::GrpcRoute(_) => ObjectKind::GrpcRoute,
            Self::TlsRoute(_) => ObjectKind::TlsRoute,
            Self::TcpRoute(_) => ObjectKind::TcpRoute,
            Self::ReferenceGrant(_) => ObjectKind::ReferenceGrant,
            Self::AuthorizationPolicy(_) => ObjectKind::AuthorizationPolicy,
            Self::PeerAuthentication(_) => ObjectKind::PeerAuthentication,
            Self::Pod(_) => ObjectKind::Pod,
        }
    }

    /// Returns what every object has.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::MeshConfig(object) => &object.metadata,
            Self::Namespace(object) | Self::Node(object) | Self::ServiceAccount(object) => {
                &object.metadata
            }
            Self::Secret(object) => &object.metadata,
            Self::Gateway(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::ServiceEntry(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::WorkloadEntry(object) => &object.metadata,
            Self::VirtualService(object) => &object.metadata,
            Self::DestinationRule(object) => &object.metadata,
            Self::HttpRoute(object) => &object.metadata,
            Self::GrpcRoute(object) => &object.metadata,
            Self::TlsRoute(object) | Self::TcpRoute(object) => &object.metadata,
            Self::ReferenceGrant(object) => &object.metadata,
            Self::AuthorizationPolicy(object) => &object.metadata,
            Self::PeerAuthentication(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
        }
    }
}
