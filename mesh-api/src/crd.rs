//! Custom resources of Istio and of the Gateway API, as they are written, as far as Fairlead uses
//! them.
//!
//! Resources of security refuse fields that they do not know: a policy whose misspelt condition was
//! ignored would say something else than it seems to.

mod authorization_policy;
mod destination_rule;
mod gateway;
mod mesh_config;
mod mesh_route;
mod peer_authentication;
mod quantity;
mod reference_grant;
mod selector;
mod service_entry;
mod virtual_service;

pub use self::{
    authorization_policy::{
        AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Condition, From, Operation,
        Provider, Source, TargetReference, To,
    },
    destination_rule::{
        ClientTls, ClientTlsMode, ConnectionPoolSettings, CookieAttribute, CookieSettings,
        DestinationRule, H2Upgrade, HashSettings, Http2KeepAlive, HttpSettings,
        LoadBalancerSettings, LocalityDistribution, LocalityFailover, LocalitySettings, Maglev,
        OutlierSettings, PortTrafficPolicy, ProxyProtocol, ProxyVersion, RetryBudgetSettings,
        RingHash, SimpleBalancer, Subset, TcpKeepalive, TcpSettings, TrafficPolicy, TunnelSettings,
        WarmupSettings, ZoneAwareSettings,
    },
    gateway::{
        AllowedRoutes, Gateway, GatewayAddress, GatewayStatus, Listener, RouteNamespaces,
        RouteOrigin,
    },
    mesh_config::{
        DefaultTrafficPolicy, MeshConfig, NormalizationType, OutboundMode, OutboundTrafficPolicy,
        PathNormalization,
    },
    mesh_route::{
        BackendReference, Fraction, GrpcMethod, GrpcRoute, GrpcRouteMatch, GrpcRule, HeaderFilter,
        HttpRoute, HttpRouteMatch, HttpRule, ParentReference, PathModifier, RouteCors, RouteFilter,
        RouteHeader, RouteMirror, RoutePath, RoutePathKind, RouteRedirect, RouteRetry,
        RouteRewrite, RouteTimeouts, RouteValue, RouteValueKind, StreamRoute, StreamRule,
    },
    peer_authentication::{MutualTls, PeerAuthentication},
    quantity::{Decimal, Time},
    reference_grant::{GrantSource, GrantTarget, ReferenceGrant},
    selector::{LabelSelector, Operator, Requirement, WorkloadSelector},
    service_entry::{
        EntryPort, EntryStatus, HostAddress, Location, Resolution, ServiceEntry, WorkloadCondition,
        WorkloadEntry, WorkloadLabels, WorkloadStatus,
    },
    virtual_service::{
        Delegate, HeaderOperations, HttpDestination, Percent, PortDerivation, PortSelector,
        TcpDestination, TcpMatch, Text, TlsMatch, UnmatchedPreflights, VirtualAbort, VirtualBody,
        VirtualCors, VirtualDelay, VirtualDestination, VirtualFault, VirtualHeaders, VirtualMatch,
        VirtualMirror, VirtualRedirect, VirtualRegexRewrite, VirtualResponse, VirtualRetries,
        VirtualRewrite, VirtualRoute, VirtualService, VirtualTcpRoute, VirtualTlsRoute,
    },
};

#[cfg(test)]
mod tests;
