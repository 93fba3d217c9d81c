//! What the leading replica writes into the status of routes that are attached to services.

use anyhow::{Context as _, Result};
use fairlead_kube_api::ApiServer;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cluster::{cluster, start},
    plane::eventually,
    status::{CALM, edit, writes},
};

const GROUP: &str = "gateway.networking.k8s.io";

/// What another controller said of a parent of its own.
fn foreign() -> Value {
    json!({ "controllerName": "example.com/other", "parentRef": { "name": "g" }, "conditions": [] })
}

fn route(kind: &str, namespace: &str) -> Value {
    let version = if matches!(kind, "TCPRoute" | "TLSRoute") { "v1alpha2" } else { "v1" };
    json!({
        "apiVersion": format!("{GROUP}/{version}"), "kind": kind,
        "metadata": { "namespace": namespace, "name": "r" },
        "spec": {
            "parentRefs": [
                { "name": "g" },
                { "group": "", "kind": "Service", "name": "s", "namespace": "default" },
            ],
            "rules": [{ "backendRefs": [{ "name": "s", "namespace": "default", "port": 80 }] }],
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": "default", "name": name },
        "spec": { "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }] },
    })
}

/// A route of each kind.
pub(crate) fn judged() -> [Value; 4] {
    ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"].map(|kind| route(kind, "default"))
}

/// Waits until the status has one entry of ours, with these reasons and for this generation; returns
/// all entries.
async fn until(
    server: &ApiServer,
    object: &Value,
    generation: i64,
    reasons: [&str; 2],
) -> Result<Vec<Value>> {
    eventually(&format!("{reasons:?} of generation {generation}"), async || {
        let found = server.get(object).unwrap()?;
        let parents = found.get("status")?["parents"].as_array()?.clone();
        let own = parents.iter().filter(|p| p["controllerName"] == "istio.io/gateway-controller");
        let [own] = *own.collect::<Vec<_>>() else { return None };
        let conditions = own["conditions"].as_array()?;
        let of = |(kind, reason): (&str, &str)| {
            conditions.iter().any(|condition| {
                condition["type"] == kind
                    && condition["reason"] == reason
                    && condition["observedGeneration"] == generation
            })
        };
        let kinds = ["Accepted", "ResolvedRefs"];
        kinds.into_iter().zip(reasons).all(of).then_some(parents)
    })
    .await
}

#[tokio::test]
async fn what_became_of_routes_is_in_their_status() -> Result<()> {
    let server = cluster().await?;
    let routes = judged();
    for route in &routes {
        server.apply(route)?;
        edit(&server, route, |route| route["status"]["parents"] = json!([foreign()]))?;
    }
    let _plane = start(&server, "good").await?;
    for route in &routes {
        until(&server, route, 1, ["NoMatchingParent", "BackendNotFound"]).await?;
    }
    server.apply(&service("s"))?;
    for route in &routes {
        let parents = until(&server, route, 1, ["Accepted", "ResolvedRefs"]).await?;
        assert_eq!(parents[0], foreign(), "what others say stays");
        let parent = json!({ "group": "", "kind": "Service", "name": "s", "namespace": "default" });
        assert_eq!(parents[1]["parentRef"], parent);
        edit(&server, route, |route| {
            route["spec"]["rules"] = json!([{ "backendRefs": [{ "name": "s", "port": 81 }] }]);
        })?;
        until(&server, route, 2, ["Accepted", "BackendNotFound"]).await?;
        edit(&server, route, |route| route["spec"]["parentRefs"] = json!([{ "name": "g" }]))?;
        eventually("what is no parent any more goes", async || {
            let found = server.get(route).unwrap()?;
            (found["status"]["parents"] == json!([foreign()])).then_some(())
        })
        .await?;
    }
    let before = writes(&server);
    sleep(CALM).await;
    assert_eq!(writes(&server), before, "what is as it should be is not written");
    Ok(())
}

#[tokio::test]
async fn a_grant_lets_a_route_refer_to_what_is_not_its_own() -> Result<()> {
    let server = cluster().await?;
    let mut route = route("HTTPRoute", "bank");
    route["spec"]["rules"][0]["backendRefs"][0]["name"] = "other".into();
    let namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "bank" } });
    for object in [&namespace, &service("s"), &service("other"), &route] {
        server.apply(object)?;
    }
    let _plane = start(&server, "good").await?;
    until(&server, &route, 1, ["Accepted", "RefNotPermitted"]).await?;
    let grant = json!({
        "apiVersion": format!("{GROUP}/v1beta1"), "kind": "ReferenceGrant",
        "metadata": { "namespace": "default", "name": "g" },
        "spec": {
            "from": [{ "group": GROUP, "kind": "HTTPRoute", "namespace": "bank" }],
            "to": [{ "group": "", "kind": "Service", "name": "other" }],
        },
    });
    server.apply(&grant)?;
    until(&server, &route, 1, ["Accepted", "ResolvedRefs"]).await?;
    server.delete(&grant).context("the grant")?;
    until(&server, &route, 1, ["Accepted", "RefNotPermitted"]).await.map(drop)
}
