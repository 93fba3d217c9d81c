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
fn annotations_give_what_is_made_other_names() {
    let gateway = gateway(|gateway| {
        gateway["metadata"]["annotations"] = json!({
            "gateway.istio.io/name-override": "other", "gateway.istio.io/service-account": "keeper",
        });
    });
    let made = Part::ALL.map(|part| part.of(&gateway, &settings()));
    let names = made.each_ref().map(|object| &object["metadata"]["name"]);
    assert_eq!(names, ["keeper", "other", "other", "other", "other"]);
    let [_, service, deployment, autoscaler, _] = made;
    assert_eq!(autoscaler["spec"]["scaleTargetRef"]["name"], "other");
    let pod = &deployment["spec"]["template"];
    assert_eq!(pod["spec"]["serviceAccountName"], "keeper");
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let value = |name: &str| env.iter().find(|v| v["name"] == name).map(|v| &v["value"]);
    assert_eq!(value("SERVICE_ACCOUNT"), Some(&"keeper".into()));
    // Whose waypoint it is does not change.
    assert_eq!(value("GATEWAY_NAME"), Some(&"waypoint".into()));
    assert_eq!(pod["metadata"]["labels"][GATEWAY_NAME], "waypoint");
    assert_eq!(service["spec"]["selector"][GATEWAY_NAME], "waypoint");
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
