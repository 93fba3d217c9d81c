use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

use super::*;
use crate::cluster::waypoints::fixture::{gateway, read, settings};

const NOW: &str = "2026-01-02T00:00:00Z";

fn class(controller: &str) -> Class {
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": { "name": WAYPOINT_CLASS, "resourceVersion": "1" },
        "spec": { "controllerName": controller },
    });
    Class::read(&serde_json::from_value(object).unwrap())
}

/// What every waypoint has.
const USUAL: [Part; 3] = [Part::ServiceAccount, Part::Service, Part::Deployment];

/// Everything is known, and there is nothing but the class.
fn known() -> Plan {
    let mut plan = Plan::new(settings());
    plan.take(Event::Class(Init));
    plan.take(Event::Class(InitApply((
        WAYPOINT_CLASS.to_owned(),
        class("istio.io/mesh-controller"),
    ))));
    plan.take(Event::Class(InitDone));
    plan.take(Event::Gateway(Init));
    plan.take(Event::Gateway(InitDone));
    assert_eq!(plan.due(NOW), [], "not everything is known");
    plan.take(Event::Parameters(Init));
    plan.take(Event::Parameters(InitDone));
    for part in Part::ALL {
        assert_eq!(plan.due(NOW), [], "not everything is known");
        plan.take(Event::Part(part, Init));
        plan.take(Event::Part(part, InitDone));
    }
    plan.due(NOW);
    plan
}

fn name() -> ObjectName {
    ObjectName::new("shop", "waypoint")
}

fn applied(gateway: Gateway) -> Event {
    Event::Gateway(Apply((gateway.name.clone(), Some(Box::new(gateway)))))
}

fn kinds(due: &[Write]) -> Vec<String> {
    due.iter().map(ToString::to_string).collect()
}

/// What is there after a write, as the server has it at a version.
fn event_of(write: &Write, version: &str) -> Option<Event> {
    let Write::Part { part, object, .. } = write else { return None };
    let made = Made { version: version.into(), object: object.clone() };
    Some(Event::Part(*part, Apply((name(), made))))
}

/// Does all that is due, and takes the events of it.
fn settle(plan: &mut Plan, version: &str) {
    let due = plan.due(NOW);
    let events: Vec<_> = due.iter().filter_map(|write| event_of(write, version)).collect();
    for write in due {
        plan.done(write, Outcome::Done(version.into()));
    }
    for event in events {
        plan.take(event);
    }
}

#[test]
fn a_gateway_gets_its_parts_and_a_status_once() {
    let mut plan = known();
    plan.take(applied(gateway(|_| {})));
    let due = plan.due(NOW);
    let expected = [
        "ServiceAccount of Gateway shop/waypoint",
        "Service of Gateway shop/waypoint",
        "Deployment of Gateway shop/waypoint",
        "status of Gateway shop/waypoint",
    ];
    assert_eq!(kinds(&due), expected);
    let mut plan = known();
    plan.take(applied(gateway(|_| {})));
    settle(&mut plan, "8");
    assert_eq!(kinds(&plan.due(NOW)), [""; 0]);
}

#[test]
fn gateways_that_are_none_of_ours_get_nothing() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 4] = [
        ("another class", |gateway| gateway["spec"]["gatewayClassName"] = "istio".into()),
        ("being deleted", |gateway| gateway["metadata"]["deletionTimestamp"] = NOW.into()),
        ("refused", |gateway| gateway["spec"]["listeners"] = json!([])),
        ("not a gateway", |gateway| gateway["spec"] = 1.into()),
    ];
    for (case, change) in cases {
        let mut plan = known();
        plan.take(Event::Gateway(Apply((name(), read(change).map(Box::new)))));
        let parts = plan.due(NOW).into_iter().filter(|w| matches!(w, Write::Part { .. })).count();
        assert_eq!(parts, 0, "{case}");
    }
    let mut plan = known();
    let other = (WAYPOINT_CLASS.to_owned(), class("example.com/controller"));
    plan.take(Event::Class(Apply(other)));
    plan.take(applied(gateway(|_| {})));
    assert_eq!(plan.due(NOW), [], "the class is another controller's");
}

#[test]
fn the_class_is_made_and_accepted() {
    let mut plan = known();
    plan.take(Event::Class(Delete((WAYPOINT_CLASS.to_owned(), class("istio.io/mesh-controller")))));
    plan.take(applied(gateway(|_| {})));
    assert_eq!(plan.due(NOW), [Write::Class], "gateways wait for the class");
    plan.done(Write::Class, Outcome::Failed);
    assert!(plan.has_failed());
    plan.retry();
    assert_eq!(plan.due(NOW), [Write::Class]);
    plan.take(Event::Class(Apply((WAYPOINT_CLASS.to_owned(), class("istio.io/mesh-controller")))));
    let due = plan.due(NOW);
    let Some(Write::ClassStatus(patch)) = due.first() else { panic!("{due:?}") };
    assert_eq!(patch["status"]["conditions"][0]["type"], "Accepted");
    assert_eq!(due.len(), 5, "and the gateway's");
}

