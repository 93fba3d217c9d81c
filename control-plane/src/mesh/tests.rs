mod convergence;
mod scale;

use mesh_api::workload::{self, UnknownDestinations};

use crate::{
    fixture::{applied, mesh, object, pod, services, workload},
    mesh::{Event, Mesh, Options},
    object::{ObjectKey, ObjectKind, ObjectName},
    resource::{Change, Kind, Urgency},
};

const SERVICE: &str = "---
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {clusterIP: 10.96.0.1, \
 selector: {app: cart}, ports: [{port: 80, targetPort: web}]}}
";
const POLICY: &str = "---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, \
 spec: {selector: {matchLabels: {app: cart}}}}
";

/// Applies YAML; returns the changes as `+name!` and `-name`, urgent ones with an exclamation mark.
fn apply(mesh: &mut Mesh, yaml: &str) -> Vec<String> {
    describe(&mesh.apply(applied(yaml)))
}

/// Writes a mesh configuration.
fn config(text: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: \
         istio-system}}, data: {{mesh: '{text}'}}}}\n"
    )
}

fn delete(mesh: &mut Mesh, yaml: &str) -> Vec<String> {
    let keys = crate::fixture::objects(yaml);
    let events = keys.iter().map(|object| Event::Deleted(object.key()));
    describe(&mesh.apply(events.collect()))
}

fn describe(changes: &[Change]) -> Vec<String> {
    let describe = |change: &Change| {
        let sign = if change.resource.is_some() { '+' } else { '-' };
        let urgent = match change.urgency {
            Urgency::Immediate => "!",
            Urgency::Prompt => "~",
            Urgency::Batched => "",
        };
        let name = change.name.as_str();
        format!("{sign}{}{urgent}", name.rsplit('/').next().unwrap_or(name))
    };
    changes.iter().map(describe).collect()
}

#[test]
fn what_is_named_comes_before_what_names_it_and_goes_after_it() {
    let mut mesh = Mesh::new(Options::default());
    let all = pod("cart", "10.0.0.1", "app: cart") + SERVICE + POLICY;
    let host = "cart.shop.svc.cluster.local";
    assert_eq!(apply(&mut mesh, &all), ["+p!", &format!("+{host}"), "+cart"]);
    assert_eq!(apply(&mut mesh, &all), [""; 0]);
    assert_eq!(delete(&mut mesh, &all), ["-cart!", &format!("-{host}!"), "-p!"]);
    assert_eq!(mesh.resources().count(), 0);
}

#[test]
fn what_takes_traffic_away_is_urgent() {
    let mut mesh = Mesh::new(Options::default());
    let ready = |status: &str| {
        pod("cart", "10.0.0.1", "app: cart")
            .replace("podIP", &format!("conditions: [{{type: Ready, status: '{status}'}}], podIP"))
    };
    assert_eq!(apply(&mut mesh, &(ready("False") + SERVICE)).len(), 2);
    assert_eq!(apply(&mut mesh, &ready("True")), ["+cart"]);
    assert_eq!(apply(&mut mesh, &ready("False")), ["+cart!"]);
    assert_eq!(apply(&mut mesh, &ready("True").replace("n1", "n2")), ["+cart"]);
    assert_eq!(apply(&mut mesh, &ready("True").replace("10.0.0.1", "10.0.0.2")), ["+cart!"]);
    assert_eq!(apply(&mut mesh, POLICY), ["+p!", "+cart!"]);
    assert_eq!(apply(&mut mesh, &ready("True").replace("app: cart", "app: other")), ["+cart!"]);
}

#[test]
fn a_changed_rule_does_not_touch_workloads() {
    let mut mesh = mesh(&(pod("cart", "10.0.0.1", "app: cart") + POLICY));
    let before = mesh.computed();
    assert_eq!(
        apply(&mut mesh, &POLICY.replace("{app: cart}}", "{app: cart}}, rules: [{}]")),
        ["+p!"]
    );
    assert_eq!(mesh.computed().workloads, before.workloads);
}

