use proptest::prelude::*;
use rcgen::{
    Attribute, CertificateParams, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PKCS_RSA_SHA256, SanType,
};

use super::{
    super::csr::{Csr, CsrError},
    pki::{identity, request_for, uri},
};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn pem(params: &CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn parse(params: &CertificateParams) -> Result<Csr, CsrError> {
    Csr::parse(&pem(params, &KeyPair::generate().unwrap()))
}

#[test]
fn a_request_for_one_identity_is_accepted_for_that_identity_only() {
    let csr = parse(&request_for(&[uri(CART)])).unwrap();
    assert_eq!(csr.check_identity(&identity(CART)), Ok(()));
    for other in ["spiffe://cluster.local/ns/shop/sa/card", "spiffe://other/ns/shop/sa/cart"] {
        let refused = csr.check_identity(&identity(other)).unwrap_err();
        assert!(matches!(refused, CsrError::OtherIdentity { .. }), "{refused}");
    }
}

#[test]
fn odd_spellings_of_an_identity_are_other_identities() {
    for odd in [
        "SPIFFE://cluster.local/ns/shop/sa/cart",
        "spiffe://cluster.local/ns/shop/sa/cart/",
        "spiffe://cluster.local//ns/shop/sa/cart",
        "spiffe://cluster.local/ns/shop/../shop/sa/cart",
        "spiffe://cluster.local/ns/shop/sa/c%61rt",
        "spiffe://CLUSTER.local/ns/shop/sa/cart",
        "spiffe://cluster.local/ns/shop/sa/cart?x",
        "spiffe://cluster.local:443/ns/shop/sa/cart",
    ] {
        let csr = parse(&request_for(&[uri(odd)])).unwrap();
        let refused = csr.check_identity(&identity(CART)).unwrap_err();
        assert!(matches!(refused, CsrError::OtherIdentity { .. }), "{odd}");
    }
}

#[test]
fn a_request_has_exactly_one_name_and_it_is_a_uri() {
    let dns = SanType::DnsName("cart.shop".try_into().unwrap());
    let address = SanType::IpAddress([10, 0, 0, 1].into());
    for names in [
        vec![],
        vec![dns.clone()],
        vec![address],
        vec![uri(CART), uri(CART)],
        vec![uri(CART), uri("spiffe://cluster.local/ns/shop/sa/other")],
        vec![uri(CART), dns],
    ] {
        assert_eq!(parse(&request_for(&names)).unwrap_err(), CsrError::Names, "{names:?}");
    }
}

#[test]
fn a_request_asks_for_nothing_but_a_name() {
    let mut usage = request_for(&[uri(CART)]);
    usage.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    assert!(matches!(parse(&usage), Err(CsrError::Extension(_))));
    let key = KeyPair::generate().unwrap();
    // challengePassword, with the value "x".
    let password = Attribute {
        oid: &[1, 2, 840, 113_549, 1, 9, 7],
        values: vec![0x31, 0x03, 0x13, 0x01, b'x'],
    };
    let request = request_for(&[uri(CART)]).serialize_request_with_attributes(&key, vec![password]);
    let refused = Csr::parse(&request.unwrap().pem().unwrap()).unwrap_err();
    assert!(matches!(refused, CsrError::Extension(_)), "{refused}");
}

#[test]
fn keys_are_of_a_kind_and_size_in_use() {
    let params = request_for(&[uri(CART)]);
    for (algorithm, accepted) in
        [(&PKCS_ECDSA_P384_SHA384, true), (&PKCS_RSA_SHA256, true), (&PKCS_ED25519, false)]
    {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(Csr::parse(&pem(&params, &key)).is_ok(), accepted, "{algorithm:?}");
    }
}

#[test]
fn a_request_whose_owner_does_not_have_the_key_is_refused() {
    let key = KeyPair::generate().unwrap();
    let request = request_for(&[uri(CART)]).serialize_request(&key).unwrap();
    let mut der = request.der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let refused = Csr::parse(&pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))).unwrap_err();
    assert_eq!(refused, CsrError::Signature);
    let mut der = request.der().to_vec();
    let position = der.windows(4).position(|window| window == b"cart").unwrap();
    der[position] = b'b';
    let refused = Csr::parse(&pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))).unwrap_err();
    assert_eq!(refused, CsrError::Signature);
}

#[test]
fn text_that_is_not_one_request_is_refused() {
    let key = KeyPair::generate().unwrap();
    let params = request_for(&[uri(CART)]);
    let good = pem(&params, &key);
    let certificate = params.self_signed(&key).unwrap().pem();
    let trailing = {
        let mut der = params.serialize_request(&key).unwrap().der().to_vec();
        der.push(0);
        pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
    };
    for (text, error) in [
        (String::new(), CsrError::NotPem),
        ("hello".to_owned(), CsrError::NotPem),
        (certificate, CsrError::NotPem),
        (format!("{good}{good}"), CsrError::NotPem),
        (trailing, CsrError::Malformed),
        ("x".repeat(20_000), CsrError::TooLarge(20_000)),
    ] {
        assert_eq!(Csr::parse(&text).unwrap_err(), error);
    }
}

proptest! {
    #[test]
    fn a_damaged_request_never_panics(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        static DER: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let key = KeyPair::generate().unwrap();
            request_for(&[uri(CART)]).serialize_request(&key).unwrap().der().to_vec()
        });
        let mut der = DER.clone();
        for (index, byte) in damage {
            let position = index.index(der.len());
            der[position] = byte;
        }
        let _ = Csr::parse(&pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der)));
    }
}
