use std::collections::BTreeMap;

use mesh_api::{
    policy::{MtlsMode, PeerAuthentication, PeerAuthenticationTarget, Policy, lower},
    proto::security::Scope,
    workload::{PolicyKey, Workload, WorkloadUid},
};
use proptest::prelude::*;

use crate::{
    fixture::{declared, mesh, pod, policies, workload, workloads},
    mesh::{Event, Mesh, Warning},
    object::{Object, ObjectKey, ObjectKind, ObjectName},
};

const STRICT_KEY: &str = "istio-system/istio_converted_static_strict";

fn authorization(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: \
         {name}, namespace: {namespace}}}, spec: {{{spec}}}}}\n"
    )
}

fn peer(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: \
         {name}, namespace: {namespace}}}, spec: {{{spec}}}}}\n"
    )
}

#[test]
fn the_scope_of_a_policy_follows_from_its_selector_and_namespace() {
    let selector = "selector: {matchLabels: {app: cart}}";
    let cases = [
        (authorization("shop", "p", ""), Scope::Namespace, &[][..]),
        (authorization("istio-system", "p", ""), Scope::Global, &[]),
        (authorization("shop", "p", selector), Scope::WorkloadSelector, &["shop/p"]),
        (
            authorization("istio-system", "p", selector),
            Scope::WorkloadSelector,
            &["istio-system/p"],
        ),
        (authorization("bank", "p", selector), Scope::WorkloadSelector, &[]),
        (
            authorization("shop", "p", "selector: {matchLabels: {app: x}}"),
            Scope::WorkloadSelector,
            &[],
        ),
        (authorization("shop", "p", "selector: {}"), Scope::Namespace, &[]),
    ];
    for (policy, scope, keys) in cases {
        let mesh = mesh(&(pod("cart", "10.0.0.1", "app: cart") + &policy));
        let sent: Vec<_> = policies(&mesh).into_values().map(|policy| policy.scope()).collect();
        assert_eq!(sent, [scope], "{policy}");
        assert_eq!(workload(&mesh, "cart").authorization_policies, keys, "{policy}");
    }
}

#[test]
fn policies_of_waypoints_are_not_for_node_proxies() {
    let selector = "selector: {matchLabels: {app: cart}}";
    let attached = "targetRefs: [{kind: Service, name: s}]".to_owned();
    let custom = format!("{selector}, action: CUSTOM, provider: {{name: p}}, rules: [{{}}]");
    let audit = format!("{selector}, action: AUDIT");
    for (spec, warned) in [(attached, false), (custom, true), (audit, true)] {
        let policy = authorization("shop", "p", &spec);
        let mesh = mesh(&(pod("cart", "10.0.0.1", "app: cart") + &policy));
        assert!(policies(&mesh).is_empty(), "{spec}");
        assert!(workload(&mesh, "cart").authorization_policies.is_empty(), "{spec}");
        let unsupported = mesh.warnings().into_values().flatten();
        let count = unsupported.filter(|w| matches!(w, Warning::UnsupportedAction(_))).count();
        assert_eq!(count > 0, warned, "{spec}");
    }
}

#[test]
fn what_a_policy_does_not_do_is_told() {
    let unused = authorization("shop", "unused", "selector: {matchLabels: {app: x}}");
    let methods = "action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]";
    let mesh = mesh(&(unused + &authorization("shop", "l7", methods)));
    let warnings = mesh.warnings();
    let of = |name| {
        let kind = ObjectKind::AuthorizationPolicy;
        &warnings[&ObjectKey { kind, name: ObjectName::new("shop", name) }]
    };
    assert_eq!(of("unused"), &[Warning::UnusedPolicy]);
    let fields = vec!["rules[0].to[0].operation.methods".to_owned()];
    assert_eq!(of("l7"), &[Warning::OnlyAtWaypoint { fields, denies: true }]);
}

