//! Certificates, good and bad, of the lab's CA or of another.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};

/// How long before and after now a certificate is good.
const MARGIN: Duration = Duration::from_hours(1);

/// A CA that signs whatever it is asked to.
#[derive(Debug)]
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
}

/// A certificate chain and the key of its leaf.
#[derive(Debug)]
pub(crate) struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    leaf_pem: String,
}

// === impl Ca ===

impl Ca {
    /// Makes a CA that the proxies do not know.
    pub(crate) fn foreign() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "a root of somebody else");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let (certificate_pem, certificate) = (certificate.pem(), certificate.into());
        Ok(Self { issuer: Issuer::new(params, key), certificate, certificate_pem })
    }

    /// Reads the CA of the proxies from their directory.
    pub(crate) fn of_proxies(dir: &Path) -> Result<Self> {
        Self::read(dir, "root-cert.pem", "root-key.pem")
    }

    /// Reads the CA of a control plane from its directory.
    pub(crate) fn of_control_plane(dir: &Path) -> Result<Self> {
        Self::read(dir, "ca-cert.pem", "ca-key.pem")
    }

    fn read(dir: &Path, certificate: &str, key: &str) -> Result<Self> {
        let read = |name: &str| {
            fs::read_to_string(dir.join(name)).with_context(|| format!("{}/{name}", dir.display()))
        };
        let certificate_pem = read(certificate)?;
        let key = KeyPair::from_pem(&read(key)?)?;
        let certificate =
            rustls::pki_types::pem::PemObject::from_pem_slice(certificate_pem.as_bytes())
                .map_err(|error| anyhow::anyhow!("{certificate}: {error}"))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)?;
        Ok(Self { issuer, certificate, certificate_pem })
    }

    /// Signs a certificate with these properties.
    pub(crate) fn issue(&self, params: &CertificateParams) -> Result<Credentials> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let leaf_pem = certificate.pem();
        Ok(Credentials { chain: vec![certificate.into()], key, leaf_pem })
    }

    /// Signs a faultless certificate of the workload `spiffe_id`.
    pub(crate) fn workload(&self, spiffe_id: &str) -> Result<Credentials> {
        self.issue(&workload_params(spiffe_id)?)
    }

    /// Returns the root as the only one trusted.
    pub(crate) fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(roots)
    }

    /// Returns the root as PEM text.
    pub(crate) fn pem(&self) -> &str {
        &self.certificate_pem
    }
}

// === impl Credentials ===

impl Credentials {
    /// Sends the leaf `count` times more, as if they were intermediates.
    pub(crate) fn with_intermediates(mut self, count: usize) -> Self {
        let leaf = self.chain.first().cloned();
        self.chain.extend(leaf.into_iter().cycle().take(count));
        self
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// Returns the leaf as PEM text.
    pub(crate) fn leaf_pem(&self) -> &str {
        &self.leaf_pem
    }

    /// Returns the key as PEM text.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Writes `NAME.pem` and `NAME-key.pem` to `dir` and returns their paths.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> Result<[PathBuf; 2]> {
        let paths = [dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem"))];
        fs::write(&paths[0], &self.leaf_pem)?;
        fs::write(&paths[1], self.key.serialize_pem())?;
        Ok(paths)
    }
}

/// Returns the properties of a faultless certificate, for tests to spoil.
pub(crate) fn workload_params(spiffe_id: &str) -> Result<CertificateParams> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (now - MARGIN).into();
    params.not_after = (now + MARGIN).into();
    set_names(&mut params, &[spiffe_id])?;
    Ok(params)
}

/// Makes `uris` the only names of a certificate.
pub(crate) fn set_names(params: &mut CertificateParams, uris: &[&str]) -> Result<()> {
    let names = uris.iter().map(|uri| Ok(SanType::URI((*uri).try_into()?)));
    params.subject_alt_names = names.collect::<Result<_>>()?;
    Ok(())
}