/// The deployment at a version, changed.
fn deployment(version: &str, change: impl FnOnce(&mut Value)) -> (ObjectName, Made) {
    let mut object = Part::Deployment.of(&gateway(|_| {}), &settings());
    change(&mut object);
    (name(), Made { version: version.into(), object })
}

/// Returns the parts that are due.
fn due_parts(plan: &mut Plan) -> Vec<String> {
    let due = plan.due(NOW).into_iter().filter(|write| matches!(write, Write::Part { .. }));
    due.map(|write| write.to_string()).collect()
}

#[test]
fn every_way_to_spoil_a_part_is_repaired() {
    type Change = fn(&mut Value);
    let repair = ["Deployment of Gateway shop/waypoint"];
    let cases: [(&str, &str, Change, &[&str]); 5] = [
        (
            "changed",
            "10",
            |object| object["spec"]["template"]["spec"]["containers"][0]["image"] = "x".into(),
            &repair,
        ),
        (
            "without an owner",
            "11",
            |object| object["metadata"]["ownerReferences"] = json!([]),
            &repair,
        ),
        (
            "scaled, which is left to others",
            "12",
            |object| object["spec"]["replicas"] = 3.into(),
            &[],
        ),
        (
            "as the server has it after our own write",
            "8",
            |object| object["spec"]["selector"] = json!({}),
            &[],
        ),
        (
            "of an earlier gateway, with which it goes",
            "13",
            |object| object["metadata"]["ownerReferences"][0]["uid"] = "older".into(),
            &[],
        ),
    ];
    let mut plan = known();
    plan.take(applied(gateway(|_| {})));
    settle(&mut plan, "8");
    for (case, version, change, expected) in cases {
        plan.take(Event::Part(Part::Deployment, Apply(deployment(version, change))));
        assert_eq!(due_parts(&mut plan), expected, "{case}");
    }
}

#[test]
fn a_part_that_is_removed_is_made_again() {
    let mut plan = known();
    plan.take(applied(gateway(|_| {})));
    settle(&mut plan, "8");
    plan.take(Event::Part(Part::Deployment, Delete(deployment("9", |_| {}))));
    assert_eq!(due_parts(&mut plan), ["Deployment of Gateway shop/waypoint"]);
    // A list that does not have it.
    plan.take(Event::Part(Part::Service, Init));
    plan.take(Event::Part(Part::Service, InitDone));
    let due = due_parts(&mut plan);
    assert!(due.contains(&"Service of Gateway shop/waypoint".to_owned()), "{due:?}");
}

#[test]
fn another_gateway_makes_other_parts() {
    let mut plan = known();
    plan.take(applied(gateway(|_| {})));
    settle(&mut plan, "8");
    plan.take(applied(gateway(|gateway| {
        gateway["metadata"]["resourceVersion"] = "9".into();
        // What is there has all that is wanted, and more.
        gateway["spec"]["infrastructure"]["labels"] = json!({});
    })));
    assert_eq!(kinds(&plan.due(NOW)).len(), 4);
}

#[test]
fn a_gateway_has_the_addresses_of_its_service_when_its_pod_is_ready() {
    let mut plan = known();
    plan.take(applied(gateway(|_| {})));
    settle(&mut plan, "8");
    let server = |part: Part, change: fn(&mut Value)| {
        let mut object = part.of(&gateway(|_| {}), &settings());
        change(&mut object);
        Event::Part(part, Apply((name(), Made { version: "10".into(), object })))
    };
    plan.take(server(Part::Service, |service| {
        service["spec"]["clusterIP"] = "10.96.0.9".into();
    }));
    plan.take(server(Part::Deployment, |deployment| {
        deployment["status"] = json!({ "readyReplicas": 1 });
    }));
    assert_eq!(plan.due(NOW), [], "a status has been written to this version");
    plan.take(applied(gateway(|gateway| gateway["metadata"]["resourceVersion"] = "9".into())));
    let due = plan.due(NOW);
    let [Write::Status { version, status, .. }] = &due[..] else { panic!("{due:?}") };
    assert_eq!(**version, *"9");
    assert_eq!(status["addresses"][0]["value"], "waypoint.shop.svc.cluster.local");
    assert_eq!(status["addresses"][1]["value"], "10.96.0.9");
}

/// The gateway `waypoint`, or another one, whose service and account have these names.
fn naming(gateway_name: &str, service: &str, account: &str) -> Gateway {
    gateway(|gateway| {
        gateway["metadata"]["name"] = gateway_name.into();
        gateway["metadata"]["uid"] = format!("uid of {gateway_name}").into();
        gateway["metadata"]["annotations"] = json!({
            "gateway.istio.io/name-override": service,
            "gateway.istio.io/service-account": account,
        });
    })
}

