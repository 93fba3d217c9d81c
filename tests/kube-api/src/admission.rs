//! Calls of admission webhooks, as their configurations ask for.

use std::{sync::Arc, time::Duration};

use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{answer::Refusal, object::Object, path::Place, resource, server::Shared};

/// Time for a webhook to answer.
const CALL_TIME: Duration = Duration::from_secs(10);

/// An object that is about to be stored.
pub(crate) struct Candidate<'a> {
    pub(crate) place: &'a Place,
    pub(crate) operation: &'static str,
    pub(crate) object: &'a Object,
    pub(crate) old: Option<&'a Object>,
}

// === impl Shared ===

impl Shared {
    /// Asks every webhook that wants to know; returns their warnings, or the first refusal.
    pub(crate) async fn admit(&self, candidate: Candidate<'_>) -> Result<Vec<String>, Refusal> {
        let mut warnings = Vec::new();
        for webhook in self.webhooks(&candidate) {
            let name = webhook["name"].as_str().unwrap_or_default().to_owned();
            let call = timeout(CALL_TIME, call(&webhook, &candidate)).await;
            let call = call.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in time")));
            let response = match call {
                Ok(response) => response,
                Err(_) if webhook["failurePolicy"] == "Ignore" => continue,
                Err(error) => {
                    let why = format!("failed calling webhook \"{name}\": {error:#}");
                    return Err(Refusal::Internal(why));
                }
            };
            if response["allowed"] != true {
                let message = response["status"]["message"].as_str().unwrap_or_default();
                let why = format!("admission webhook \"{name}\" denied the request: {message}");
                return Err(Refusal::Invalid(why));
            }
            let own = response["warnings"].as_array().into_iter().flatten();
            warnings.extend(own.filter_map(|warning| warning.as_str().map(str::to_owned)));
        }
        Ok(warnings)
    }

    fn webhooks(&self, candidate: &Candidate<'_>) -> Vec<Value> {
        let found =
            resource::find("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations");
        let Some((resource, version)) = found else { return Vec::new() };
        let place = Place { resource, version, namespace: None };
        let store = self.store();
        let configurations = store.list(&place, None).map(|(_, object)| object);
        let webhooks = configurations.filter_map(|object| object.get("webhooks")?.as_array());
        let wanting = |webhook: &&Value| {
            let mut rules = webhook["rules"].as_array().into_iter().flatten();
            rules.any(|rule| wants(rule, candidate))
        };
        webhooks.flatten().filter(wanting).cloned().collect()
    }
}

fn wants(rule: &Value, Candidate { place, operation, .. }: &Candidate<'_>) -> bool {
    let has = |field: &str, value: &str| {
        let mut listed = rule[field].as_array().into_iter().flatten();
        listed.any(|one| one == "*" || one == value)
    };
    has("apiGroups", place.resource.group)
        && has("apiVersions", place.version)
        && has("resources", place.resource.plural)
        && has("operations", operation)
}

async fn call(webhook: &Value, candidate: &Candidate<'_>) -> anyhow::Result<Value> {
    use anyhow::Context as _;

    let client = &webhook["clientConfig"];
    let url = client["url"].as_str().context("only url is supported in clientConfig")?;
    let url: http::Uri = url.parse()?;
    let host = url.host().context("the url has no host")?.to_owned();
    let ByteString(bundle) = serde_json::from_value(client["caBundle"].clone())?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&bundle) {
        roots.add(root?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect((&*host, url.port_u16().unwrap_or(443))).await?;
    let name = ServerName::try_from(host.clone())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(url.path())
        .header(header::HOST, &host)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::<bytes::Bytes>::from(review(candidate).to_string()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    let review: Value = serde_json::from_slice(&body)?;
    anyhow::ensure!(review["response"]["uid"] == UID, "the answer is for another review");
    Ok(review["response"].clone())
}

/// Names the only review of a connection.
const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

fn review(Candidate { place, operation, object, old }: &Candidate<'_>) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": UID,
            "kind": {
                "group": place.resource.group,
                "version": place.version,
                "kind": place.resource.kind,
            },
            "resource": {
                "group": place.resource.group,
                "version": place.version,
                "resource": place.resource.plural,
            },
            "namespace": place.namespace,
            "name": object.get("metadata").and_then(|metadata| metadata.get("name")),
            "operation": operation,
            "object": object,
            "oldObject": old,
        },
    })
}
