//! Where a control plane is.

use std::{fmt, str::FromStr, sync::Arc};

use http::Uri;
use rustls::pki_types::ServerName;

/// Port of a control plane whose address names none: Istio's.
const DEFAULT_PORT: u16 = 15012;

/// `https://HOST:PORT`, or without the scheme or the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Arc<Parts>);

#[derive(Debug, PartialEq, Eq)]
struct Parts {
    host: String,
    port: u16,
    secure: Uri,
    plain: Uri,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// It has another form.
    #[error("\"{0}\" is not an address: write one such as https://istiod.istio-system.svc:15012")]
    Form(String),
    /// The connection would not be encrypted.
    #[error("\"{0}\" is not encrypted, and the token would be readable on the way: write https://")]
    Plaintext(String),
    /// No certificate can carry the name.
    #[error("\"{0}\" is neither a host name nor an address")]
    Host(String),
}

// === impl Address ===

impl Address {
    /// Returns the host, without brackets.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Returns the address as requests name it.
    pub(super) fn uri(&self) -> Uri {
        self.0.secure.clone()
    }

    /// Returns the address as the HTTP library wants it, which is not to add TLS of its own.
    pub(super) fn plain_uri(&self) -> Uri {
        self.0.plain.clone()
    }

    /// Returns the name that a certificate of this host carries.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, InvalidAddress> {
        server_name(&self.0.host)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let form = || InvalidAddress::Form(text.escape_debug().to_string());
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(("http", _)) => return Err(InvalidAddress::Plaintext(text.to_owned())),
            Some(_) => return Err(form()),
            None => text,
        };
        let authority: http::uri::Authority =
            rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| form())?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        server_name(&host)?;
        if authority.as_str().contains('@') {
            return Err(form());
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // With a colon it was meant to have one.
            None if authority.as_str().ends_with(authority.host()) => DEFAULT_PORT,
            None => return Err(form()),
        };
        let uri = |scheme: &str| {
            let text = format!("{scheme}://{}:{port}", authority.host());
            text.parse::<Uri>().map_err(|_| form())
        };
        let (secure, plain) = (uri("https")?, uri("http")?);
        Ok(Self(Arc::new(Parts { host, port, secure, plain })))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.secure.to_string();
        f.write_str(text.trim_end_matches('/'))
    }
}

/// Returns `host` as the name that a certificate has to carry.
pub fn server_name(host: &str) -> Result<ServerName<'static>, InvalidAddress> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| InvalidAddress::Host(host.escape_debug().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_reached_over_tls() {
        for (text, expected) in [
            ("https://istiod.istio-system.svc:15012", "https://istiod.istio-system.svc:15012"),
            ("https://istiod.istio-system.svc:15012/", "https://istiod.istio-system.svc:15012"),
            ("istiod.istio-system.svc:443", "https://istiod.istio-system.svc:443"),
            ("istiod", "https://istiod:15012"),
            ("https://10.0.0.1", "https://10.0.0.1:15012"),
            ("[fd00::1]:1", "https://[fd00::1]:1"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), expected, "{text}");
        }
        assert_eq!("[fd00::1]:1".parse::<Address>().unwrap().host(), "fd00::1");
    }

    #[test]
    fn an_address_of_another_form_is_refused() {
        for text in [
            "",
            "https://",
            "https://a/b",
            "https://a:b",
            "https://a:70000",
            "https://a:",
            "ftp://a",
            "https://user@a",
            "https://a b",
            "https://a_?",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        let plain = "http://istiod:15010".parse::<Address>();
        assert!(matches!(plain, Err(InvalidAddress::Plaintext(_))));
    }
}
