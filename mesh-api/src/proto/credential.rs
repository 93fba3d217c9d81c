//! How credentials are shown: never what they hold.

use std::fmt;

use super::l7::Credential;

/// Part of a credential.
struct Size(usize);

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name, certificate_chain, private_key, .. } = self;
        let Self { ca_certificates, revocation_list, is_absent, .. } = self;
        f.debug_struct("Credential")
            .field("namespace", namespace)
            .field("name", name)
            .field("certificate_chain", &Size(certificate_chain.len()))
            .field("private_key", &Size(private_key.len()))
            .field("ca_certificates", &Size(ca_certificates.len()))
            .field("revocation_list", &Size(revocation_list.len()))
            .field("is_absent", is_absent)
            .finish()
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "{bytes} bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_credential_holds_is_not_shown() {
        let credential = Credential {
            namespace: "shop".into(),
            name: "client".into(),
            private_key: "hush".into(),
            ..Credential::default()
        };
        let shown = format!("{credential:?}");
        assert!(shown.contains("private_key: 4 bytes"), "{shown}");
        assert!(!shown.contains("hush") && !shown.contains("104"), "{shown}");
    }
}
