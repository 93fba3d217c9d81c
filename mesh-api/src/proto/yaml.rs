//! How the configuration file writes what the wire encodes as numbers and bytes: enumerations by
//! name, addresses as text.

use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error};

use super::{networking, security, workload};
use crate::convert::port_names;

/// An enumeration whose values are 0, 1, 2 and so on.
pub(crate) trait Named: Sized + TryFrom<i32> + Into<i32> {
    /// Returns the name in the proto file.
    fn name(&self) -> &'static str;
}

/// The fields of a gateway address, of whose destinations one is set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewayAddressFields {
    hostname: Option<workload::NamespacedHostname>,
    address: Option<workload::NetworkAddress>,
    #[serde(default)]
    hbone_mtls_port: u32,
}

/// An address written as text.
struct Address(IpAddr);

/// A value that is written out.
///
/// YAML reads a key without a value as null, and null as an empty list or mapping. A policy whose
/// list of principals was forgotten would then match every peer.
struct Written<T>(T);

// === impl Named ===

macro_rules! named {
    ($($type:ty),* $(,)?) => {$(
        impl Named for $type {
            fn name(&self) -> &'static str {
                self.as_str_name()
            }
        }
    )*};
}

named!(
    security::Action,
    security::Scope,
    workload::AppProtocol,
    workload::IpFamilies,
    workload::NetworkMode,
    workload::TunnelProtocol,
    workload::Visibility,
    workload::WorkloadStatus,
    workload::WorkloadType,
    workload::application_tunnel::Protocol,
    workload::load_balancing::HealthPolicy,
    workload::load_balancing::Mode,
    workload::load_balancing::Scope,
);

/// Returns all values of an enumeration, in order.
pub(crate) fn values<E: Named>() -> impl Iterator<Item = E> {
    (0..).map_while(|number| E::try_from(number).ok())
}

/// Returns the names of all values of an enumeration, for a message.
pub(crate) fn names<E: Named>() -> String {
    values::<E>().map(|value| value.name()).collect::<Vec<_>>().join(", ")
}

/// Reads an enumeration by name.
pub(crate) fn enumeration<'de, D, E>(deserializer: D) -> Result<i32, D::Error>
where
    D: Deserializer<'de>,
    E: Named,
{
    let text = String::deserialize(deserializer)?;
    number_of::<E>(&text).map_err(D::Error::custom)
}

/// Reads a list, neither of which nor of whose elements may be null.
pub(crate) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let Written(values) = Written::<Vec<Written<T>>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|Written(value)| value).collect())
}

/// Reads a list that may be absent, but not null.
pub(crate) fn optional_list<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    list(deserializer).map(Some)
}

/// Reads a mapping, which may not be null.
pub(crate) fn mapping<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Written::deserialize(deserializer).map(|Written(value)| value)
}

/// Reads a value that may be absent, but not null.
pub(crate) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    mapping(deserializer).map(Some)
}

/// Reads a list of properties of a location by name.
pub(crate) fn routing_preference<'de, D>(deserializer: D) -> Result<Vec<i32>, D::Error>
where
    D: Deserializer<'de>,
{
    let names: Vec<String> = list(deserializer)?;
    names
        .iter()
        .map(|name| number_of::<workload::load_balancing::Scope>(name).map_err(D::Error::custom))
        .collect()
}

/// Reads the names of a service's ports, as the extension that carries them.
pub(crate) fn port_names<'de, D>(deserializer: D) -> Result<Vec<workload::Extension>, D::Error>
where
    D: Deserializer<'de>,
{
    let ports: Vec<networking::ServicePort> = list(deserializer)?;
    Ok(vec![port_names::extension(ports)])
}

/// Reads a list of addresses.
pub(crate) fn addresses<'de, D>(deserializer: D) -> Result<Vec<Bytes>, D::Error>
where
    D: Deserializer<'de>,
{
    let addresses = list(deserializer)?;
    Ok(addresses.into_iter().map(|Address(address)| octets(address)).collect())
}

/// Reads `{}`.
pub(crate) fn empty<'de, D>(deserializer: D) -> Result<(), D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Empty {}

    Empty::deserialize(deserializer).map(|Empty {}| ())
}

// === impl Written ===

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::deserialize(deserializer)?;
        value.map(Self).ok_or_else(|| D::Error::custom("has no value: write one, or remove it"))
    }
}

// === impl Address ===

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| {
            D::Error::custom(format_args!(
                "\"{text}\" is not an address: write one such as 10.0.0.1 or fd00::1"
            ))
        })
    }
}

// === impl security::Address ===

impl<'de> Deserialize<'de> for security::Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let net = address_or_range(&text).ok_or_else(|| {
            D::Error::custom(format_args!(
                "\"{text}\" is not an address or range: write one such as 10.0.0.1 or 10.0.0.0/8"
            ))
        })?;
        Ok(Self { address: octets(net.addr()), length: net.prefix_len().into() })
    }
}

// === impl NetworkAddress ===

impl<'de> Deserialize<'de> for workload::NetworkAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (network, net) = network_and_range(&text).ok_or_else(|| {
            D::Error::custom(format_args!(
                "\"{text}\" is not a network address: write one such as 10.0.0.1, 10.0.0.0/8 or \
                 network-1/10.0.0.1"
            ))
        })?;
        Ok(Self {
            network: network.to_owned(),
            address: octets(net.addr()),
            length: Some(net.prefix_len().into()),
        })
    }
}

// === impl GatewayAddress ===

impl TryFrom<GatewayAddressFields> for workload::GatewayAddress {
    type Error = &'static str;

    fn try_from(fields: GatewayAddressFields) -> Result<Self, Self::Error> {
        use workload::gateway_address::Destination;

        let destination = match (fields.hostname, fields.address) {
            (Some(hostname), None) => Destination::Hostname(hostname),
            (None, Some(address)) => Destination::Address(address),
            (None, None) | (Some(_), Some(_)) => {
                return Err("a gateway has either a hostname or an address: set one of them");
            }
        };
        Ok(Self { destination: Some(destination), hbone_mtls_port: fields.hbone_mtls_port })
    }
}

fn number_of<E: Named>(text: &str) -> Result<i32, String> {
    let value = values::<E>().find(|value| value.name() == text);
    value
        .map(Into::into)
        .ok_or_else(|| format!("unknown value \"{text}\": use one of {}", names::<E>()))
}

fn network_and_range(text: &str) -> Option<(&str, IpNet)> {
    if let Some(net) = address_or_range(text) {
        return Some(("", net));
    }
    let (network, rest) = text.split_once('/')?;
    Some((network, address_or_range(rest)?))
}

fn address_or_range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn octets(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}

#[cfg(test)]
mod tests;
