//! Certificates and keys for TLS with endpoints, out of files or a secret.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

use super::{
    OriginError,
    verifier::{Named, Unverified},
};
use crate::{
    mesh::{Credential, Material, OriginTls, Part},
    proxy::upstream::Version,
};

/// What HTTP/2 is agreed on by. Nothing is said of HTTP/1.1: not every server that speaks it says so.
const ALPN_H2: &[u8] = b"h2";

/// Where something is that TLS needs.
#[derive(Clone, Debug)]
pub(in crate::proxy) enum Place {
    /// In a file, which a field names.
    File(&'static str, PathBuf),
    /// In a secret of this name.
    Secret(String, Part),
}

/// What something is read from.
enum Source<'a> {
    File(&'static str, &'a Path),
    Secret(&'a Credential, Part),
}

/// Reads what TLS needs and makes a configuration of it.
pub(super) fn load(tls: &OriginTls, version: Version) -> Result<ClientConfig, OriginError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let rejected = |problem| rejected(&tls.material, problem);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(rejected)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(tls, provider)?);
    let mut config = match own(&tls.material) {
        None => builder.with_no_client_auth(),
        Some([certificate, key]) => {
            let private = key.read::<PrivateKeyDer<'_>>()?.into_iter().next();
            let private = private.ok_or_else(|| OriginError::Empty(key.place()))?;
            builder.with_client_auth_cert(certificate.read()?, private).map_err(rejected)?
        }
    };
    config.alpn_protocols = match version {
        Version::Http1 => Vec::new(),
        Version::Http2 => vec![ALPN_H2.to_vec()],
    };
    Ok(config)
}

/// Returns where the own certificate and its key are, if they are shown.
fn own(material: &Material) -> Option<[Source<'_>; 2]> {
    match material {
        Material::Files { own, .. } => own.as_ref().map(|(certificate, key)| {
            let certificate = Source::File("clientCertificate", certificate);
            [certificate, Source::File("privateKey", key)]
        }),
        Material::Secret { credential, shows_own } => shows_own.then(|| {
            let parts = [Part::CertificateChain, Part::PrivateKey];
            parts.map(|part| Source::Secret(credential, part))
        }),
    }
}

fn verifier(
    tls: &OriginTls,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, OriginError> {
    if tls.skip_verification {
        return Ok(Arc::new(Unverified(provider)));
    }
    let roots = Arc::new(roots(&tls.material)?);
    let mut builder = WebPkiServerVerifier::builder_with_provider(roots, provider);
    if let Some(source) = revoked(&tls.material) {
        let lists = source.read::<CertificateRevocationListDer<'_>>()?;
        // As in Envoy, whose lists need not be of every authority.
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    Ok(Arc::new(Named::new(builder.build()?, tls.names.clone())))
}

/// Returns the roots that are named, or else those of the operating system, of which some may be no
/// use. A secret has to have some.
fn roots(material: &Material) -> Result<RootCertStore, OriginError> {
    let mut roots = RootCertStore::empty();
    let source = match material {
        Material::Files { roots: None, .. } => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return if roots.is_empty() { Err(OriginError::NoRoots) } else { Ok(roots) };
        }
        Material::Files { roots: Some(path), .. } => Source::File("caCertificates", path),
        Material::Secret { credential, .. } => Source::Secret(credential, Part::Roots),
    };
    for root in source.read::<CertificateDer<'_>>()? {
        roots.add(root).map_err(|problem| rejected(material, problem))?;
    }
    Ok(roots)
}

/// Returns where lists of revoked certificates are, if there are any.
fn revoked(material: &Material) -> Option<Source<'_>> {
    match material {
        Material::Files { revoked, .. } => {
            revoked.as_deref().map(|path| Source::File("caCrl", path))
        }
        Material::Secret { credential, .. } => {
            let is_there = !credential.part(Part::RevocationList).is_empty();
            is_there.then(|| Source::Secret(credential, Part::RevocationList))
        }
    }
}

fn rejected(material: &Material, problem: rustls::Error) -> OriginError {
    match material {
        Material::Files { .. } => OriginError::Config(problem),
        Material::Secret { credential, .. } => OriginError::Secret(credential.name(), problem),
    }
}

// === impl Source ===

impl Source<'_> {
    /// Reads what is there, of which there is at least one.
    fn read<T: PemObject>(&self) -> Result<Vec<T>, OriginError> {
        let parse = |pem: &[u8]| T::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let found = match self {
            Self::File(_, path) => {
                fs::read(path).map_err(pem::Error::Io).and_then(|pem| parse(&pem))
            }
            Self::Secret(credential, part) => parse(credential.part(*part)),
        };
        match found {
            Ok(found) if found.is_empty() => Err(OriginError::Empty(self.place())),
            Ok(found) => Ok(found),
            Err(problem) => Err(OriginError::Unreadable(self.place(), Arc::new(problem))),
        }
    }

    fn place(&self) -> Place {
        match self {
            Self::File(field, path) => Place::File(field, (*path).to_owned()),
            Self::Secret(credential, part) => Place::Secret(credential.name(), *part),
        }
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(field, path) => write!(f, "trafficPolicy.tls.{field}: {}", path.display()),
            Self::Secret(name, part) => {
                write!(f, "trafficPolicy.tls.credentialName: {part} of secret {name}")
            }
        }
    }
}
