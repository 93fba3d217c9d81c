//! The conformance tests of the Gateway API for meshes, by their names: the same requests to the same
//! services, with what has to become of them.
//!
//! Each has its manifests and cases; the tests of a group share a mesh, one after the other. As there,
//! a case has passed once several answers in a row were as they have to be.

mod behaviour;
mod calls;
mod cases;
mod changes;
mod matching;
mod redirects;
mod scene;
mod shares;

use anyhow::{Context as _, Result};

use self::{
    cases::{Case, get},
    scene::{Scene, Sender},
};

/// Answers in a row that have to be right, as the Gateway API has it.
const IN_A_ROW: u32 = 3;

/// A test of the suite.
struct Test {
    /// Its name there.
    name: &'static str,
    /// What is applied.
    manifests: String,
    cases: Vec<Case>,
}

/// Runs tests in a mesh of their own.
fn run(mesh: &str, tests: impl IntoIterator<Item = Test>) -> Result<()> {
    let mut scene = Scene::new(mesh)?;
    for Test { name, manifests, cases } in tests {
        scene.apply(&manifests).with_context(|| name)?;
        for case in cases {
            check(&scene, &case).with_context(|| format!("{name}: {case:?}"))?;
        }
    }
    Ok(())
}

/// Waits until the answers to a request are as they have to be.
fn check(scene: &Scene, case: &Case) -> Result<()> {
    let mut right = 0;
    let options = case.options();
    let is_right = |answer: &scene::Answer| {
        right = if case.is_met_by(answer) { right + 1 } else { 0 };
        right == IN_A_ROW
    };
    scene.until(case.sender, &options, is_right).map(drop)
}

/// Returns a route of the namespace of the services that is attached to one of them, which may be
/// followed by a port; `rules` as in a flow sequence.
fn http_route(name: &str, parent: &str, rules: &[&str]) -> String {
    route_of("HTTPRoute", ["shop", name], parent, rules)
}

/// Returns a route of a kind and a namespace.
fn route_of(kind: &str, [namespace, name]: [&str; 2], parent: &str, rules: &[&str]) -> String {
    let (service, port) = parent.split_once(':').unwrap_or((parent, ""));
    let port = if port.is_empty() { String::new() } else { format!(", port: {port}") };
    let rules = rules.iter().map(|rule| format!("  - {rule}")).collect::<Vec<_>>().join("\n");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: {service}, namespace: shop{port}}}]
  rules:
{rules}
"
    )
}
