use super::*;
use crate::cluster::waypoints::fixture::{documents, gateway, settings};

const OBJECTS: &str = include_str!("../../../../tests/golden/deployment/objects.yaml");

#[test]
fn a_gateway_gets_what_its_waypoint_needs() {
    let gateway = gateway(|_| {});
    let made: Vec<_> = Part::ALL.iter().map(|part| part.of(&gateway, &settings())).collect();
    let expected = documents(OBJECTS);
    assert_eq!(made.len(), expected.len());
    for (made, expected) in made.iter().zip(&expected) {
        let text = |value: &Value| serde_json::to_string_pretty(value).unwrap();
        assert_eq!(text(made), text(expected), "{}", made["kind"]);
    }
}

#[test]
fn labels_that_decide_what_an_object_is_for_are_not_those_of_the_gateways_owner() {
    let gateway = gateway(|gateway| {
        gateway["spec"]["infrastructure"] = json!({ "labels": {
            GATEWAY_NAME: "other", "istio.io/dataplane-mode": "ambient",
        }});
    });
    let deployment = Part::Deployment.of(&gateway, &settings());
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels[GATEWAY_NAME], "waypoint");
    assert_eq!(labels["istio.io/dataplane-mode"], "none");
}

#[test]
fn what_others_add_and_what_servers_fill_in_is_no_difference() {
    let wanted = json!({
        "a": 1, "none": "", "empty": {}, "list": [{ "name": "x", "value": 1 }, { "name": "y" }],
    });
    let cases = [
        (json!({ "a": 1, "list": [{ "name": "x", "value": 1 }, { "name": "y" }] }), true),
        (
            json!({
                "a": 1, "b": 2, "none": "", "empty": {},
                "list": [{ "name": "z" }, { "name": "y", "more": 1 }, { "name": "x", "value": 1 }],
            }),
            true,
        ),
        (json!({ "a": 2, "list": [{ "name": "x", "value": 1 }, { "name": "y" }] }), false),
        (json!({ "a": 1, "list": [{ "name": "x", "value": 2 }, { "name": "y" }] }), false),
        (json!({ "a": 1, "list": [{ "name": "x", "value": 1 }] }), false),
        (json!({ "a": 1 }), false),
        (json!({ "list": [{ "name": "x", "value": 1 }, { "name": "y" }] }), false),
    ];
    for (present, expected) in cases {
        assert_eq!(has(&present, &wanted), expected, "{present}");
    }
}
