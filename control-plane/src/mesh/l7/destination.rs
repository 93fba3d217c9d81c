//! How a service is used: destination rules.

mod ignored;
mod settings;

use std::{collections::BTreeSet, sync::Arc};

use mesh_api::{
    crd::{
        DefaultTrafficPolicy, LocalitySettings, PortTrafficPolicy, Subset, TcpSettings,
        TrafficPolicy,
    },
    proto::l7::{Destination, ServiceRef, Variant, resource::Kind as Wire, upstream_tls::Mode},
};

pub(in crate::mesh) use self::ignored::note_ignored;
use super::{
    DESTINATION_PREFIX, aliases,
    visibility::{self, Visibility},
};
use crate::{
    mesh::{context::Context, dependency::Use, service, store::covering},
    object::{DestinationRule, ObjectName},
    resource::Resource,
};

/// What rules of the same host and reach say together.
#[derive(Clone, Debug, Default)]
struct Merged<'a> {
    policy: Option<&'a TrafficPolicy>,
    subsets: Vec<&'a Subset>,
}

/// What holds where no rule says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Defaults<'a> {
    policy: &'a DefaultTrafficPolicy,
    connections: Option<&'a TcpSettings>,
    /// None if the service says how its endpoints are chosen, or nobody does.
    locality: Option<&'a LocalitySettings>,
}

// === impl Defaults ===

impl<'a> Defaults<'a> {
    fn of(context: &Context<'a>, used: &Use) -> Self {
        let settings = context.settings;
        let locality = settings.default_locality.as_ref();
        Self {
            policy: &settings.default_policy,
            connections: settings.default_connections.as_ref(),
            locality: locality
                .filter(|_| !service::prefers_endpoints(context, &used.namespace, &used.hostname)),
        }
    }

    fn is_empty(self) -> bool {
        *self.policy == DefaultTrafficPolicy::default()
            && self.connections.is_none()
            && self.locality.is_none()
    }

    /// Adds the parts of which no rule says anything.
    fn fill(self, policy: &mut TrafficPolicy) {
        if policy.connection_pool.is_none() {
            policy.connection_pool.clone_from(&self.policy.connection_pool);
        }
        if policy.outlier_detection.is_none() {
            policy.outlier_detection.clone_from(&self.policy.outlier_detection);
        }
        if let Some(connections) = self.connections {
            let tcp = &mut policy.connection_pool.get_or_insert_default().tcp;
            tcp.connect_timeout = tcp.connect_timeout.or(connections.connect_timeout);
            tcp.tcp_keepalive = tcp.tcp_keepalive.or(connections.tcp_keepalive);
        }
        if let Some(locality) = self.locality {
            let balancer = policy.load_balancer.get_or_insert_default();
            if balancer.locality_lb_setting.is_none() && balancer.zone_aware_lb_setting.is_none() {
                balancer.locality_lb_setting = Some(locality.clone());
            }
        }
    }
}

/// Returns how the waypoints of a namespace use a service, if that is not as usual.
pub(in crate::mesh) fn destination(
    context: &mut Context<'_>,
    used: &Use,
    waypoints: Vec<&ObjectName>,
) -> Option<Resource> {
    if waypoints.is_empty() {
        return None;
    }
    let variants = variants(&merged(&rules(context, used)), Defaults::of(context, used));
    if variants.is_empty() {
        return None;
    }
    let Use { consumer, namespace, hostname } = used;
    let secrets = variants.iter().filter_map(credential_name);
    let secrets = secrets.map(|secret| ObjectName::new(consumer.clone(), secret));
    context.depends_on.credentials.extend(secrets);
    let destination = Destination {
        consumer_namespace: consumer.to_string(),
        service: Some(ServiceRef {
            namespace: namespace.to_string(),
            hostname: hostname.to_string(),
        }),
        variants,
    };
    let name = format!("{DESTINATION_PREFIX}{consumer}/{namespace}/{hostname}");
    Some(Resource::l7(name, Wire::Destination(destination), aliases(waypoints)))
}

/// Returns the secret that TLS is begun with, if it is one.
fn credential_name(variant: &Variant) -> Option<&str> {
    let tls = variant.tls.as_ref().filter(|tls| tls.mode() != Mode::Disable)?;
    Some(tls.credential_name.as_str()).filter(|name| !name.is_empty())
}

/// Returns the rules that hold, the oldest first: those of the consumer's namespace, otherwise of the
/// service's, otherwise of the root's; of these those of the closest host.
fn rules<'a>(context: &Context<'a>, used: &Use) -> Vec<&'a DestinationRule> {
    let Use { consumer, namespace, hostname } = used;
    let root = &context.settings.root_namespace;
    let is_own = |rule: &DestinationRule| {
        // What the root namespace says is for all, and so comes last.
        consumer != root || seen(context, rule, consumer) == Some(Visibility::Private)
    };
    let is_seen = |rule: &DestinationRule| seen(context, rule, consumer).is_some();
    let own = closest(context, consumer, hostname, is_own);
    let of_service = || closest(context, namespace, hostname, is_seen);
    let of_root = || closest(context, root, hostname, is_seen);
    own.or_else(of_service).or_else(of_root).unwrap_or_default()
}

fn seen(context: &Context<'_>, rule: &DestinationRule, from: &str) -> Option<Visibility> {
    let default = &context.settings.default_rule_export;
    visibility::of(&rule.spec.export_to, default, rule.metadata.namespace(), from)
}

