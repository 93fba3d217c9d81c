//! What matters of the objects that the API server shows.

use std::{fmt::Display, net::IpAddr};

use kube::{
    api::ObjectMeta,
    core::{Object, PartialObjectMeta},
};
use mesh_api::enrolment::{INJECT_LABEL, INJECTION_LABEL, MODE_LABEL, SIDECAR_ANNOTATION};
use serde::Deserialize;

use crate::agent::cluster::{SeenNamespace, SeenPod};

/// Annotation by which a node agent reports that it captures a pod's traffic.
pub(super) const REDIRECTION: &str = "ambient.istio.io/redirection";

/// Service account of pods that name none.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// A pod, as far as it is read.
pub(super) type PodObject = Object<Spec, Status>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    service_account_name: String,
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

/// Reads a pod; one that the mesh has no name for is none.
pub(super) fn read_pod(pod: PodObject) -> Option<SeenPod> {
    let PodObject { metadata, spec, status, .. } = pod;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
    let Spec { mut service_account_name, host_network } = spec;
    if service_account_name.is_empty() {
        DEFAULT_SERVICE_ACCOUNT.clone_into(&mut service_account_name);
    }
    let status = status.unwrap_or_default();
    let refused = |error: &dyn Display| {
        let pod = format!("{}/{}", namespace.escape_debug(), name.escape_debug());
        tracing::warn!(pod, %error, "a pod cannot be in the mesh");
    };
    Some(SeenPod {
        namespace: namespace.parse().inspect_err(|error| refused(error)).ok()?,
        name: name.parse().inspect_err(|error| refused(error)).ok()?,
        uid: text(&metadata.uid),
        service_account: service_account_name.parse().inspect_err(|error| refused(error)).ok()?,
        addresses: addresses(&status),
        mode: label(&metadata, MODE_LABEL),
        inject: label(&metadata, INJECT_LABEL),
        has_sidecar: annotation(&metadata, SIDECAR_ANNOTATION).is_some(),
        host_network,
        has_ended: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
        mark: annotation(&metadata, REDIRECTION).and_then(|value| value.parse().ok()),
    })
}

/// Reads a namespace.
pub(super) fn read_namespace(namespace: PartialObjectMeta) -> Option<SeenNamespace> {
    let metadata = namespace.metadata;
    Some(SeenNamespace {
        mode: label(&metadata, MODE_LABEL),
        injection: label(&metadata, INJECTION_LABEL),
        name: metadata.name?,
    })
}

fn label(metadata: &ObjectMeta, name: &str) -> Option<String> {
    metadata.labels.as_ref()?.get(name).cloned()
}

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    metadata.annotations.as_ref()?.get(name)
}

/// Returns the addresses of a pod; what is none is left out, and is then not checked for.
fn addresses(status: &Status) -> Vec<IpAddr> {
    let listed = status.pod_ips.iter().map(|PodIp { ip }| ip);
    let texts = listed.chain(status.pod_ips.is_empty().then_some(&status.pod_ip));
    texts.filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::agent::wanted::Redirection;

    fn read(pod: Value) -> Option<SeenPod> {
        read_pod(serde_json::from_value(pod).unwrap())
    }

    fn pod() -> Value {
        json!({
            "metadata": {
                "namespace": "shop", "name": "cart-0", "uid": "u1",
                "labels": { "istio.io/dataplane-mode": "ambient", "sidecar.istio.io/inject": "x" },
                "annotations": { "ambient.istio.io/redirection": "enabled" },
            },
            "spec": { "serviceAccountName": "cart", "containers": [{}] },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1",
                "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }],
            },
        })
    }

    #[test]
    fn a_pod_is_read_as_far_as_it_matters() {
        let seen = read(pod()).unwrap();
        assert_eq!((seen.namespace.as_str(), seen.name.as_str()), ("shop", "cart-0"));
        assert_eq!((seen.uid.as_str(), seen.service_account.as_str()), ("u1", "cart"));
        assert_eq!((seen.mode.as_deref(), seen.inject.as_deref()), (Some("ambient"), Some("x")));
        assert_eq!(seen.addresses.len(), 2);
        assert_eq!(seen.mark, Some(Redirection::Enabled));
        assert!(!seen.has_sidecar && !seen.host_network && !seen.has_ended);
    }

    #[test]
    fn what_is_missing_has_a_default_and_what_the_mesh_has_no_name_for_is_none() {
        let change = |path: &str, value: Value| {
            let mut pod = pod();
            *pod.pointer_mut(path).unwrap() = value;
            pod
        };
        let bare = read(change("/spec", json!({}))).unwrap();
        assert_eq!(bare.service_account.as_str(), "default");
        assert_eq!(read(change("/status", json!(null))).unwrap().addresses, [] as [IpAddr; 0]);
        let single = read(change("/status", json!({ "podIP": "10.0.0.2" }))).unwrap();
        assert_eq!(single.addresses, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        for phase in ["Succeeded", "Failed"] {
            assert!(read(change("/status/phase", json!(phase))).unwrap().has_ended, "{phase}");
        }
        let annotations = |value| change("/metadata/annotations", value);
        let sidecar = read(annotations(json!({ "sidecar.istio.io/status": "{}" }))).unwrap();
        assert!(sidecar.has_sidecar && sidecar.mark.is_none());
        let odd = read(annotations(json!({ "ambient.istio.io/redirection": "odd" }))).unwrap();
        assert_eq!(odd.mark, None);
        assert!(read(change("/spec/serviceAccountName", json!("a/b"))).is_none());
        assert!(read(change("/metadata/name", json!("A b"))).is_none());
    }

    #[test]
    fn a_namespace_is_read_by_its_labels() {
        let namespace = json!({
            "metadata": { "name": "shop", "labels": { "istio-injection": "enabled" } },
        });
        let seen = read_namespace(serde_json::from_value(namespace).unwrap()).unwrap();
        assert_eq!(seen.name, "shop");
        assert_eq!((seen.mode, seen.injection.as_deref()), (None, Some("enabled")));
    }
}
