//! Checks single objects for what their types do not say; an admission webhook and the sources
//! share it.

pub(crate) mod address;
mod authorization_policy;
mod destination_rule;
mod entry;
pub(crate) mod header;
pub(super) mod traffic;
mod virtual_service;

use std::collections::BTreeMap;

use mesh_api::{
    crd,
    identity::{ServiceAccount, TrustDomain},
};

use super::{InvalidObject, Object, PeerAuthentication, Problem, error::each, read::range};

/// Most values of a field of a policy: every proxy keeps them, and may compare a connection with each.
const MAX_VALUES: usize = 4096;

/// Checks an object on its own.
pub fn validate(object: &Object) -> Result<(), InvalidObject> {
    match object {
        Object::ServiceEntry(entry) => {
            entry::check_service(&entry.spec).map_err(|error| error.within("spec"))
        }
        Object::WorkloadEntry(entry) => {
            entry::check_workload(&entry.spec).map_err(|error| error.within("spec"))
        }
        Object::AuthorizationPolicy(policy) => {
            authorization_policy::check(&policy.spec).map_err(|error| error.within("spec"))
        }
        Object::VirtualService(object) => {
            virtual_service::check(&object.spec).map_err(|error| error.within("spec"))
        }
        Object::DestinationRule(object) => {
            destination_rule::check(&object.spec).map_err(|error| error.within("spec"))
        }
        Object::PeerAuthentication(object) => {
            peer_authentication(object).map_err(|error| error.within("spec"))
        }
        Object::MeshConfig(config) => mesh_config(&config.spec),
        Object::Namespace(_)
        | Object::Node(_)
        | Object::ServiceAccount(_)
        | Object::Secret(_)
        | Object::Gateway(_)
        | Object::HttpRoute(_)
        | Object::GrpcRoute(_)
        | Object::TlsRoute(_)
        | Object::TcpRoute(_)
        | Object::ReferenceGrant(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::Pod(_) => Ok(()),
    }
}

fn peer_authentication(object: &PeerAuthentication) -> Result<(), InvalidObject> {
    let spec = &object.spec;
    let selects = match &spec.selector {
        Some(selector) => {
            match_labels("selector.matchLabels", &selector.match_labels)?;
            !selector.match_labels.is_empty()
        }
        None => false,
    };
    if !selects && !spec.port_level_mtls.is_empty() {
        return Err(Problem::Needs("a selector with labels").at("portLevelMtls"));
    }
    for number in spec.port_level_mtls.keys() {
        port(*number).map_err(|problem| problem.at("portLevelMtls"))?;
    }
    Ok(())
}

fn mesh_config(config: &crd::MeshConfig) -> Result<(), InvalidObject> {
    destination_rule::check_locality(&config.locality_lb_setting)
        .map_err(|error| error.within("data.mesh.localityLbSetting"))?;
    let Some(trust_domain) = &config.trust_domain else { return Ok(()) };
    let parsed = trust_domain.parse::<TrustDomain>();
    parsed.map(|_| ()).map_err(|_| {
        let form = "lower-case letters, digits, '-', '.' and '_'";
        Problem::Form { value: trust_domain.clone(), form }.at("data.mesh.trustDomain")
    })
}

/// Checks labels that a selector demands.
fn match_labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), InvalidObject> {
    for (name, value) in labels {
        if name.is_empty() {
            return Err(Problem::Missing("name the label").at(field));
        }
        if let Some(text) = [name, value].into_iter().find(|text| text.contains('*')) {
            let form = "whole names and values, as selectors have no wildcards";
            return Err(Problem::Form { value: text.clone(), form }.at(&format!("{field}.{name}")));
        }
    }
    Ok(())
}

/// Checks the name of a service account, which becomes part of an identity.
pub(super) fn account(field: &str, name: &str) -> Result<(), InvalidObject> {
    let parsed = name.parse::<ServiceAccount>();
    parsed.map(|_| ()).map_err(|_| Problem::Name(name.escape_debug().to_string()).at(field))
}

/// Checks that a number is a port.
fn port(number: u32) -> Result<(), Problem> {
    let valid = u16::try_from(number).is_ok_and(|port| port != 0);
    if valid { Ok(()) } else { Err(Problem::Port(number.to_string())) }
}

/// Checks a list of ports that are written as text.
fn port_texts(field: &str, ports: &[String]) -> Result<(), InvalidObject> {
    at_most(field, ports.len(), MAX_VALUES)?;
    each(field, ports, |text| match text.parse::<u16>() {
        Ok(1..) => Ok(()),
        Ok(0) | Err(_) => Err(Problem::Port(text.escape_debug().to_string()).at("")),
    })
}

/// Checks a list of addresses and ranges.
fn ranges(field: &str, texts: &[String]) -> Result<(), InvalidObject> {
    at_most(field, texts.len(), MAX_VALUES)?;
    each(field, texts, |text| match range(text) {
        Some(_) => Ok(()),
        None => Err(Problem::Range(text.escape_debug().to_string()).at("")),
    })
}

/// Checks that no value of a list is empty.
fn not_empty(field: &str, texts: &[String]) -> Result<(), InvalidObject> {
    at_most(field, texts.len(), MAX_VALUES)?;
    each(field, texts, |text| match text.as_str() {
        "" => Err(Problem::Missing("write a value, or remove the entry").at("")),
        _ => Ok(()),
    })
}

/// Checks the length of a list.
fn at_most(field: &str, count: usize, max: usize) -> Result<(), InvalidObject> {
    if count > max { Err(Problem::TooMany { count, max }.at(field)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
