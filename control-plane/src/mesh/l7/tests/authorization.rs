use mesh_api::proto::l7::{
    Action, Authorization, path_pattern, resource::Kind, string_match, target,
};

use super::shop;
use crate::{
    fixture::{l7, object, policies},
    mesh::Event,
};

/// An authorization policy of a namespace.
fn policy(namespace: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p, \
         namespace: {namespace}}}, spec: {{{spec}}}}}\n"
    )
}

const CART: &str = "targetRefs: [{kind: Service, group: '', name: cart}]";

fn lowered(namespace: &str, spec: &str) -> Option<Authorization> {
    let mesh = shop(&policy(namespace, spec));
    match l7(&mesh).remove(&format!("authorization/{namespace}/p"))? {
        Kind::Authorization(policy) => {
            assert!(policies(&mesh).is_empty(), "it is none of the node proxies' business");
            Some(policy)
        }
        other @ (Kind::Route(_) | Kind::Destination(_) | Kind::Labels(_) | Kind::Settings(_)) => {
            panic!("{other:?}")
        }
    }
}

#[test]
fn policies_are_attached_to_waypoints_and_services() {
    let target = |namespace: &str, target: &str| {
        let policy = lowered(namespace, &format!("targetRefs: [{{{target}}}]"))?;
        Some(format!("{:?}", policy.targets[0].kind.as_ref().unwrap()))
    };
    let gateway = "group: gateway.networking.k8s.io, kind: Gateway, name: w";
    let class = "group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint";
    assert_eq!(target("shop", gateway).as_deref(), Some("Gateway(\"shop/w\")"));
    assert_eq!(target("istio-system", class).as_deref(), Some("All(true)"));
    assert_eq!(target("shop", class), None);
    assert_eq!(target("istio-system", &class.replace("istio-waypoint", "other")), None);
    let of_cart = lowered("shop", CART).unwrap();
    let Some(target::Kind::Service(service)) = of_cart.targets[0].kind.clone() else { panic!() };
    assert_eq!((&*service.namespace, &*service.hostname), ("shop", "cart.shop.svc.cluster.local"));
    assert!(lowered("shop", "selector: {}").is_none());
}

#[test]
fn a_policy_of_a_service_entry_is_one_of_its_hosts() {
    let to_entry =
        policy("shop", "targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: e}]");
    let mut mesh = shop(&to_entry);
    let hosts = |mesh: &crate::mesh::Mesh| match l7(mesh).remove("authorization/shop/p") {
        Some(Kind::Authorization(policy)) => policy.targets.len(),
        _ => 0,
    };
    assert_eq!(hosts(&mesh), 0);
    let entry = object(
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: \
         shop}, spec: {hosts: [a.b, c.d], resolution: DNS}}",
    );
    mesh.apply(vec![Event::Applied(entry.clone())]);
    assert_eq!(hosts(&mesh), 2);
    mesh.apply(vec![Event::Deleted(entry.key())]);
    assert_eq!(hosts(&mesh), 0);
}

#[test]
fn actions_are_carried_as_they_are() {
    let cases = [
        ("", Action::Allow),
        ("action: DENY, rules: [{}]", Action::Deny),
        ("action: AUDIT", Action::Audit),
        ("action: CUSTOM, provider: {name: ext}, rules: [{}]", Action::Custom),
    ];
    for (fields, expected) in cases {
        let policy = lowered("shop", &format!("{CART}, {fields}")).unwrap();
        assert_eq!(policy.action(), expected, "{fields}");
        assert_eq!(policy.provider, if expected == Action::Custom { "ext" } else { "" });
        assert_eq!(policy.rules.is_empty(), !fields.contains("rules"), "{fields}");
    }
}

