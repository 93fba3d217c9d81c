//! Patches of objects.

use serde_json::Value;

use crate::{answer::Refusal, object::Object};

/// Lists whose elements a strategic merge patch tells apart by this field, elsewhere lists are
/// replaced.
const MERGE_KEYS: [(&str, &str); 6] = [
    ("conditions", "type"),
    ("containers", "name"),
    ("env", "name"),
    ("ownerReferences", "uid"),
    ("ports", "port"),
    ("volumes", "name"),
];

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Merge,
    StrategicMerge,
    /// Server-side apply, without the bookkeeping of who owns which field.
    Apply,
}

// === impl Format ===

impl Format {
    /// Returns the format of a content type.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next()?.trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::StrategicMerge),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }

    /// Returns `object` with the patch applied.
    pub(crate) fn apply(self, object: Object, body: &[u8]) -> Result<Object, Refusal> {
        let invalid = |error: serde_json::Error| Refusal::Invalid(format!("the patch: {error}"));
        let mut value = Value::Object(object);
        match self {
            Self::Json => {
                let patch: json_patch::Patch = serde_json::from_slice(body).map_err(invalid)?;
                json_patch::patch(&mut value, &patch)
                    .map_err(|error| Refusal::Invalid(format!("the patch: {error}")))?;
            }
            Self::Merge => {
                json_patch::merge(&mut value, &serde_json::from_slice(body).map_err(invalid)?);
            }
            Self::StrategicMerge | Self::Apply => {
                merge(&mut value, serde_json::from_slice(body).map_err(invalid)?);
            }
        }
        let Value::Object(object) = value else {
            return Err(Refusal::Invalid("the patch leaves no object".to_owned()));
        };
        Ok(object)
    }
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Object::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        // Directives say how lists are ordered; what is not merged by key is replaced anyway.
        if name.starts_with('$') {
            continue;
        }
        let merge_key = MERGE_KEYS.iter().find(|(list, _)| *list == name).map(|(_, key)| *key);
        match (value, merge_key) {
            (Value::Null, _) => {
                target.remove(&name);
            }
            (Value::Array(items), Some(key)) => {
                let list = target.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(list, items, key);
            }
            (value, _) => merge(target.entry(name).or_insert(Value::Null), value),
        }
    }
}

fn merge_list(list: &mut Value, items: Vec<Value>, key: &str) {
    let Value::Array(list) = list else {
        *list = Value::Array(items);
        return;
    };
    for item in items {
        let is_same = |old: &Value| old.get(key).is_some() && old.get(key) == item.get(key);
        let found = list.iter().position(|old| is_same(old) || *old == item);
        match found {
            Some(index) if item.get("$patch").is_some_and(|patch| patch == "delete") => {
                list.remove(index);
            }
            Some(index) => merge(&mut list[index], item),
            None => list.push(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_format_changes_an_object_in_its_way() {
        let before = json!({ "a": 1, "ports": [{ "port": 80, "name": "x" }, { "port": 81 }] });
        let cases = [
            (Format::Merge, json!({ "a": null, "ports": [] }), json!({ "ports": [] })),
            (
                Format::StrategicMerge,
                json!({ "ports": [{ "port": 80, "name": "y" }, { "port": 81, "$patch": "delete" }] }),
                json!({ "a": 1, "ports": [{ "port": 80, "name": "y" }] }),
            ),
            (
                Format::Json,
                json!([{ "op": "replace", "path": "/a", "value": 2 }, { "op": "remove", "path": "/ports" }]),
                json!({ "a": 2 }),
            ),
            (
                Format::Apply,
                json!({ "b": { "c": 1 } }),
                json!({ "a": 1, "b": { "c": 1 }, "ports": [{ "port": 80, "name": "x" }, { "port": 81 }] }),
            ),
        ];
        for (format, patch, after) in cases {
            let object = before.as_object().unwrap().clone();
            let patched = format.apply(object, patch.to_string().as_bytes()).unwrap();
            assert_eq!(Value::Object(patched), after, "{format:?}");
        }
    }
}
