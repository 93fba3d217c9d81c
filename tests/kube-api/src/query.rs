//! Query parameters, and the selectors among them.

use crate::object::{Object, metadata};
use serde_json::Value;

/// The parameters of a list or a watch.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) is_watch: bool,
    pub(crate) resource_version: Option<String>,
    pub(crate) bookmarks: bool,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) limit: Option<usize>,
    pub(crate) next: Option<String>,
    pub(crate) selector: Selector,
}

/// What objects have to be like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Clone, Debug)]
enum Requirement {
    Equals(String, String),
    Differs(String, String),
    Exists(String),
    Absent(String),
}

// === impl Query ===

impl Query {
    pub(crate) fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "watch" => parsed.is_watch = matches!(&*value, "true" | "1"),
                "resourceVersion" => {
                    parsed.resource_version = Some(value.into_owned()).filter(|v| !v.is_empty());
                }
                "allowWatchBookmarks" => parsed.bookmarks = value == "true",
                "timeoutSeconds" => parsed.timeout_seconds = value.parse().ok(),
                "limit" => parsed.limit = value.parse().ok().filter(|limit| *limit > 0),
                "continue" => parsed.next = Some(value.into_owned()).filter(|v| !v.is_empty()),
                "labelSelector" => parsed.selector.labels = labels(&value)?,
                "fieldSelector" => parsed.selector.fields = fields(&value)?,
                _ => {}
            }
        }
        Ok(parsed)
    }
}

// === impl Selector ===

impl Selector {
    pub(crate) fn matches(&self, object: &Object) -> bool {
        let label = |name: &str| {
            let labels = object.get("metadata").and_then(|m| m.get("labels"));
            labels.and_then(|labels| labels.get(name)).and_then(Value::as_str)
        };
        self.labels.iter().all(|requirement| match requirement {
            Requirement::Equals(name, value) => label(name) == Some(value),
            Requirement::Differs(name, value) => label(name) != Some(value),
            Requirement::Exists(name) => label(name).is_some(),
            Requirement::Absent(name) => label(name).is_none(),
        }) && self
            .fields
            .iter()
            .all(|(path, value, equal)| (field(object, path) == value) == *equal)
    }
}

fn field<'a>(object: &'a Object, path: &str) -> &'a str {
    if let Some(name) = path.strip_prefix("metadata.") {
        return metadata(object, name);
    }
    let value = match path.split_once('.') {
        Some((first, rest)) => object.get(first).and_then(|value| value.get(rest)),
        None => object.get(path),
    };
    value.and_then(Value::as_str).unwrap_or_default()
}

fn labels(text: &str) -> Result<Vec<Requirement>, String> {
    text.split(',').map(str::trim).filter(|term| !term.is_empty()).map(label).collect()
}

fn label(term: &str) -> Result<Requirement, String> {
    if term.contains(' ') {
        return Err(format!("label selector {term:?} is not supported here"));
    }
    if let Some(name) = term.strip_prefix('!') {
        return Ok(Requirement::Absent(name.to_owned()));
    }
    if let Some((name, value)) = term.split_once("!=") {
        return Ok(Requirement::Differs(name.to_owned(), value.to_owned()));
    }
    Ok(match term.split_once('=') {
        Some((name, value)) => {
            Requirement::Equals(name.to_owned(), value.trim_start_matches('=').to_owned())
        }
        None => Requirement::Exists(term.to_owned()),
    })
}

fn fields(text: &str) -> Result<Vec<(String, String, bool)>, String> {
    let terms = text.split(',').filter(|term| !term.is_empty());
    let parse = |term: &str| {
        let differs = term.split_once("!=").map(|(path, value)| (path, value, false));
        let equals = || term.split_once('=').map(|(path, value)| (path, value, true));
        let (path, value, equal) =
            differs.or_else(equals).ok_or_else(|| format!("field selector {term:?}"))?;
        let value = value.trim_start_matches('=');
        Ok((path.to_owned(), value.to_owned(), equal))
    };
    terms.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_choose_by_labels_and_fields() {
        let Value::Object(object) = json!({
            "metadata": { "name": "a", "labels": { "app": "web", "tier": "1" } },
            "spec": { "nodeName": "n1" },
            "type": "Opaque",
        }) else {
            unreachable!("an object was written");
        };
        let cases = [
            ("labelSelector=app%3Dweb", true),
            ("labelSelector=app%3D%3Dweb%2Ctier", true),
            ("labelSelector=app%21%3Dweb", false),
            ("labelSelector=%21app", false),
            ("labelSelector=%21other", true),
            ("fieldSelector=metadata.name%3Da", true),
            ("fieldSelector=metadata.name%3Db", false),
            ("fieldSelector=spec.nodeName%3Dn1%2Cmetadata.name%21%3Db", true),
            ("fieldSelector=spec.nodeName%3Dn2", false),
            ("fieldSelector=type%21%3DOpaque", false),
            ("fieldSelector=type%21%3Dother", true),
        ];
        for (query, expected) in cases {
            assert_eq!(Query::parse(query).unwrap().selector.matches(&object), expected, "{query}");
        }
    }
}
