//! What a cluster makes of manifests.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::NAMESPACE;

/// A deployment of one of Bookinfo's images.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deployment {
    pub(super) name: String,
    pub(super) account: String,
    /// Labels of its pods, as in a flow mapping.
    pub(super) labels: String,
    /// Which service the image has.
    pub(super) service: String,
    /// Which version of it.
    pub(super) version: String,
}

/// Returns the objects of a manifest; those that name no namespace are in `namespace`.
pub(super) fn objects(manifest: &str, namespace: &str) -> Result<Vec<Value>> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(manifest)?;
    for object in &mut objects {
        let named = &mut object["metadata"]["namespace"];
        if named.is_null() {
            *named = namespace.into();
        }
    }
    Ok(objects)
}

/// Returns the name of an object.
pub(super) fn name(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("an object without a name")
}

/// Returns the file that an object has in the directory of the control plane.
pub(super) fn file_of(object: &Value) -> Result<String> {
    let kind = object["kind"].as_str().context("an object without a kind")?.to_lowercase();
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    Ok(format!("{kind}-{namespace}-{}.yaml", name(object)?))
}

/// Returns a service of whose requests the waypoint answers each with `text`.
pub(super) fn arrived(address: SocketAddr, text: &str) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: arrived, namespace: {NAMESPACE}}}
spec:
  clusterIP: {ip}
  ports: [{{name: http, port: {port}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: arrived, namespace: {NAMESPACE}}}
spec:
  hosts: [arrived]
  http:
  - directResponse: {{status: 200, body: {{string: \"{text}\"}}}}
"
    )
}

// === impl Deployment ===

impl Deployment {
    /// Returns what an object deploys, if it is a deployment.
    pub(super) fn of(object: &Value) -> Result<Option<Self>> {
        if object["kind"] != "Deployment" {
            return Ok(None);
        }
        let template = &object["spec"]["template"];
        let labels = template["metadata"]["labels"].as_object().context("no labels")?;
        let labels =
            labels.iter().map(|(name, value)| Some(format!("{name}: {}", value.as_str()?)));
        let labels: Option<Vec<_>> = labels.collect();
        let spec = &template["spec"];
        let image = spec["containers"][0]["image"].as_str().context("no image")?;
        let (service, version) = played(image).with_context(|| format!("unknown: {image}"))?;
        Ok(Some(Self {
            name: name(object)?.to_owned(),
            account: spec["serviceAccountName"].as_str().unwrap_or("default").to_owned(),
            labels: labels.context("a label that is no text")?.join(", "),
            service: service.to_owned(),
            version: version.to_owned(),
        }))
    }
}

/// Returns which service an image has, and in which version.
fn played(image: &str) -> Option<(&str, &str)> {
    let (_, rest) = image.split_once("examples-bookinfo-")?;
    let (name, _tag) = rest.split_once(':')?;
    name.split_once('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_says_which_service_its_pod_plays() -> Result<()> {
        let objects = objects(
            "kind: Deployment
metadata: {name: ratings-v-delayed}
spec:
  template:
    metadata: {labels: {app: ratings, version: v-delayed}}
    spec:
      serviceAccountName: bookinfo-ratings
      containers: [{image: 'docker.io/istio/examples-bookinfo-ratings-v-delayed:1.20.1'}]
---
kind: Service
metadata: {name: ratings, namespace: other}
",
            "demo",
        )?;
        let deployment = Deployment::of(&objects[0])?.context("no deployment")?;
        assert_eq!((&*deployment.service, &*deployment.version), ("ratings", "v-delayed"));
        assert_eq!(deployment.account, "bookinfo-ratings");
        assert_eq!(deployment.labels, "app: ratings, version: v-delayed");
        assert_eq!(Deployment::of(&objects[1])?, None);
        let files: Result<Vec<_>> = objects.iter().map(file_of).collect();
        assert_eq!(
            files?,
            ["deployment-demo-ratings-v-delayed.yaml", "service-other-ratings.yaml"]
        );
        Ok(())
    }
}
