//! What the status of objects has to say: pure.

use mesh_api::crd::ParentReference;

use super::{
    context::{Binding, Context},
    warning::Warning,
};
use crate::object::{AuthorizationPolicy, Object, ObjectKind};

/// Condition of policies that node proxies can enforce.
const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";
/// Condition of what is bound to a waypoint.
const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";

/// What a condition of an object's status has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the condition holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// What the status of a route has to say of one of its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentJudgement {
    /// The parent, as the route names it.
    pub parent: ParentReference,
    /// Whether the route is attached to it, and can be applied.
    pub accepted: Judgement,
    /// Whether all that it refers to is there.
    pub resolved: Judgement,
}

/// Returns whether objects of a kind are judged.
pub fn is_judged(kind: ObjectKind) -> bool {
    condition_of(kind).is_some() || kind.is_route()
}

/// Returns the condition that objects of a kind are judged by, if they are by one.
pub fn condition_of(kind: ObjectKind) -> Option<&'static str> {
    match kind {
        ObjectKind::AuthorizationPolicy => Some(ZTUNNEL_ACCEPTED),
        ObjectKind::Service | ObjectKind::ServiceEntry => Some(WAYPOINT_BOUND),
        ObjectKind::MeshConfig
        | ObjectKind::Namespace
        | ObjectKind::Node
        | ObjectKind::ServiceAccount
        | ObjectKind::Gateway
        | ObjectKind::EndpointSlice
        | ObjectKind::WorkloadEntry
        | ObjectKind::VirtualService
        | ObjectKind::DestinationRule
        | ObjectKind::HttpRoute
        | ObjectKind::GrpcRoute
        | ObjectKind::TlsRoute
        | ObjectKind::TcpRoute
        | ObjectKind::ReferenceGrant
        | ObjectKind::PeerAuthentication
        | ObjectKind::Pod => None,
    }
}

/// Returns the judgement of an object that was computed in `context`; none if the condition does not
/// apply to it.
pub(super) fn of(object: &Object, context: &Context<'_>) -> Option<Judgement> {
    match object {
        Object::AuthorizationPolicy(policy) => of_policy(policy, &context.warnings),
        Object::Service(_) | Object::ServiceEntry(_) => context.binding.as_ref().map(of_binding),
        Object::MeshConfig(_)
        | Object::Namespace(_)
        | Object::Node(_)
        | Object::ServiceAccount(_)
        | Object::Gateway(_)
        | Object::EndpointSlice(_)
        | Object::WorkloadEntry(_)
        | Object::VirtualService(_)
        | Object::DestinationRule(_)
        | Object::HttpRoute(_)
        | Object::GrpcRoute(_)
        | Object::TlsRoute(_)
        | Object::TcpRoute(_)
        | Object::ReferenceGrant(_)
        | Object::PeerAuthentication(_)
        | Object::Pod(_) => None,
    }
}

fn of_policy(policy: &AuthorizationPolicy, warnings: &[Warning]) -> Option<Judgement> {
    // One that is attached to a waypoint is none of the node proxies' business.
    if policy.spec.targets().next().is_some() {
        return None;
    }
    let unsupported = warnings.iter().find_map(|warning| match warning {
        Warning::UnsupportedAction(_) => Some((warning, false)),
        // It is enforced, though more strictly than it is written; Istio has it so, too.
        Warning::OnlyAtWaypoint { .. } => Some((warning, true)),
        Warning::UnusedPolicy
        | Warning::SelectorInRootNamespace
        | Warning::OlderInForce(_)
        | Warning::WaypointMissing(_)
        | Warning::WaypointNotReady(_)
        | Warning::WaypointForbidden(_)
        | Warning::WaypointUnsuited(_)
        | Warning::InvalidCanaryWeight
        | Warning::CanaryIsWaypoint
        | Warning::HostTaken { .. }
        | Warning::AddressesExhausted(_)
        | Warning::ExportedToAll
        | Warning::Route(_) => None,
    });
    Some(unsupported.map_or_else(
        || Judgement { holds: true, reason: "Accepted", message: "attached to ztunnel".to_owned() },
        |(warning, holds)| of_warning(warning, holds),
    ))
}

fn of_binding(binding: &Binding) -> Judgement {
    match binding {
        Binding::Bound(waypoint) => Judgement {
            holds: true,
            reason: "WaypointAccepted",
            message: format!("Successfully attached to waypoint {waypoint}"),
        },
        Binding::Refused(warning) => of_warning(warning, false),
    }
}

