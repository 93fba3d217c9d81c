//! Waypoints that the leading replica makes for gateways.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fairlead_kube_api::ApiServer;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cluster::{cluster, start},
    plane::eventually,
};

/// Label of what was made for a gateway.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// A waypoint for a namespace.
pub(crate) fn gateway(namespace: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "namespace": namespace, "name": "waypoint" },
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }],
        },
    })
}

/// A service of a namespace, and a rule for it that needs a waypoint.
fn routed(namespace: &str) -> [Value; 3] {
    let metadata = json!({ "namespace": namespace, "name": "cart" });
    [
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": namespace, "labels": { "istio-injection": "enabled" } },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": { "clusterIP": "10.96.0.3", "ports": [{ "port": 80, "name": "http" }] },
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": metadata, "spec": { "host": "cart" },
        }),
    ]
}

/// A config map by which waypoints are made.
pub(crate) fn sizes(namespace: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "namespace": namespace, "name": "sizes" }, "data": data,
    })
}

/// A waypoint that is made by a config map.
fn sized(namespace: &str) -> Value {
    let mut gateway = gateway(namespace);
    gateway["spec"]["infrastructure"] =
        json!({ "parametersRef": { "group": "", "kind": "ConfigMap", "name": "sizes" } });
    gateway
}

/// A waypoint that is declared, one that was provided and is not needed, and what needs one.
pub(crate) fn every_kind() -> Vec<Value> {
    let mut provided = gateway("istio-system");
    provided["metadata"]["name"] = json!("auto-waypoint");
    provided["metadata"]["labels"] = json!({ "fairlead.io/automatic": "true" });
    let parts = json!({ "horizontalPodAutoscaler": "", "podDisruptionBudget": "" });
    let sizes = sizes("default", &parts);
    [sizes, sized("default"), provided].into_iter().chain(routed("routed")).collect()
}

fn class() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": { "name": "istio-waypoint" },
    })
}

/// Names something that was made for a gateway.
fn part(kind: &str, name: &str) -> Value {
    let api_version = match kind {
        "Deployment" => "apps/v1",
        "HorizontalPodAutoscaler" => "autoscaling/v2",
        "PodDisruptionBudget" => "policy/v1",
        _ => "v1",
    };
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": { "namespace": "default", "name": name },
    })
}

/// Longer than it takes to see that a waypoint is needed, and to make it.
const CALM: Duration = Duration::from_secs(3);

const PARTS: [&str; 3] = ["ServiceAccount", "Service", "Deployment"];

fn get(server: &ApiServer, object: &Value) -> Option<Value> {
    server.get(object).unwrap().map(Value::Object)
}

/// Waits until there is a part of the waypoint, and returns it.
async fn made(server: &ApiServer, kind: &str) -> Result<Value> {
    eventually(kind, async || get(server, &part(kind, "waypoint"))).await
}

/// Waits until the gateway's condition `Programmed` has a status and a reason; returns the gateway.
async fn programmed(server: &ApiServer, expected: [&str; 2]) -> Result<Value> {
    eventually(&format!("{expected:?}"), async || {
        let gateway = get(server, &gateway("default"))?;
        let conditions = gateway["status"]["conditions"].as_array()?;
        let found = conditions.iter().find(|condition| condition["type"] == "Programmed")?;
        let is_so = found["status"] == expected[0] && found["reason"] == expected[1];
        is_so.then(|| gateway.clone())
    })
    .await
}

/// Changes an object as clients do, that look at it first.
fn edit(server: &ApiServer, object: &Value, change: impl Fn(&mut Value)) -> Result<()> {
    let attempt = || {
        let mut present = get(server, object).context("it is gone")?;
        change(&mut present);
        server.apply(&present).map(drop)
    };
    // A write of the program may come in between.
    attempt().or_else(|_| attempt())
}

