//! Certificates for those who get none from the control plane: the load, and Envoy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A certificate with its key, as files.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

// === impl Credentials ===

impl Credentials {
    /// Has the authority in `ca` sign a certificate of `identity`, and writes it into `dir` under
    /// `name`.
    pub(super) fn issue(ca: &Path, identity: &str, dir: &Path, name: &str) -> Result<Self> {
        let read = |file: &str| {
            let path = ca.join(file);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let ca_key = KeyPair::from_pem(&read("ca-key.pem")?)?;
        let issuer = Issuer::from_ca_cert_pem(&read("ca-cert.pem")?, ca_key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &issuer)?;
        let file = |kind: &str| dir.join(format!("{name}-{kind}.pem"));
        let written = Self { certificate: file("cert"), key: file("key") };
        fs::write(&written.certificate, leaf.pem())?;
        fs::write(&written.key, key.serialize_pem())?;
        Ok(written)
    }
}
