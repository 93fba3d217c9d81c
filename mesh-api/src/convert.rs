//! Conversion of wire types into checked domain types.
//!
//! What is not supported is refused: a proxy that ignored a tunnel would send traffic past it.

mod extension;
mod gateway;
pub mod outbound;
pub mod port_names;
mod service;
mod workload;

use std::{fmt, net::IpAddr};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    identity::{InvalidIdentity, Namespace},
    proto::yaml::{Named, names},
    workload::{PolicyKey, ServiceKey},
};

/// Length of the prefix of all IPv4-mapped IPv6 addresses, `::ffff:0:0/96`, in bits.
const MAPPED_PREFIX_BITS: u8 = 96;

/// Why a resource is refused: the field, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// Path of the field within the resource, such as `addresses[0]`.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A required field is empty.
    #[error("is empty: set it")]
    Missing,
    /// The number stands for no value of the enumeration.
    #[error("{number} is not a known value: use one of {names}")]
    UnknownValue {
        /// The number received.
        number: i32,
        /// Names of the known values.
        names: String,
    },
    /// The address is neither IPv4 nor IPv6.
    #[error("an address of {0} bytes: use 4 bytes (IPv4) or 16 bytes (IPv6)")]
    AddressLength(usize),
    /// The prefix is longer than the address.
    #[error("/{0} is longer than the address: use at most /32 (IPv4) or /128 (IPv6)")]
    PrefixLength(u32),
    /// The number is not a TCP port.
    #[error("{0} is not a port: use 1 to 65535")]
    Port(u32),
    /// The port is listed before.
    #[error("port {0} is listed twice: remove one of the entries")]
    DuplicatePort(u16),
    /// A name or SPIFFE id is malformed.
    #[error(transparent)]
    Name(#[from] InvalidIdentity),
    /// A key of two parts has no slash, or one part is empty.
    #[error("\"{0}\" is not a key: write namespace/name")]
    Key(String),
    /// A string match has neither of its kinds.
    #[error("matches nothing: set one of exact, prefix, suffix or presence")]
    EmptyStringMatch,
    /// The bytes are no message of the type.
    #[error("is malformed: send the message that its type names")]
    Malformed,
    /// The feature does not exist here.
    #[error("is not supported: remove it")]
    Unsupported,
    /// The value does not exist here.
    #[error("the value {0} is not supported: use another")]
    UnsupportedValue(&'static str),
    /// A range of addresses where one address is needed.
    #[error("a range of addresses: give one address")]
    Range,
    /// The text is no name that could be looked up.
    #[error("\"{0}\" is not a host name: write one such as db.example.com")]
    Hostname(String),
}

// === impl InvalidField ===

impl InvalidField {
    /// Returns an error about `field`.
    pub(crate) fn new(field: &str, problem: impl Into<Problem>) -> Self {
        Self { path: field.to_owned(), problem: problem.into() }
    }

    /// Returns the error with its path seen from the object that holds `field`.
    #[must_use]
    pub(crate) fn within(mut self, field: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path.insert_str(0, dot);
        self.path.insert_str(0, field);
        self
    }
}

impl fmt::Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem } = self;
        write!(f, "{path}: {problem}")
    }
}

impl std::error::Error for InvalidField {}

// === impl Problem ===

impl Problem {
    /// Returns the problem as an error about `field`.
    pub(crate) fn at(self, field: &str) -> InvalidField {
        InvalidField::new(field, self)
    }
}

/// Converts each value of a list, adding its position to an error.
pub(crate) fn list<T, U>(
    field: &str,
    values: impl IntoIterator<Item = T>,
    convert: impl Fn(T) -> Result<U, InvalidField>,
) -> Result<Vec<U>, InvalidField> {
    let convert =
        |(i, value)| convert(value).map_err(|error| error.within(&format!("{field}[{i}]")));
    values.into_iter().enumerate().map(convert).collect()
}

/// Returns an error unless `present` is false.
pub(crate) fn unsupported(field: &str, present: bool) -> Result<(), InvalidField> {
    if present { Err(Problem::Unsupported.at(field)) } else { Ok(()) }
}

/// Returns an error if `value` is empty.
pub(crate) fn required(field: &str, value: String) -> Result<String, InvalidField> {
    if value.is_empty() { Err(Problem::Missing.at(field)) } else { Ok(value) }
}

/// Returns the value that `number` stands for.
pub(crate) fn enumeration<E: Named>(field: &str, number: i32) -> Result<E, InvalidField> {
    E::try_from(number).map_err(|_| Problem::UnknownValue { number, names: names::<E>() }.at(field))
}

/// Returns a name that must not be empty, of any of the types of [`crate::identity`].
pub(crate) fn name<T>(field: &str, value: &str) -> Result<T, InvalidField>
where
    T: std::str::FromStr<Err = InvalidIdentity>,
{
    if value.is_empty() {
        return Err(Problem::Missing.at(field));
    }
    value.parse().map_err(|error| InvalidField::new(field, Problem::Name(error)))
}

/// Returns a port that is not 0.
pub(crate) fn port(number: u32) -> Result<u16, Problem> {
    u16::try_from(number).ok().filter(|port| *port != 0).ok_or(Problem::Port(number))
}

/// Returns an address, an IPv4-mapped one as the IPv4 address.
pub(crate) fn address(octets: &[u8]) -> Result<IpAddr, Problem> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(octets.into());
    }
    match <[u8; 16]>::try_from(octets) {
        Ok(octets) => Ok(IpAddr::from(octets).to_canonical()),
        Err(_) => Err(Problem::AddressLength(octets.len())),
    }
}

/// Returns a range of addresses; a range of IPv4-mapped ones as the IPv4 range.
pub(crate) fn range(octets: &[u8], length: u32) -> Result<IpNet, Problem> {
    let too_long = |_| Problem::PrefixLength(length);
    let address: IpAddr = match <[u8; 16]>::try_from(octets) {
        Ok(octets) => octets.into(),
        Err(_) => address(octets)?,
    };
    let bits = u8::try_from(length).map_err(|_| Problem::PrefixLength(length))?;
    let net = IpNet::new(address, bits).map_err(too_long)?.trunc();
    Ok(mapped(net).unwrap_or(net))
}

/// Returns the IPv4 range that `net` stands for, if it holds only IPv4-mapped addresses.
fn mapped(net: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = net else { return None };
    let bits = v6.prefix_len().checked_sub(MAPPED_PREFIX_BITS)?;
    let address = v6.addr().to_ipv4_mapped()?;
    Ipv4Net::new(address, bits).ok().map(IpNet::V4)
}

/// Returns the policy key written as `namespace/name`.
pub fn policy_key(text: &str) -> Result<PolicyKey, Problem> {
    let (namespace, name) = key(text)?;
    Ok(PolicyKey { namespace, name: name.into() })
}

/// Returns the service key written as `namespace/hostname`.
pub fn service_key(text: &str) -> Result<ServiceKey, Problem> {
    let (namespace, hostname) = key(text)?;
    Ok(ServiceKey { namespace, hostname: hostname.into() })
}

fn key(text: &str) -> Result<(Namespace, &str), Problem> {
    match text.split_once('/') {
        Some((namespace, name)) if !name.is_empty() => Ok((namespace.parse()?, name)),
        Some(_) | None => Err(Problem::Key(text.escape_debug().to_string())),
    }
}

#[cfg(test)]
mod tests;