/// Does what the cluster's own controllers do: the service gets an address, and a pod is ready.
fn run(server: &ApiServer) -> Result<()> {
    edit(server, &part("Service", "waypoint"), |service| {
        service["spec"]["clusterIP"] = json!("10.96.0.9");
        service["spec"]["clusterIPs"] = json!(["10.96.0.9"]);
    })?;
    edit(server, &part("Deployment", "waypoint"), |deployment| {
        deployment["status"] = json!({ "replicas": 1, "readyReplicas": 1 });
    })
}

#[tokio::test]
async fn a_gateway_has_its_waypoint_and_an_address_once_a_pod_is_ready() -> Result<()> {
    let server = cluster().await?;
    server.apply(&gateway("default"))?;
    let _plane = start(&server, "good").await?;
    let waiting = programmed(&server, ["False", "AddressNotAssigned"]).await?;
    assert_eq!(waiting["status"]["addresses"], Value::Null);
    for kind in PARTS {
        let made = made(&server, kind).await?;
        let owner = &made["metadata"]["ownerReferences"][0];
        assert_eq!(owner["uid"], waiting["metadata"]["uid"], "{kind}");
        assert_eq!(made["metadata"]["labels"][GATEWAY_NAME], "waypoint", "{kind}");
    }
    run(&server)?;
    let ready = programmed(&server, ["True", "Programmed"]).await?;
    let addresses = &ready["status"]["addresses"];
    assert_eq!(addresses[0]["value"], "waypoint.default.svc.cluster.local");
    assert_eq!(addresses[1], json!({ "type": "IPAddress", "value": "10.96.0.9" }));
    let class = get(&server, &class()).context("no class")?;
    assert_eq!(class["spec"]["controllerName"], "istio.io/mesh-controller");
    eventually("the class is accepted", async || {
        let class = get(&server, &self::class())?;
        let condition = &class["status"]["conditions"][0];
        (condition["type"] == "Accepted" && condition["status"] == "True").then_some(())
    })
    .await
}

#[tokio::test]
async fn a_waypoint_is_put_right_and_goes_with_its_gateway() -> Result<()> {
    let server = cluster().await?;
    server.apply(&gateway("default"))?;
    let _plane = start(&server, "good").await?;
    programmed(&server, ["False", "AddressNotAssigned"]).await?;
    for kind in PARTS {
        let before = made(&server, kind).await?;
        server.delete(&part(kind, "waypoint"))?;
        eventually(&format!("another {kind}"), async || {
            let made = get(&server, &part(kind, "waypoint"))?;
            (made["metadata"]["uid"] != before["metadata"]["uid"]).then_some(())
        })
        .await?;
    }
    let deployment = part("Deployment", "waypoint");
    let image =
        |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let good = image(&get(&server, &deployment).context("it is gone")?);
    edit(&server, &deployment, |object| {
        object["spec"]["replicas"] = json!(3);
        object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("spoilt");
    })?;
    let repaired = eventually("the image is put right", async || {
        get(&server, &deployment).filter(|object| image(object) == good)
    })
    .await?;
    assert_eq!(repaired["spec"]["replicas"], 3, "that is left to others");
    server.delete(&gateway("default"))?;
    eventually("nothing is left", async || {
        PARTS.iter().all(|kind| get(&server, &part(kind, "waypoint")).is_none()).then_some(())
    })
    .await
}

#[tokio::test]
async fn what_is_not_of_the_gateway_is_left_alone() -> Result<()> {
    let server = cluster().await?;
    let mut foreign = part("Service", "waypoint");
    foreign["spec"] = json!({ "selector": { "app": "mine" }, "clusterIP": "10.96.0.1" });
    let before = Value::Object(server.apply(&foreign)?);
    let mut other = gateway("default");
    other["metadata"]["name"] = json!("other");
    other["spec"]["gatewayClassName"] = json!("istio");
    server.apply(&other)?;
    server.apply(&gateway("default"))?;
    let _plane = start(&server, "good").await?;
    let refused = programmed(&server, ["False", "Invalid"]).await?;
    let conditions = refused["status"]["conditions"].to_string();
    assert!(conditions.contains("there is a Service waypoint"), "{conditions}");
    assert_eq!(get(&server, &foreign), Some(before));
    assert_eq!(get(&server, &part("Deployment", "other")), None);
    assert_eq!(get(&server, &other).context("it is gone")?["status"], Value::Null);
    // Out of the way, it is made after all.
    server.delete(&foreign)?;
    programmed(&server, ["False", "AddressNotAssigned"]).await.map(drop)
}

