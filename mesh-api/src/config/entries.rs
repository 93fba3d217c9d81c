//! The entries of the file as domain types, each with its place.

use std::fmt;

use serde_saphyr::Spanned;

use super::{
    ConfigError, ConfigProblem, Position,
    yaml::{self, File, position},
};
use crate::{
    convert::{InvalidField, name, port, required},
    identity::Namespace,
    policy::{PeerAuthentication, PeerAuthenticationTarget, Policy},
    workload::{PolicyKey, Service, Workload, WorkloadUid},
};

/// All entries of a file.
pub(super) struct Entries {
    pub(super) workloads: Vec<Entry<Workload>>,
    pub(super) services: Vec<Entry<Service>>,
    pub(super) policies: Vec<Entry<Policy>>,
    pub(super) peer_authentications: Vec<Entry<PeerAuthentication>>,
}

/// A value with the place it comes from.
pub(super) struct Entry<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Where an entry is: in the text, and in which list.
#[derive(Clone)]
pub(super) struct Place {
    position: Option<Position>,
    list: &'static str,
    index: usize,
}

/// What is wrong with a field of an entry.
struct FieldError {
    field: String,
    problem: ConfigProblem,
}

// === impl Entries ===

impl Entries {
    /// Checks and converts each entry on its own.
    pub(super) fn convert(file: File) -> Result<Self, ConfigError> {
        Ok(Self {
            workloads: convert("workloads", file.workloads, checked)?,
            services: convert("services", file.services, checked)?,
            policies: convert("policies", file.policies, checked)?,
            peer_authentications: convert(
                "peer_authentications",
                file.peer_authentications,
                peer_authentication,
            )?,
        })
    }
}

// === impl FieldError ===

impl FieldError {
    fn new(field: &str, problem: ConfigProblem) -> Self {
        Self { field: field.to_owned(), problem }
    }
}

impl From<InvalidField> for FieldError {
    fn from(InvalidField { path, problem }: InvalidField) -> Self {
        Self { field: path, problem: problem.into() }
    }
}

// === impl Place ===

impl Place {
    /// Returns an error about `field` of the entry; about the entry itself if it is empty.
    pub(super) fn error(&self, field: &str, problem: ConfigProblem) -> ConfigError {
        let dot = if field.is_empty() { "" } else { "." };
        ConfigError { position: self.position, path: format!("{self}{dot}{field}"), problem }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position: _, list, index } = self;
        write!(f, "{list}[{index}]")
    }
}

/// Returns the values without their places.
pub(super) fn values<T>(entries: Vec<Entry<T>>) -> Vec<T> {
    entries.into_iter().map(|entry| entry.value).collect()
}

fn convert<T, U>(
    list: &'static str,
    entries: Vec<Spanned<T>>,
    convert: impl Fn(T) -> Result<U, FieldError>,
) -> Result<Vec<Entry<U>>, ConfigError> {
    let convert = |(index, entry): (usize, Spanned<T>)| {
        let place = Place { position: position(entry.referenced), list, index };
        match convert(entry.value) {
            Ok(value) => Ok(Entry { value, place }),
            Err(FieldError { field, problem }) => Err(place.error(&field, problem)),
        }
    };
    entries.into_iter().enumerate().map(convert).collect()
}

fn checked<T, U>(wire: T) -> Result<U, FieldError>
where
    U: TryFrom<T, Error = InvalidField>,
{
    Ok(U::try_from(wire)?)
}

fn peer_authentication(
    written: yaml::PeerAuthentication,
) -> Result<PeerAuthentication, FieldError> {
    let namespace: Namespace = name("namespace", &written.namespace)?;
    for number in written.port_level.keys() {
        port((*number).into()).map_err(|problem| FieldError::new("port_level", problem.into()))?;
    }
    let target = match written.workloads {
        None if written.port_level.is_empty() => PeerAuthenticationTarget::Namespace,
        None => return Err(FieldError::new("port_level", ConfigProblem::PortsWithoutWorkloads)),
        Some(uids) if uids.is_empty() => {
            return Err(FieldError::new("workloads", ConfigProblem::NoWorkloads));
        }
        Some(uids) => PeerAuthenticationTarget::Workloads {
            uids: uids.into_iter().map(|uid| WorkloadUid(uid.into())).collect(),
            ports: written.port_level,
        },
    };
    let name = required("name", written.name)?.into();
    Ok(PeerAuthentication { key: PolicyKey { namespace, name }, mode: written.mode, target })
}
