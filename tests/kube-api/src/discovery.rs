//! What describes the API to clients that do not know it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::resource::{RESOURCES, Resource};

const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Returns the document at `path`, if there is one.
pub(crate) fn document(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match *parts.as_slice() {
        ["version"] => Some(
            json!({ "major": "1", "minor": "32", "gitVersion": "v1.32.0", "platform": "linux/amd64" }),
        ),
        ["api"] => Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
        ["apis"] => Some(groups()),
        ["apis", group] => groups_by_name().get(group).map(|versions| api_group(group, versions)),
        ["api", version] => resources("", version),
        ["apis", group, version] => resources(group, version),
        // Without schemas clients do not check what they send.
        ["openapi", "v3"] => Some(json!({ "paths": {} })),
        _ => None,
    }
}

fn groups() -> Value {
    let groups: Vec<Value> =
        groups_by_name().iter().map(|(group, versions)| api_group(group, versions)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn groups_by_name() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for Resource { group, versions, .. } in RESOURCES.iter().filter(|r| !r.group.is_empty()) {
        let known = groups.entry(*group).or_default();
        for version in *versions {
            if !known.contains(version) {
                known.push(*version);
            }
        }
    }
    groups.insert("authentication.k8s.io", vec!["v1"]);
    groups
}

fn api_group(group: &str, versions: &[&str]) -> Value {
    let version = |version: &&str| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    let versions: Vec<Value> = versions.iter().map(version).collect();
    let preferred = versions.first().cloned();
    json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": versions,
        "preferredVersion": preferred,
    })
}

fn resources(group: &str, version: &str) -> Option<Value> {
    let known = RESOURCES.iter().filter(|r| r.group == group && r.versions.contains(&version));
    let mut resources: Vec<Value> = Vec::new();
    for Resource { plural, kind, namespaced, .. } in known {
        let singular = kind.to_lowercase();
        resources.push(json!({ "name": plural, "singularName": singular, "namespaced": namespaced, "kind": kind, "verbs": VERBS }));
        resources.push(json!({ "name": format!("{plural}/status"), "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "patch", "update"] }));
    }
    if group == "authentication.k8s.io" && version == "v1" {
        resources.push(json!({ "name": "tokenreviews", "singularName": "tokenreview", "namespaced": false, "kind": "TokenReview", "verbs": ["create"] }));
    }
    if resources.is_empty() {
        return None;
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }))
}
