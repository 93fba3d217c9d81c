//! Service entries and workload entries.

use std::{collections::HashSet, net::IpAddr};

use mesh_api::crd::{EntryPort, Resolution, ServiceEntry, WorkloadEntry};

use super::{
    InvalidObject, Problem, account, at_most, each, match_labels, port, ranges, traffic::export_to,
};

/// Most host names of a service entry, as the API limits them.
const MAX_HOSTS: usize = 256;
/// Most addresses of a service entry, as the API limits them.
const MAX_ADDRESSES: usize = 256;
/// Most endpoints of a service entry, as the API limits them.
const MAX_ENDPOINTS: usize = 4096;

const UNIX_SCHEME: &str = "unix://";

/// Checks the specification of a service entry.
pub(super) fn check_service(spec: &ServiceEntry) -> Result<(), InvalidObject> {
    check_hosts(&spec.hosts)?;
    at_most("addresses", spec.addresses.len(), MAX_ADDRESSES)?;
    ranges("addresses", &spec.addresses)?;
    check_ports(&spec.ports)?;
    at_most("endpoints", spec.endpoints.len(), MAX_ENDPOINTS)?;
    if let Some(selector) = &spec.workload_selector {
        match_labels("workloadSelector.labels", &selector.labels)?;
        if !spec.endpoints.is_empty() {
            return Err(Problem::Conflict("workloadSelector").at("endpoints"));
        }
    }
    check_resolution(spec)?;
    each("endpoints", &spec.endpoints, check_workload)?;
    export_to(&spec.export_to)
}

/// Checks the specification of a workload entry, or of an endpoint of a service entry.
pub(super) fn check_workload(spec: &WorkloadEntry) -> Result<(), InvalidObject> {
    if spec.address.is_empty() && spec.network.is_empty() {
        return Err(Problem::Missing("set it to an IP address or host name").at("address"));
    }
    if spec.address.starts_with(UNIX_SCHEME) && !spec.ports.is_empty() {
        return Err(Problem::Conflict("an address of the form unix://").at("ports"));
    }
    let is_host = spec.address.is_empty()
        || spec.address.starts_with(UNIX_SCHEME)
        || spec.address.parse::<IpAddr>().is_ok()
        || is_host_name(&spec.address);
    if !is_host {
        let form = "an IP address, a host name or unix://PATH";
        let value = spec.address.escape_debug().to_string();
        return Err(Problem::Form { value, form }.at("address"));
    }
    if !spec.service_account.is_empty() {
        account("serviceAccount", &spec.service_account)?;
    }
    for (name, number) in &spec.ports {
        port(*number).map_err(|problem| problem.at(&format!("ports.{name}")))?;
    }
    if spec.locality.split('/').count() > 3 {
        let form = "region/zone/subzone";
        return Err(Problem::Form { value: spec.locality.clone(), form }.at("locality"));
    }
    Ok(())
}

fn check_hosts(hosts: &[String]) -> Result<(), InvalidObject> {
    if hosts.is_empty() {
        return Err(Problem::Missing("list at least one host name").at("hosts"));
    }
    at_most("hosts", hosts.len(), MAX_HOSTS)?;
    let mut seen = HashSet::new();
    each("hosts", hosts, |host| {
        let name = host.strip_prefix("*.").unwrap_or(host);
        if !is_host_name(name) {
            let form = "a host name such as api.example.com or *.example.com";
            return Err(Problem::Form { value: host.escape_debug().to_string(), form }.at(""));
        }
        Ok(())
    })?;
    match hosts.iter().position(|host| !seen.insert(host)) {
        Some(i) => Err(Problem::Duplicate(hosts[i].clone()).at(&format!("hosts[{i}]"))),
        None => Ok(()),
    }
}

fn is_host_name(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !name.is_empty() && name.bytes().all(valid)
}

fn check_ports(ports: &[EntryPort]) -> Result<(), InvalidObject> {
    let mut numbers = HashSet::new();
    let mut names = HashSet::new();
    for (i, entry) in ports.iter().enumerate() {
        let at = |field: &str| format!("ports[{i}].{field}");
        port(entry.number).map_err(|problem| problem.at(&at("number")))?;
        if entry.target_port != 0 {
            port(entry.target_port).map_err(|problem| problem.at(&at("targetPort")))?;
        }
        if entry.name.is_empty() {
            return Err(Problem::Missing("name the port").at(&at("name")));
        }
        if !numbers.insert(entry.number) {
            return Err(Problem::Duplicate(entry.number.to_string()).at(&at("number")));
        }
        if !names.insert(&entry.name) {
            return Err(Problem::Duplicate(entry.name.clone()).at(&at("name")));
        }
    }
    Ok(())
}

fn check_resolution(spec: &ServiceEntry) -> Result<(), InvalidObject> {
    let is_range = |text: &String| text.contains('/');
    let ranges_allowed = matches!(spec.resolution, Resolution::None | Resolution::Static);
    if !ranges_allowed && let Some(i) = spec.addresses.iter().position(is_range) {
        return Err(Problem::Conflict("a resolution by DNS").at(&format!("addresses[{i}]")));
    }
    match spec.resolution {
        Resolution::None if !spec.endpoints.is_empty() => {
            Err(Problem::Conflict("resolution NONE, which is the default").at("endpoints"))
        }
        Resolution::Static => each("endpoints", &spec.endpoints, |endpoint| {
            let address = &endpoint.address;
            let valid = address.is_empty()
                || address.starts_with(UNIX_SCHEME)
                || address.parse::<IpAddr>().is_ok();
            let value = || address.escape_debug().to_string();
            if valid { Ok(()) } else { Err(Problem::Address(value()).at("address")) }
        }),
        Resolution::Dns | Resolution::DnsRoundRobin => check_dns(spec),
        Resolution::DynamicDns if !spec.endpoints.is_empty() || !spec.addresses.is_empty() => {
            Err(Problem::Conflict("addresses and endpoints").at("resolution"))
        }
        Resolution::None | Resolution::DynamicDns => Ok(()),
    }
}

fn check_dns(spec: &ServiceEntry) -> Result<(), InvalidObject> {
    let resolved_by_host = spec.endpoints.is_empty() && spec.workload_selector.is_none();
    let wildcard = spec.hosts.iter().position(|host| host.starts_with('*'));
    if resolved_by_host && let Some(i) = wildcard {
        let form = "a host name without wildcard, or list endpoints";
        let value = spec.hosts[i].clone();
        return Err(Problem::Form { value, form }.at(&format!("hosts[{i}]")));
    }
    if spec.resolution == Resolution::DnsRoundRobin {
        at_most("endpoints", spec.endpoints.len(), 1)?;
    }
    Ok(())
}
