use super::*;
use crate::object::{ObjectName, Phase, TargetPort};

fn read_yaml(yaml: &str) -> Result<Read, String> {
    read(yaml::documents(yaml).remove(0).unwrap()).map_err(|error| error.to_string())
}

fn object(yaml: &str) -> Object {
    match read_yaml(yaml) {
        Ok(Read::Object(object)) => object,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_is_read_as_the_api_server_sends_it() {
    let Object::Pod(pod) = object(
        "apiVersion: v1
kind: Pod
metadata:
  name: cart-0
  namespace: shop
  uid: 0c6e
  creationTimestamp: '2026-01-01T00:00:00Z'
  resourceVersion: '12'
  labels: {app: cart}
  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}', istio.io/x: y}
  ownerReferences:
  - {apiVersion: v1, kind: Node, name: n, controller: false}
  - {apiVersion: apps/v1, kind: StatefulSet, name: cart, controller: true}
spec:
  nodeName: n1
  hostNetwork: true
  restartPolicy: Always
  containers:
  - {name: a, image: x, ports: [{name: web, containerPort: 8080}, {containerPort: 1}]}
  - {name: b, ports: [{name: dns, containerPort: 53, protocol: UDP}]}
status:
  phase: Running
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]
  conditions: [{type: Ready, status: 'False'}, {type: Initialized, status: 'True'}]
",
    ) else {
        panic!("not a pod");
    };
    assert_eq!(pod.metadata.name, ObjectName::new("shop", "cart-0"));
    assert_eq!(&*pod.metadata.owner.as_ref().unwrap().kind, "StatefulSet");
    assert_eq!(pod.metadata.annotations.iter().count(), 1);
    assert_eq!((&*pod.service_account, &*pod.node), ("default", "n1"));
    assert_eq!((pod.host_network, pod.phase, pod.ready), (true, Phase::Running, Some(false)));
    assert_eq!(pod.addresses.len(), 2);
    let ports: Vec<_> = pod.ports.iter().map(|port| (&*port.name, port.port)).collect();
    assert_eq!(ports, [("web", 8080)]);
}

#[test]
fn nothing_is_needed_of_an_object_but_its_name() {
    for kind in ["v1, kind: Pod", "v1, kind: Service", "v1, kind: Node", "v1, kind: Namespace"] {
        object(&format!("{{apiVersion: {kind}, metadata: {{name: x, creationTimestamp: null}}}}"));
    }
    let Object::Service(service) = object("{apiVersion: v1, kind: Service, metadata: {name: x}}")
    else {
        panic!("not a service");
    };
    assert_eq!(service.metadata.name, ObjectName::new("default", "x"));
}

#[test]
fn every_served_version_of_a_kind_is_read() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let group = "networking.istio.io";
        object(&format!(
            "{{apiVersion: {group}/{version}, kind: ServiceEntry, metadata: {{name: x}}, \
             spec: {{hosts: [a.b]}}}}"
        ));
        let gateway = "gateway.networking.k8s.io";
        object(&format!(
            "{{apiVersion: {gateway}/{version}, kind: Gateway, metadata: {{name: x}}}}"
        ));
    }
}

#[test]
fn ports_of_a_service_have_the_defaults_of_kubernetes() {
    let Object::Service(service) = object(
        "apiVersion: v1
kind: Service
metadata: {name: x}
spec:
  clusterIPs: [10.96.0.1, 'fd00::1']
  ports:
  - {name: a, port: 53, protocol: UDP}
  - {name: b, port: 53}
  - {name: c, port: 80, targetPort: 8080}
  - {name: d, port: 81, targetPort: web}
  - {name: e, port: 82, targetPort: '8082'}
",
    ) else {
        panic!("not a service");
    };
    let number = TargetPort::Number;
    let targets: Vec<_> = service.ports.iter().map(|port| port.target.clone()).collect();
    assert_eq!(targets, [number(53), number(8080), TargetPort::Name("web".into()), number(8082)]);
    assert_eq!(service.addresses.len(), 2);
}

#[test]
fn kinds_that_do_not_matter_are_passed_over() {
    for yaml in [
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}}",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: other}}",
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: x}}",
    ] {
        assert!(matches!(read_yaml(yaml), Ok(Read::Other(_))), "{yaml}");
    }
}

#[test]
fn a_list_is_taken_apart() {
    let list = read_yaml("{apiVersion: v1, kind: List, items: [{a: 1}, {b: 2}]}").unwrap();
    assert!(matches!(list, Read::List(items) if items.len() == 2));
}

#[test]
fn the_mesh_configuration_is_read_from_its_config_map() {
    let yaml = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: \
                \"trustDomain: td\\naccessLogFile: /dev/stdout\"}}";
    let Object::MeshConfig(config) = object(yaml) else { panic!("not a mesh configuration") };
    assert_eq!(config.spec.trust_domain.as_deref(), Some("td"));
}

#[test]
fn errors_name_the_field_and_the_remedy() {
    let policy = "apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: x}";
    let pod = "apiVersion: v1, kind: Pod";
    let cases = [
        ("kind: Pod".to_owned(), "apiVersion: is missing: set it, for instance to v1"),
        (pod.to_owned(), "metadata.name: is missing: set it"),
        (
            format!("{pod}, metadata: {{name: A_b}}"),
            "metadata.name: \"A_b\" is not a name: use lower-case letters, digits, '-' and '.'",
        ),
        (
            "apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: \
             'outboundTrafficPolicy: {mode: NONE}'}"
                .to_owned(),
            "data.mesh.outboundTrafficPolicy.mode: unknown variant `NONE`, expected one of \
             `REGISTRY_ONLY`, `ALLOW_ANY`, `ALLOW_ANY_DYNAMIC_DNS`",
        ),
        (
            format!("{pod}, metadata: {{name: x}}, status: {{podIP: 10.0.0}}"),
            "status.podIP: \"10.0.0\" is not an IP address: use one such as 10.0.0.1 or fd00::1",
        ),
        (
            format!("{pod}, metadata: {{name: x}}, spec: {{hostNetwork: 1}}"),
            "spec.hostNetwork: invalid type: integer `1`, expected a boolean",
        ),
        (
            format!("{policy}, spec: {{rules: [{{from: [{{source: {{principal: [a]}}}}]}}]}}"),
            "spec.rules[0].from[0].source.principal: unknown field `principal`",
        ),
        (
            format!("{policy}, spec: {{rules: [{{from: [{{source: {{principals: null}}}}]}}]}}"),
            "spec.rules[0].from[0].source.principals: invalid type: null, expected a sequence",
        ),
        (format!("{policy}, spec: {{action: REFUSE}}"), "spec.action: unknown variant `REFUSE`"),
        (
            "apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: \
             \"trustDomain: [1]\"}"
                .to_owned(),
            "data.mesh.trustDomain: invalid type: sequence, expected a string",
        ),
        (
            "apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 80}, \
             {name: b, port: 80}]}"
                .to_owned(),
            "spec.ports[0].name: is missing: name the port, as there are several",
        ),
        (
            "apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 0}]}"
                .to_owned(),
            "spec.ports[0].port: \"0\" is not a port: use 1 to 65535",
        ),
    ];
    for (yaml, expected) in cases {
        let error = read_yaml(&format!("{{{yaml}}}")).unwrap_err();
        assert!(error.starts_with(expected), "{yaml}: {error}");
    }
}
