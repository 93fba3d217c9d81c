//! Conditions that the leading replica writes into the status of objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_kube_api::{ApiServer, Faults};
use serde_json::{Map, Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    cluster::{cluster, start},
    plane::{SOON, eventually},
    replicas::two,
};

const POLICIES: usize = 24;
/// Longer than it takes to kill a process and to change some objects.
const SLOW: Duration = Duration::from_secs(3);
/// Longer than the program waits before it writes again.
pub(crate) const CALM: Duration = Duration::from_secs(3);
/// Pause between two looks at all policies.
const LOOK: Duration = Duration::from_millis(5);

fn policy(name: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "namespace": "default", "name": name }, "spec": { "action": "ALLOW" },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "namespace": "default", "name": name, "labels": { "istio.io/use-waypoint": "w" },
        },
        "spec": { "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }] },
    })
}

fn entry(name: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {
            "namespace": "default", "name": name, "labels": { "istio.io/use-waypoint": "w" },
        },
        "spec": {
            "hosts": ["example.com"], "resolution": "NONE",
            "ports": [{ "number": 443, "name": "tls", "protocol": "TLS" }],
        },
    })
}

fn waypoint() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "namespace": "default", "name": "w" },
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }],
        },
        "status": { "addresses": [{ "type": "IPAddress", "value": "10.96.0.9" }] },
    })
}

/// One object of each kind that has a condition.
pub(crate) fn judged() -> [Value; 3] {
    [policy("p"), service("s"), entry("e")]
}

fn conditions(object: &Map<String, Value>, kind: &str) -> Vec<Value> {
    let all = object.get("status").and_then(|status| status["conditions"].as_array());
    all.into_iter().flatten().filter(|condition| condition["type"] == kind).cloned().collect()
}

/// Changes an object as clients do, that leave alone what has changed meanwhile.
pub(crate) fn edit(server: &ApiServer, object: &Value, change: impl Fn(&mut Value)) -> Result<()> {
    let attempt = || {
        let mut present = Value::Object(server.get(object)?.context("it is gone")?);
        change(&mut present);
        server.apply(&present).map(drop)
    };
    // A write of the program may come in between.
    attempt().or_else(|_| attempt())
}

pub(crate) fn writes(server: &ApiServer) -> usize {
    let is_write = |line: &&String| line.contains("/status") && !line.contains("/gatewayclasses/");
    server.requests().iter().filter(is_write).count()
}

/// Waits until an object has one condition of a type, with this status and reason.
async fn until(server: &ApiServer, object: &Value, expected: [&str; 3]) -> Result<Value> {
    let [kind, status, reason] = expected;
    eventually(&format!("{expected:?}"), async || {
        let found = conditions(&server.get(object).unwrap()?, kind);
        let [one] = &*found else { return None };
        (one["status"] == status && one["reason"] == reason).then(|| one.clone())
    })
    .await
}

#[tokio::test]
async fn what_became_of_objects_is_in_their_status() -> Result<()> {
    const BOUND: &str = "istio.io/WaypointBound";
    let server = cluster().await?;
    for object in judged() {
        server.apply(&object)?;
    }
    let foreign = json!({ "type": "Foreign", "status": "True", "reason": "Mine" });
    edit(&server, &service("s"), |service| service["status"]["conditions"] = json!([foreign]))?;
    let _plane = start(&server, "good").await?;
    let accepted = until(&server, &policy("p"), ["ZtunnelAccepted", "True", "Accepted"]).await?;
    assert_eq!(accepted["observedGeneration"], 1);
    for object in [service("s"), entry("e")] {
        until(&server, &object, [BOUND, "False", "WaypointIsNotReady"]).await?;
    }
    server.apply(&waypoint())?;
    for object in [service("s"), entry("e")] {
        let bound = until(&server, &object, [BOUND, "True", "WaypointAccepted"]).await?;
        assert_eq!(bound["message"], "Successfully attached to waypoint default/w");
    }
    edit(&server, &policy("p"), |policy| policy["spec"]["action"] = json!("AUDIT"))?;
    let refused =
        until(&server, &policy("p"), ["ZtunnelAccepted", "False", "UnsupportedValue"]).await?;
    assert_eq!(refused["observedGeneration"], 2);
    let attached = json!([{ "group": "", "kind": "Service", "name": "s" }]);
    edit(&server, &policy("p"), |policy| policy["spec"]["targetRefs"] = attached.clone())?;
    let enforced = until(&server, &policy("p"), ["WaypointAccepted", "True", "Accepted"]).await?;
    let message = enforced["message"].as_str().unwrap_or_default();
    let by =
        "enforced by waypoint default/w for Service default/s; what is sent past it is not refused";
    assert!(message.starts_with(by), "{message}");
    let present = server.get(&policy("p"))?.context("it is gone")?;
    assert!(conditions(&present, "ZtunnelAccepted").is_empty(), "{present:?}");
    edit(&server, &service("s"), |service| service["metadata"]["labels"] = json!({}))?;
    until(&server, &policy("p"), ["WaypointAccepted", "False", "AncestorNotBound"]).await?;
    eventually("the condition goes with the binding", async || {
        let service = server.get(&service("s")).unwrap()?;
        (service["status"]["conditions"] == json!([foreign])).then_some(())
    })
    .await?;
    until(&server, &waypoint(), ["Programmed", "False", "AddressNotAssigned"]).await?;
    let before = writes(&server);
    sleep(CALM).await;
    assert_eq!(writes(&server), before, "what is as it should be is not written");
    Ok(())
}

