//! What secrets have for TLS with endpoints.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use mesh_api::proto::l7;
use serde_json::{Value, json};

/// What the names of resources begin with.
const PREFIX: &str = "credential/";

/// What a secret has for TLS with endpoints, as it is written there. It is looked at when it is used:
/// one that is malformed fails those destinations only that need it.
#[derive(PartialEq, Eq)]
pub struct Credential(l7::Credential);

/// A part of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The own certificate and those that lead to its root.
    CertificateChain,
    /// Its key.
    PrivateKey,
    /// Roots of endpoints.
    Roots,
    /// Lists of revoked certificates.
    RevocationList,
}

// === impl Credential ===

impl Credential {
    /// Returns the name of the secret in a name of a resource.
    pub(super) fn secret_of(resource: &str) -> Option<&str> {
        resource.strip_prefix(PREFIX)
    }

    /// Returns `NAMESPACE/NAME` of the secret.
    pub fn name(&self) -> String {
        name_of(&self.0.namespace, &self.0.name)
    }

    /// Returns whether there is no such secret.
    pub(super) fn is_absent(&self) -> bool {
        self.0.is_absent
    }

    /// Returns the name of the secret in its namespace.
    pub(super) fn short_name(&self) -> &str {
        &self.0.name
    }

    /// Returns a part in PEM; empty if the secret does not have it.
    pub fn part(&self, part: Part) -> &[u8] {
        match part {
            Part::CertificateChain => &self.0.certificate_chain,
            Part::PrivateKey => &self.0.private_key,
            Part::Roots => &self.0.ca_certificates,
            Part::RevocationList => &self.0.revocation_list,
        }
    }

    /// Returns what operators are shown: which parts there are.
    pub(super) fn dump(&self) -> Value {
        let has = |part| !self.part(part).is_empty();
        json!({
            "secret": self.name(),
            "absent": self.is_absent(),
            "certificate_chain": has(Part::CertificateChain),
            "private_key": has(Part::PrivateKey),
            "roots": has(Part::Roots),
            "revocation_list": has(Part::RevocationList),
        })
    }
}

/// Returns what the secret of a namespace is called.
pub(super) fn name_of(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl From<l7::Credential> for Credential {
    fn from(wire: l7::Credential) -> Self {
        Self(wire)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Hash for Credential {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Few secrets have the same name, and what they hold is long: requests find connections by this.
        self.0.name.hash(state);
    }
}

// === impl Part ===

impl fmt::Display for Part {
    /// Writes the keys of a secret that have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CertificateChain => "tls.crt (or cert)",
            Self::PrivateKey => "tls.key (or key)",
            Self::Roots => "ca.crt (or cacert)",
            Self::RevocationList => "ca.crl (or crl)",
        })
    }
}