#[test]
fn what_is_made_under_another_name_is_followed_by_it() {
    let mut plan = known();
    let named = naming("waypoint", "other", "keeper");
    plan.take(applied(named.clone()));
    let made = |part: Part, change: fn(&mut Value)| {
        let mut object = part.of(&named, &settings());
        change(&mut object);
        (part.name(&named), Made { version: "9".into(), object })
    };
    for write in plan.due(NOW) {
        plan.done(write, Outcome::Done("9".into()));
    }
    for part in USUAL {
        plan.take(Event::Part(part, Apply(made(part, |_| {}))));
    }
    assert_eq!(kinds(&plan.due(NOW)), [""; 0]);
    let repaired = [
        (Part::ServiceAccount, "ServiceAccount of Gateway shop/waypoint"),
        (Part::Service, "Service of Gateway shop/waypoint"),
    ];
    for (part, repair) in repaired {
        plan.take(Event::Part(part, Delete(made(part, |_| {}))));
        assert_eq!(due_parts(&mut plan), [repair]);
        plan.take(Event::Part(part, Apply(made(part, |_| {}))));
    }
    plan.take(Event::Part(
        Part::Service,
        Apply(made(Part::Service, |service| service["spec"]["clusterIP"] = "10.96.0.9".into())),
    ));
    plan.take(Event::Part(
        Part::Deployment,
        Apply(made(Part::Deployment, |object| object["status"] = json!({ "readyReplicas": 1 }))),
    ));
    let mut later = named.clone();
    later.version = "10".into();
    plan.take(applied(later));
    let due = plan.due(NOW);
    let told = due.iter().find_map(|write| match write {
        Write::Status { status, .. } => Some(&status["addresses"][0]["value"]),
        Write::Class | Write::ClassStatus(_) | Write::Part { .. } | Write::Remove { .. } => None,
    });
    assert_eq!(told, Some(&"other.shop.svc.cluster.local".into()));
}

#[test]
fn two_gateways_may_share_an_account_and_no_service() {
    let mut plan = known();
    let [first, second] = ["first", "second"].map(|name| naming(name, "same", "keeper"));
    plan.take(applied(first.clone()));
    plan.take(applied(second));
    for part in USUAL {
        let object = part.of(&first, &settings());
        let made = Made { version: "8".into(), object };
        plan.take(Event::Part(part, Apply((part.name(&first), made))));
    }
    let due = plan.due(NOW);
    let said = due.iter().find_map(|write| match write {
        Write::Status { gateway, status, .. } if *gateway.name == *"second" => {
            status["conditions"][1]["message"].as_str()
        }
        Write::Class
        | Write::ClassStatus(_)
        | Write::Part { .. }
        | Write::Remove { .. }
        | Write::Status { .. } => None,
    });
    assert!(said.unwrap().starts_with("the Service same is that of Gateway first:"), "{said:?}");
    assert!(due.iter().all(|write| !matches!(
        write, Write::Part { gateway, .. } if *gateway.name == *"second"
    )));
}

#[test]
fn what_cannot_be_made_is_tried_again_and_said_in_the_status() {
    let mut plan = known();
    plan.take(applied(gateway(|_| {})));
    for write in plan.due(NOW) {
        let outcome = match &write {
            Write::Part { part: Part::Deployment, .. } => Outcome::Refused("quota".to_owned()),
            Write::Part { .. } => Outcome::Foreign,
            Write::Class | Write::ClassStatus(_) | Write::Remove { .. } | Write::Status { .. } => {
                Outcome::Failed
            }
        };
        plan.done(write, outcome);
    }
    let said = |due: &[Write]| {
        let status = due.iter().find_map(|write| match write {
            Write::Status { status, .. } => Some(status),
            Write::Class | Write::ClassStatus(_) | Write::Part { .. } | Write::Remove { .. } => {
                None
            }
        });
        status.unwrap()["conditions"][1]["message"].as_str().unwrap().to_owned()
    };
    let due = plan.due(NOW);
    // An account of that name is used, whoever made it.
    assert!(said(&due).contains("there is a Service waypoint"), "{}", said(&due));
    assert!(plan.has_failed());
    plan.retry();
    let due = plan.due(NOW);
    for write in due {
        let outcome = match &write {
            Write::Part { part: Part::Deployment, .. } => Outcome::Refused("quota".to_owned()),
            Write::Part { .. } => Outcome::Done("8".into()),
            Write::Class | Write::ClassStatus(_) | Write::Remove { .. } | Write::Status { .. } => {
                Outcome::Failed
            }
        };
        plan.done(write, outcome);
    }
    assert_eq!(said(&plan.due(NOW)), "quota");
}

