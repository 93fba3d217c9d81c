//! What is accepted but does not do what it seems to.

use std::fmt;

use crate::object::ObjectName;

const SELECTOR_IN_ROOT_NAMESPACE: &str =
    "has no effect: a peer authentication of the root namespace cannot have a selector";

const INVALID_CANARY_WEIGHT: &str = "the weight of the canary waypoint is not valid: use 0 to 100";

const CANARY_IS_WAYPOINT: &str = "the canary waypoint is the waypoint itself: name another";

const EXPORTED_TO_ALL: &str =
    "is visible to all namespaces, as proxies know only all and the own: use \".\" or \"*\"";

const UNREACHABLE_AT_WAYPOINT: &str = "spec.resolution: with NONE its waypoint knows no endpoints and \
                                       answers 503: list endpoints and use STATIC, use DNS, or set \
                                       the label istio.io/use-waypoint to none";

/// Something about an object that is accepted but does not do what it seems to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// A policy selects no workload.
    UnusedPolicy,
    /// An action that only a waypoint can take.
    UnsupportedAction(&'static str),
    /// Fields of a policy that only a waypoint can check, and what that means for its rules.
    OnlyAtWaypoint {
        /// Paths of the fields.
        fields: Vec<String>,
        /// Whether the policy denies: then its rules match more, otherwise they never match.
        denies: bool,
    },
    /// A policy that is attached to something is not enforced there as it is written.
    Attached(Flaw),
    /// A peer authentication with a selector in the root namespace.
    SelectorInRootNamespace,
    /// An older peer authentication of the same level is in force.
    OlderInForce(ObjectName),
    /// The waypoint named does not exist, or is none.
    WaypointMissing(ObjectName),
    /// The waypoint named has no address yet.
    WaypointNotReady(ObjectName),
    /// The waypoint named does not admit the namespace.
    WaypointForbidden(ObjectName),
    /// The waypoint named does not serve this kind of object.
    WaypointUnsuited(ObjectName),
    /// The weight of a canary waypoint is not a percentage.
    InvalidCanaryWeight,
    /// The canary waypoint is the waypoint itself.
    CanaryIsWaypoint,
    /// Another object of the namespace has the host name.
    HostTaken {
        /// The host name.
        host: String,
        /// The object that has it.
        by: ObjectName,
    },
    /// Too many host names want a virtual address.
    AddressesExhausted(String),
    /// A service is exported to some namespaces only, which proxies cannot tell apart.
    ExportedToAll,
    /// A service entry of resolution NONE is bound to a waypoint, which knows no endpoints of it.
    UnreachableAtWaypoint,
    /// A field has no effect.
    NoEffect {
        /// Its path.
        field: String,
        /// Why not, and what to do about it.
        why: &'static str,
    },
    /// An older object says the same of the same thing.
    SaidByOlder {
        /// Path of the field that has no effect.
        field: String,
        /// The older object.
        by: ObjectName,
    },
    /// Routes of a service send requests to a host name that nothing has.
    DestinationMissing(String),
    /// A virtual service delegates to what is not there, or not to be delegated to.
    DelegateMissing {
        /// The virtual service.
        of: ObjectName,
        /// What it names.
        name: ObjectName,
    },
    /// What routes requests of a service is for ports that are declared to carry no HTTP.
    NotHttp(String),
}

/// Why a policy is not enforced as it is written where it is attached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// What it is attached to does not exist.
    TargetMissing(String),
    /// What it is attached to has no waypoint that could enforce it.
    TargetUnbound(String),
    /// It wants an external authorizer asked, of this name.
    NoProvider(String),
    /// Waypoints cannot read these fields.
    Unreadable(Vec<String>),
    /// These fields are about what waypoints never know of a request.
    NeverKnown(Vec<String>),
}

// === impl Warning ===

impl Warning {
    /// Returns whether it may go away, or come, without the object being different.
    pub fn depends_on_others(&self) -> bool {
        match self {
            Self::UnsupportedAction(_)
            | Self::OnlyAtWaypoint { .. }
            | Self::SelectorInRootNamespace
            | Self::InvalidCanaryWeight
            | Self::CanaryIsWaypoint
            | Self::ExportedToAll
            | Self::NoEffect { .. } => false,
            Self::Attached(flaw) => flaw.depends_on_others(),
            Self::UnusedPolicy
            | Self::OlderInForce(_)
            | Self::WaypointMissing(_)
            | Self::WaypointNotReady(_)
            | Self::WaypointForbidden(_)
            | Self::WaypointUnsuited(_)
            | Self::HostTaken { .. }
            | Self::AddressesExhausted(_)
            | Self::UnreachableAtWaypoint
            | Self::SaidByOlder { .. }
            | Self::DestinationMissing(_)
            | Self::DelegateMissing { .. }
            | Self::NotHttp(_) => true,
        }
    }

