//! What the proxy knows and does, for operators. The names are those of Istio's node proxy, so that
//! what reads its dump reads this one.

use std::collections::BTreeMap;

use mesh_api::{
    policy::{Action, Clause, Condition, Match, Policy, Rule, Scope, StringMatch},
    workload::{
        GatewayAddress, GatewayDestination, Health, NetworkMode, Service, TunnelProtocol,
        UnknownDestinations, Workload,
    },
};
use serde_json::{Value, json};

use super::connections::LiveConnection;
use crate::{state::MeshState, telemetry::metrics::Reporter};

/// Connections of each thread that are listed: a list of more is nothing to read, and some 10 MB.
pub const MAX_LISTED: usize = 10_000;

/// Returns the workloads, by uid.
pub fn workloads(state: &MeshState) -> Value {
    let mut workloads: Vec<_> = state.workloads().collect();
    workloads.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
    workloads.into_iter().map(|workload| self::workload(workload)).collect()
}

/// Returns the services, by namespace and host name.
pub fn services(state: &MeshState) -> Value {
    let mut services: Vec<_> = state.services().collect();
    services.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    services.into_iter().map(|service| self::service(service)).collect()
}

/// Returns the policies, by namespace and name.
pub fn policies(state: &MeshState) -> Value {
    state.policies().map(policy).collect()
}

/// Returns the pods of this node that have connections, with these.
pub fn connections(live: Vec<LiveConnection>) -> Value {
    let mut pods: BTreeMap<String, [Vec<Value>; 2]> = BTreeMap::new();
    for connection in live {
        let described = self::connection(&connection);
        let of_pod = pods.entry(connection.pod).or_default();
        of_pod[connection.reporter as usize].push(described);
    }
    let pods = pods.into_iter().map(|(pod, [outbound, inbound])| {
        (pod, json!({ "connections": { "inbound": inbound, "outbound": outbound } }))
    });
    Value::Object(pods.collect())
}

fn connection(live: &LiveConnection) -> Value {
    let (sent, received) = match live.reporter {
        Reporter::Source => (live.request_bytes, live.response_bytes),
        Reporter::Destination => (live.response_bytes, live.request_bytes),
    };
    json!({
        "src": live.source.to_string(),
        "originalDst": live.requested.to_string(),
        "actualDst": live.destination.to_string(),
        "protocol": if live.in_tunnel { "HBONE" } else { "TCP" },
        "srcIdentity": live.source_identity,
        "dstIdentity": live.destination_identity,
        "bytesSent": sent,
        "bytesReceived": received,
        "ageSeconds": live.age.as_secs(),
    })
}

fn workload(workload: &Workload) -> Value {
    let services: Vec<_> = workload.services.keys().map(ToString::to_string).collect();
    let policies: Vec<_> =
        workload.authorization_policies.iter().map(ToString::to_string).collect();
    let mode = match workload.network_mode {
        NetworkMode::Standard => "Standard",
        NetworkMode::HostNetwork => "HostNetwork",
    };
    json!({
        "uid": workload.uid.to_string(),
        "name": workload.name,
        "namespace": workload.namespace().as_str(),
        "trustDomain": workload.identity.trust_domain.as_str(),
        "serviceAccount": workload.identity.service_account.as_str(),
        "workloadIps": workload.addresses,
        "hostname": workload.hostname,
        "network": workload.network.0,
        "networkMode": mode,
        "node": workload.node.0,
        "protocol": match workload.tunnel_protocol {
            TunnelProtocol::None => "TCP",
            TunnelProtocol::Hbone => "HBONE",
        },
        "workloadName": workload.workload_name,
        "canonicalName": workload.canonical_name,
        "canonicalRevision": workload.canonical_revision,
        "clusterId": workload.cluster_id,
        "locality": {
            "region": workload.locality.region,
            "zone": workload.locality.zone,
            "subzone": workload.locality.subzone,
        },
        "services": services,
        "networkGateway": workload.network_gateway.as_ref().map(gateway),
        "waypoint": workload.waypoint.as_ref().map(gateway),
        "authorizationPolicies": policies,
        "status": match workload.health {
            Health::Healthy => "Healthy",
            Health::Unhealthy => "Unhealthy",
        },
        "outboundTrafficPolicy": workload.unknown_destinations.map(|unknown| match unknown {
            UnknownDestinations::Pass => "ALLOW_ANY",
            UnknownDestinations::Refuse => "REGISTRY_ONLY",
        }),
        "capacity": workload.capacity,
    })
}

