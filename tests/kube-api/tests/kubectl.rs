//! The server as `kubectl` finds it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fairlead_kube_api::{ApiServer, Faults};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(20);

const MANIFEST: &str = r"
apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  labels: {app: web}
spec:
  ports: [{port: 80, name: http}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: deny
  namespace: shop
spec: {}
";

struct Kubectl {
    server: ApiServer,
    dir: TempDir,
}

impl Kubectl {
    async fn start() -> Result<Self> {
        let (server, dir) = (ApiServer::start().await?, TempDir::new()?);
        std::fs::write(dir.path().join("config"), server.kubeconfig())?;
        Ok(Self { server, dir })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        let cache = self.dir.path().join("cache");
        command
            .arg("--kubeconfig")
            .arg(self.dir.path().join("config"))
            .arg("--cache-dir")
            .arg(cache)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = self.command(arguments).spawn().context("kubectl")?;
        let mut stdin = child.stdin.take().context("no input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = timeout(SOON, child.wait_with_output()).await??;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(output.status.success(), "kubectl {arguments:?}: {out}{err}");
        Ok(out)
    }
}

#[tokio::test]
async fn kubectl_applies_reads_changes_and_deletes() -> Result<()> {
    let kubectl = Kubectl::start().await?;
    let apply = ["apply", "--validate=false", "-f", "-"];
    let applied = kubectl.run(&apply, MANIFEST).await?;
    assert!(applied.contains("service/web created"), "{applied}");
    let again = kubectl.run(&apply, MANIFEST).await?;
    assert!(again.contains("service/web unchanged"), "{again}");
    let changed = kubectl.run(&apply, &MANIFEST.replace("port: 80", "port: 81")).await?;
    assert!(changed.contains("service/web configured"), "{changed}");
    let port = "jsonpath={.items[*].spec.ports[*].port}";
    assert_eq!(
        kubectl.run(&["get", "services", "-A", "-l", "app=web", "-o", port], "").await?,
        "81"
    );
    kubectl.run(&["label", "namespace", "shop", "istio.io/dataplane-mode=ambient"], "").await?;
    let labelled = "istio.io/dataplane-mode=ambient";
    assert_eq!(
        kubectl.run(&["get", "namespaces", "-l", labelled, "-o", "name"], "").await?,
        "namespace/shop\n"
    );
    kubectl.run(&["delete", "namespace", "shop"], "").await?;
    let left = kubectl.run(&["get", "authorizationpolicies", "-A", "-o", "name"], "").await?;
    assert_eq!(left, "", "what is in a namespace goes with it");
    Ok(())
}

#[tokio::test]
async fn a_watch_of_kubectl_shows_changes_and_survives_refusals() -> Result<()> {
    let kubectl = Kubectl::start().await?;
    kubectl.server.set_faults(Faults { refuse: 2, ..Faults::default() });
    let mut watch =
        kubectl.command(&["get", "configmaps", "-n", "default", "-w", "-o", "name"]).spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("no output")?).lines();
    for name in ["first", "second"] {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "namespace": "default", "name": name },
        });
        kubectl.server.apply(&object)?;
        let line = timeout(SOON, lines.next_line()).await??;
        assert_eq!(line, Some(format!("configmap/{name}")));
    }
    watch.kill().await?;
    Ok(())
}
