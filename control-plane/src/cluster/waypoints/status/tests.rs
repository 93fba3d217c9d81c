use super::*;
use crate::cluster::waypoints::fixture::{gateway, listeners};

const BEFORE: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-01-02T00:00:00Z";
const HOST: &str = "waypoint.shop.svc.cluster.local";

fn standing(is_ready: bool) -> Standing {
    let addresses = Some(vec!["10.96.0.9".to_owned()]);
    Standing { host: HOST.to_owned(), addresses, is_ready, refusal: None, problem: None }
}

fn written(standing: &Standing, change: impl FnOnce(&mut Value)) -> Value {
    let gateway = gateway(change);
    let standing = Standing { refusal: gateway.refusal(), ..standing.clone() };
    amended_status(&gateway, &standing, NOW).unwrap_or_default()
}

/// Returns status and reason of a condition.
fn condition(conditions: &Value, kind: &str) -> (String, String) {
    let all = conditions.as_array().into_iter().flatten();
    let mut named = all.filter(|condition| condition["type"] == kind);
    let found = named.next().unwrap_or_else(|| panic!("{kind}: {conditions}"));
    assert_eq!(found["observedGeneration"], 2);
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (text("status"), text("reason"))
}

fn is(expected: [&str; 2]) -> (String, String) {
    (expected[0].to_owned(), expected[1].to_owned())
}

#[test]
fn a_gateway_is_programmed_once_a_pod_is_ready() {
    let starting = written(&standing(false), |_| {});
    assert_eq!(condition(&starting["conditions"], ACCEPTED), is(["True", "Accepted"]));
    let conditions = &starting["conditions"];
    assert_eq!(condition(conditions, PROGRAMMED), is(["False", "AddressNotAssigned"]));
    assert_eq!(starting["addresses"], Value::Null);
    let ready = written(&standing(true), |_| {});
    assert_eq!(condition(&ready["conditions"], PROGRAMMED), is(["True", "Programmed"]));
    let host = json!({ "type": "Hostname", "value": HOST });
    let ip = json!({ "type": "IPAddress", "value": "10.96.0.9" });
    assert_eq!(ready["addresses"], json!([host, ip]));
    let listener = &ready["listeners"][0];
    assert_eq!(listener["name"], "mesh");
    assert_eq!((&listener["attachedRoutes"], &listener["supportedKinds"]), (&0.into(), &json!([])));
    for (kind, status) in
        [(ACCEPTED, "True"), (PROGRAMMED, "True"), (RESOLVED, "True"), (CONFLICTED, "False")]
    {
        assert_eq!(condition(&listener["conditions"], kind).0, status, "{kind}");
    }
    let asked = written(&standing(true), |gateway| {
        gateway["metadata"]["annotations"] = json!({ ADDRESS_TYPE: "IPAddress" });
    });
    assert_eq!(asked["addresses"], json!([ip]));
}

#[test]
fn what_is_as_it_should_be_is_not_written_again() {
    let ready = written(&standing(true), |_| {});
    let told = gateway(|gateway| gateway["status"] = ready.clone());
    assert_eq!(amended_status(&told, &standing(true), "later"), None);
    // Its service still stands for it: traffic is not to go past it.
    assert_eq!(amended_status(&told, &standing(false), "later"), None);
}

#[test]
fn what_others_wrote_stays() {
    let foreign = json!({ "type": "Foreign", "status": "True", "lastTransitionTime": BEFORE });
    let elsewhere = json!([{ "type": "IPAddress", "value": "192.0.2.1" }]);
    let waiting = json!({
        "type": ACCEPTED, "status": "Unknown", "reason": "Pending",
        "message": "Waiting for controller", "lastTransitionTime": BEFORE,
    });
    let status = json!({
        "conditions": [waiting, foreign], "addresses": elsewhere, "other": 1,
        "listeners": [{ "name": "mesh", "conditions": [foreign] }],
    });
    let written = written(&standing(false), |gateway| gateway["status"] = status);
    assert_eq!((&written["addresses"], &written["other"]), (&elsewhere, &1.into()));
    assert_eq!(written["conditions"][1], foreign);
    assert_eq!(written["conditions"][0]["lastTransitionTime"], NOW);
    assert_eq!(written["listeners"][0]["conditions"][0], foreign);
    assert_eq!(condition(&written["conditions"], ACCEPTED), is(["True", "Accepted"]));
}

