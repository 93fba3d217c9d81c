//! Whatever happens on the way, the state after a relist is that of a fresh start.

use std::{collections::BTreeMap, sync::LazyLock};

use mesh_api::{
    policy::Policy,
    proto::{l7, security::Authorization, workload as wire},
    workload::{Service, Workload},
};
use proptest::prelude::*;
use prost::Message as _;

use crate::{
    fixture::{declared, object},
    mesh::{Condition, Event, Judgement, Mesh, ParentJudgement},
    object::{Object, ObjectKey, ObjectKind},
    resource::{Change, Kind, Resource, ResourceName},
};

/// Objects that depend on each other in many ways, each in some versions.
const UNIVERSE: [&[&str]; 42] = [
    &[
        "v1, kind: Namespace, metadata: {name: shop}",
        "v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, \
         istio.io/use-waypoint: w}}",
        "v1, kind: Namespace, metadata: {name: shop, annotations: \
         {networking.istio.io/traffic-distribution: PreferClose}}",
        "v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}",
    ],
    &[
        "gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: auto-waypoint, namespace: \
         shop, labels: {fairlead.io/automatic: 'true'}}, spec: {gatewayClassName: istio-waypoint}, \
         status: {addresses: [{value: 10.96.0.8}]}",
        "gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: auto-waypoint, namespace: \
         shop}, spec: {gatewayClassName: istio-waypoint}",
    ],
    &[
        "v1, kind: Pod, metadata: {name: auto, namespace: shop, labels: \
         {gateway.networking.k8s.io/gateway-name: auto-waypoint}}, spec: {nodeName: n1}, status: \
         {podIP: 10.0.0.8}",
        "v1, kind: Pod, metadata: {name: auto, namespace: shop, labels: {app: cart}}, spec: \
         {nodeName: n1}, status: {podIP: 10.0.0.8}",
    ],
    &[
        "v1, kind: Namespace, metadata: {name: bank, labels: {istio-injection: enabled, \
         istio.io/use-waypoint: w, istio.io/use-waypoint-namespace: shop}}",
        "v1, kind: Namespace, metadata: {name: bank, labels: {team: money}}",
    ],
    &[
        "v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/region: r}}",
        "v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/region: q}}",
    ],
    &[
        "v1, kind: ServiceAccount, metadata: {name: sa, namespace: shop}",
        "v1, kind: ServiceAccount, metadata: {name: sa, namespace: shop, labels: \
         {istio.io/use-waypoint: x}}",
    ],
    &[
        "v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: \
         'trustDomain: td'}",
        "v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: \
         '{rootNamespace: bank, defaultServiceExportTo: [\".\"]}'}",
    ],
    &[
        "gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: w, namespace: shop}, spec: \
         {gatewayClassName: istio-waypoint}, status: {addresses: [{value: 10.96.0.9}]}",
        "gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: w, namespace: shop, labels: \
         {istio.io/waypoint-for: all}}, spec: {gatewayClassName: istio-waypoint, listeners: \
         [{protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]}",
    ],
    &[
        "gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: x, namespace: shop, \
         annotations: {istio.io/for-service-account: sa}}, spec: {gatewayClassName: istio-waypoint}, \
         status: {addresses: [{type: Hostname, value: x.y}]}",
        "gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: x, namespace: shop}, spec: \
         {gatewayClassName: istio-waypoint}",
    ],
    &["v1, kind: Service, metadata: {name: w, namespace: shop}, spec: {clusterIP: 10.96.0.9}"],
    &[
        "v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {app: cart}, \
         ports: [{port: 80, targetPort: web}]}",
        "v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {v: '1'}, \
         ports: [{port: 80}]}",
        "v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {ports: [{port: 80}]}",
        "v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {type: ExternalName}",
    ],
    &[
        "discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: cart-1, namespace: shop, labels: \
         {kubernetes.io/service-name: cart}}, endpoints: [{addresses: [10.9.0.1]}, {addresses: \
         [10.0.0.2], targetRef: {kind: Pod, name: b}}], ports: [{port: 8080}]",
        "discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: cart-1, namespace: shop, labels: \
         {kubernetes.io/service-name: cart}}, endpoints: [{addresses: [10.9.0.2]}]",
    ],
    &[
        "networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: shop}, spec: \
         {hosts: [cart.shop.svc.cluster.local, a.b], resolution: STATIC, workloadSelector: {labels: \
         {app: cart}}, ports: [{number: 80, name: web}]}",
        "networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: shop, labels: \
         {app: cart}}, spec: {hosts: [a.b], resolution: DNS}",
    ],
    &[
        "networking.istio.io/v1, kind: ServiceEntry, metadata: {name: f, namespace: shop, \
         creationTimestamp: '2026'}, spec: {hosts: [a.b], resolution: STATIC, endpoints: [{address: \
         10.8.0.1, labels: {istio.io/use-waypoint: w}}]}",
        "networking.istio.io/v1, kind: ServiceEntry, metadata: {name: f, namespace: shop, \
         creationTimestamp: '2025'}, spec: {hosts: [a.b], exportTo: ['~']}",
    ],
    &[
        "networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: bank}, spec: \
         {hosts: [a.b, cart.shop.svc.cluster.local], resolution: DNS, exportTo: ['.']}",
        "networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: bank}, spec: \
         {hosts: [a.b], resolution: DNS}",
    ],
    &[
        "networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm, namespace: shop, labels: \
         {app: cart}}, spec: {address: 10.7.0.1, serviceAccount: sa}",
        "networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm, namespace: shop, labels: \
         {app: x}}, spec: {address: 10.7.0.1, labels: {v: '1'}}",
    ],
    &[
        "security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: \
         {selector: {matchLabels: {app: cart}}}",
        "security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: \
         {selector: {matchLabels: {v: '1'}}, action: AUDIT}",
        "security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: \
         {selector: {matchLabels: {v: '1'}}, rules: [{to: [{operation: {methods: [GET]}}]}]}",
    ],
    &[
        "security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: g, namespace: bank}, spec: \
         {selector: {matchLabels: {app: cart}}}",
        "security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: g, namespace: bank}",
    ],
    &[
        "security.istio.io/v1, kind: PeerAuthentication, metadata: {name: m, namespace: bank}, spec: \
         {mtls: {mode: STRICT}}",
        "security.istio.io/v1, kind: PeerAuthentication, metadata: {name: m, namespace: bank}, spec: \
         {mtls: {mode: PERMISSIVE}}",
    ],
    &["security.istio.io/v1, kind: PeerAuthentication, metadata: {name: m, namespace: \
         istio-system}, spec: {mtls: {mode: STRICT}}"],
    &[
        "security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: shop}, spec: \
         {mtls: {mode: STRICT}}",
        "security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: shop, \
         creationTimestamp: '2026'}, spec: {selector: {matchLabels: {app: cart}}, portLevelMtls: {80: \
         {mode: STRICT}}}",
    ],
    &[
        "security.istio.io/v1, kind: PeerAuthentication, metadata: {name: b, namespace: shop}, spec: \
         {mtls: {mode: DISABLE}}",
        "security.istio.io/v1, kind: PeerAuthentication, metadata: {name: b, namespace: shop, \
         creationTimestamp: '2025'}, spec: {selector: {matchLabels: {v: '1'}}, mtls: {mode: STRICT}}",
    ],
    &[
        "v1, kind: Pod, metadata: {name: a, namespace: shop, labels: {app: cart, v: '1'}}, spec: \
         {nodeName: n1, serviceAccountName: sa, containers: [{ports: [{name: web, containerPort: \
         8080}]}]}, status: {podIP: 10.0.0.1}",
        "v1, kind: Pod, metadata: {name: a, namespace: shop, labels: {app: cart, \
         istio.io/use-waypoint: none}}, spec: {nodeName: n2}, status: {podIP: 10.0.0.1, phase: Failed}",
    ],
    &[
        "v1, kind: Pod, metadata: {name: b, namespace: shop, labels: {v: '1'}}, spec: {nodeName: n1}, \
         status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}",
        "v1, kind: Pod, metadata: {name: b, namespace: shop, labels: \
         {gateway.networking.k8s.io/gateway-name: w}}, status: {podIP: 10.0.0.2}",
    ],
    &[
        "v1, kind: Pod, metadata: {name: c, namespace: bank, labels: {app: cart}}, spec: {nodeName: \
         n1}, status: {podIP: 10.0.0.3}",
    ],
    &[
        "v1, kind: Service, metadata: {name: till, namespace: bank, labels: {istio.io/use-waypoint: w, \
         istio.io/use-waypoint-namespace: shop}}",
        "v1, kind: Service, metadata: {name: till, namespace: bank, labels: {istio.io/use-waypoint: \
         none}, annotations: {networking.istio.io/exportTo: .}}",
    ],
    &[
        "networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: shop}, spec: \
         {hosts: [cart], http: [{match: [{uri: {prefix: /a}}], delegate: {name: d}}, {route: \
         [{destination: {host: a.b, subset: x}}]}]}",
        "networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: shop}, spec: \
         {hosts: ['*.shop.svc.cluster.local', a.b], exportTo: ['.'], tcp: [{route: [{destination: \
         {host: till.bank.svc.cluster.local}}]}]}",
    ],
    &[
        "networking.istio.io/v1, kind: VirtualService, metadata: {name: d, namespace: shop}, spec: \
         {http: [{match: [{uri: {exact: /a/b}}], route: [{destination: {host: \
         till.bank.svc.cluster.local}}]}]}",
        "networking.istio.io/v1, kind: VirtualService, metadata: {name: d, namespace: shop}, spec: \
         {http: [{redirect: {uri: /x}}]}",
    ],
    &[
        "networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: bank, \
         creationTimestamp: '2025'}, spec: {hosts: [till], http: [{directResponse: {status: 200}}]}",
        "networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: bank}, spec: \
         {hosts: [till, a.b], gateways: [g], http: [{directResponse: {status: 200}}]}",
        "networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: bank}, spec: \
         {hosts: [till, a.b], http: [{match: [{sourceLabels: {app: cart}}], directResponse: {status: \
         200}}]}",
    ],
    &[
        "networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: shop}, spec: \
         {host: cart, subsets: [{name: x}]}",
        "networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: shop}, spec: \
         {host: '*.b', trafficPolicy: {loadBalancer: {simple: RANDOM}}}",
        "networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: shop}, spec: \
         {host: cart, trafficPolicy: {tls: {mode: SIMPLE, credentialName: s}}}",
    ],
    &[
        "v1, kind: Secret, metadata: {name: s, namespace: shop}, stringData: {cert: c, key: k, cacert: \
         r}",
        "v1, kind: Secret, metadata: {name: s, namespace: shop}, stringData: {tls.crt: c, tls.key: k}",
    ],
    &["v1, kind: Secret, metadata: {name: s-cacert, namespace: shop}, data: {ca.crt: cg==}"],
    &[
        "networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: bank}, spec: \
         {host: till, subsets: [{name: x}]}",
        "networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: bank}, spec: \
         {host: '*.local', exportTo: ['.'], subsets: [{name: x}]}",
    ],
    &["networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: \
         istio-system}, spec: {host: '*', trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}"],
    &[
        "gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: h, namespace: shop}, spec: \
         {parentRefs: [{group: '', kind: Service, name: cart}], rules: [{backendRefs: [{group: \
         networking.istio.io, kind: Hostname, name: a.b, port: 80}]}]}",
        "gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: h, namespace: shop}, spec: \
         {parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: e}, {group: '', kind: \
         Service, name: till, namespace: bank}], rules: [{matches: [{method: GET}]}]}",
    ],
    &[
        "gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: g, namespace: bank}, spec: \
         {parentRefs: [{group: '', kind: Service, name: till}], rules: [{backendRefs: [{name: cart, \
         namespace: shop, port: 80}]}]}",
    ],
    &[
        "gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: c, namespace: bank}, spec: \
         {parentRefs: [{group: '', kind: Service, name: cart, namespace: shop}], rules: \
         [{backendRefs: [{name: cart, namespace: shop, port: 80}, {name: till, port: 80}]}]}",
        "gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: c, namespace: bank}, spec: \
         {parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: e, namespace: shop}, \
         {name: w}], rules: [{backendRefs: [{name: cart, namespace: shop, port: 80}]}]}",
    ],
    &["gateway.networking.k8s.io/v1alpha2, kind: TCPRoute, metadata: {name: t, namespace: bank}, \
         spec: {parentRefs: [{group: '', kind: Service, name: till}], rules: [{backendRefs: [{name: \
         cart, namespace: shop, port: 80}]}]}"],
    &["gateway.networking.k8s.io/v1alpha2, kind: TLSRoute, metadata: {name: t, namespace: shop}, \
         spec: {parentRefs: [{group: '', kind: Service, name: cart}], rules: [{backendRefs: [{name: \
         till, namespace: bank, port: 80}]}]}"],
    &[
        "gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: g, namespace: \
         shop}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank}], \
         to: [{group: '', kind: Service}]}",
        "gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: g, namespace: \
         shop}, spec: {from: [{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: bank}], \
         to: [{group: '', kind: Service, name: cart}]}",
    ],
    &[
        "security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: t, namespace: shop}, spec: \
         {targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: e}]}",
        "security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: t, namespace: shop}, spec: \
         {targetRefs: [{group: '', kind: Service, name: cart}], action: AUDIT}",
        "security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: t, namespace: shop}, spec: \
         {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: w}]}",
        "security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: t, namespace: shop}, spec: \
         {selector: {matchLabels: {app: cart}}}",
    ],
    &[
        "security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: c, namespace: bank}, spec: \
         {targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}]}",
    ],
];

