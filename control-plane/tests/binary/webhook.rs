//! The admission webhook, called by an API server for what kubectl asks of it.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use fairlead_kube_api::ApiServer;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    cluster::{cluster, roots, start},
    plane::{Plane, eventually},
};

const GOOD: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: default}
spec: {action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]}
";

/// A cluster whose API server asks a control plane about objects.
struct Setting {
    server: ApiServer,
    plane: Plane,
}

// === impl Setting ===

impl Setting {
    async fn start() -> Result<Self> {
        let server = cluster().await?;
        let plane = start(&server, "good").await?;
        let port = plane.webhook.rsplit_once(':').context("no webhook")?.1;
        let rule = |group: &str, resources: &[&str]| {
            json!({
                "apiGroups": [group], "apiVersions": ["*"], "resources": resources,
                "operations": ["CREATE", "UPDATE"],
            })
        };
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": "istio-validator-istio-system" },
            "webhooks": [{
                "name": "validation.istio.io",
                "failurePolicy": "Fail",
                "clientConfig": { "url": format!("https://localhost:{port}/validate") },
                "rules": [
                    rule("security.istio.io", &["authorizationpolicies"]),
                    rule("networking.istio.io", &["serviceentries"]),
                ],
            }],
        });
        server.apply(&configuration)?;
        let bundle = |configuration: &Value| {
            configuration["webhooks"][0]["clientConfig"]["caBundle"].clone()
        };
        let published = async || {
            let stored = Value::Object(server.get(&configuration).ok()??);
            bundle(&stored).is_string().then_some(stored)
        };
        let stored = eventually("the leader adds the roots", published).await?;
        // Whoever takes them away gets them back.
        server.apply(&configuration)?;
        let again = eventually("the leader adds the roots again", published).await?;
        assert_eq!(bundle(&stored), bundle(&again));
        roots(&server, "default").await?;
        Ok(Self { server, plane })
    }

    /// Applies a manifest; returns whether that went well, and what kubectl says.
    async fn kubectl(&self, manifest: &str) -> Result<(bool, String)> {
        let dir = self.plane.dir.path();
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(dir.join("kubeconfig"));
        command.arg("--cache-dir").arg(dir.join("cache"));
        command.args(["apply", "--validate=false", "--server-side", "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("kubectl")?;
        let mut stdin = child.stdin.take().context("no input")?;
        stdin.write_all(manifest.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(text)?))
    }

    fn stored(&self) -> Result<Option<Value>> {
        let policy = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": { "namespace": "default", "name": "deny" },
        });
        Ok(self.server.get(&policy)?.map(Value::Object))
    }
}

#[tokio::test]
async fn kubectl_is_told_what_is_wrong_and_the_stored_object_stays() -> Result<()> {
    let setting = Setting::start().await?;
    let (done, said) = setting.kubectl(GOOD).await?;
    assert!(done, "{said}");
    let stored = setting.stored()?;
    assert!(stored.is_some());
    let (done, said) = setting.kubectl(&GOOD.replace("10.0.0.0/8", "10.0.0.0/88")).await?;
    assert!(!done);
    let reason = "spec.rules[0].from[0].source.ipBlocks[0]: \"10.0.0.0/88\" is not an IP address";
    assert!(said.contains(reason), "{said}");
    assert!(said.contains("validation.istio.io"), "{said}");
    assert_eq!(setting.stored()?, stored);

    let at_waypoint = GOOD.replace(
        "from: [{source: {ipBlocks: [10.0.0.0/8]}}]",
        "to: [{operation: {methods: [GET]}}]",
    );
    let (done, said) = setting.kubectl(&at_waypoint).await?;
    assert!(done && said.contains("Warning: ") && said.contains("waypoint"), "{said}");
    let metrics = setting.plane.page("/metrics").await?;
    assert!(metrics.contains("galley_validation_failed 1"), "{metrics}");
    assert!(metrics.contains("galley_validation_passed 2"), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn hostile_objects_are_refused_and_others_are_still_judged() -> Result<()> {
    let setting = Setting::start().await?;
    let blocks = vec!["10.0.0.0/8"; 100_000].join(",");
    let large = GOOD.replace("10.0.0.0/8", &blocks);
    assert!(large.len() > 1 << 20);
    let deep = GOOD.replace("[10.0.0.0/8]", &format!("{}1{}", "[".repeat(500), "]".repeat(500)));
    let twice = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: twice, namespace: default}
spec: {hosts: [a.example, a.example], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}
";
    for (what, manifest, reason) in [
        ("large", large.as_str(), "entries: use at most"),
        ("deep", deep.as_str(), ""),
        ("twice", twice, "spec.hosts[1]: \"a.example\" is listed twice"),
        ("odd", &GOOD.replace("[10.0.0.0/8]", "{a: 1}"), "spec.rules[0].from[0].source.ipBlocks"),
    ] {
        let (done, said) = setting.kubectl(manifest).await?;
        assert!(!done && said.contains(reason), "{what}: {said}");
    }
    let (done, said) = setting.kubectl(GOOD).await?;
    assert!(done, "{said}");
    Ok(())
}
