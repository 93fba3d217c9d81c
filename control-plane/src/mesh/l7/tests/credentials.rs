//! What waypoints are told of secrets.

use mesh_api::proto::l7::Credential;
use prost::Message as _;

use super::{destination_rule, shop};
use crate::{
    fixture::{applied, object, objects},
    mesh::{Event, Mesh},
    resource::{Kind, Readers, Resource, Urgency},
};

fn secret(namespace: &str, name: &str, data: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: {namespace}}}, \
         stringData: {{{data}}}}}\n"
    )
}

/// A rule of the namespace of the waypoint that names the secret `client`.
fn rule(mode: &str) -> String {
    let spec =
        format!("host: cart, trafficPolicy: {{tls: {{mode: {mode}, credentialName: client}}}}");
    destination_rule("shop", "r", &spec)
}

fn credentials(mesh: &Mesh) -> Vec<&Resource> {
    let all = mesh.resources().map(|resource| &**resource);
    all.filter(|resource| resource.kind == Kind::Credential).collect()
}

/// Returns the parts of the only credential: certificate, key, roots and list of revoked ones.
fn parts(mesh: &Mesh) -> Option<String> {
    let [resource] = credentials(mesh)[..] else { return None };
    let credential = Credential::decode(resource.body.clone()).unwrap();
    if credential.is_absent {
        return Some("absent".to_owned());
    }
    let Credential { certificate_chain, private_key, ca_certificates, revocation_list, .. } =
        credential;
    let parts = [certificate_chain, private_key, ca_certificates, revocation_list];
    Some(parts.map(|part| String::from_utf8(part.to_vec()).unwrap()).join(" "))
}

#[test]
fn a_secret_is_told_if_a_rule_of_a_waypoint_of_its_namespace_names_it() {
    let own = secret("shop", "client", "tls.crt: c, tls.key: k, ca.crt: r, ca.crl: l");
    for (what, more, expected) in [
        ("both sides", rule("MUTUAL") + &own, Some("c k r l")),
        ("one side", rule("SIMPLE") + &own, Some("c k r l")),
        ("no TLS", rule("DISABLE") + &own, None),
        ("no rule", own.clone(), None),
        ("no secret", rule("MUTUAL"), Some("absent")),
        ("another name", rule("MUTUAL") + &own.replace("client", "other"), Some("absent")),
        ("another namespace", rule("MUTUAL") + &own.replace("shop", "bank"), Some("absent")),
        (
            "a rule of elsewhere",
            own.clone() + &rule("MUTUAL").replace("namespace: shop", "namespace: bank"),
            None,
        ),
        ("half of a pair", rule("MUTUAL") + &own.replace("tls.key: k,", ""), Some("  r l")),
        (
            "roots elsewhere",
            rule("MUTUAL") + &own + &secret("shop", "client-cacert", "cacert: s"),
            Some("c k s "),
        ),
        (
            "only roots",
            rule("SIMPLE") + &secret("shop", "client-cacert", "ca.crt: s, crl: m"),
            Some("  s m"),
        ),
    ] {
        assert_eq!(parts(&shop(&more)).as_deref(), expected, "{what}");
    }
}

#[test]
fn it_is_for_the_waypoints_that_need_it() {
    let mesh = shop(&(rule("MUTUAL") + &secret("shop", "client", "cert: c, key: k")));
    let [resource] = credentials(&mesh)[..] else { panic!() };
    assert_eq!(resource.name.as_str(), "credential/shop/client");
    assert_eq!(*resource.aliases, ["shop/w".into()]);
    assert!(!format!("{resource:?}").contains("body: "), "{resource:?}");
}

#[test]
fn it_is_told_to_the_account_that_the_gateway_declares() {
    let gateway = |annotations: &str| {
        object(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: w, \
             namespace: shop, annotations: {{{annotations}}}}}, spec: {{gatewayClassName: \
             istio-waypoint}}}}"
        ))
    };
    let mut mesh = shop(&(rule("MUTUAL") + &secret("shop", "client", "cert: c, key: k")));
    let readers = |mesh: &Mesh| match credentials(mesh)[..] {
        [resource] => Some(resource.readers.clone()),
        [..] => None,
    };
    let only = |account: &str| Some(Readers::Accounts([account.parse().unwrap()].into()));
    assert_eq!(readers(&mesh), only("shop/w"));
    mesh.apply(vec![Event::Applied(gateway("gateway.istio.io/service-account: keeper"))]);
    assert_eq!(readers(&mesh), only("shop/keeper"));
    mesh.apply(vec![Event::Deleted(gateway("").key())]);
    assert_eq!(readers(&mesh), None);
    mesh.apply(vec![Event::Applied(gateway(""))]);
    assert_eq!(readers(&mesh), only("shop/w"));
}

#[test]
fn it_changes_with_the_secret_and_goes_with_whatever_it_is_because_of() {
    let first = secret("shop", "client", "cert: c, key: k");
    let roots = secret("shop", "client-cacert", "cacert: r");
    let mut mesh = shop(&rule("MUTUAL"));
    let mut told = |events: Vec<Event>| {
        let changes = mesh.apply(events);
        let urgency = changes.iter().find(|change| change.kind == Kind::Credential);
        (parts(&mesh), urgency.map(|change| change.urgency))
    };
    let gone = |yaml: &str| {
        objects(yaml).iter().map(|object| Event::Deleted(object.key())).collect::<Vec<_>>()
    };
    for (events, expected, urgency) in [
        (applied(&roots), Some("  r "), Some(Urgency::Prompt)),
        (applied(&first), Some("c k r "), Some(Urgency::Prompt)),
        (applied(&first.replace("key: k", "key: l")), Some("c l r "), Some(Urgency::Prompt)),
        (applied(&first.replace("key: k", "key: l")), Some("c l r "), None),
        (gone(&roots), Some("c l  "), Some(Urgency::Prompt)),
        (gone(&rule("MUTUAL")), None, Some(Urgency::Immediate)),
        (applied(&rule("SIMPLE")), Some("c l  "), Some(Urgency::Prompt)),
        (gone(&first), Some("absent"), Some(Urgency::Prompt)),
        (gone(&rule("SIMPLE")), None, Some(Urgency::Immediate)),
    ] {
        let shown = format!("{events:?}");
        assert_eq!(told(events), (expected.map(str::to_owned), urgency), "{shown}");
    }
}