#[test]
fn texts_are_compared_as_their_stars_say() {
    let methods = ["GET", "*", "P*", "*T", "A*B"];
    let list = methods.map(|method| format!("'{method}'")).join(", ");
    let rules = format!("{CART}, rules: [{{to: [{{operation: {{methods: [{list}]}}}}]}}]");
    let policy = lowered("shop", &rules).unwrap();
    let kinds: Vec<_> =
        policy.rules[0].to[0].methods.iter().map(|method| method.kind.clone().unwrap()).collect();
    let expected = [
        string_match::Kind::Exact("GET".into()),
        string_match::Kind::Present(true),
        string_match::Kind::Prefix("P".into()),
        string_match::Kind::Suffix("T".into()),
        string_match::Kind::Regex("A.*B".into()),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn every_condition_of_a_rule_is_told() {
    let policy = lowered(
        "shop",
        &format!(
            "{CART}, rules: [{{from: [{{source: {{serviceAccounts: [a, bank/b], notIpBlocks: \
             [10.0.0.0/8], requestPrincipals: ['*'], trustDomains: [td]}}}}, {{source: {{principals: \
             [td/ns/shop/sa/x, 'spiffe://td/ns/shop/sa/y'], notNamespaces: [bank], remoteIpBlocks: [1.2.3.4]}}}}], to: \
             [{{operation: {{hosts: [h], ports: ['80'], notPorts: ['81'], paths: ['/a/{{*}}', '/b*'], \
             notMethods: [PUT]}}}}], when: [{{key: 'request.headers[x]', values: [a], notValues: \
             ['b*']}}, {{key: source.serviceAccount, values: [a, bank/b]}}, {{key: source.principal, values: ['spiffe://td/*']}}]}}]"
        ),
    )
    .unwrap();
    let rule = &policy.rules[0];
    let exact = |text: &str| string_match::Kind::Exact(text.to_owned());
    let kinds = |texts: &[mesh_api::proto::l7::StringMatch]| {
        texts.iter().map(|text| text.kind.clone().unwrap()).collect::<Vec<_>>()
    };
    let accounts = ["/ns/shop/sa/a", "/ns/bank/sa/b"];
    let accounts = accounts.map(|text| string_match::Kind::Suffix(text.to_owned()));
    assert_eq!(kinds(&rule.from[0].principals), accounts);
    assert_eq!(kinds(&rule.from[0].request_principals), [string_match::Kind::Present(true)]);
    assert_eq!(kinds(&rule.from[0].trust_domains), [exact("td")]);
    assert_eq!(rule.from[0].not_ip_blocks, ["10.0.0.0/8"]);
    assert_eq!(
        kinds(&rule.from[1].principals),
        [exact("td/ns/shop/sa/x"), exact("td/ns/shop/sa/y")]
    );
    assert_eq!(kinds(&rule.from[1].not_namespaces), [exact("bank")]);
    assert_eq!(rule.from[1].remote_ip_blocks, ["1.2.3.4"]);
    let to = &rule.to[0];
    assert_eq!((kinds(&to.hosts), kinds(&to.not_methods)), (vec![exact("h")], vec![exact("PUT")]));
    assert_eq!((&*to.ports, &*to.not_ports), (&[80][..], &[81][..]));
    let paths: Vec<_> = to.paths.iter().map(|path| path.kind.clone().unwrap()).collect();
    assert_eq!(paths[0], path_pattern::Kind::Template("/a/{*}".into()));
    assert!(matches!(&paths[1], path_pattern::Kind::Value(_)));
    let [header, account, principal] = rule.when.as_slice() else { panic!("{rule:?}") };
    assert_eq!(header.key, "request.headers[x]");
    assert_eq!(kinds(&header.values), [exact("a")]);
    assert_eq!(kinds(&header.not_values), [string_match::Kind::Prefix("b".into())]);
    assert_eq!(kinds(&account.values), [exact("shop/a"), exact("bank/b")]);
    assert_eq!(kinds(&principal.values), [string_match::Kind::Prefix("td/".into())]);
}
