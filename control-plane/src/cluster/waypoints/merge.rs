//! Strategic merge of an overlay into an object, as `kubectl patch` does it: pure.

use serde_json::{Map, Value};

/// Lists whose elements are told apart by a field; others are replaced. Ports are those of a
/// container or of a service.
const MERGE_KEYS: [(&str, &str); 12] = [
    ("containers", "name"),
    ("env", "name"),
    ("hostAliases", "ip"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("ports", "containerPort"),
    ("ports", "port"),
    ("secrets", "name"),
    ("topologySpreadConstraints", "topologyKey"),
    ("volumeDevices", "devicePath"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];

/// Field of an overlay that says how it is merged.
const DIRECTIVE: &str = "$patch";

/// Why an overlay cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidOverlay {
    /// An element of a list does not say which one it is.
    #[error("{list}: give every element its {key}")]
    Unnamed {
        /// Name of the list.
        list: String,
        /// Field that tells its elements apart.
        key: &'static str,
    },
    /// It is to be merged in a way that is not known.
    #[error("{0}: use no directive but `$patch: delete` and `$patch: replace`")]
    Directive(String),
}

/// What a directive says of the object that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

/// Merges an overlay into `target`. A field that is null is removed.
pub(super) fn merge(target: &mut Value, overlay: &Value) -> Result<(), InvalidOverlay> {
    let Value::Object(overlay) = overlay else {
        target.clone_from(overlay);
        return Ok(());
    };
    if directive(overlay)? != Directive::Merge || !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return Ok(()) };
    for (name, value) in overlay.iter().filter(|(name, _)| *name != DIRECTIVE) {
        merge_field(target, name, value)?;
    }
    Ok(())
}

fn merge_field(
    target: &mut Map<String, Value>,
    name: &str,
    value: &Value,
) -> Result<(), InvalidOverlay> {
    match value {
        Value::Null => drop(target.remove(name)),
        Value::Object(fields) if directive(fields)? == Directive::Delete => {
            target.remove(name);
        }
        Value::Array(items) => {
            let list = target.entry(name).or_insert(Value::Null);
            merge_list(list, name, items)?;
        }
        Value::Object(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            merge(target.entry(name).or_insert(Value::Null), value)?;
        }
    }
    Ok(())
}

fn merge_list(list: &mut Value, name: &str, items: &[Value]) -> Result<(), InvalidOverlay> {
    let keys = || MERGE_KEYS.iter().filter(|(list, _)| *list == name).map(|(_, key)| *key);
    let Some(key) = keys().next() else {
        *list = items.to_vec().into();
        return Ok(());
    };
    let mut merged = list.as_array().cloned().unwrap_or_default();
    for item in items {
        let found = keys().find_map(|key| Some((key, item.get(key)?)));
        let Some((key, value)) = found else {
            return Err(InvalidOverlay::Unnamed { list: name.to_owned(), key });
        };
        let wanted = item.as_object().map(directive).transpose()?;
        let is_deleted = wanted == Some(Directive::Delete);
        match merged.iter().position(|present| present.get(key) == Some(value)) {
            Some(i) if is_deleted => drop(merged.remove(i)),
            Some(i) => merge(&mut merged[i], item)?,
            None if is_deleted => {}
            None => {
                let mut added = Value::Null;
                merge(&mut added, item)?;
                merged.push(added);
            }
        }
    }
    *list = merged.into();
    Ok(())
}

fn directive(overlay: &Map<String, Value>) -> Result<Directive, InvalidOverlay> {
    let unknown = overlay.keys().find(|name| name.starts_with('$') && *name != DIRECTIVE);
    if let Some(name) = unknown {
        return Err(InvalidOverlay::Directive(name.clone()));
    }
    match overlay.get(DIRECTIVE).map(|value| value.as_str().unwrap_or_default()) {
        None | Some("merge") => Ok(Directive::Merge),
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        Some(other) => Err(InvalidOverlay::Directive(format!("{DIRECTIVE}: {other}"))),
    }
}

#[cfg(test)]
mod tests;
