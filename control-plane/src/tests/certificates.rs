use mesh_api::proto::ca::IstioCertificateRequest;
use prost_types::{Struct, Value, value::Kind};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use tonic::Code;

use super::{
    client::{certificates, connect, with_token},
    plane::{CART, Plane, TOKEN},
};

fn request(identity: &str) -> IstioCertificateRequest {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let value = Value { kind: Some(Kind::StringValue(identity.into())) };
    let metadata = Struct { fields: [("ImpersonatedIdentity".to_owned(), value)].into() };
    IstioCertificateRequest { csr, validity_duration: 3600, metadata: Some(metadata) }
}

#[tokio::test]
async fn a_node_proxy_has_a_pod_of_its_node_certified() {
    let plane = Plane::start(vec![]).await;
    let channel = connect(&plane).await;
    let mut client = certificates(&channel);
    let response = client.create_certificate(with_token(request(CART), TOKEN)).await.unwrap();
    let chain = response.into_inner().cert_chain;
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], plane.root);
    assert_eq!(plane.metrics.ca.issued.get(), 1);
}

#[tokio::test]
async fn a_pod_that_is_not_on_the_callers_node_is_not_certified() {
    let plane = Plane::start(vec![]).await;
    let mut client = certificates(&connect(&plane).await);
    let elsewhere = request("spiffe://cluster.local/ns/shop/sa/elsewhere");
    let refused = client.create_certificate(with_token(elsewhere, TOKEN)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("n1"), "{refused}");
}

#[tokio::test]
async fn nothing_is_certified_without_a_token() {
    let plane = Plane::start(vec![]).await;
    let mut client = certificates(&connect(&plane).await);
    let refused = client.create_certificate(with_token(request(CART), "nobody")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(plane.metrics.ca.authentication_failures.get(), 1);
}