#[test]
fn what_no_waypoint_can_be_is_refused_with_the_field_that_says_so() {
    const GOOD: (u16, &str) = (15008, "HBONE");
    const HTTP: (u16, &str) = (15008, "HTTP");
    const PORT_80: (u16, &str) = (80, "HBONE");
    let cases = [
        (&[GOOD][..], ["True", "Accepted"], "", [["True", "Accepted"], ["", ""]]),
        (
            &[HTTP],
            ["False", "ListenersNotValid"],
            "spec.listeners:",
            [["False", "UnsupportedProtocol"], ["", ""]],
        ),
        (
            &[PORT_80],
            ["False", "ListenersNotValid"],
            "spec.listeners:",
            [["False", "PortUnavailable"], ["", ""]],
        ),
        (&[], ["False", "ListenersNotValid"], "spec.listeners:", [["", ""], ["", ""]]),
        (
            &[GOOD, HTTP],
            ["True", "ListenersNotValid"],
            "spec.listeners[1].protocol:",
            [["True", "Accepted"], ["False", "UnsupportedProtocol"]],
        ),
    ];
    for (wanted, accepted, field, of_listeners) in cases {
        let status = written(&standing(true), |gateway| {
            gateway["spec"]["listeners"] = listeners(wanted);
        });
        assert_eq!(condition(&status["conditions"], ACCEPTED), is(accepted), "{wanted:?}");
        let message = status["conditions"][0]["message"].as_str().unwrap();
        assert!(message.starts_with(field), "{wanted:?}: {message}");
        let is_programmed = condition(&status["conditions"], PROGRAMMED).0;
        assert_eq!(is_programmed, accepted[0], "{wanted:?}");
        assert_eq!(status["addresses"].is_array(), accepted[0] == "True", "{wanted:?}");
        for (i, expected) in of_listeners.into_iter().enumerate().take(wanted.len()) {
            let found = condition(&status["listeners"][i]["conditions"], ACCEPTED);
            assert_eq!(found, is(expected), "{wanted:?} {i}");
        }
    }
}

#[test]
fn fields_that_nothing_comes_of_are_refused() {
    let addresses = written(&standing(true), |gateway| {
        gateway["spec"]["addresses"] = json!([{ "type": "Hostname", "value": "other" }]);
    });
    assert_eq!(condition(&addresses["conditions"], ACCEPTED), is(["False", "UnsupportedAddress"]));
    assert_eq!(condition(&addresses["conditions"], PROGRAMMED), is(["False", "Invalid"]));
    let parameters = written(&standing(true), |gateway| {
        gateway["spec"]["infrastructure"]["parametersRef"] = json!({
            "group": "example.com", "kind": "Sizes", "name": "x",
        });
    });
    let accepted = condition(&parameters["conditions"], ACCEPTED);
    assert_eq!(accepted, is(["False", "InvalidParameters"]));
}

#[test]
fn a_name_that_nothing_can_have_is_refused() {
    let long = "a".repeat(64);
    let service = ["Other", "1st", "a.b", "../secrets/x", "-a", "a-", &long];
    let account = ["Other", "../secrets/x", "a/b", "-a"];
    let of_services = service.map(|name| ("gateway.istio.io/name-override", name));
    let accounts = account.map(|name| ("gateway.istio.io/service-account", name));
    for (annotation, name) in of_services.into_iter().chain(accounts) {
        let status = written(&standing(true), |gateway| {
            gateway["metadata"]["annotations"] = json!({ annotation: name });
        });
        let accepted = condition(&status["conditions"], ACCEPTED);
        assert_eq!(accepted, is(["False", "InvalidParameters"]), "{annotation}: {name}");
        let message = status["conditions"][0]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("metadata.annotations[{annotation}]:")), "{message}");
    }
    for (annotation, name) in [
        ("gateway.istio.io/name-override", "other-1"),
        ("gateway.istio.io/service-account", "1.other"),
    ] {
        let status = written(&standing(true), |gateway| {
            gateway["metadata"]["annotations"] = json!({ annotation: name });
        });
        let accepted = condition(&status["conditions"], ACCEPTED);
        assert_eq!(accepted, is(["True", "Accepted"]), "{annotation}: {name}");
    }
}

#[test]
fn what_keeps_a_waypoint_from_being_made_is_said() {
    let problem = Some("there is a Service waypoint".to_owned());
    let status = written(&Standing { problem, ..standing(false) }, |_| {});
    assert_eq!(condition(&status["conditions"], ACCEPTED), is(["True", "Accepted"]));
    assert_eq!(condition(&status["conditions"], PROGRAMMED), is(["False", "Invalid"]));
    assert_eq!(status["conditions"][1]["message"], "there is a Service waypoint");
}