/// Returns the rules of a namespace for the closest host that there is one for, those that reach as
/// far as the oldest of them does.
fn closest<'a>(
    context: &Context<'a>,
    namespace: &Arc<str>,
    hostname: &str,
    counts: impl Fn(&DestinationRule) -> bool,
) -> Option<Vec<&'a DestinationRule>> {
    let hostname = hostname.to_ascii_lowercase();
    let hosts = covering(&hostname).chain([Arc::from("*")]);
    let mut of_hosts = hosts.map(|host| oldest_first(context, namespace, host, &counts));
    let mut rules = of_hosts.find(|rules| !rules.is_empty())?;
    let reach = &rules[0].spec.export_to;
    rules.retain(|rule| rule.spec.export_to == *reach);
    Some(rules)
}

/// Returns the rules of a namespace for a host, the oldest first.
fn oldest_first<'a>(
    context: &Context<'a>,
    namespace: &Arc<str>,
    host: Arc<str>,
    counts: impl Fn(&DestinationRule) -> bool,
) -> Vec<&'a DestinationRule> {
    let store = context.store;
    let place = (namespace.clone(), host);
    let names = store.destination_rules.get(&place);
    let rules = names.filter_map(|name| store.destination_rule(name)).map(|rule| &**rule);
    let mut rules: Vec<_> = rules
        // Which workloads follow it is for sidecars to say.
        .filter(|rule| rule.spec.workload_selector.is_none() && counts(rule))
        .collect();
    rules.sort_by_key(|rule| (&rule.metadata.created, &rule.metadata.name));
    rules
}

/// Returns what rules say together: the first policy, and the first subset of each name.
fn merged<'a>(rules: &[&'a DestinationRule]) -> Merged<'a> {
    let mut names = BTreeSet::new();
    let subsets = rules.iter().flat_map(|rule| &rule.spec.subsets);
    Merged {
        policy: rules.iter().find_map(|rule| rule.spec.traffic_policy.as_ref()),
        subsets: subsets.filter(|subset| names.insert(subset.name.as_str())).collect(),
    }
}

fn variants(merged: &Merged<'_>, defaults: Defaults<'_>) -> Vec<Variant> {
    let variant = |port: u32, subset: Option<&Subset>| {
        let mut policy = policy(port, subset, merged);
        defaults.fill(&mut policy);
        Variant {
            port,
            subset: subset.map(|subset| subset.name.clone()).unwrap_or_default(),
            labels: subset.map(|subset| subset.labels.clone()).unwrap_or_default(),
            ..settings::lower(&policy)
        }
    };
    let mut variants = Vec::new();
    if merged.policy.is_some() || !defaults.is_empty() {
        variants.extend(ports([merged.policy]).into_iter().map(|port| variant(port, None)));
    }
    for subset in &merged.subsets {
        for port in ports([merged.policy, subset.traffic_policy.as_ref()]) {
            variants.push(variant(port, Some(subset)));
        }
    }
    variants
}

/// Returns the ports that policies tell apart, and 0 for all others.
fn ports<const N: usize>(policies: [Option<&TrafficPolicy>; N]) -> BTreeSet<u32> {
    let settings = policies.into_iter().flatten().flat_map(|policy| &policy.port_level_settings);
    settings.map(|settings| settings.port.number).chain([0]).collect()
}

/// Returns what rules say of a port and a subset.
fn policy(port: u32, subset: Option<&Subset>, merged: &Merged<'_>) -> TrafficPolicy {
    let mut policy = TrafficPolicy::default();
    if let Some(written) = merged.policy {
        match of_port(written, port) {
            // What is said of a port is all that is said of it.
            Some(settings) => set_main(&mut policy, settings.clone()),
            None => policy.clone_from(written),
        }
    }
    if let Some(written) = subset.and_then(|subset| subset.traffic_policy.as_ref()) {
        overlay(&mut policy, written);
        if let Some(settings) = of_port(written, port) {
            set_main(&mut policy, settings.clone());
        }
    }
    policy
}

fn of_port(policy: &TrafficPolicy, port: u32) -> Option<&PortTrafficPolicy> {
    policy.port_level_settings.iter().find(|settings| settings.port.number == port && port != 0)
}

/// Replaces the main parts of a policy.
fn set_main(policy: &mut TrafficPolicy, settings: PortTrafficPolicy) {
    policy.load_balancer = settings.load_balancer;
    policy.connection_pool = settings.connection_pool;
    policy.outlier_detection = settings.outlier_detection;
    policy.tls = settings.tls;
}

/// Replaces the parts of a policy that another one has.
fn overlay(policy: &mut TrafficPolicy, over: &TrafficPolicy) {
    fn replace<T: Clone>(part: &mut Option<T>, over: Option<&T>) {
        if over.is_some() {
            *part = over.cloned();
        }
    }
    replace(&mut policy.load_balancer, over.load_balancer.as_ref());
    replace(&mut policy.connection_pool, over.connection_pool.as_ref());
    replace(&mut policy.outlier_detection, over.outlier_detection.as_ref());
    replace(&mut policy.tls, over.tls.as_ref());
    replace(&mut policy.proxy_protocol, over.proxy_protocol.as_ref());
    replace(&mut policy.retry_budget, over.retry_budget.as_ref());
}
