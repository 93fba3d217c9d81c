//! What secrets are to destinations.

use mesh_api::xds_client::CREDENTIAL_TYPE;

use super::*;

/// Returns what a secret has, with this key.
fn credential(namespace: &str, name: &str, key: &str) -> l7::Credential {
    l7::Credential {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        private_key: key.to_owned().into(),
        ..Default::default()
    }
}

impl Told {
    fn credential(&mut self, credential: &l7::Credential) {
        let name = format!("credential/{}/{}", credential.namespace, credential.name);
        self.read(CREDENTIAL_TYPE, &name, &credential.encode_to_vec()).unwrap();
    }

    /// Has the service be reached with a secret.
    fn use_secret(&mut self, name: &str) {
        let tls = l7::UpstreamTls {
            mode: l7::upstream_tls::Mode::Mutual.into(),
            credential_name: name.to_owned(),
            ..Default::default()
        };
        let variant = l7::Variant { tls: Some(tls), ..Default::default() };
        let (name, destination) = destination("shop", vec![variant]);
        self.l7(&name, destination);
    }

    /// Returns how many secrets are known.
    fn known(&self) -> usize {
        self.0.dump_credentials().as_array().map_or(0, Vec::len)
    }

    /// Returns the key that connections to the service begin with, if any can.
    fn key(&self) -> Option<String> {
        let preamble = self.view().backend(80, "").unwrap().preamble()?.clone();
        let Material::Secret { credential, .. } = &preamble.tls.unwrap().material else { panic!() };
        Some(String::from_utf8_lossy(credential.part(Part::PrivateKey)).into_owned())
    }
}

#[test]
fn a_secret_is_used_as_it_is_now_and_only_that_of_the_own_namespace() {
    let mut told = Told::of_cart();
    told.use_secret("client");
    assert_eq!(told.key(), None);
    for (secret, expected) in [
        (credential("bank", "client", "theirs"), None),
        (credential("shop", "other", "other"), None),
        (credential("shop", "client", "first"), Some("first")),
        (credential("bank", "client", "theirs"), Some("first")),
        (credential("shop", "client", "second"), Some("second")),
    ] {
        told.credential(&secret);
        assert_eq!(told.key().as_deref(), expected, "{secret:?}");
    }
    told.credential(&l7::Credential { is_absent: true, ..credential("shop", "client", "") });
    assert_eq!(told.key(), None);
}

#[test]
fn a_secret_that_nothing_names_any_more_is_forgotten_once_that_is_known() {
    let mut told = Told::of_cart();
    told.use_secret("first");
    told.credential(&credential("shop", "first", "first"));
    for removed in ["credential/bank/first", "shop/first", "credential/shop/first"] {
        told.removed(CREDENTIAL_TYPE, removed);
        assert_eq!(told.key().as_deref(), Some("first"), "{removed}");
    }
    // It is named again before the other word comes.
    told.credential(&credential("shop", "first", "again"));
    assert_eq!(told.key().as_deref(), Some("again"));
    told.removed(CREDENTIAL_TYPE, "credential/shop/first");
    told.credential(&credential("shop", "second", "second"));
    assert_eq!(told.known(), 2);
    told.use_secret("second");
    assert_eq!((told.key().as_deref(), told.known()), (Some("second"), 1));
}

#[test]
fn connections_that_began_with_another_key_are_told_apart() {
    let compare = |one: &str, other: &str| {
        let [one, other] = [one, other].map(|key| Credential::from(credential("shop", "c", key)));
        one == other
    };
    assert!(compare("a", "a"));
    assert!(!compare("a", "b"));
}

#[test]
fn a_secret_under_another_name_is_refused_and_what_it_holds_is_not_shown() {
    let mut told = Told::nothing();
    let secret = credential("shop", "client", "hush");
    let content = secret.encode_to_vec();
    for name in ["credential/shop/other", "credential/bank/client", "shop/client"] {
        assert!(told.read(CREDENTIAL_TYPE, name, &content).is_err(), "{name}");
    }
    told.credential(&secret);
    let shown = format!("{:?} {}", told.0, told.0.dump_credentials());
    assert!(shown.contains("shop/client"), "{shown}");
    assert!(!shown.contains("hush") && !shown.contains("104, 117"), "{shown}");
}
