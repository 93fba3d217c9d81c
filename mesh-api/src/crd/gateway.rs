//! `Gateway` of `gateway.networking.k8s.io`.

use serde::Deserialize;

use super::LabelSelector;

/// A gateway; a waypoint if its class says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gateway {
    /// Which controller runs it, and as what.
    pub gateway_class_name: String,
    /// What it listens on.
    pub listeners: Vec<Listener>,
}

/// A port that a gateway listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// The port.
    pub port: u32,
    /// What is spoken on it.
    pub protocol: String,
    /// Who may use it.
    pub allowed_routes: AllowedRoutes,
}

/// Who may use a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    /// From which namespaces.
    pub namespaces: RouteNamespaces,
}

/// Namespaces that may use a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteNamespaces {
    /// Which.
    pub from: RouteOrigin,
    /// Those selected, for [`RouteOrigin::Selector`].
    pub selector: Option<LabelSelector>,
}

/// Which namespaces may use a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum RouteOrigin {
    /// The gateway's own.
    #[default]
    Same,
    /// All.
    All,
    /// Those that a selector selects.
    Selector,
    /// None.
    None,
}

/// What is reported of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GatewayStatus {
    /// Where it is reached.
    pub addresses: Vec<GatewayAddress>,
}

/// An address of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GatewayAddress {
    /// `IPAddress` or `Hostname`; the former if absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The address.
    pub value: String,
}