static OBJECTS: LazyLock<Vec<Vec<Object>>> = LazyLock::new(|| {
    let read = |text: &&str| object(&format!("{{apiVersion: {text}}}"));
    UNIVERSE.iter().map(|versions| versions.iter().map(read).collect()).collect()
});

fn version(slot: usize, number: usize) -> Object {
    let versions = &OBJECTS[slot];
    versions[number % versions.len()].clone()
}

/// What happens to an object: it becomes one of its versions, or goes.
fn step() -> impl Strategy<Value = (usize, Option<usize>)> {
    (0..UNIVERSE.len(), prop::option::weighted(0.8, 0..4_usize))
}

fn event((slot, number): (usize, Option<usize>)) -> Event {
    match number {
        Some(number) => Event::Applied(version(slot, number)),
        None => Event::Deleted(version(slot, 0).key()),
    }
}

fn resources(mesh: &Mesh) -> BTreeMap<(Kind, ResourceName), Resource> {
    let entry = |resource: &std::sync::Arc<Resource>| {
        ((resource.kind, resource.name.clone()), Resource::clone(resource))
    };
    mesh.resources().map(entry).collect()
}

/// What the status of an object has to say.
type Judged = (ObjectKey, Option<(Condition, Judgement)>, Vec<ParentJudgement>);

