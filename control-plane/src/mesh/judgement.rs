//! What the status of objects has to say: pure.

use mesh_api::crd::ParentReference;

use super::{
    context::{Binding, Context, Enforcer},
    names::REQUIRE_WAYPOINT,
    warning::Warning,
};
use crate::object::{Object, ObjectKind};

/// A condition of an object's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Of policies that node proxies enforce.
    ZtunnelAccepted,
    /// Of policies that are attached to waypoints, or to services behind them.
    WaypointAccepted,
    /// Of what names a waypoint.
    WaypointBound,
}

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

// === impl Condition ===

impl Condition {
    /// Returns all conditions that objects of a kind may have from here; they have one at a time.
    pub fn all_of(kind: ObjectKind) -> &'static [Self] {
        match kind {
            ObjectKind::AuthorizationPolicy => &[Self::ZtunnelAccepted, Self::WaypointAccepted],
            ObjectKind::Service | ObjectKind::ServiceEntry => &[Self::WaypointBound],
            ObjectKind::MeshConfig
            | ObjectKind::Namespace
            | ObjectKind::Node
            | ObjectKind::ServiceAccount
            | ObjectKind::Secret
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
            | ObjectKind::Pod => &[],
        }
    }

    /// Returns the type of the condition.
    pub fn name(self) -> &'static str {
        match self {
            Self::ZtunnelAccepted => "ZtunnelAccepted",
            Self::WaypointAccepted => "WaypointAccepted",
            Self::WaypointBound => "istio.io/WaypointBound",
        }
    }
}

/// Returns whether objects of a kind are judged.
pub fn is_judged(kind: ObjectKind) -> bool {
    !Condition::all_of(kind).is_empty() || kind.is_route()
}

/// Returns the judgement of an object that was computed in `context`; none if the condition does not
/// apply to it.
pub(super) fn of(object: &Object, context: &Context<'_>) -> Option<(Condition, Judgement)> {
    match object {
        Object::AuthorizationPolicy(policy) if policy.spec.targets().next().is_some() => {
            of_attached(context).map(|judgement| (Condition::WaypointAccepted, judgement))
        }
        Object::AuthorizationPolicy(_) => {
            Some((Condition::ZtunnelAccepted, of_policy(&context.warnings)))
        }
        Object::Service(_) | Object::ServiceEntry(_) => {
            let binding = context.binding.as_ref()?;
            Some((Condition::WaypointBound, of_binding(binding)))
        }
        Object::MeshConfig(_)
        | Object::Namespace(_)
        | Object::Node(_)
        | Object::ServiceAccount(_)
        | Object::Secret(_)
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

fn of_policy(warnings: &[Warning]) -> Judgement {
    flaw(warnings).map_or_else(
        || Judgement { holds: true, reason: "Accepted", message: "attached to ztunnel".to_owned() },
        |(warning, holds)| of_warning(warning, holds),
    )
}

/// Judges a policy that is attached to something; none if that is nothing of the mesh.
fn of_attached(context: &Context<'_>) -> Option<Judgement> {
    let at = enforced(&context.enforced_at);
    match (flaw(&context.warnings), at) {
        (Some((warning, holds)), Some(at)) => {
            let message = format!("{warning}; {at}");
            Some(Judgement { holds, reason: warning.reason(), message })
        }
        (Some((warning, _)), None) => Some(of_warning(warning, false)),
        (None, at) => at.map(|message| Judgement { holds: true, reason: "Accepted", message }),
    }
}

/// Returns who enforces a policy, if somebody does, and what that leaves open.
fn enforced(by: &[Enforcer]) -> Option<String> {
    let names: Vec<_> = by.iter().map(|enforcer| enforcer.name.as_str()).collect();
    let open = if by.iter().all(|enforcer| enforcer.is_required) {
        String::new()
    } else {
        format!("; what is sent past it is not refused, unless its Gateway has {REQUIRE_WAYPOINT}")
    };
    (!names.is_empty()).then(|| format!("enforced by {}{open}", names.join(", ")))
}

/// Returns what is wrong with a policy, and whether it is accepted nevertheless.
fn flaw(warnings: &[Warning]) -> Option<(&Warning, bool)> {
    warnings.iter().find_map(|warning| match warning {
        Warning::UnsupportedAction(_) => Some((warning, false)),
        // It is enforced, though more strictly than it is written; Istio has it so, too.
        Warning::OnlyAtWaypoint { .. } => Some((warning, true)),
        Warning::Attached(flaw) => Some((warning, flaw.is_accepted())),
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
        | Warning::UnreachableAtWaypoint
        | Warning::NoEffect { .. }
        | Warning::SaidByOlder { .. }
        | Warning::DestinationMissing(_)
        | Warning::DelegateMissing { .. }
        | Warning::NotHttp(_) => None,
    })
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
        found.next().map(|(_, (_, j))| (j.holds, j.reason, j.message.clone()))
    }

    fn service(labels: &str) -> String {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: shop, labels: \
             {{{labels}}}}}, spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}}}\n"
        )
    }

    const SHOP: &str = "---
{apiVersion: v1, kind: Service, metadata: {name: bound, namespace: shop, labels: \
 {istio.io/use-waypoint: w}}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: free, namespace: shop}, spec: {clusterIP: \
 10.96.0.2, ports: [{port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: bound, namespace: shop, \
 labels: {istio.io/use-waypoint: w}}, spec: {hosts: [a.b], resolution: DNS}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: other, namespace: shop}, \
 spec: {gatewayClassName: ingress}}