fn of_warning(warning: &Warning, holds: bool) -> Judgement {
    Judgement { holds, reason: warning.reason(), message: warning.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::{mesh, object},
        mesh::Event,
    };

    const WAYPOINT: &str = "---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: w, namespace: shop}, \
 spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}, \
 status: {addresses: [{value: 10.9.0.1}]}}
";

    fn judged(yaml: &str, kind: ObjectKind) -> Option<(bool, &'static str, String)> {
        let mesh = mesh(yaml);
        let mut found = mesh.judgements().filter(|(key, _)| key.kind == kind);
        found.next().map(|(_, j)| (j.holds, j.reason, j.message.clone()))
    }

    fn service(labels: &str) -> String {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: shop, labels: \
             {{{labels}}}}}, spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}}}\n"
        )
    }

    #[test]
    fn policies_are_accepted_as_far_as_node_proxies_can_enforce_them() {
        let http = "rules: [{to: [{operation: {methods: [GET]}}]}]";
        let cases = [
            ("action: ALLOW", Some((true, "Accepted", "attached to ztunnel"))),
            (http, Some((true, "UnsupportedValue", "methods"))),
            ("action: AUDIT", Some((false, "UnsupportedValue", "AUDIT"))),
            ("targetRefs: [{kind: Service, group: '', name: cart}]", None),
        ];
        for (spec, expected) in cases {
            let policy = format!(
                "---\n{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: \
                 {{name: p, namespace: shop}}, spec: {{{spec}}}}}\n"
            );
            let found = judged(&policy, ObjectKind::AuthorizationPolicy);
            assert_eq!(found.is_some(), expected.is_some(), "{spec}: {found:?}");
            if let (Some(found), Some(expected)) = (found, expected) {
                assert_eq!((found.0, found.1), (expected.0, expected.1), "{spec}");
                assert!(found.2.contains(expected.2), "{spec}: {}", found.2);
            }
        }
    }

    #[test]
    fn services_are_bound_to_a_waypoint_that_is_there_and_takes_them() {
        let canary = "istio.io/use-waypoint: w, istio.io/use-waypoint-canary: w";
        let workloads = WAYPOINT.replace(
            "namespace: shop",
            "namespace: shop, labels: {istio.io/waypoint-for: workload}",
        );
        let starting = WAYPOINT.replace("addresses: [{value: 10.9.0.1}]", "");
        let elsewhere = WAYPOINT.replace("namespace: shop", "namespace: other");
        let named = "istio.io/use-waypoint: w";
        let foreign = "istio.io/use-waypoint: w, istio.io/use-waypoint-namespace: other";
        let cases = [
            ("", WAYPOINT, None),
            ("istio.io/use-waypoint: none", WAYPOINT, None),
            (named, WAYPOINT, Some((true, "WaypointAccepted"))),
            (named, "", Some((false, "WaypointIsNotReady"))),
            (named, &workloads, Some((false, "UnsupportedTrafficType"))),
            (foreign, &elsewhere, Some((false, "CrossNamespaceWaypointForbidden"))),
            (canary, WAYPOINT, Some((false, "CanaryInvalidWeight"))),
            (foreign, &starting, Some((false, "WaypointIsNotReady"))),
        ];
        for (labels, gateway, expected) in cases {
            let found = judged(&(service(labels) + gateway), ObjectKind::Service);
            let found = found.map(|(holds, reason, _)| (holds, reason));
            assert_eq!(found, expected, "{labels} {gateway}");
        }
        let found = judged(&(service(named) + WAYPOINT), ObjectKind::Service).unwrap();
        assert_eq!(found.2, "Successfully attached to waypoint shop/w");
    }

    #[test]
    fn a_judgement_goes_with_the_binding_and_with_the_object() {
        let named = service("istio.io/use-waypoint: w");
        let mut mesh = mesh(&(named.clone() + WAYPOINT));
        mesh.apply(vec![Event::Deleted(object(WAYPOINT).key())]);
        let refused = mesh.judgements().next().map(|(_, judgement)| judgement.holds);
        assert_eq!(refused, Some(false));
        mesh.apply(vec![Event::Applied(object(&service("")))]);
        assert_eq!(mesh.judgements().count(), 0);
        mesh.apply(vec![Event::Applied(object(&named))]);
        assert_eq!(mesh.judgements().count(), 1);
        mesh.apply(vec![Event::Deleted(object(&named).key())]);
        assert_eq!(mesh.judgements().count(), 0);
    }
}
