use serde_json::json;

use super::*;

fn merged(target: &Value, overlay: &Value) -> Result<Value, InvalidOverlay> {
    let mut target = target.clone();
    merge(&mut target, overlay).map(|()| target)
}

#[test]
fn an_overlay_changes_what_it_names_and_nothing_else() {
    let container = |more: Value| json!({ "containers": [{ "name": "a", "env": [more] }] });
    let x = json!({ "name": "X", "value": "1" });
    let cases = [
        (
            json!({ "a": 1, "b": { "c": 2 } }),
            json!({ "b": { "d": 3 } }),
            json!({ "a": 1, "b": { "c": 2, "d": 3 } }),
        ),
        (json!({ "a": { "b": 1 } }), json!({ "a": 2 }), json!({ "a": 2 })),
        (json!({ "a": 1, "b": 2 }), json!({ "a": null }), json!({ "b": 2 })),
        (
            json!({ "b": 2 }),
            json!({ "a": { "c": null, "d": 1 } }),
            json!({ "a": { "d": 1 }, "b": 2 }),
        ),
        // Lists of elements that have names.
        (
            container(x.clone()),
            json!({ "containers": [{ "name": "a", "image": "i" }, { "name": "b" }] }),
            json!({ "containers": [{ "name": "a", "image": "i", "env": [x] }, { "name": "b" }] }),
        ),
        (
            container(x.clone()),
            container(json!({ "name": "X", "value": "2" })),
            container(json!({ "name": "X", "value": "2" })),
        ),
        (
            json!({ "ports": [{ "port": 80, "name": "x" }, { "port": 81 }] }),
            json!({ "ports": [{ "port": 80, "name": "y" }, { "port": 82 }] }),
            json!({ "ports": [{ "port": 80, "name": "y" }, { "port": 81 }, { "port": 82 }] }),
        ),
        (
            json!({ "ports": [{ "containerPort": 80 }] }),
            json!({ "ports": [{ "containerPort": 80, "name": "y" }] }),
            json!({ "ports": [{ "containerPort": 80, "name": "y" }] }),
        ),
        // Others.
        (json!({ "args": ["a"] }), json!({ "args": ["b"] }), json!({ "args": ["b"] })),
        // Directives.
        (
            json!({ "volumes": [{ "name": "a" }, { "name": "b" }] }),
            json!({ "volumes": [{ "name": "a", "$patch": "delete" }, { "name": "c", "$patch": "delete" }] }),
            json!({ "volumes": [{ "name": "b" }] }),
        ),
        (
            json!({ "a": { "b": 1 }, "c": { "d": 1 } }),
            json!({ "a": { "$patch": "replace", "e": 2 }, "c": { "$patch": "delete" } }),
            json!({ "a": { "e": 2 } }),
        ),
    ];
    for (target, overlay, expected) in cases {
        assert_eq!(merged(&target, &overlay), Ok(expected), "{overlay}");
    }
}

#[test]
fn what_cannot_be_merged_says_where() {
    let cases = [
        (json!({ "containers": [{ "image": "i" }] }), "containers: give every element its name"),
        (json!({ "ports": [1] }), "ports: give every element its containerPort"),
        (
            json!({ "a": { "$retainKeys": ["b"] } }),
            "$retainKeys: use no directive but `$patch: delete` and `$patch: replace`",
        ),
        (
            json!({ "a": { "$patch": "append" } }),
            "$patch: append: use no directive but `$patch: delete` and `$patch: replace`",
        ),
    ];
    for (overlay, expected) in cases {
        let error = merged(&json!({}), &overlay).unwrap_err();
        assert_eq!(error.to_string(), expected, "{overlay}");
    }
}