fn service(service: &Service) -> Value {
    let vip =
        |vip: &mesh_api::workload::ServiceAddress| format!("{}/{}", vip.network.0, vip.address);
    let ports = service.ports.iter().map(|port| {
        (port.service_port.to_string(), port.target_port.map_or(Value::Null, Value::from))
    });
    let port_names = service.port_names.iter();
    let port_names = port_names.map(|port| (port.name.to_string(), Value::from(port.service_port)));
    json!({
        "name": service.name,
        "namespace": service.key.namespace.as_str(),
        "hostname": service.key.hostname,
        "vips": service.addresses.iter().map(vip).collect::<Vec<_>>(),
        "ports": Value::Object(ports.collect()),
        "portNames": Value::Object(port_names.collect()),
        "subjectAltNames":
            service.subject_alt_names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "waypoint": service.waypoint.as_ref().map(gateway),
    })
}

fn gateway(gateway: &GatewayAddress) -> Value {
    let destination = match &gateway.destination {
        GatewayDestination::Hostname(key) => key.to_string(),
        GatewayDestination::Address(network, address) => format!("{}/{address}", network.0),
    };
    json!({ "destination": destination, "hboneMtlsPort": gateway.hbone_port })
}

fn policy(policy: &Policy) -> Value {
    let scope = match policy.scope {
        Scope::Global => "Global",
        Scope::Namespace => "Namespace",
        Scope::WorkloadSelector => "WorkloadSelector",
    };
    json!({
        "name": policy.key.name,
        "namespace": policy.key.namespace.as_str(),
        "scope": scope,
        "action": match policy.action {
            Action::Allow => "Allow",
            Action::Deny => "Deny",
        },
        "dryRun": policy.dry_run,
        "rules": policy.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

fn rule(rule: &Rule) -> Value {
    let clause = |clause: &Clause| clause.matches.iter().map(conditions).collect::<Value>();
    rule.clauses.iter().map(clause).collect()
}

/// Writes the conditions that there are.
fn conditions(conditions: &Match) -> Value {
    let Match {
        namespaces,
        principals,
        service_accounts,
        source_ips,
        destination_ips,
        destination_ports,
    } = conditions;
    let account = |account: &mesh_api::policy::ServiceAccountMatch| {
        format!("{}/{}", account.namespace, account.service_account)
    };
    let all = [
        ("namespaces", condition(namespaces, text)),
        ("principals", condition(principals, text)),
        ("serviceAccounts", condition(service_accounts, account)),
        ("sourceIps", condition(source_ips, ToString::to_string)),
        ("destinationIps", condition(destination_ips, ToString::to_string)),
        ("destinationPorts", condition(destination_ports, ToString::to_string)),
    ];
    let there = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect())
}

/// Writes what must hit, and with an exclamation mark what must not.
fn condition<T>(condition: &Condition<T>, text: impl Fn(&T) -> String) -> Option<Value> {
    let hits = condition.any_of.iter().map(&text);
    let misses = condition.none_of.iter().map(|value| format!("!{}", text(value)));
    let all: Vec<_> = hits.chain(misses).collect();
    (!all.is_empty()).then(|| all.into())
}

/// Writes a comparison as a policy does.
fn text(value: &StringMatch) -> String {
    match value {
        StringMatch::Exact(text) => text.to_string(),
        StringMatch::Prefix(text) => format!("{text}*"),
        StringMatch::Suffix(text) => format!("*{text}"),
        StringMatch::Presence => "*".to_owned(),
    }
}

#[cfg(test)]
mod tests;
