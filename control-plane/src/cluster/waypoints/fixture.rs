//! Gateways for tests.

use serde_json::{Value, json};

use super::{gateway::Gateway, manifest::Settings};
use crate::object::yaml;

const GATEWAY: &str = include_str!("../../../tests/golden/deployment/gateway.yaml");

pub(super) fn documents(text: &str) -> Vec<Value> {
    yaml::documents(text).into_iter().map(Result::unwrap).collect()
}

/// A gateway of the shop, changed.
pub(super) fn gateway(change: impl FnOnce(&mut Value)) -> Gateway {
    read(change).unwrap()
}

pub(super) fn read(change: impl FnOnce(&mut Value)) -> Option<Gateway> {
    let mut object = documents(GATEWAY).remove(0);
    change(&mut object);
    Gateway::read(serde_json::from_value(object).unwrap())
}

/// Wants these listeners, each a port and a protocol.
pub(super) fn listeners(listeners: &[(u16, &str)]) -> Value {
    let named = |(i, (port, protocol)): (usize, &(u16, &str))| json!({ "name": format!("l{i}"), "port": port, "protocol": protocol });
    listeners.iter().enumerate().map(named).collect()
}

pub(super) fn settings() -> Settings {
    Settings {
        image: "registry.example/fairlead:1".to_owned(),
        control_plane: "istiod.istio-system.svc:15012".to_owned(),
        audience: "istio-ca".to_owned(),
        trust_domain: "example.org".to_owned(),
        cluster: "c1".to_owned(),
        network: String::new(),
        domain: "cluster.local".to_owned(),
        root_namespace: "istio-system".to_owned(),
    }
}
