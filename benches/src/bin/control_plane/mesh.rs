//! The mesh as a directory of YAML.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use tempfile::TempDir;

/// Namespaces of the mesh.
const NAMESPACES: usize = 50;

/// Pods in one file, other than those that change.
const PODS_PER_FILE: usize = 500;

/// Nodes of the cluster that pods run on.
const NODES: usize = 1_000;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) services: usize,
    pub(crate) pods: usize,
    /// Pods that change once, each with a file of its own.
    pub(crate) changes: usize,
}

/// A directory with a mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    shape: Shape,
    dir: TempDir,
}

// === impl Mesh ===

impl Mesh {
    /// Writes all objects.
    pub(crate) fn write(shape: Shape) -> Result<Self> {
        let mesh = Self { shape, dir: tempfile::tempdir()? };
        fs::create_dir(mesh.dir())?;
        let mut text = String::new();
        for i in 0..NAMESPACES {
            write!(
                text,
                "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: ns{i}, labels: \
                 {{istio.io/dataplane-mode: ambient}}}}\n"
            )?;
        }
        for i in 0..shape.services {
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + number(i));
            let (name, namespace) = (format!("s{i}"), i % NAMESPACES);
            write!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: \
                 ns{namespace}}}\nspec: {{clusterIP: {address}, clusterIPs: [{address}], selector: \
                 {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
            )?;
        }
        fs::write(mesh.dir().join("services.yaml"), text)?;
        let others: Vec<_> = (shape.changes..shape.pods).collect();
        for (file, pods) in others.chunks(PODS_PER_FILE).enumerate() {
            let text: String = pods.iter().map(|i| mesh.pod(*i, true)).collect();
            fs::write(mesh.dir().join(format!("pods-{file}.yaml")), text)?;
        }
        for i in 0..shape.changes {
            fs::write(mesh.file(i), mesh.pod(i, Self::is_urgent(i)))?;
        }
        Ok(mesh)
    }

    /// Returns the directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("mesh")
    }

    /// Makes the pod that changes as number `change` ready, or not ready any more.
    pub(crate) fn change(&self, change: usize) -> Result<()> {
        let draft = self.dir.path().join("draft");
        fs::write(&draft, self.pod(change, !Self::is_urgent(change)))?;
        Ok(fs::rename(draft, self.file(change))?)
    }

    /// Returns whether a change takes an endpoint away.
    pub(crate) fn is_urgent(change: usize) -> bool {
        change.is_multiple_of(2)
    }

    /// Returns the name of the resource that a change is about.
    pub(crate) fn resource(change: usize) -> String {
        format!("Kubernetes//Pod/ns{}/p{change}", change % NAMESPACES)
    }

    fn file(&self, pod: usize) -> PathBuf {
        self.dir().join(Path::new(&format!("pod-{pod}.yaml")))
    }

    fn pod(&self, i: usize, ready: bool) -> String {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + number(i));
        let (namespace, app, node) = (i % NAMESPACES, i % self.shape.services, i % NODES);
        let ready = if ready { "True" } else { "False" };
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{i}, namespace: ns{namespace}, \
             labels: {{app: s{app}}}}}\nspec: {{nodeName: n{node}, serviceAccountName: s{app}, \
             containers: []}}\nstatus: {{phase: Running, podIP: {address}, podIPs: [{{ip: \
             {address}}}], conditions: [{{type: Ready, status: \"{ready}\"}}]}}\n"
        )
    }
}

/// Returns `i`, of which there are far fewer than addresses.
fn number(i: usize) -> u32 {
    u32::try_from(i).unwrap_or(u32::MAX)
}
