//! What is accepted but does not do what it seems to.

mod route;

use std::fmt;

pub use self::route::RouteFlaw;
use crate::object::ObjectName;

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
    /// Routes do not do what they seem to.
    Route(RouteFlaw),
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
            | Self::ExportedToAll => false,
            Self::Route(flaw) => flaw.depends_on_others(),
            Self::UnusedPolicy
            | Self::OlderInForce(_)
            | Self::WaypointMissing(_)
            | Self::WaypointNotReady(_)
            | Self::WaypointForbidden(_)
            | Self::WaypointUnsuited(_)
            | Self::HostTaken { .. }
            | Self::AddressesExhausted(_) => true,
        }
    }

    /// Returns a short name, as the reason of a status condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnusedPolicy => "NoWorkloadSelected",
            Self::UnsupportedAction(_) | Self::OnlyAtWaypoint { .. } => "UnsupportedValue",
            Self::SelectorInRootNamespace | Self::OlderInForce(_) => "Ignored",
            Self::WaypointMissing(_) | Self::WaypointNotReady(_) => "WaypointIsNotReady",
            Self::WaypointForbidden(_) => "CrossNamespaceWaypointForbidden",
            Self::WaypointUnsuited(_) => "UnsupportedTrafficType",
            Self::InvalidCanaryWeight => "CanaryInvalidWeight",
            Self::CanaryIsWaypoint => "CanarySameAsPrimary",
            Self::HostTaken { .. } => "HostTaken",
            Self::AddressesExhausted(_) => "AddressesExhausted",
            Self::ExportedToAll => "ExportedToAll",
            Self::Route(flaw) => flaw.reason(),
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
            Self::OnlyAtWaypoint { fields, denies } => {
                let effect = if *denies {
                    "their rules deny regardless of them"
                } else {
                    "their rules never match"
                };
                let fields = fields.join(", ");
                write!(
                    f,
                    "{fields} can only be checked by a waypoint, so {effect}: attach the policy to \
                     a waypoint by targetRefs"
                )
            }
            Self::SelectorInRootNamespace => f.write_str(
                "has no effect: a peer authentication of the root namespace cannot have a selector",
            ),
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
            Self::InvalidCanaryWeight => {
                f.write_str("the weight of the canary waypoint is not valid: use 0 to 100")
            }
            Self::CanaryIsWaypoint => {
                f.write_str("the canary waypoint is the waypoint itself: name another")
            }
            Self::HostTaken { host, by } => {
                write!(f, "host {host} belongs to {by}: use another name, or remove one of them")
            }
            Self::AddressesExhausted(host) => {
                write!(f, "no virtual address is left for host {host}: set spec.addresses")
            }
            Self::ExportedToAll => f.write_str(
                "is visible to all namespaces, as proxies know only all and the own: use \".\" or \
                 \"*\"",
            ),
            Self::Route(flaw) => flaw.fmt(f),
        }
    }
}
