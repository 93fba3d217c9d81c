use super::{
    MtlsMode::{Disable, Permissive, Strict, Unset},
    *,
};
use crate::{
    policy::{Flow, PolicyIndex, Verdict, WorkloadPolicies},
    proto::workload as proto,
};

const STRICT_KEY: &str = "istio-system/istio_converted_static_strict";

fn workload(uid: &str, namespace: &str) -> Workload {
    proto::Workload {
        uid: uid.into(),
        namespace: namespace.into(),
        addresses: vec![vec![10, 0, 0, 7].into()],
        ..proto::Workload::default()
    }
    .try_into()
    .unwrap()
}

fn key(namespace: &str, name: &str) -> PolicyKey {
    PolicyKey { namespace: namespace.parse().unwrap(), name: name.into() }
}

/// Peer authentication of all workloads of a namespace.
fn level(namespace: &str, mode: MtlsMode) -> PeerAuthentication {
    let target = PeerAuthenticationTarget::Namespace;
    PeerAuthentication { key: key(namespace, "level"), mode, target }
}

/// Peer authentication of workload `w`.
fn own(name: &str, mode: MtlsMode, ports: &[(u16, MtlsMode)]) -> PeerAuthentication {
    let target = PeerAuthenticationTarget::Workloads {
        uids: vec![WorkloadUid("w".into())],
        ports: ports.iter().copied().collect(),
    };
    PeerAuthentication { key: key("shop", name), mode, target }
}

/// Lowers for workloads `w` and `other` of the shop; returns the keys of `w`, by name.
fn keys_of_w(authentications: &[PeerAuthentication]) -> Vec<String> {
    let workloads = [workload("w", "shop"), workload("other", "shop")];
    let lowered = lower(authentications, &workloads);
    let keys = lowered.workload_policies.get(&workloads[0].uid);
    keys.into_iter().flatten().map(ToString::to_string).collect()
}

/// Returns which of some ports of `w` accept plaintext and which accept an authenticated peer.
fn accepting_ports(authentications: &[PeerAuthentication]) -> (Vec<u16>, Vec<u16>) {
    let mut workload = workload("w", "shop");
    let lowered = lower(authentications, std::slice::from_ref(&workload));
    let keys = lowered.workload_policies.get(&workload.uid);
    workload.authorization_policies = keys.cloned().unwrap_or_default();
    let policies = WorkloadPolicies::compile(&workload, &PolicyIndex::new(lowered.policies));
    let accepts = |identity, port: &u16| {
        let source = "10.0.0.1".parse().unwrap();
        let destination = ([10, 0, 0, 7], *port).into();
        policies.decide(&Flow { source, identity, destination }) == Verdict::Allow(None)
    };
    let peer = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let ports = [80, 81, 82, 83];
    (
        ports.into_iter().filter(|port| accepts(None, port)).collect(),
        ports.into_iter().filter(|port| accepts(Some(&peer), port)).collect(),
    )
}

#[test]
fn without_peer_authentications_there_are_no_policies() {
    assert_eq!(lower(&[], &[workload("w", "shop")]), Lowered::default());
}

#[test]
fn any_peer_authentication_brings_the_static_policy() {
    let lowered = lower(&[level("shop", Permissive)], &[workload("w", "shop")]);
    let [policy] = lowered.policies.as_slice() else { panic!("{:?}", lowered.policies) };
    assert_eq!(policy.key.to_string(), STRICT_KEY);
    assert_eq!(policy.scope, Scope::WorkloadSelector);
    assert_eq!(policy.action, Action::Deny);
    assert_eq!(policy.rules, [Rule { clauses: vec![clause(unauthenticated())] }]);
    assert!(lowered.workload_policies.is_empty());
}

#[test]
fn the_narrowest_level_that_says_something_decides() {
    let root = ROOT_NAMESPACE;
    for (authentications, strict) in [
        (vec![level(root, Strict)], true),
        (vec![level(root, Permissive)], false),
        (vec![level(root, Disable)], false),
        (vec![level(root, Unset)], false),
        (vec![level("shop", Strict)], true),
        (vec![level("elsewhere", Strict)], false),
        (vec![level(root, Strict), level("shop", Permissive)], false),
        (vec![level(root, Strict), level("shop", Disable)], false),
        (vec![level(root, Strict), level("shop", Unset)], true),
        (vec![level(root, Permissive), level("shop", Strict)], true),
        (vec![own("o", Strict, &[])], true),
        (vec![own("o", Unset, &[])], false),
        (vec![level(root, Strict), own("o", Unset, &[])], true),
        (vec![level("shop", Strict), own("o", Unset, &[])], true),
        (vec![level("shop", Strict), own("o", Permissive, &[])], false),
        (vec![level("shop", Strict), own("o", Disable, &[])], false),
        (vec![level(root, Strict), level("shop", Permissive), own("o", Strict, &[])], true),
        (vec![own("o", Strict, &[]), level("shop", Permissive), level(root, Strict)], true),
    ] {
        let expected = if strict { vec![STRICT_KEY] } else { vec![] };
        assert_eq!(keys_of_w(&authentications), expected, "{authentications:?}");
    }
}