/// What the status of all objects has to say.
fn judgements(mesh: &Mesh) -> Vec<Judged> {
    let keys = OBJECTS.iter().map(|versions| versions[0].key());
    keys.map(|key| {
        let (judgement, parents) = (mesh.judgement(&key).cloned(), mesh.parents(&key).to_vec());
        (key, judgement, parents)
    })
    .collect()
}

/// Returns why proxies would refuse a resource, other than that they lack a feature.
fn refusal(resource: &Resource) -> Option<String> {
    let body = resource.body.clone();
    let refusal = match resource.kind {
        Kind::Workload => Workload::try_from(wire::Workload::decode(body).unwrap()).err(),
        Kind::Service => Service::try_from(wire::Service::decode(body).unwrap()).err(),
        Kind::Authorization => Policy::try_from(Authorization::decode(body).unwrap()).err(),
        Kind::L7 => {
            let resource = l7::Resource::decode(body).unwrap();
            return resource.kind.is_none().then(|| "says nothing".to_owned());
        }
        Kind::Credential => {
            let credential = l7::Credential::decode(body).unwrap();
            return credential.name.is_empty().then(|| "has no name".to_owned());
        }
    };
    refusal.map(|error| error.to_string()).filter(|text| !text.contains("not supported"))
}

/// What a proxy that follows the changes holds.
fn follow(replica: &mut BTreeMap<(Kind, ResourceName), Resource>, changes: Vec<Change>) {
    for Change { kind, name, resource, urgency: _ } in changes {
        match resource {
            Some(resource) => replica.insert((kind, name), Resource::clone(&resource)),
            None => replica.remove(&(kind, name)),
        };
    }
}

