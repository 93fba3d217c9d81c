use serde_json::json;

use super::*;
use crate::cluster::waypoints::fixture::{gateway, settings};

fn parameters(data: &Value) -> Parameters {
    Parameters::read(serde_json::from_value(json!({ "data": data })).unwrap())
}

/// Returns a part as the gateway's config map, after the one of the class, has it.
fn made(part: Part, class: &Value, own: &Value) -> Result<Option<Value>, String> {
    let maps = [("istio-system", class), ("shop", own)].map(|(namespace, data)| {
        let source = ObjectName::new(namespace, "map");
        (source, parameters(data))
    });
    let sources = maps.each_ref().map(|(name, map)| match &*name.namespace {
        "shop" => (Source::Gateway(name.clone()), map.overlays.as_ref().unwrap()),
        _ => (Source::Class(name.clone()), map.overlays.as_ref().unwrap()),
    });
    let made = Layers(sources.into()).made(part, &gateway(|_| {}), &settings());
    made.map_err(|refusal| refusal.message)
}

#[test]
fn what_the_gateway_says_comes_after_what_is_said_for_its_class() {
    let class = json!({ "deployment": "
metadata: {labels: {tier: edge}}
spec:
  replicas: 2
  template:
    spec:
      containers:
      - name: istio-proxy
        resources: {requests: {cpu: 250m}, limits: null}
" });
    let own = json!({ "deployment": "
spec:
  replicas: 3
  template: {spec: {priorityClassName: high, tolerations: [{key: a, operator: Exists}]}}
" });
    let deployment = made(Part::Deployment, &class, &own).unwrap().unwrap();
    let (metadata, spec) = (&deployment["metadata"], &deployment["spec"]);
    assert_eq!((&metadata["labels"]["tier"], &spec["replicas"]), (&"edge".into(), &3.into()));
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["priorityClassName"], "high");
    assert_eq!(pod["tolerations"][0]["key"], "a");
    let [container] = &pod["containers"].as_array().unwrap()[..] else { panic!("{pod}") };
    let requests = json!({ "requests": { "cpu": "250m", "memory": "128Mi" } });
    assert_eq!(container["resources"], requests);
    assert_eq!(container["image"], "registry.example/fairlead:1");
    let plain = Part::Service.of(&gateway(|_| {}), &settings());
    assert_eq!(made(Part::Service, &class, &own), Ok(Some(plain)));
}

#[test]
fn what_nobody_needs_is_made_only_if_it_is_asked_for() {
    let none = json!({});
    let cases = [
        (Part::HorizontalPodAutoscaler, "spec: {minReplicas: 2, maxReplicas: 5}"),
        (Part::PodDisruptionBudget, "spec: {minAvailable: 1}"),
    ];
    for (part, overlay) in cases {
        assert_eq!(made(part, &none, &none), Ok(None));
        let asked = json!({ part.key(): overlay });
        for found in [made(part, &asked, &none), made(part, &none, &asked)] {
            let object = found.unwrap().unwrap();
            let spec = if part == Part::PodDisruptionBudget {
                json!({
                    "minAvailable": 1,
                    "selector": { "matchLabels": { "gateway.networking.k8s.io/gateway-name": "waypoint" } },
                })
            } else {
                json!({
                    "minReplicas": 2, "maxReplicas": 5,
                    "scaleTargetRef": {
                        "apiVersion": "apps/v1", "kind": "Deployment", "name": "waypoint",
                    },
                })
            };
            assert_eq!((&object["kind"], &object["spec"]), (&part.kind().into(), &spec));
        }
    }
}

#[test]
fn a_config_map_that_makes_no_sense_is_refused_with_its_key() {
    let cases = [
        ("deploment", "", "key deploment: nothing is read from it: use serviceAccount, service, "),
        ("deployment", "spec: [", "key deployment: write YAML: "),
        ("deployment", "3", "key deployment: write fields of one Deployment"),
        ("service", "a: 1\n---\nb: 1", "key service: write fields of one Service"),
    ];
    for (key, text, expected) in cases {
        let refused = parameters(&json!({ key: text })).overlays.unwrap_err().to_string();
        assert!(refused.starts_with(expected), "{text}: {refused}");
    }
}

#[test]
fn an_overlay_does_not_decide_whose_an_object_is() {
    let pod = |field: &str| format!("spec: {{template: {{{field}}}}}");
    let label = "gateway.networking.k8s.io/gateway-name";
    let cases = [
        (Part::ServiceAccount, "metadata: {name: other}".to_owned(), "metadata.name"),
        (Part::Service, "metadata: {namespace: other}".to_owned(), "metadata.namespace"),
        (Part::Service, "kind: Secret".to_owned(), "kind"),
        (Part::Service, "spec: {selector: {a: b}}".to_owned(), "spec.selector"),
        (
            Part::Deployment,
            "metadata: {ownerReferences: null}".to_owned(),
            "metadata.ownerReferences",
        ),
        (
            Part::Deployment,
            pod("spec: {serviceAccountName: other}"),
            "spec.template.spec.serviceAccountName",
        ),
        (
            Part::Deployment,
            pod("spec: {serviceAccount: other}"),
            "spec.template.spec.serviceAccount",
        ),
        (
            Part::Deployment,
            pod(&format!("metadata: {{labels: {{{label}: other}}}}")),
            "spec.template.metadata.labels.gateway.networking.k8s.io/gateway-name",
        ),
        (
            Part::HorizontalPodAutoscaler,
            "spec: {scaleTargetRef: {name: other}}".to_owned(),
            "spec.scaleTargetRef",
        ),
    ];
    for (part, overlay, field) in cases {
        let refused = made(part, &json!({}), &json!({ part.key(): overlay })).unwrap_err();
        let expected = format!(
            "spec.infrastructure.parametersRef: ConfigMap shop/map: key {}: leave out {field}, ",
            part.key()
        );
        assert!(refused.starts_with(&expected), "{refused}");
    }
    let unnamed = json!({ "deployment": pod("spec: {containers: [{image: x}]}") });
    let refused = made(Part::Deployment, &unnamed, &json!({})).unwrap_err();
    let expected = "ConfigMap istio-system/map for all gateways of the class: key deployment: \
                    containers: give every element its name";
    assert_eq!(refused, expected);
}