#[test]
fn the_oldest_of_one_level_wins_and_the_others_are_reported() {
    let objects = [
        level("shop", Permissive),
        level("shop", Strict),
        own("a", Unset, &[]),
        own("b", Strict, &[]),
    ];
    let workloads = [workload("w", "shop")];
    let lowered = lower(&objects, &workloads);
    assert!(lowered.workload_policies.is_empty());
    assert_eq!(lowered.ignored, [key("shop", "level"), key("shop", "b")]);
}

#[test]
fn selecting_workloads_in_the_root_namespace_is_ignored_and_reported() {
    let mut object = own("o", Strict, &[(80, Permissive)]);
    object.key.namespace = ROOT_NAMESPACE.parse().unwrap();
    let lowered = lower(&[object.clone()], &[workload("w", "shop"), workload("w", ROOT_NAMESPACE)]);
    assert_eq!(lowered.policies.len(), 1);
    assert!(lowered.workload_policies.is_empty());
    assert_eq!(lowered.ignored, [object.key]);
}

#[test]
fn an_object_does_not_reach_workloads_of_other_namespaces() {
    let lowered = lower(&[own("o", Strict, &[])], &[workload("w", "elsewhere")]);
    assert!(lowered.workload_policies.is_empty());
}

#[test]
fn ports_that_differ_are_combined_with_the_base_in_one_converted_policy() {
    let shop_strict = || level("shop", Strict);
    let mesh_strict = || level(ROOT_NAMESPACE, Strict);
    let converted = vec!["shop/converted_peer_authentication_o"];
    let fixed = vec![STRICT_KEY];
    let all = vec![80, 81, 82, 83];
    for (authentications, keys, plaintext) in [
        (vec![own("o", Strict, &[(80, Permissive)])], &converted, vec![80]),
        (vec![own("o", Strict, &[(80, Disable), (81, Permissive)])], &converted, vec![80, 81]),
        (vec![own("o", Strict, &[(80, Strict)])], &fixed, vec![]),
        (vec![own("o", Strict, &[(80, Unset)])], &fixed, vec![]),
        (vec![own("o", Strict, &[(80, Strict), (81, Permissive)])], &converted, vec![81]),
        (vec![own("o", Permissive, &[(80, Strict)])], &converted, vec![81, 82, 83]),
        (vec![own("o", Disable, &[(80, Strict), (82, Strict)])], &converted, vec![81, 83]),
        (vec![own("o", Permissive, &[(80, Permissive)])], &vec![], all.clone()),
        (vec![own("o", Unset, &[(80, Strict)])], &converted, vec![81, 82, 83]),
        (vec![own("o", Unset, &[(80, Permissive)])], &vec![], all.clone()),
        (vec![shop_strict(), own("o", Unset, &[(80, Permissive)])], &converted, vec![80]),
        (vec![shop_strict(), own("o", Unset, &[(80, Disable)])], &converted, vec![80]),
        (vec![mesh_strict(), own("o", Unset, &[(80, Permissive)])], &converted, vec![80]),
        (vec![mesh_strict(), own("o", Unset, &[(80, Strict)])], &fixed, vec![]),
        (vec![mesh_strict(), own("o", Permissive, &[(80, Strict)])], &converted, vec![81, 82, 83]),
        (vec![mesh_strict(), own("o", Permissive, &[(80, Disable)])], &vec![], all.clone()),
    ] {
        assert_eq!(keys_of_w(&authentications), *keys, "{authentications:?}");
        let accepted = accepting_ports(&authentications);
        assert_eq!(accepted, (plaintext, all.clone()), "{authentications:?}");
    }
}

#[test]
fn converted_policies_have_the_documented_form() {
    let relaxed = lower(&[own("o", Strict, &[(80, Permissive), (81, Disable)])], &[]);
    let port = |port| Match {
        destination_ports: Condition { none_of: vec![port], ..Condition::default() },
        ..Match::default()
    };
    let clauses = vec![clause(unauthenticated()), clause(port(80)), clause(port(81))];
    assert_eq!(relaxed.policies[1].rules, [Rule { clauses }]);

    let tightened = lower(&[own("o", Permissive, &[(80, Strict), (81, Strict)])], &[]);
    assert_eq!(tightened.policies[1].rules, [strict_at(80), strict_at(81)]);
}