/// The policies, looked at all the time.
#[derive(Default)]
struct History {
    generations: BTreeMap<String, i64>,
    times: BTreeMap<String, BTreeSet<String>>,
}

// === impl History ===

impl History {
    /// Looks; returns how many policies have a condition, and how many that of their generation.
    fn look(&mut self, server: &ApiServer) -> Result<(usize, usize)> {
        let (mut written, mut current) = (0, 0);
        for name in names() {
            let policy = server.get(&policy(&name))?.context("it is gone")?;
            let own = conditions(&policy, "ZtunnelAccepted");
            ensure!(own.len() <= 1, "{name}: doubled: {own:?}");
            let foreign = conditions(&policy, "Foreign");
            ensure!(foreign.len() == 1, "{name}: lost: {foreign:?}");
            let Some(own) = own.first() else {
                ensure!(!self.generations.contains_key(&name), "{name}: lost");
                continue;
            };
            let observed = own["observedGeneration"].as_i64().unwrap_or_default();
            let generation = policy["metadata"]["generation"].as_i64().unwrap_or_default();
            let before = self.generations.insert(name.clone(), observed).unwrap_or_default();
            ensure!(before <= observed && observed <= generation, "{name}: {before} {observed}");
            let time = own["lastTransitionTime"].as_str().unwrap_or_default().to_owned();
            self.times.entry(name).or_default().insert(time);
            written += 1;
            current += usize::from(observed == generation);
        }
        Ok((written, current))
    }
}

fn names() -> impl Iterator<Item = String> {
    (0..POLICIES).map(|i| format!("p{i:02}"))
}

#[tokio::test]
async fn a_leader_that_dies_while_it_writes_loses_and_doubles_nothing() -> Result<()> {
    let server = cluster().await?;
    let (mut leader, _other, _) = two(&server).await?;
    server.set_faults(Faults { status_delay: SLOW, ..Faults::default() });
    for name in names() {
        let mut policy = policy(&name);
        policy["status"] = json!({ "conditions": [{ "type": "Foreign", "status": "True" }] });
        server.apply(&policy)?;
    }
    let mut history = History::default();
    // Some are written, some writes are under way, the others are to come.
    loop {
        let written = history.look(&server)?.0;
        if written > 0 && writes(&server) > written {
            break;
        }
        sleep(LOOK).await;
    }
    leader.kill().await?;
    // The half of each is of another generation when they arrive.
    for name in names().step_by(2) {
        edit(&server, &policy(&name), |policy| policy["spec"]["rules"] = json!([{}]))?;
    }
    let (written, current) = history.look(&server)?;
    ensure!(written < POLICIES && current < written, "it was midway: {written} {current}");
    let killed = writes(&server);
    server.set_faults(Faults::default());
    let completed = async {
        while history.look(&server)?.1 < POLICIES {
            sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    timeout(SOON, completed).await.context("the next leader does not complete it")??;
    sleep(CALM).await;
    assert_eq!(history.look(&server)?, (POLICIES, POLICIES));
    for (name, times) in history.times {
        assert_eq!(times.len(), 1, "{name}: the status was never different: {times:?}");
    }
    // At most one that is overtaken, for each that is needed.
    let needed = writes(&server) - killed;
    assert!(needed <= 2 * POLICIES, "{needed}");
    Ok(())
}
