//! What is accepted of routes but does not do what it seems to.

use std::fmt;

use crate::object::ObjectName;

/// Something about the routes of a service that is accepted but does not do what it seems to, as long
/// as other objects are as they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteFlaw {
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

// === impl RouteFlaw ===

impl RouteFlaw {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::DestinationMissing(_) => "DestinationNotFound",
            Self::DelegateMissing { .. } => "DelegateNotFound",
            Self::NotHttp(_) => "UnsupportedProtocol",
        }
    }
}

impl fmt::Display for RouteFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DestinationMissing(host) => write!(
                f,
                "requests that are routed to {host} fail, as no service has that host name: create \
                 one, or correct the routes"
            ),
            Self::DelegateMissing { of, name } => write!(
                f,
                "virtual service {of} delegates to {name}, which does not exist, has hosts, or is not \
                 exported to it: create or correct it"
            ),
            Self::NotHttp(name) => write!(
                f,
                "{name} routes requests of HTTP, and is for ports that are declared to carry something \
                 else: set their appProtocol to http, or name them so"
            ),
        }
    }
}
