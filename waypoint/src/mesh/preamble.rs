//! What connections to endpoints begin with where a destination rule wants it.

use std::{path::PathBuf, sync::Arc};

use mesh_api::proto::l7;

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
    /// File of roots; those of the operating system if absent.
    pub roots: Option<PathBuf>,
    /// File with lists of revoked certificates.
    pub revoked: Option<PathBuf>,
    /// Files of the own certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// What a destination rule wants and this waypoint cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unsupported {
    /// TLS with what is in a secret.
    #[error(
        "trafficPolicy.tls.credentialName: this waypoint reads no secrets; mount the secret and name \
         its files in caCertificates, clientCertificate and privateKey"
    )]
    Credential,
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
    /// Returns what a destination rule wants; `names` are those that a service has without it.
    pub(super) fn compile(
        variant: &l7::Variant,
        names: impl Iterator<Item = String>,
    ) -> Result<Self, Unsupported> {
        let proxy_header = match variant.proxy_protocol {
            0 => None,
            1 => Some(ProxyVersion::V1),
            2 => Some(ProxyVersion::V2),
            other => return Err(Unsupported::ProxyVersion(other)),
        };
        let tls = variant.tls.as_ref().map(|tls| OriginTls::compile(tls, names)).transpose()?;
        Ok(Self { proxy_header, tls: tls.flatten().map(Arc::new) })
    }
}

// === impl OriginTls ===

impl OriginTls {
    fn compile(
        wire: &l7::UpstreamTls,
        names: impl Iterator<Item = String>,
    ) -> Result<Option<Self>, Unsupported> {
        let file = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
        let mode = l7::upstream_tls::Mode::try_from(wire.mode);
        let own = match mode.map_err(|_| Unsupported::TlsMode(wire.mode))? {
            l7::upstream_tls::Mode::Disable => return Ok(None),
            _ if !wire.credential_name.is_empty() => return Err(Unsupported::Credential),
            l7::upstream_tls::Mode::Simple => None,
            l7::upstream_tls::Mode::Mutual => {
                let files = file(&wire.client_certificate).zip(file(&wire.private_key));
                Some(files.ok_or(Unsupported::NoClientCertificate)?)
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
            roots: file(&wire.ca_certificates).filter(|path| path.as_os_str() != SYSTEM_ROOTS),
            revoked: file(&wire.revocation_list),
            own,
        }))
    }
}

#[cfg(test)]
mod tests {
    use l7::upstream_tls::Mode;

    use super::*;

    fn compile(tls: &l7::UpstreamTls) -> Result<Option<OriginTls>, Unsupported> {
        OriginTls::compile(tls, ["spiffe://td/ns/a/sa/b".to_owned()].into_iter())
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
        assert_eq!(compiled.roots, Some("/ca.pem".into()));
        assert_eq!(compiled.revoked, Some("/crl.pem".into()));
        assert_eq!(compiled.own, Some(("/own.pem".into(), "/key.pem".into())));
        let system = l7::UpstreamTls { ca_certificates: "system".into(), ..plain };
        assert_eq!(compile(&system).unwrap().unwrap().roots, None);
        assert_eq!(compile(&l7::UpstreamTls::default()).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_done_is_refused_rather_than_left_out() {
        let tls = |mode: Mode| l7::UpstreamTls { mode: mode.into(), ..Default::default() };
        let secret = |mode| l7::UpstreamTls { credential_name: "secret".into(), ..tls(mode) };
        let half = l7::UpstreamTls { client_certificate: "/own.pem".into(), ..tls(Mode::Mutual) };
        for (wire, expected) in [
            (secret(Mode::Simple), Unsupported::Credential),
            (secret(Mode::Mutual), Unsupported::Credential),
            (tls(Mode::Mutual), Unsupported::NoClientCertificate),
            (half, Unsupported::NoClientCertificate),
            (l7::UpstreamTls { mode: 9, ..Default::default() }, Unsupported::TlsMode(9)),
        ] {
            assert_eq!(compile(&wire), Err(expected));
        }
        let header = |version| {
            let variant = l7::Variant { proxy_protocol: version, ..Default::default() };
            Preamble::compile(&variant, std::iter::empty()).map(|preamble| preamble.proxy_header)
        };
        assert_eq!(header(0), Ok(None));
        assert_eq!(header(1), Ok(Some(ProxyVersion::V1)));
        assert_eq!(header(2), Ok(Some(ProxyVersion::V2)));
        assert_eq!(header(3), Err(Unsupported::ProxyVersion(3)));
    }
}
