//! Objects as JSON.

use serde_json::{Map, Value, json};

/// An object of any kind.
pub type Object = Map<String, Value>;

/// Returns a text of the metadata, empty if there is none.
pub(crate) fn metadata<'a>(object: &'a Object, field: &str) -> &'a str {
    let metadata = object.get("metadata").and_then(Value::as_object);
    metadata.and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the metadata to write to.
pub(crate) fn metadata_mut(object: &mut Object) -> &mut Object {
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    let Value::Object(metadata) = metadata else { unreachable!("was made an object") };
    metadata
}

/// Returns only the metadata, as clients ask for that watch large objects for a label.
pub(crate) fn partial(object: &Object) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadata",
        "metadata": object.get("metadata"),
    })
}

/// Returns whether all but metadata that the server keeps is equal.
pub(crate) fn same_content(a: &Object, b: &Object) -> bool {
    without_bookkeeping(a) == without_bookkeeping(b)
}

fn without_bookkeeping(object: &Object) -> Object {
    let mut object = object.clone();
    for field in ["resourceVersion", "generation", "managedFields"] {
        metadata_mut(&mut object).remove(field);
    }
    object
}