/// What happens to a config map with this name, these labels and this content.
fn parameters(name: &str, labels: &Value, data: &Value) -> (ObjectName, Parameters) {
    let (namespace, own) = name.split_once('/').unwrap();
    let map = json!({
        "metadata": { "namespace": namespace, "name": own, "labels": labels }, "data": data,
    });
    (ObjectName::new(namespace, own), Parameters::read(serde_json::from_value(map).unwrap()))
}

fn referring(map: &str) -> Gateway {
    gateway(|gateway| {
        gateway["spec"]["infrastructure"]["parametersRef"] =
            json!({ "group": "", "kind": "ConfigMap", "name": map });
    })
}

#[test]
fn a_config_map_that_a_gateway_refers_to_is_followed() {
    let mut plan = known();
    plan.take(applied(referring("sizes")));
    assert_eq!(kinds(&plan.due(NOW)), ["status of Gateway shop/waypoint"], "it is missing");
    let sizes = |data: &Value| parameters("shop/sizes", &json!({}), data);
    let two = json!({ "deployment": "spec: {replicas: 2}" });
    plan.take(Event::Parameters(Apply(sizes(&two))));
    let made = due_parts(&mut plan);
    let usual = USUAL.map(|part| format!("{} of Gateway shop/waypoint", part.kind()));
    assert_eq!(made, usual);
    // What is no difference to it is passed over, and so is what is of others.
    plan.take(Event::Parameters(Apply(sizes(&two))));
    plan.take(Event::Parameters(Apply(parameters("shop/others", &json!({}), &two))));
    assert_eq!(due_parts(&mut plan), [""; 0]);
    let three = json!({ "deployment": "spec: {replicas: 3}", "podDisruptionBudget": "" });
    plan.take(Event::Parameters(Apply(sizes(&three))));
    let due = plan.due(NOW);
    let replicas = due.iter().find_map(|write| match write {
        Write::Part { part: Part::Deployment, object, .. } => Some(&object["spec"]["replicas"]),
        Write::Class
        | Write::ClassStatus(_)
        | Write::Part { .. }
        | Write::Remove { .. }
        | Write::Status { .. } => None,
    });
    assert_eq!(replicas, Some(&3.into()));
    assert!(kinds(&due).contains(&"PodDisruptionBudget of Gateway shop/waypoint".to_owned()));
    // One that cannot be used leaves what there is.
    plan.take(Event::Parameters(Apply(sizes(&json!({ "deploment": "" })))));
    assert_eq!(due_parts(&mut plan), [""; 0]);
}

#[test]
fn what_nothing_asks_for_any_more_is_removed_if_it_is_of_the_gateway() {
    let budget = |owner: &str| {
        let mut object = Part::PodDisruptionBudget.of(&gateway(|_| {}), &settings());
        object["metadata"]["uid"] = "1".into();
        object["metadata"]["ownerReferences"][0]["uid"] = owner.into();
        (name(), Made { version: "9".into(), object })
    };
    let own = gateway(|_| {}).uid;
    for (owner, expected) in [(&*own, 1), ("another", 0)] {
        let mut plan = known();
        plan.take(applied(gateway(|_| {})));
        settle(&mut plan, "8");
        plan.take(Event::Part(Part::PodDisruptionBudget, Apply(budget(owner))));
        let due = plan.due(NOW);
        let removals = due.iter().filter(|write| {
            matches!(
                write,
                Write::Remove { part: Part::PodDisruptionBudget, uid, .. } if uid == "1"
            )
        });
        assert_eq!((removals.count(), due.len()), (expected, expected), "{owner}");
    }
}

#[test]
fn a_config_map_of_the_root_namespace_is_for_all_gateways_of_its_class() {
    let mut plan = known();
    plan.take(applied(gateway(|_| {})));
    settle(&mut plan, "8");
    let label = |class: &str| json!({ "gateway.istio.io/defaults-for-class": class });
    let data = json!({ "deployment": "spec: {replicas: 2}" });
    let own = label(WAYPOINT_CLASS);
    for map in [
        parameters("istio-system/other", &label("istio"), &data),
        parameters("shop/defaults", &own, &data),
    ] {
        plan.take(Event::Parameters(Apply(map)));
        assert_eq!(due_parts(&mut plan), [""; 0]);
    }
    let defaults = parameters("istio-system/defaults", &own, &data);
    plan.take(Event::Parameters(Apply(defaults.clone())));
    settle(&mut plan, "9");
    let deployment = plan.present(&gateway(|_| {}), Part::Deployment).unwrap();
    assert_eq!(deployment.object["spec"]["replicas"], 2);
    plan.take(Event::Parameters(Delete(defaults)));
    assert_eq!(due_parts(&mut plan), ["Deployment of Gateway shop/waypoint"]);
}
