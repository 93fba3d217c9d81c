//! Start with a mesh of 10,000 workloads and 1,000 services: time and memory.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::Result;
use fairlead_lab::{MeshConfig, PortList, ServiceEntry, WorkloadEntry};

use crate::{rig::Rig, sample::Sample, usage::KIB_PER_MIB};

const WORKLOADS: u32 = 10_000;

/// Each has its share of the workloads as endpoints.
const SERVICES: u32 = 1_000;

/// Kubernetes namespaces, and nodes, that workloads are spread over.
const NAMESPACES: u32 = 100;

/// First address of the workloads, in a network that no pod of the lab is in.
const FIRST_WORKLOAD: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 0);

/// First address of the services.
const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);

pub(super) fn measure(rig: &mut Rig, _: Duration) -> Result<Sample> {
    let small = rig.config();
    let empty_start = rig.restart_proxies(&small)?;
    let empty = rig.usage()?.memory(rig.client.node());
    let start = rig.restart_proxies(&with_many(small))?;
    let full = rig.usage()?.memory(rig.client.node());
    let mut sample = Sample::default();
    let load = start.as_secs_f64() - empty_start.as_secs_f64();
    sample.add("load time", "s", load);
    sample.add("start to ready", "s", start.as_secs_f64());
    sample.add("start to ready, 2 workloads", "s", empty_start.as_secs_f64());
    sample.add("resident", "MiB", full.resident / KIB_PER_MIB);
    sample.add("resident, 2 workloads", "MiB", empty.resident / KIB_PER_MIB);
    Ok(sample)
}

fn with_many(mut config: MeshConfig) -> MeshConfig {
    let services: Vec<ServiceEntry> = (0..SERVICES).map(service).collect();
    config.workloads.extend((0..WORKLOADS).map(|number| {
        let service = &services[(number % SERVICES) as usize];
        workload(number, service)
    }));
    config.services.extend(services);
    config
}

fn service(number: u32) -> ServiceEntry {
    let namespace = format!("ns-{}", number % NAMESPACES);
    let address = Ipv4Addr::from(u32::from(FIRST_SERVICE) + number);
    ServiceEntry::new(&namespace, &format!("svc-{number}")).address(address).port(80, 8080)
}

fn workload(number: u32, service: &ServiceEntry) -> WorkloadEntry {
    let (name, namespace) = (format!("pod-{number}"), service.namespace.clone());
    let address = Ipv4Addr::from(u32::from(FIRST_WORKLOAD) + number);
    let ports = PortList { ports: service.ports.clone() };
    WorkloadEntry {
        uid: format!("Kubernetes//Pod/{namespace}/{name}"),
        name,
        namespace,
        service_account: service.name.clone(),
        addresses: vec![IpAddr::V4(address)],
        hostname: None,
        network: String::new(),
        tunnel_protocol: "HBONE".to_owned(),
        node: format!("node-{}", number % NAMESPACES),
        services: [(service.key(), ports)].into(),
        authorization_policies: Vec::new(),
        application_tunnel: None,
        network_gateway: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn workloads_are_spread_evenly_and_have_addresses_of_their_own() {
        let config = with_many(MeshConfig::default());
        assert_eq!(config.workloads.len(), 10_000);
        assert_eq!(config.services.len(), 1_000);
        let addresses: HashSet<_> = config.workloads.iter().map(|w| w.addresses[0]).collect();
        assert_eq!(addresses.len(), 10_000);
        let key = config.services[7].key();
        let endpoints = config.workloads.iter().filter(|w| w.services.contains_key(&key));
        assert_eq!(endpoints.count(), 10);
    }
}