#[tokio::test]
async fn a_waypoint_is_provided_while_routes_need_it_and_nobody_declares_one() -> Result<()> {
    let server = cluster().await?;
    let _plane = start(&server, "good").await?;
    let [namespace, service, rule] = routed("default");
    for object in [&namespace, &service, &rule] {
        server.apply(object)?;
    }
    let mut provided = gateway("default");
    provided["metadata"]["name"] = json!("auto-waypoint");
    let found = eventually("a waypoint", async || get(&server, &provided)).await?;
    assert_eq!(found["metadata"]["labels"]["fairlead.io/automatic"], "true");
    let deployment = part("Deployment", "auto-waypoint");
    eventually("its deployment", async || get(&server, &deployment)).await?;
    server.delete(&rule)?;
    eventually("the waypoint goes", async || get(&server, &provided).is_none().then_some(()))
        .await?;
    eventually("and its deployment", async || get(&server, &deployment).is_none().then_some(()))
        .await?;
    // Somebody declares one, and it is needed again.
    server.apply(&gateway("default"))?;
    programmed(&server, ["False", "AddressNotAssigned"]).await?;
    server.apply(&rule)?;
    sleep(CALM).await;
    assert_eq!(get(&server, &provided), None);
    Ok(())
}

#[tokio::test]
async fn a_waypoint_is_made_as_the_config_map_of_its_gateway_says() -> Result<()> {
    let server = cluster().await?;
    server.apply(&sized("default"))?;
    let _plane = start(&server, "good").await?;
    let missing = programmed(&server, ["False", "Invalid"]).await?;
    let conditions = missing["status"]["conditions"].to_string();
    assert!(conditions.contains("parametersRef: ConfigMap default/sizes: make it"), "{conditions}");
    assert_eq!(get(&server, &part("Deployment", "waypoint")), None);

    let overlay = |replicas: u32| {
        let container = "{name: istio-proxy, resources: {limits: {cpu: '4'}}}";
        format!("spec: {{replicas: {replicas}, template: {{spec: {{containers: [{container}]}}}}}}")
    };
    let budget = json!({
        "deployment": overlay(2), "podDisruptionBudget": "spec: {minAvailable: 1}",
    });
    server.apply(&sizes("default", &budget))?;
    let deployment = made(&server, "Deployment").await?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(container["resources"]["limits"], json!({ "cpu": "4", "memory": "1Gi" }));
    assert_eq!(container["name"], "istio-proxy");
    let made_budget = made(&server, "PodDisruptionBudget").await?;
    assert_eq!(made_budget["spec"]["minAvailable"], 1);
    assert_eq!(get(&server, &part("HorizontalPodAutoscaler", "waypoint")), None);

    // What nobody can use leaves what there is, and is said.
    edit(&server, &sizes("default", &json!({})), |map| {
        map["data"] = json!({ "deploment": overlay(9) });
    })?;
    let refused = programmed(&server, ["False", "Invalid"]).await?;
    let conditions = refused["status"]["conditions"].to_string();
    assert!(conditions.contains("key deploment: nothing is read from it"), "{conditions}");
    assert!(get(&server, &part("PodDisruptionBudget", "waypoint")).is_some());

    edit(&server, &sizes("default", &json!({})), |map| {
        map["data"] = json!({ "deployment": overlay(3) });
    })?;
    eventually("the config map is followed", async || {
        let deployment = get(&server, &part("Deployment", "waypoint"))?;
        (deployment["spec"]["replicas"] == 3).then_some(())
    })
    .await?;
    eventually("what is not asked for any more goes", async || {
        get(&server, &part("PodDisruptionBudget", "waypoint")).is_none().then_some(())
    })
    .await
}