#[test]
fn the_mesh_configuration_takes_effect_on_everything() {
    let global = POLICY.replace("namespace: shop", "namespace: root");
    let mut mesh = mesh(&(pod("cart", "10.0.0.1", "app: cart") + &global));
    assert_eq!(workload(&mesh, "cart").trust_domain, "");
    assert!(workload(&mesh, "cart").authorization_policies.is_empty());
    apply(&mut mesh, &config("{trustDomain: td, rootNamespace: root}"));
    assert_eq!(workload(&mesh, "cart").trust_domain, "td");
    assert_eq!(workload(&mesh, "cart").authorization_policies, ["root/p"]);
    delete(&mut mesh, &config(""));
    assert_eq!(workload(&mesh, "cart").trust_domain, "");
}

#[test]
fn workloads_are_told_where_they_may_connect_to_if_the_mesh_says_it() {
    use UnknownDestinations::{Pass, Refuse};
    let mut mesh = mesh(&pod("cart", "10.0.0.1", ""));
    for (written, expected) in [
        ("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", Some(Refuse)),
        ("{outboundTrafficPolicy: {mode: ALLOW_ANY}}", Some(Pass)),
        ("{outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}}", Some(Pass)),
        ("{outboundTrafficPolicy: {}}", None),
        ("{trustDomain: td}", None),
    ] {
        apply(&mut mesh, &config(written));
        let told: workload::Workload = workload(&mesh, "cart").try_into().unwrap();
        assert_eq!(told.unknown_destinations, expected, "{written}");
    }
}

#[test]
fn a_host_passes_from_one_object_to_another_without_going_away() {
    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, \
                 namespace: shop}, spec: {hosts: [cart.shop.svc.cluster.local]}}";
    let mut mesh = mesh(&(format!("---\n{entry}\n") + SERVICE));
    let host = "cart.shop.svc.cluster.local";
    assert_eq!(delete(&mut mesh, SERVICE), [format!("+{host}")]);
    assert_eq!(services(&mesh).into_values().next().unwrap().name, "e");
    assert_eq!(apply(&mut mesh, SERVICE), [format!("+{host}")]);
}

#[test]
fn a_relist_replaces_all_objects_of_a_kind() {
    let mut mesh = mesh(&(pod("a", "10.0.0.1", "") + &pod("b", "10.0.0.2", "") + SERVICE));
    let relisted = Event::Relisted(
        ObjectKind::Pod,
        vec![object(&pod("b", "10.0.0.2", "")), object(&pod("c", "10.0.0.3", ""))],
    );
    assert_eq!(describe(&mesh.apply(vec![relisted])), ["+c", "-a!"]);
    assert_eq!(mesh.resources().filter(|resource| resource.kind == Kind::Service).count(), 1);
}

#[test]
fn the_node_of_a_pod_is_known_by_name_and_unique_id() {
    let mesh = mesh(&pod("a", "10.0.0.1", "").replace("name: a,", "name: a, uid: u1,"));
    let node = |name, uid| mesh.node_of(&ObjectName::new("shop", name), uid);
    assert_eq!(node("a", "u1").as_deref(), Some("n1"));
    assert_eq!(node("a", "u2"), None);
    assert_eq!(node("b", "u1"), None);
    assert_eq!(node("a", ""), None);
}

#[test]
fn it_is_known_who_runs_where() {
    let ended = pod("b", "10.0.0.2", "").replace("podIP", "phase: Succeeded, podIP");
    let mut mesh = mesh(&(pod("a", "10.0.0.1", "") + &ended));
    let account = ObjectName::new("shop", "default");
    assert!(mesh.runs_on("n1", &account));
    assert!(!mesh.runs_on("n2", &account));
    assert!(!mesh.runs_on("n1", &ObjectName::new("bank", "default")));
    let key = ObjectKey { kind: ObjectKind::Pod, name: ObjectName::new("shop", "a") };
    mesh.apply(vec![Event::Deleted(key)]);
    assert!(!mesh.runs_on("n1", &account));
    assert_eq!(mesh.count(ObjectKind::Pod), 1);
}
