//! The deployment manifest: it starts the program as it is, and lets it do what it does.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use fairlead_control::cli::Cli;
use serde_json::{Value, json};

use crate::{
    client::{Client, certify},
    cluster::{CART, POD, cluster, start},
    plane::eventually,
    routes,
    status::judged,
    waypoints::{every_kind, sizes},
};

const MANIFEST: &str = include_str!("../../../deploy/fairlead-control.yaml");

/// The last kinds of writes to come.
const LAST_WRITES: [(&str, &str); 21] = [
    ("patch", "configmaps"),
    ("patch", "secrets"),
    ("update", "leases"),
    ("update", "validatingwebhookconfigurations"),
    ("patch", "authorizationpolicies/status"),
    ("patch", "grpcroutes/status"),
    ("patch", "httproutes/status"),
    ("patch", "tcproutes/status"),
    ("patch", "tlsroutes/status"),
    ("patch", "serviceentries/status"),
    ("patch", "services/status"),
    ("patch", "serviceaccounts"),
    ("patch", "services"),
    ("patch", "deployments"),
    ("delete", "horizontalpodautoscalers"),
    ("delete", "poddisruptionbudgets"),
    ("patch", "gatewayclasses"),
    ("patch", "gatewayclasses/status"),
    ("patch", "gateways/status"),
    ("create", "gateways"),
    ("delete", "gateways"),
];

/// A request as rules name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    verb: &'static str,
    group: String,
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
}

fn manifest(kind: &str) -> Value {
    let documents: Vec<Value> = serde_saphyr::from_multiple(MANIFEST).unwrap();
    documents.into_iter().find(|document| document["kind"] == kind).unwrap()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn the_deployment_starts_the_program_with_options_that_it_has() {
    let deployment = manifest("Deployment");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args = texts(&container["args"]);
    let cli = Cli::try_parse_from(std::iter::once("fairlead-control").chain(args)).unwrap();
    assert!(cli.run.source.kubernetes);

    let port = |name: &str| {
        let ports = container["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == name).unwrap();
        port["containerPort"].as_u64().unwrap()
    };
    assert_eq!(port("grpc"), u64::from(cli.run.address.port()));
    assert_eq!(port("webhook"), u64::from(cli.run.webhook_address.port()));
    assert_eq!(port("admin"), u64::from(cli.run.admin_address.port()));
    let service = manifest("Service");
    let exposed: Vec<_> = service["spec"]["ports"].as_array().unwrap().iter().collect();
    for (number, target) in [(15012, "grpc"), (443, "webhook"), (15014, "admin")] {
        let found = exposed.iter().find(|port| port["port"] == number).unwrap();
        assert_eq!(found["targetPort"], port(target));
    }

    // What API servers and clients call it by is in its certificate.
    let configuration = manifest("ValidatingWebhookConfiguration");
    assert_eq!(configuration["metadata"]["name"], *cli.run.webhook_configuration);
    let webhook = &configuration["webhooks"][0]["clientConfig"]["service"];
    let called = format!(
        "{}.{}.svc",
        webhook["name"].as_str().unwrap(),
        webhook["namespace"].as_str().unwrap()
    );
    assert!(cli.run.service_names.contains(&called), "{called}");
    assert_eq!(webhook["name"], service["metadata"]["name"]);
    assert_eq!(webhook["path"], fairlead_control::webhook::PATH);
}

/// Reads a line such as `GET /api/v1/pods?limit=500 Whole`.
fn request(line: &str) -> Option<Request> {
    let mut words = line.split(' ');
    let (method, uri) = (words.next()?, words.next()?);
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, rest) = match parts[..] {
        ["api", _, ref rest @ ..] => ("", rest),
        ["apis", group, _, ref rest @ ..] => (group, rest),
        _ => return None,
    };
    let (namespace, rest) = match *rest {
        ["namespaces", namespace, ref rest @ ..] if !rest.is_empty() => (Some(namespace), rest),
        ref rest => (None, rest),
    };
    let (resource, rest) = rest.split_first()?;
    let selected = query.split('&').find_map(|pair| {
        pair.strip_prefix("fieldSelector=metadata.name%3D")
            .or_else(|| pair.strip_prefix("fieldSelector=metadata.name="))
    });
    let name = rest.first().copied().or(selected);
    let resource = match rest {
        [_, subresource] => format!("{resource}/{subresource}"),
        _ => (*resource).to_owned(),
    };
    let verb = match (method, rest.is_empty()) {
        ("GET", true) if query.contains("watch=true") => "watch",
        ("GET", true) => "list",
        ("GET", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        _ => return None,
    };
    let text = |text: &str| text.to_owned();
    Some(Request {
        verb,
        group: text(group),
        resource,
        namespace: namespace.map(text),
        name: name.map(text),
    })
}

fn permits(rule: &Value, request: &Request) -> bool {
    let names = texts(&rule["resourceNames"]);
    texts(&rule["apiGroups"]).contains(&&*request.group)
        && texts(&rule["resources"]).contains(&&*request.resource)
        && texts(&rule["verbs"]).contains(&request.verb)
        && (names.is_empty() || request.name.as_deref().is_some_and(|name| names.contains(&name)))
}

#[tokio::test]
async fn the_program_asks_for_nothing_that_its_rules_do_not_permit() -> Result<()> {
    let server = cluster().await?;
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "istio-validator-istio-system" },
        "webhooks": [{ "name": "a", "clientConfig": { "url": "https://localhost" } }],
    });
    server.apply(&configuration)?;
    for object in judged().into_iter().chain(routes::judged()) {
        server.apply(&object)?;
    }
    for object in every_kind() {
        server.apply(&object)?;
    }
    let plane = start(&server, "good").await?;
    Client::connect(&plane)?.until(|known| known.contains_key(POD)).await?;
    certify(&plane, CART).await??;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": { "root-cert.pem": "spoilt" },
        "metadata": { "namespace": "default", "name": "istio-ca-root-cert" },
    });
    server.apply(&map)?;
    let seen = || -> BTreeSet<Request> {
        server.requests().iter().filter_map(|line| request(line)).collect()
    };
    let of_waypoint =
        |resource: &str| seen().iter().any(|r| r.verb == "patch" && r.resource == resource);
    eventually("what a config map asks for is made", async || {
        ["horizontalpodautoscalers", "poddisruptionbudgets"]
            .into_iter()
            .all(of_waypoint)
            .then_some(())
    })
    .await?;
    server.apply(&sizes("default", &json!({})))?;
    for (verb, resource) in LAST_WRITES {
        eventually(&format!("{verb} of {resource}"), async || {
            seen().iter().find(|r| r.verb == verb && r.resource == resource).cloned()
        })
        .await?;
    }
    let (of_cluster, of_namespace) = (manifest("ClusterRole"), manifest("Role"));
    let rules = |role: &Value| role["rules"].as_array().cloned().context("no rules");
    let (of_cluster, of_namespace) = (rules(&of_cluster)?, rules(&of_namespace)?);
    for request in seen() {
        let own = request.namespace.as_deref() == Some("istio-system");
        let mut rules = of_cluster.iter().chain(of_namespace.iter().filter(|_| own));
        assert!(rules.any(|rule| permits(rule, &request)), "not permitted: {request:?}");
    }
    Ok(())
}
