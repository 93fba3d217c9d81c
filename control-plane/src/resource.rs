//! What proxies are told: named, versioned, encoded resources.

use std::{borrow::Borrow, fmt, hash::Hasher as _, sync::Arc};

use bytes::Bytes;
use mesh_api::proto::{l7, security::Authorization, workload};
use prost::Message as _;
use twox_hash::XxHash64;

use crate::auth::Account;

/// What a resource is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A workload (`istio.workload.Workload`, and in `istio.workload.Address`).
    Workload,
    /// A service (`istio.workload.Service`, and in `istio.workload.Address`).
    Service,
    /// An L4 policy (`istio.security.Authorization`).
    Authorization,
    /// What only waypoints are told (`fairlead.l7.Resource`).
    L7,
    /// What a secret has for TLS with endpoints (`fairlead.l7.Credential`).
    Credential,
}

/// Name of a resource, as it is subscribed to and removed by: a workload's uid,
/// `namespace/hostname`, `namespace/name` of a policy, `route/...` and the like of L7,
/// `credential/namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName(Arc<str>);

/// Version of a resource: a hash of its content, equal on every replica.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(u64);

/// Length of a version on the wire.
const HEX_DIGITS: usize = 16;

/// Who may be told of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// Every client.
    #[default]
    Everybody,
    /// Clients that prove to be one of these.
    Accounts(Box<[Account]>),
}

/// A resource, encoded once for all who ask.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    /// What it is about.
    pub kind: Kind,
    /// Its name.
    pub name: ResourceName,
    /// Further names that find it on demand: `network/ip`; or whom it is for, `namespace/name` of a
    /// waypoint or [`EVERY_WAYPOINT`](mesh_api::xds_client::EVERY_WAYPOINT).
    pub aliases: Box<[Box<str>]>,
    /// Of a workload: names of the services it is an endpoint of.
    pub services: Box<[Box<str>]>,
    /// Who may be told of it.
    pub readers: Readers,
    /// Hash of `body`.
    pub version: Version,
    /// The message of its kind, encoded.
    pub body: Bytes,
}

/// How soon a change has to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It may wait for others, to be sent with them.
    Batched,
    /// Soon: somebody who changed how requests are routed looks at what becomes of them. What they
    /// changed with it is still sent with it.
    Prompt,
    /// At once: traffic would go to an endpoint that is gone, or past a policy.
    Immediate,
}

/// A resource that is new or different, or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What the resource is about.
    pub kind: Kind,
    /// Its name.
    pub name: ResourceName,
    /// Its content; none if it is gone.
    pub resource: Option<Arc<Resource>>,
    /// How soon it has to be known.
    pub urgency: Urgency,
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Workload, Self::Service, Self::Authorization, Self::L7, Self::Credential];

    /// How many kinds there are.
    pub const COUNT: usize = Self::ALL.len();
}

// === impl ResourceName ===

impl ResourceName {
    /// Names a resource.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Returns the name as it is on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ResourceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Version ===

impl Version {
    fn of(body: &[u8]) -> Self {
        let mut hasher = XxHash64::with_seed(0);
        hasher.write(body);
        Self(hasher.finish())
    }

    /// Returns whether `text` is this version as it is on the wire.
    pub fn is(self, text: &[u8]) -> bool {
        let Ok(digits) = <&[u8; HEX_DIGITS]>::try_from(text) else { return false };
        std::str::from_utf8(digits)
            .is_ok_and(|digits| u64::from_str_radix(digits, 16) == Ok(self.0))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Resource ===

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, aliases, services, readers, version, body } = self;
        // The content may be confidential.
        f.debug_struct("Resource")
            .field("kind", kind)
            .field("name", name)
            .field("aliases", aliases)
            .field("services", services)
            .field("readers", readers)
            .field("version", version)
            .field("body_bytes", &body.len())
            .finish()
    }
}

impl Resource {
    /// Encodes a workload; `aliases` are its `network/ip`.
    pub fn workload(workload: &workload::Workload, aliases: Box<[Box<str>]>) -> Self {
        let name = ResourceName::new(workload.uid.as_str());
        let services = workload.services.keys().map(|name| name.as_str().into()).collect();
        let body = workload.encode_to_vec();
        Self { services, ..Self::new(Kind::Workload, name, aliases, body) }
    }

    /// Encodes a service; `aliases` are its `network/ip`.
    pub fn service(service: &workload::Service, aliases: Box<[Box<str>]>) -> Self {
        let name = ResourceName::new(format!("{}/{}", service.namespace, service.hostname));
        Self::new(Kind::Service, name, aliases, service.encode_to_vec())
    }

    /// Encodes a policy.
    pub fn authorization(policy: &Authorization) -> Self {
        let name = ResourceName::new(format!("{}/{}", policy.namespace, policy.name));
        Self::new(Kind::Authorization, name, Box::default(), policy.encode_to_vec())
    }

    /// Encodes what waypoints are told under `name`; `waypoints` are those it is for.
    pub fn l7(name: String, kind: l7::resource::Kind, waypoints: Box<[Box<str>]>) -> Self {
        let body = l7::Resource { kind: Some(kind) }.encode_to_vec();
        Self::new(Kind::L7, ResourceName::new(name), waypoints, body)
    }

    /// Encodes what a secret has; `waypoints` are those that need it, and nobody but `accounts` may be
    /// told of it.
    pub fn credential(
        credential: &l7::Credential,
        waypoints: Box<[Box<str>]>,
        accounts: Box<[Account]>,
    ) -> Self {
        let name = format!("credential/{}/{}", credential.namespace, credential.name);
        let body = credential.encode_to_vec();
        let readers = Readers::Accounts(accounts);
        Self { readers, ..Self::new(Kind::Credential, ResourceName::new(name), waypoints, body) }
    }

    fn new(kind: Kind, name: ResourceName, aliases: Box<[Box<str>]>, body: Vec<u8>) -> Self {
        let version = Version::of(&body);
        let services = Box::default();
        let readers = Readers::default();
        Self { kind, name, aliases, services, readers, version, body: body.into() }
    }
}