#[test]
fn a_workload_names_the_policies_of_its_peer_authentication() {
    let mesh_strict = peer("istio-system", "mesh", "mtls: {mode: STRICT}");
    let namespace = |mode: &str| peer("shop", "level", &format!("mtls: {{mode: {mode}}}"));
    let own = |mode: &str, ports: &str| {
        let selector = "selector: {matchLabels: {app: cart}}";
        peer(
            "shop",
            "own",
            &format!("{selector}, mtls: {{mode: {mode}}}, portLevelMtls: {{{ports}}}"),
        )
    };
    let converted = "shop/converted_peer_authentication_own";
    let cases = [
        ("", String::new(), None),
        ("mesh", mesh_strict.clone(), Some(STRICT_KEY)),
        ("namespace wins", mesh_strict.clone() + &namespace("PERMISSIVE"), None),
        ("unset inherits", mesh_strict.clone() + &namespace("UNSET"), Some(STRICT_KEY)),
        ("disable is permissive", mesh_strict.clone() + &namespace("DISABLE"), None),
        ("own wins", namespace("STRICT") + &own("PERMISSIVE", ""), None),
        ("own", own("STRICT", ""), Some(STRICT_KEY)),
        ("ports", own("STRICT", "80: {mode: PERMISSIVE}"), Some(converted)),
        ("strict ports", own("PERMISSIVE", "80: {mode: STRICT}"), Some(converted)),
        (
            "inherited, ports",
            namespace("STRICT") + &own("UNSET", "80: {mode: DISABLE}"),
            Some(converted),
        ),
        (
            "ports alike",
            namespace("STRICT") + &own("UNSET", "80: {mode: STRICT}"),
            Some(STRICT_KEY),
        ),
        (
            "a selector of the root namespace does nothing",
            peer("istio-system", "x", "selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}"),
            None,
        ),
        (
            "the oldest wins",
            peer("shop", "a", "mtls: {mode: PERMISSIVE}")
                + &peer("shop", "b", "mtls: {mode: STRICT}"),
            None,
        ),
    ];
    for (case, objects, key) in cases {
        let exists = !objects.is_empty();
        let mesh = mesh(&(objects + &pod("cart", "10.0.0.1", "app: cart")));
        let keys = workload(&mesh, "cart").authorization_policies;
        assert_eq!(keys.first().map(String::as_str), key, "{case}");
        assert_eq!(policies(&mesh).contains_key(STRICT_KEY), exists, "{case}");
        assert!(keys.iter().all(|key| policies(&mesh).contains_key(key)), "{case}");
    }
}

#[derive(Clone, Debug)]
struct Written {
    namespace: &'static str,
    name: usize,
    selects: bool,
    mode: MtlsMode,
    ports: BTreeMap<u16, MtlsMode>,
}

fn mode() -> impl Strategy<Value = MtlsMode> {
    prop::sample::select(vec![
        MtlsMode::Unset,
        MtlsMode::Disable,
        MtlsMode::Permissive,
        MtlsMode::Strict,
    ])
}

fn written() -> impl Strategy<Value = Vec<Written>> {
    let one = (
        prop::sample::select(vec!["istio-system", "shop"]),
        any::<bool>(),
        mode(),
        prop::collection::btree_map(80_u16..83, mode(), 0..3),
    );
    prop::collection::vec(one, 0..5).prop_map(|all| {
        let written = |(name, (namespace, selects, mode, ports))| Written {
            namespace,
            name,
            selects,
            mode,
            ports: if selects { ports } else { BTreeMap::new() },
        };
        all.into_iter().enumerate().map(written).collect()
    })
}

impl Written {
    fn yaml(&self) -> String {
        let upper = |mode: &MtlsMode| format!("{mode:?}").to_uppercase();
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|(port, mode)| format!("{port}: {{mode: {}}}", upper(mode)))
            .collect();
        let selector = if self.selects { "selector: {matchLabels: {app: cart}}, " } else { "" };
        let ports = ports.join(", ");
        let mode = upper(&self.mode);
        let spec = format!("{selector}mtls: {{mode: {mode}}}, portLevelMtls: {{{ports}}}");
        peer(self.namespace, &format!("p{}", self.name), &spec)
    }

    fn domain(&self, uid: &WorkloadUid) -> PeerAuthentication {
        let target = if self.selects {
            PeerAuthenticationTarget::Workloads {
                uids: vec![uid.clone()],
                ports: self.ports.clone(),
            }
        } else {
            PeerAuthenticationTarget::Namespace
        };
        let key = PolicyKey {
            namespace: self.namespace.parse().unwrap(),
            name: format!("p{}", self.name).into(),
        };
        PeerAuthentication { key, mode: self.mode, target }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What the configuration file of a single node means is the same here.
    #[test]
    fn peer_authentications_amount_to_what_they_do_on_a_node(written in written()) {
        let mut mesh = Mesh::new(declared());
        let text: String = written.iter().map(Written::yaml).collect();
        let objects = crate::fixture::objects(&(pod("cart", "10.0.0.1", "app: cart") + &text));
        let events: Vec<Event> = objects.into_iter().map(|object: Object| Event::Applied(object)).collect();
        mesh.apply(events);
        let wire = workloads(&mesh).into_values().next().unwrap();
        let domain = Workload::try_from(wire.clone()).unwrap();
        let authentications: Vec<_> = written.iter().map(|w| w.domain(&domain.uid)).collect();
        let lowered = lower(&authentications, std::slice::from_ref(&domain));
        let keys = lowered.workload_policies.get(&domain.uid).cloned().unwrap_or_default();
        let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
        prop_assert_eq!(wire.authorization_policies, keys);
        let mut expected = lowered.policies;
        expected.sort_by(|a, b| a.key.cmp(&b.key));
        let sent: Result<Vec<_>, _> = policies(&mesh).into_values().map(Policy::try_from).collect();
        prop_assert_eq!(sent.unwrap(), expected);
    }
}
