//! Objects of Kubernetes and Istio as YAML, as one would give them to `kubectl apply`.
//!
//! Several make a file when they are [joined](join).

use std::{fmt::Write as _, net::IpAddr};

use crate::pod::Pod;

/// Label that takes the pods of a namespace, or one pod, into the mesh.
pub const AMBIENT: &str = "istio.io/dataplane-mode: ambient";

/// Label that binds a service to the waypoint `waypoint` of its namespace.
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint: waypoint";

/// Makes one file of several objects.
pub fn join<S: AsRef<str>>(objects: impl IntoIterator<Item = S>) -> String {
    let objects: Vec<_> = objects.into_iter().map(|object| object.as_ref().to_owned()).collect();
    objects.join("---\n")
}

/// Returns a namespace with `labels`, written as in a flow mapping, such as [`AMBIENT`].
pub fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

/// Returns the mesh configuration, of which `fields` is a line of YAML.
pub fn mesh_config(fields: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
         data:\n  mesh: |\n    {fields}\n"
    )
}

/// Returns a running pod with the label `app`, its own name, and further `labels`.
pub fn pod(pod: &Pod, labels: &str) -> String {
    labelled_pod(pod, &format!("app: {}, {labels}", pod.name()))
}

/// Returns a running pod with `labels`.
pub fn labelled_pod(pod: &Pod, labels: &str) -> String {
    let (name, namespace) = (pod.name(), pod.namespace());
    let (node, account, ipv4, ipv6) = (pod.node(), pod.service_account(), pod.ipv4(), pod.ipv6());
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{{labels}}}
spec: {{nodeName: {node}, serviceAccountName: {account}, containers: []}}
status:
  phase: Running
  podIP: {ipv4}
  podIPs: [{{ip: {ipv4}}}, {{ip: \"{ipv6}\"}}]
  conditions: [{{type: Ready, status: \"True\"}}]
"
    )
}

/// Returns a service with `addresses`, a pair of its own port and the pods' for each of `ports`,
/// and as endpoints the pods with the label `app` of the same value; without `app` those that an
/// endpoint slice lists.
pub fn service(
    [namespace, name]: [&str; 2],
    labels: &str,
    addresses: &[IpAddr],
    ports: &[(u16, u16)],
    app: Option<&str>,
) -> String {
    let quoted: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let first = quoted.first().map_or("None", String::as_str);
    let selector = app.map(|app| format!("  selector: {{app: {app}}}\n")).unwrap_or_default();
    let mut service = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}
spec:
{selector}  clusterIP: {first}
  clusterIPs: [{}]
  ports:
",
        quoted.join(", ")
    );
    for (port, target) in ports {
        // Writing to a string never fails.
        let _ = writeln!(service, "  - {{name: p{port}, port: {port}, targetPort: {target}}}");
    }
    service
}

/// Returns the endpoints of a service without selector: `pods`, at a pair of the service's port and
/// theirs for each of `ports`.
pub fn endpoint_slice(
    [namespace, service]: [&str; 2],
    pods: &[&Pod],
    ports: &[(u16, u16)],
) -> String {
    let mut slice = format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {service}-1
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: {service}}}
addressType: IPv4
ports:
"
    );
    for (port, target) in ports {
        let _ = writeln!(slice, "- {{name: p{port}, port: {target}}}");
    }
    slice += "endpoints:\n";
    for pod in pods {
        let (name, namespace) = (pod.name(), pod.namespace());
        let target = format!("{{kind: Pod, name: {name}, namespace: {namespace}}}");
        let _ = writeln!(slice, "- {{addresses: [{}], targetRef: {target}}}", pod.ipv4());
    }
    slice
}

/// Returns a service entry of `namespace` by which the mesh knows the addresses of a pod outside it.
pub fn service_entry(namespace: &str, pod: &Pod, port: u16) -> String {
    let (name, ipv4, ipv6) = (pod.name(), pod.ipv4(), pod.ipv6());
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  hosts: [{name}.example]
  addresses: [{ipv4}, \"{ipv6}\"]
  ports: [{{number: {port}, name: tcp, protocol: TCP}}]
  resolution: NONE
"
    )
}

/// Returns a policy that lets only `pods` connect to the pods of a namespace.
pub fn allow_only([namespace, name]: [&str; 2], pods: &[&Pod]) -> String {
    authorization_policy([namespace, name], "ALLOW", pods)
}

/// Returns a policy that keeps `pods` from the pods of a namespace.
pub fn deny([namespace, name]: [&str; 2], pods: &[&Pod]) -> String {
    authorization_policy([namespace, name], "DENY", pods)
}

/// Returns what the pods of a namespace accept: `STRICT` or `PERMISSIVE`.
pub fn peer_authentication(namespace: &str, mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: {namespace}}}
spec: {{mtls: {{mode: {mode}}}}}
"
    )
}

/// Returns a waypoint for services that is ready at `address`.
pub fn waypoint([namespace, name]: [&str; 2], address: IpAddr) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]
status:
  addresses: [{{type: IPAddress, value: \"{address}\"}}]
"
    )
}

fn authorization_policy([namespace, name]: [&str; 2], action: &str, pods: &[&Pod]) -> String {
    let principals = pods.iter().map(|pod| pod.identity().replacen("spiffe://", "", 1));
    let principals: Vec<_> = principals.collect();
    format!(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  action: {action}
  rules:
  - from: [{{source: {{principals: [{}]}}}}]
",
        principals.join(", ")
    )
}
