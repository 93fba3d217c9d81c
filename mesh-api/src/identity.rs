//! SPIFFE identities of workloads: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
//!
//! Strings are compared byte for byte and never normalised: a normalising parser let one workload
//! pose as another in SPIRE (Cure53 2021, SPI-01-003).

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest SPIFFE id accepted, in bytes (SPIFFE-ID section 2.3).
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;

/// Trust domain of workloads that name none.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

const SCHEME: &str = "spiffe://";

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $valid:path, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidIdentity;

            fn from_str(s: &str) -> Result<Self, InvalidIdentity> {
                if $valid(s) {
                    Ok(Self(s.into()))
                } else {
                    Err(InvalidIdentity::Segment { what: $what, value: s.escape_debug().to_string() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidIdentity;

            fn try_from(s: String) -> Result<Self, InvalidIdentity> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// Trust domain of a SPIFFE identity, such as `cluster.local`.
    TrustDomain,
    is_trust_domain,
    "trust domain"
);
name_type!(
    /// Kubernetes namespace.
    Namespace,
    is_path_segment,
    "namespace"
);
name_type!(
    /// Kubernetes service account name.
    ServiceAccount,
    is_path_segment,
    "service account"
);

/// SPIFFE identity of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Trust domain that issued the identity.
    pub trust_domain: TrustDomain,
    /// Namespace of the workload.
    pub namespace: Namespace,
    /// Service account the workload runs as.
    pub service_account: ServiceAccount,
}

/// Why a string is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// One of the names holds characters that SPIFFE forbids, or is empty.
    #[error("invalid {what} \"{value}\": use lower-case letters, digits, '-', '.' and '_'")]
    Segment {
        /// Which of the names.
        what: &'static str,
        /// The offending text, escaped.
        value: String,
    },
    /// The text does not have the form of a workload's SPIFFE id.
    #[error(
        "\"{0}\" is not of the form spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>"
    )]
    Form(String),
    /// The text exceeds [`MAX_SPIFFE_ID_BYTES`].
    #[error("a SPIFFE id of {0} bytes exceeds the limit of {MAX_SPIFFE_ID_BYTES}")]
    TooLong(usize),
}

// === impl TrustDomain ===

impl Default for TrustDomain {
    fn default() -> Self {
        Self(DEFAULT_TRUST_DOMAIN.into())
    }
}

// === impl Identity ===

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(s: &str) -> Result<Self, InvalidIdentity> {
        if s.len() > MAX_SPIFFE_ID_BYTES {
            return Err(InvalidIdentity::TooLong(s.len()));
        }
        let form = || InvalidIdentity::Form(s.escape_debug().to_string());
        let path = s.strip_prefix(SCHEME).ok_or_else(form)?;
        let mut parts = path.split('/');
        let mut next = || parts.next().ok_or_else(form);
        let (trust_domain, ns, namespace, sa, service_account) =
            (next()?, next()?, next()?, next()?, next()?);
        if ns != "ns" || sa != "sa" || parts.next().is_some() {
            return Err(form());
        }
        Ok(Self {
            trust_domain: trust_domain.parse()?,
            namespace: namespace.parse()?,
            service_account: service_account.parse()?,
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

/// SPIFFE-ID section 2.1: lower-case letters, digits, dots, dashes and underscores.
fn is_trust_domain(s: &str) -> bool {
    !s.is_empty()
        && s.len() <= 255
        && s.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'))
}

/// SPIFFE-ID section 2.2: letters, digits, dots, dashes and underscores; neither `.` nor `..`.
fn is_path_segment(s: &str) -> bool {
    !matches!(s, "" | "." | "..")
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_identity_survives_a_round_trip() {
        let text = "spiffe://cluster.local/ns/shop/sa/cart";
        let identity: Identity = text.parse().unwrap();
        assert_eq!(identity.namespace.as_str(), "shop");
        assert_eq!(identity.to_string(), text);
    }

    #[test]
    fn odd_identities_are_rejected_and_never_normalised() {
        let long = format!("spiffe://td/ns/a/sa/{}", "x".repeat(MAX_SPIFFE_ID_BYTES));
        for bad in [
            "",
            "spiffe://",
            "http://td/ns/a/sa/b",
            "SPIFFE://td/ns/a/sa/b",
            "spiffe://TD/ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td//ns/a/sa/b",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/./sa/b",
            "spiffe://td/ns/a%2eb/sa/b",
            "spiffe://td/ns/a/sa/b?x",
            "spiffe://td/ns/a/sa/b#x",
            "spiffe://td/ns/a/sa/b\0",
            "spiffe://user@td/ns/a/sa/b",
            "spiffe://td:443/ns/a/sa/b",
            &long,
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