    /// Returns a short name, as the reason of a status condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnusedPolicy => "NoWorkloadSelected",
            Self::UnsupportedAction(_)
            | Self::OnlyAtWaypoint { .. }
            | Self::UnreachableAtWaypoint => "UnsupportedValue",
            Self::Attached(flaw) => flaw.reason(),
            Self::SelectorInRootNamespace
            | Self::OlderInForce(_)
            | Self::NoEffect { .. }
            | Self::SaidByOlder { .. } => "Ignored",
            Self::WaypointMissing(_) | Self::WaypointNotReady(_) => "WaypointIsNotReady",
            Self::WaypointForbidden(_) => "CrossNamespaceWaypointForbidden",
            Self::WaypointUnsuited(_) => "UnsupportedTrafficType",
            Self::InvalidCanaryWeight => "CanaryInvalidWeight",
            Self::CanaryIsWaypoint => "CanarySameAsPrimary",
            Self::HostTaken { .. } => "HostTaken",
            Self::AddressesExhausted(_) => "AddressesExhausted",
            Self::ExportedToAll => "ExportedToAll",
            Self::DestinationMissing(_) => "DestinationNotFound",
            Self::DelegateMissing { .. } => "DelegateNotFound",
            Self::NotHttp(_) => "UnsupportedProtocol",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnusedPolicy => f.write_str("selects no workload: check the selector's labels"),
            Self::UnsupportedAction(action) => write!(
                f,
                "action {action} has no effect without a waypoint: attach the policy to one by \
                 targetRefs"
            ),
            Self::OnlyAtWaypoint { fields, denies } => only_at_waypoint(f, fields, *denies),
            Self::Attached(flaw) => flaw.fmt(f),
            Self::SelectorInRootNamespace => f.write_str(SELECTOR_IN_ROOT_NAMESPACE),
            Self::OlderInForce(name) => {
                write!(f, "has no effect, as {name} is older: remove one of them")
            }
            Self::WaypointMissing(name) => {
                write!(f, "waypoint {name} does not exist: create it, or remove the label")
            }
            Self::WaypointNotReady(name) => {
                write!(f, "waypoint {name} has no address yet: wait for it, or look at its status")
            }
            Self::WaypointForbidden(name) => write!(
                f,
                "waypoint {name} does not admit this namespace: extend allowedRoutes of its \
                 listener"
            ),
            Self::WaypointUnsuited(name) => write!(
                f,
                "waypoint {name} does not serve this kind of object: change its label \
                 istio.io/waypoint-for"
            ),
            Self::InvalidCanaryWeight => f.write_str(INVALID_CANARY_WEIGHT),
            Self::CanaryIsWaypoint => f.write_str(CANARY_IS_WAYPOINT),
            Self::HostTaken { host, by } => {
                write!(f, "host {host} belongs to {by}: use another name, or remove one of them")
            }
            Self::AddressesExhausted(host) => {
                write!(f, "no virtual address is left for host {host}: set spec.addresses")
            }
            Self::ExportedToAll => f.write_str(EXPORTED_TO_ALL),
            Self::UnreachableAtWaypoint => f.write_str(UNREACHABLE_AT_WAYPOINT),
            Self::SaidByOlder { field, by } => write!(
                f,
                "{field} has no effect, as {by} is older and says it of the same host: put both into \
                 one object"
            ),
            Self::NoEffect { field, why } => write!(f, "{field} has no effect: {why}"),
            Self::DestinationMissing(host) => write!(
                f,
                "requests that are routed to {host} fail, as no service has that host name: create \
                 one, or correct the routes"
            ),
            Self::NotHttp(name) => write!(
                f,
                "{name} routes requests of HTTP, and is for ports that are declared to carry something \
                 else: set their appProtocol to http, or name them so"
            ),
            Self::DelegateMissing { of, name } => write!(
                f,
                "virtual service {of} delegates to {name}, which does not exist, has hosts, or is not \
                 exported to it: create or correct it"
            ),
        }
    }
}

fn only_at_waypoint(f: &mut fmt::Formatter<'_>, fields: &[String], denies: bool) -> fmt::Result {
    let effect =
        if denies { "their rules deny regardless of them" } else { "their rules never match" };
    let fields = fields.join(", ");
    write!(
        f,
        "{fields} can only be checked by a waypoint, so {effect}: attach the policy to a waypoint by \
         targetRefs"
    )
}

// === impl Flaw ===

impl Flaw {
    /// Returns whether the policy is accepted nevertheless.
    pub fn is_accepted(&self) -> bool {
        match self {
            Self::NeverKnown(_) => true,
            Self::TargetMissing(_)
            | Self::TargetUnbound(_)
            | Self::NoProvider(_)
            | Self::Unreadable(_) => false,
        }
    }

    fn depends_on_others(&self) -> bool {
        match self {
            Self::TargetMissing(_) | Self::TargetUnbound(_) => true,
            Self::NoProvider(_) | Self::Unreadable(_) | Self::NeverKnown(_) => false,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::TargetMissing(_) => "TargetNotFound",
            Self::TargetUnbound(_) => "AncestorNotBound",
            Self::NoProvider(_) | Self::Unreadable(_) | Self::NeverKnown(_) => "UnsupportedValue",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TargetMissing(target) => write!(
                f,
                "{target} does not exist, so the policy guards nothing there: create it, or correct \
                 targetRefs"
            ),
            Self::TargetUnbound(target) => write!(
                f,
                "{target} has no waypoint, so nobody enforces the policy there: label it or its \
                 namespace with istio.io/use-waypoint"
            ),
            Self::NoProvider(provider) => write!(
                f,
                "provider {provider} cannot be asked, so what the rules match is refused: use action \
                 ALLOW or DENY"
            ),
            Self::Unreadable(fields) => write!(
                f,
                "{} cannot be read by waypoints, so they refuse everything that the policy is for: \
                 correct it",
                fields.join(", ")
            ),
            Self::NeverKnown(fields) => write!(
                f,
                "{} is nothing that waypoints verify, so all requests count as being without: use \
                 other conditions",
                fields.join(", ")
            ),
        }
    }
}
