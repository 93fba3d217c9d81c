//! The control plane's CA: Istio's certificate service.
//!
//! The key is made here and never leaves this process; what comes back is checked as if a stranger
//! had sent it.

mod answer;

use std::{fmt, time::Duration};

use fairlead_component::clock::Clock;
use futures_util::future::BoxFuture;
use mesh_api::{
    control_plane::{ConnectError, ControlPlane},
    identity::Identity,
    proto::ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
};
use prost_types::{Struct, Value, value::Kind};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};
use tonic::{Request, transport::Channel};

use super::{CaError, CertificateAuthority};
use crate::identity::svid::Svid;

/// Requests that are under way at once, so that a node that starts with many pods does not occupy
/// the CA alone (Istio's proxy has the same limit).
const MAX_REQUESTS: usize = 8;

/// Time for one answer; others wait for their turn meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer accepted, in bytes: a chain has a few thousand.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Key of the metadata by which a node proxy says for whom it asks.
const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// Asks the control plane's CA for certificates.
pub struct RemoteAuthority {
    control_plane: ControlPlane,
    /// Whether it asks for others than itself.
    impersonates: bool,
    ttl: Duration,
    clock: Clock,
    turns: Semaphore,
    connection: Mutex<Option<Connection>>,
}

/// A connection, for as long as the roots stay that it trusts.
struct Connection {
    roots: Vec<u8>,
    channel: Channel,
}

// === impl RemoteAuthority ===

impl RemoteAuthority {
    /// Asks `control_plane` for certificates of the pods of a node that are good for `ttl`, and
    /// compares them with `clock`.
    pub fn new(control_plane: ControlPlane, ttl: Duration, clock: Clock) -> Self {
        let (turns, impersonates) = (Semaphore::new(MAX_REQUESTS), true);
        Self { control_plane, impersonates, ttl, clock, turns, connection: Mutex::default() }
    }

    /// Does the same for the certificate of the caller itself.
    pub fn own(control_plane: ControlPlane, ttl: Duration, clock: Clock) -> Self {
        Self { impersonates: false, ..Self::new(control_plane, ttl, clock) }
    }

    async fn request(&self, identity: &Identity) -> Result<Svid, CaError> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let key = KeyPair::generate()?;
        let mut request = Request::new(IstioCertificateRequest {
            csr: signing_request(identity, &key)?,
            validity_duration: i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: self.impersonates.then(|| impersonation(identity)),
        });
        self.control_plane.authorize(&mut request).await?;
        let exchange = async {
            let client = IstioCertificateServiceClient::new(self.channel().await?);
            let mut client = client.max_decoding_message_size(MAX_ANSWER_BYTES);
            Ok::<_, CaError>(client.create_certificate(request).await?.into_inner())
        };
        let answer = timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| CaError::Timeout)??;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        answer::svid(&answer.cert_chain, &key, self.clock.now())
    }

    /// Returns the connection to the CA; another one if the file with the roots has changed.
    async fn channel(&self) -> Result<Channel, ConnectError> {
        let roots = self.control_plane.read_roots().await?;
        let mut connection = self.connection.lock().await;
        if let Some(current) = connection.as_ref().filter(|current| current.roots == roots) {
            return Ok(current.channel.clone());
        }
        let channel = self.control_plane.connect_with(&roots).await?;
        *connection = Some(Connection { roots, channel: channel.clone() });
        Ok(channel)
    }
}

impl CertificateAuthority for RemoteAuthority {
    fn issue<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<Svid, CaError>> {
        Box::pin(self.request(identity))
    }
}

impl fmt::Debug for RemoteAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteAuthority")
            .field("address", &self.control_plane.address)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// Returns a PEM request for a certificate that names `identity` and nothing else.
fn signing_request(identity: &Identity, key: &KeyPair) -> Result<String, CaError> {
    let mut params = CertificateParams::default();
    // Without a subject the name below is critical.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    Ok(params.serialize_request(key)?.pem()?)
}

fn impersonation(identity: &Identity) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(identity.to_string())) };
    Struct { fields: [(IMPERSONATED_IDENTITY.to_owned(), value)].into() }
}

#[cfg(test)]
mod tests {
    use x509_parser::{
        certification_request::X509CertificationRequest, extensions::ParsedExtension,
        prelude::FromDer,
    };

    use super::*;

    #[test]
    fn a_request_names_the_identity_in_a_critical_extension_and_has_no_subject() {
        let identity: Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let key = KeyPair::generate().unwrap();
        let pem = signing_request(&identity, &key).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        request.verify_signature().unwrap();
        let info = &request.certification_request_info;
        assert_eq!(info.subject.iter().count(), 0);
        let extensions: Vec<_> = request.requested_extensions().unwrap().collect();
        let [ParsedExtension::SubjectAlternativeName(names)] = extensions.as_slice() else {
            panic!("{extensions:?}");
        };
        assert_eq!(names.general_names.len(), 1);
        assert!(format!("{:?}", names.general_names[0]).contains(&identity.to_string()));
    }

    #[test]
    fn the_identity_is_impersonated_by_metadata() {
        let identity: Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let fields = impersonation(&identity).fields;
        let expected = Kind::StringValue("spiffe://cluster.local/ns/shop/sa/cart".into());
        assert_eq!(fields[IMPERSONATED_IDENTITY].kind, Some(expected));
    }
}
