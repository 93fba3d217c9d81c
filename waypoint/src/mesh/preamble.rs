//! What connections to endpoints begin with where a destination rule wants it.

use std::{path::PathBuf, sync::Arc};

use mesh_api::proto::l7::{self, upstream_tls::Mode};
use rpds::HashTrieMapSync;

use super::credential::{Credential, name_of};

/// Path that stands for the roots of the operating system, as no path does.
const SYSTEM_ROOTS: &str = "system";

/// What connections to endpoints begin with, before anything of the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preamble {
    /// The address of the client, first.
    pub proxy_header: Option<ProxyVersion>,
    /// TLS of the application, inside whatever tunnel.
    pub tls: Option<Arc<OriginTls>>,
}

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// TLS that this waypoint begins with endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OriginTls {
    /// Name that is asked for; that of the request if absent.
    pub server_name: Option<Arc<str>>,
    /// Names of which the endpoint's certificate has one; the one that is asked for if there are none.
    pub names: Box<[Box<str>]>,
    /// Whether any certificate will do.
    pub skip_verification: bool,
    /// Whom to trust, and what to show.
    pub material: Material,
}

/// Where certificates and keys are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Material {
    /// In files.
    Files {
        /// Roots; those of the operating system if absent.
        roots: Option<PathBuf>,
        /// Lists of revoked certificates.
        revoked: Option<PathBuf>,
        /// The own certificate and its key.
        own: Option<(PathBuf, PathBuf)>,
    },
    /// In a secret.
    Secret {
        /// What it has.
        credential: Arc<Credential>,
        /// Whether its certificate is shown to endpoints.
        shows_own: bool,
    },
}

/// The secrets that a waypoint is told of, by their names in its namespace.
pub(super) type Credentials = HashTrieMapSync<Arc<str>, Arc<Credential>>;

/// What a destination rule wants and this waypoint cannot do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unsupported {
    /// TLS with what is in a secret that is not there.
    #[error(
        "trafficPolicy.tls.credentialName: there is no secret {0}; create it in the namespace of this \
         waypoint"
    )]
    NoSecret(Arc<str>),
    /// TLS with what is in a secret that this waypoint is not told of.
    #[error(
        "trafficPolicy.tls.credentialName: this waypoint is not told of secret {0}; run it as the \
         service account that its gateway declares"
    )]
    UntoldSecret(Arc<str>),
    /// TLS with a certificate that is not named.
    #[error("trafficPolicy.tls: mode MUTUAL needs both clientCertificate and privateKey")]
    NoClientCertificate,
    /// TLS of a mode that is not known.
    #[error("trafficPolicy.tls.mode: this waypoint does not know mode {0}")]
    TlsMode(i32),
    /// A version of the PROXY protocol that is not known.
    #[error("trafficPolicy.proxyProtocol: this waypoint does not know version {0}")]
    ProxyVersion(u32),
}

// === impl Preamble ===

impl Preamble {
    /// Returns what a destination rule of `namespace` wants; `names` are those that a service has
    /// without it.
    pub(super) fn compile(
        variant: &l7::Variant,
        names: impl Iterator<Item = String>,
        namespace: &str,
        credentials: &Credentials,
    ) -> Result<Self, Unsupported> {
        let proxy_header = match variant.proxy_protocol {
            0 => None,
            1 => Some(ProxyVersion::V1),
            2 => Some(ProxyVersion::V2),
            other => return Err(Unsupported::ProxyVersion(other)),
        };
        let compile = |tls| OriginTls::compile(tls, names, namespace, credentials);
        let tls = variant.tls.as_ref().map(compile).transpose()?;
        Ok(Self { proxy_header, tls: tls.flatten().map(Arc::new) })
    }
}

// === impl OriginTls ===

impl OriginTls {
    fn compile(
        wire: &l7::UpstreamTls,
        names: impl Iterator<Item = String>,
        namespace: &str,
        credentials: &Credentials,
    ) -> Result<Option<Self>, Unsupported> {
        let mode = Mode::try_from(wire.mode).map_err(|_| Unsupported::TlsMode(wire.mode))?;
        let shows_own = match mode {
            Mode::Disable => return Ok(None),
            Mode::Simple => false,
            Mode::Mutual => true,
        };
        let material = match &*wire.credential_name {
            "" => Material::files(wire, shows_own)?,
            name => {
                let secret = || name_of(namespace, name).into();
                let found = credentials.get(name).cloned();
                let credential = found.ok_or_else(|| Unsupported::UntoldSecret(secret()))?;
                if credential.is_absent() {
                    return Err(Unsupported::NoSecret(secret()));
                }
                Material::Secret { credential, shows_own }
            }
        };
        let names = match &wire.subject_alt_names[..] {
            [] => names.map(String::into_boxed_str).collect(),
            names => names.iter().map(|name| name.as_str().into()).collect(),
        };
        Ok(Some(Self {
            server_name: (!wire.sni.is_empty()).then(|| wire.sni.as_str().into()),
            names,
            skip_verification: wire.skip_verification,
            material,
        }))
    }
}

// === impl Material ===

