//! `ReferenceGrant` of `gateway.networking.k8s.io`.

use serde::Deserialize;

/// Who may refer to objects of its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ReferenceGrant {
    /// From where: any of these.
    pub from: Vec<GrantSource>,
    /// To what: any of these.
    pub to: Vec<GrantTarget>,
}

/// Objects that may refer to others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrantSource {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
}

/// Objects that may be referred to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrantTarget {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name; any if absent.
    pub name: Option<String>,
}

// === impl ReferenceGrant ===

impl ReferenceGrant {
    /// Returns whether objects of a group, kind and namespace may refer to one of a group, kind and
    /// name.
    pub fn permits(&self, from: [&str; 3], to: [&str; 3]) -> bool {
        let [group, kind, namespace] = from;
        let is_from = |from: &GrantSource| {
            is_group(&from.group, group) && from.kind == kind && from.namespace == namespace
        };
        let [group, kind, name] = to;
        let is_to = |to: &GrantTarget| {
            let is_named = to.name.as_deref().is_none_or(|own| own.is_empty() || own == name);
            is_group(&to.group, group) && to.kind == kind && is_named
        };
        self.from.iter().any(is_from) && self.to.iter().any(is_to)
    }
}

/// Returns whether two names are of one group; the core group has two.
fn is_group(one: &str, other: &str) -> bool {
    let core = |group: &str| group.is_empty() || group == "core";
    one == other || (core(one) && core(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_for_what_it_names() {
        let from = GrantSource {
            group: "gateway.networking.k8s.io".into(),
            kind: "HTTPRoute".into(),
            namespace: "bank".into(),
        };
        let to = |name: Option<&str>| GrantTarget {
            kind: "Service".into(),
            name: name.map(Into::into),
            ..GrantTarget::default()
        };
        let of = |name| ReferenceGrant { from: vec![from.clone()], to: vec![to(name)] };
        let route = ["gateway.networking.k8s.io", "HTTPRoute", "bank"];
        let till = ["core", "Service", "till"];
        for (grant, from, to, expected) in [
            (of(None), route, till, true),
            (of(Some("")), route, till, true),
            (of(Some("till")), route, till, true),
            (of(Some("cart")), route, till, false),
            (of(None), [route[0], "GRPCRoute", "bank"], till, false),
            (of(None), [route[0], route[1], "shop"], till, false),
            (of(None), ["", route[1], route[2]], till, false),
            (of(None), route, ["", "Secret", "till"], false),
            (of(None), route, ["apps", "Service", "till"], false),
            (ReferenceGrant::default(), route, till, false),
        ] {
            assert_eq!(grant.permits(from, to), expected, "{grant:?} {from:?} {to:?}");
        }
    }
}