/// Returns a mesh that was told of all objects at once, in an order of its own.
fn fresh<'a>(objects: impl DoubleEndedIterator<Item = &'a Object>) -> Mesh {
    let mut mesh = Mesh::new(declared());
    mesh.apply(objects.rev().cloned().map(Event::Applied).collect());
    mesh
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn events_in_any_order_are_like_a_fresh_start(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..60),
    ) {
        let mut mesh = Mesh::new(declared());
        let mut replica = BTreeMap::new();
        let mut truth = BTreeMap::new();
        for batch in batches {
            for (slot, number) in &batch {
                match number {
                    Some(number) => truth.insert(*slot, version(*slot, *number)),
                    None => truth.remove(slot),
                };
            }
            follow(&mut replica, mesh.apply(batch.into_iter().map(event).collect()));
            let fresh = fresh(truth.values());
            prop_assert_eq!(&resources(&mesh), &resources(&fresh));
            prop_assert_eq!(&replica, &resources(&fresh));
            prop_assert_eq!(mesh.warnings(), fresh.warnings());
            prop_assert_eq!(judgements(&mesh), judgements(&fresh));
            prop_assert_eq!(mesh.resources().find_map(|resource| refusal(resource)), None);
        }
    }

    #[test]
    fn a_relist_makes_up_for_events_that_were_lost_repeated_or_late(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 0..12),
        truth in prop::collection::vec(prop::option::weighted(0.7, 0..4_usize), UNIVERSE.len()),
    ) {
        let mut mesh = Mesh::new(declared());
        let mut replica = BTreeMap::new();
        for batch in batches {
            follow(&mut replica, mesh.apply(batch.into_iter().map(event).collect()));
        }
        let objects: Vec<_> = truth
            .iter()
            .enumerate()
            .filter_map(|(slot, number)| Some(version(slot, (*number)?)))
            .collect();
        for kind in ObjectKind::ALL {
            let of_kind = objects.iter().filter(|object| object.kind() == kind).cloned().collect();
            follow(&mut replica, mesh.apply(vec![Event::Relisted(kind, of_kind)]));
        }
        let fresh = fresh(objects.iter());
        prop_assert_eq!(&replica, &resources(&fresh));
        prop_assert_eq!(mesh.warnings(), fresh.warnings());
        prop_assert_eq!(judgements(&mesh), judgements(&fresh));
    }
}