impl Material {
    fn files(wire: &l7::UpstreamTls, shows_own: bool) -> Result<Self, Unsupported> {
        let file = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
        let own = shows_own.then(|| {
            let files = file(&wire.client_certificate).zip(file(&wire.private_key));
            files.ok_or(Unsupported::NoClientCertificate)
        });
        Ok(Self::Files {
            roots: file(&wire.ca_certificates).filter(|path| path.as_os_str() != SYSTEM_ROOTS),
            revoked: file(&wire.revocation_list),
            own: own.transpose()?,
        })
    }
}

impl Default for Material {
    fn default() -> Self {
        Self::Files { roots: None, revoked: None, own: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let told = [("secret", false), ("absent", true)].map(|(name, is_absent)| {
            let (namespace, wire_name) = ("shop".into(), name.into());
            let wire = l7::Credential {
                namespace,
                name: wire_name,
                is_absent,
                ..l7::Credential::default()
            };
            (Arc::from(name), Arc::new(wire.into()))
        });
        told.into_iter().collect()
    }

    fn compile(tls: &l7::UpstreamTls) -> Result<Option<OriginTls>, Unsupported> {
        let names = ["spiffe://td/ns/a/sa/b".to_owned()].into_iter();
        OriginTls::compile(tls, names, "shop", &credentials())
    }

    #[test]
    fn what_a_rule_leaves_out_is_what_istio_has_by_default() {
        let plain = l7::UpstreamTls { mode: Mode::Simple.into(), ..Default::default() };
        let expected =
            OriginTls { names: ["spiffe://td/ns/a/sa/b".into()].into(), ..OriginTls::default() };
        assert_eq!(compile(&plain).unwrap(), Some(expected));
        let full = l7::UpstreamTls {
            mode: Mode::Mutual.into(),
            sni: "a.example".into(),
            subject_alt_names: vec!["b.example".into()],
            ca_certificates: "/ca.pem".into(),
            revocation_list: "/crl.pem".into(),
            client_certificate: "/own.pem".into(),
            private_key: "/key.pem".into(),
            ..Default::default()
        };
        let compiled = compile(&full).unwrap().unwrap();
        assert_eq!(compiled.server_name.as_deref(), Some("a.example"));
        assert_eq!(*compiled.names, ["b.example".into()]);
        let expected = Material::Files {
            roots: Some("/ca.pem".into()),
            revoked: Some("/crl.pem".into()),
            own: Some(("/own.pem".into(), "/key.pem".into())),
        };
        assert_eq!(compiled.material, expected);
        let system = l7::UpstreamTls { ca_certificates: "system".into(), ..plain };
        assert_eq!(compile(&system).unwrap().unwrap().material, Material::default());
        assert_eq!(compile(&l7::UpstreamTls::default()).unwrap(), None);
    }

    #[test]
    fn a_secret_stands_for_files_and_its_certificate_is_shown_if_both_sides_prove_themselves() {
        let names = vec!["b.example".to_owned()];
        for (mode, expected) in [(Mode::Simple, false), (Mode::Mutual, true)] {
            let wire = l7::UpstreamTls {
                mode: mode.into(),
                credential_name: "secret".into(),
                sni: "a.example".into(),
                subject_alt_names: names.clone(),
                skip_verification: true,
                ..Default::default()
            };
            let compiled = compile(&wire).unwrap().unwrap();
            let Material::Secret { credential, shows_own } = &compiled.material else {
                panic!("{compiled:?}");
            };
            assert_eq!((credential.name().as_str(), *shows_own), ("shop/secret", expected));
            assert_eq!(compiled.server_name.as_deref(), Some("a.example"));
            assert_eq!(*compiled.names, ["b.example".into()]);
            assert!(compiled.skip_verification);
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_rather_than_left_out() {
        let tls = |mode: Mode| l7::UpstreamTls { mode: mode.into(), ..Default::default() };
        let secret =
            |name: &str, mode| l7::UpstreamTls { credential_name: name.into(), ..tls(mode) };
        let half = l7::UpstreamTls { client_certificate: "/own.pem".into(), ..tls(Mode::Mutual) };
        for (wire, expected) in [
            (secret("absent", Mode::Simple), Unsupported::NoSecret("shop/absent".into())),
            (secret("other", Mode::Mutual), Unsupported::UntoldSecret("shop/other".into())),
            (tls(Mode::Mutual), Unsupported::NoClientCertificate),
            (half, Unsupported::NoClientCertificate),
            (l7::UpstreamTls { mode: 9, ..Default::default() }, Unsupported::TlsMode(9)),
        ] {
            assert_eq!(compile(&wire), Err(expected));
        }
        let header = |version| {
            let variant = l7::Variant { proxy_protocol: version, ..Default::default() };
            let compiled = Preamble::compile(&variant, std::iter::empty(), "shop", &credentials());
            compiled.map(|preamble| preamble.proxy_header)
        };
        assert_eq!(header(0), Ok(None));
        assert_eq!(header(1), Ok(Some(ProxyVersion::V1)));
        assert_eq!(header(2), Ok(Some(ProxyVersion::V2)));
        assert_eq!(header(3), Err(Unsupported::ProxyVersion(3)));
    }
}