";

    /// Judges a policy of a namespace in a mesh with a waypoint.
    fn judged_policy(namespace: &str, spec: &str) -> Option<(bool, &'static str, String)> {
        let policy = format!(
            "---\n{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p, \
             namespace: {namespace}}}, spec: {{{spec}}}}}\n"
        );
        judged(&[SHOP, WAYPOINT, &policy].concat(), ObjectKind::AuthorizationPolicy)
    }

    #[test]
    fn policies_that_are_attached_say_who_enforces_them_and_where_nobody_does() {
        let gateway = |name: &str| format!("{{group: gateway.networking.k8s.io, {name}}}");
        let service = |name: &str| format!("{{group: '', kind: Service, name: {name}}}");
        let entry = |name: &str| {
            format!("{{group: networking.istio.io, kind: ServiceEntry, name: {name}}}")
        };
        let class = gateway("kind: GatewayClass, name: istio-waypoint");
        let waypoint = |name: &str| gateway(&format!("kind: Gateway, name: {name}"));
        let yes = |message| Some((true, "Accepted", message));
        for (namespace, targets, expected) in [
            ("shop", vec![waypoint("w")], yes("enforced by waypoint shop/w")),
            (
                "shop",
                vec![service("bound")],
                yes("enforced by waypoint shop/w for Service shop/bound"),
            ),
            (
                "shop",
                vec![entry("bound")],
                yes("enforced by waypoint shop/w for ServiceEntry shop/bound"),
            ),
            ("istio-system", vec![class.clone()], yes("enforced by every waypoint")),
            ("shop", vec![class], Some((false, "TargetNotFound", "outside of"))),
            ("shop", vec![waypoint("none")], Some((false, "TargetNotFound", "Gateway shop/none"))),
            (
                "shop",
                vec![entry("none")],
                Some((false, "TargetNotFound", "ServiceEntry shop/none")),
            ),
            ("bank", vec![service("bound")], Some((false, "TargetNotFound", "Service bank/bound"))),
            ("shop", vec![service("free")], Some((false, "AncestorNotBound", "Service shop/free"))),
            (
                "shop",
                vec![waypoint("w"), service("free")],
                Some((false, "AncestorNotBound", "; enforced by waypoint shop/w")),
            ),
            ("shop", vec![waypoint("other")], None),
        ] {
            let spec = format!("targetRefs: [{}]", targets.join(", "));
            let found = judged_policy(namespace, &spec);
            assert_eq!(found.is_some(), expected.is_some(), "{spec}: {found:?}");
            if let (Some(found), Some(expected)) = (found, expected) {
                assert_eq!((found.0, found.1), (expected.0, expected.1), "{spec}: {}", found.2);
                assert!(found.2.contains(expected.2), "{spec}: {}", found.2);
            }
        }
    }

    #[test]
    fn a_policy_says_that_a_waypoint_may_be_gone_past_unless_it_may_not() {
        let policy = "---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, \
 spec: {targetRefs: [{group: '', kind: Service, name: bound}]}}
";
        let required = WAYPOINT.replace(
            "namespace: shop",
            "namespace: shop, annotations: {fairlead.io/require-waypoint: 'true'}",
        );
        for (waypoint, is_open) in [(WAYPOINT, true), (required.as_str(), false)] {
            let all = [SHOP, waypoint, policy].concat();
            let (holds, _, message) = judged(&all, ObjectKind::AuthorizationPolicy).unwrap();
            assert!(holds);
            assert_eq!(message.contains("fairlead.io/require-waypoint"), is_open, "{message}");
        }
    }

    #[test]
    fn what_a_waypoint_makes_of_a_policy_that_it_cannot_follow_is_said_with_the_field() {
        let when = |key: &str| format!("rules: [{{when: [{{key: '{key}', values: [a]}}]}}]");
        let paths = |path: &str| {
            format!("rules: [{{}}, {{to: [{{operation: {{notPaths: ['/', '{path}']}}}}]}}]")
        };
        let unsupported = "UnsupportedValue";
        for (fields, expected) in [
            (
                "action: CUSTOM, provider: {name: ext}, rules: [{}]".to_owned(),
                (false, unsupported, "provider ext cannot be asked"),
            ),
            ("action: AUDIT".to_owned(), (true, "Accepted", "")),
            (
                "rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]".to_owned(),
                (true, unsupported, "rules[0].from[0].source.notRequestPrincipals"),
            ),
            (
                when("request.auth.claims[a]"),
                (true, unsupported, "rules[0].when[0].key (request.auth.claims[a])"),
            ),
            (when("connection.sni"), (true, unsupported, "connection.sni")),
            (when("request.headers[a]"), (true, "Accepted", "")),
            (when("request.headers[:method]"), (true, "Accepted", "")),
            (when("request.headers[a][b]"), (false, unsupported, "rules[0].when[0].key")),
            (when("request.headers[:path]"), (false, unsupported, "rules[0].when[0].key")),
            (when("request.auth.claims[]"), (false, unsupported, "rules[0].when[0].key")),
            (when("experimental.x[y]"), (false, unsupported, "rules[0].when[0].key")),
            (paths("/a/{*}/{**}"), (true, "Accepted", "")),
            (paths("/a/{x}"), (false, unsupported, "rules[1].to[0].operation.notPaths[1]")),
            (paths("/{**}/{*}"), (false, unsupported, "rules[1].to[0].operation.notPaths[1]")),
            (paths("{*}"), (false, unsupported, "rules[1].to[0].operation.notPaths[1]")),
        ] {
            let spec = format!("targetRefs: [{{group: '', kind: Service, name: bound}}], {fields}");
            let (holds, reason, message) = judged_policy("shop", &spec).unwrap();
            assert_eq!((holds, reason), (expected.0, expected.1), "{spec}: {message}");
            assert!(message.contains(expected.2), "{spec}: {message}");
            assert!(message.contains("enforced by waypoint shop/w for Service shop/bound"));
        }
    }

    #[test]
    fn policies_are_accepted_as_far_as_node_proxies_can_enforce_them() {
        let http = "rules: [{to: [{operation: {methods: [GET]}}]}]";
        let cases = [
            ("action: ALLOW", (true, "Accepted", "attached to ztunnel")),
            (http, (true, "UnsupportedValue", "methods")),
            ("action: AUDIT", (false, "UnsupportedValue", "AUDIT")),
        ];
        for (spec, expected) in cases {
            let (holds, reason, message) = judged_policy("shop", spec).unwrap();
            assert_eq!((holds, reason), (expected.0, expected.1), "{spec}");
            assert!(message.contains(expected.2), "{spec}: {message}");
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
        let refused = mesh.judgements().next().map(|(_, (_, judgement))| judgement.holds);
        assert_eq!(refused, Some(false));
        mesh.apply(vec![Event::Applied(object(&service("")))]);
        assert_eq!(mesh.judgements().count(), 0);
        mesh.apply(vec![Event::Applied(object(&named))]);
        assert_eq!(mesh.judgements().count(), 1);
        mesh.apply(vec![Event::Deleted(object(&named).key())]);
        assert_eq!(mesh.judgements().count(), 0);
    }
}
