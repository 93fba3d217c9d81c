//! What a destination rule says in vain.

use std::collections::BTreeSet;

use mesh_api::crd::{LoadBalancerSettings, RetryBudgetSettings, SimpleBalancer, TrafficPolicy};

use super::oldest_first;
use crate::{
    mesh::{context::Context, warning::Warning},
    object::DestinationRule,
};

/// Notes what has no effect of a rule.
pub(in crate::mesh) fn note_ignored(context: &mut Context<'_>, rule: &DestinationRule) {
    let spec = &rule.spec;
    if spec.workload_selector.is_some() {
        let why = "the rule holds for the workloads it selects, and no waypoint is one: remove it, so \
                   that the rule holds for all";
        return context.warn(Warning::NoEffect { field: "spec.workloadSelector".into(), why });
    }
    let detects = |policy: &TrafficPolicy| policy.outlier_detection.is_some();
    if let Some(policy) = &spec.traffic_policy {
        note_policy(context, "spec.trafficPolicy", policy, detects(policy));
    }
    let inherits = spec.traffic_policy.as_ref().is_some_and(detects);
    for (i, subset) in spec.subsets.iter().enumerate() {
        if let Some(policy) = &subset.traffic_policy {
            let field = format!("spec.subsets[{i}].trafficPolicy");
            note_policy(context, &field, policy, inherits || detects(policy));
        }
    }
    note_older(context, rule);
}

/// Notes what has no effect of a policy, with which outliers are detected or not.
fn note_policy(context: &mut Context<'_>, path: &str, policy: &TrafficPolicy, detects: bool) {
    let by_default = context.settings.default_policy.outlier_detection.is_some();
    let mut note = |field: &str, why: &'static str| {
        context.warn(Warning::NoEffect { field: format!("{path}.{field}"), why });
    };
    if policy.tunnel.is_some() {
        note("tunnel", "waypoints ask no other proxy for a tunnel: remove it");
    }
    let has_interval = |budget: RetryBudgetSettings| budget.budget_interval.is_some();
    if policy.retry_budget.is_some_and(has_interval) {
        let why = "retries are a share of the requests that are under way: remove it";
        note("retryBudget.budgetInterval", why);
    }
    if let Some(balancer) = &policy.load_balancer {
        for (field, why) in ignored_of(balancer, detects || by_default) {
            note(&format!("loadBalancer.{field}"), why);
        }
    }
    for (i, settings) in policy.port_level_settings.iter().enumerate() {
        let Some(balancer) = &settings.load_balancer else { continue };
        // What is said of a port is all that is said of it.
        let detects = settings.outlier_detection.is_some() || by_default;
        for (field, why) in ignored_of(balancer, detects) {
            note(&format!("portLevelSettings[{i}].loadBalancer.{field}"), why);
        }
    }
}

/// Returns the fields of a balancer that have no effect, and why.
fn ignored_of(
    balancer: &LoadBalancerSettings,
    detects_outliers: bool,
) -> Vec<(&'static str, &'static str)> {
    let LoadBalancerSettings { simple, consistent_hash, locality_lb_setting, .. } = balancer;
    let mut ignored = Vec::new();
    let fails_over = locality_lb_setting.as_ref().is_some_and(|locality| {
        locality.enabled != Some(false)
            && !(locality.failover.is_empty() && locality.failover_priority.is_empty())
    });
    if fails_over && !detects_outliers {
        let why = "nobody notices that near endpoints fail: add outlierDetection";
        ignored.push(("localityLbSetting", why));
    }
    let zones = balancer.zone_aware_lb_setting.as_ref();
    if zones.is_some_and(|zones| zones.min_cluster_size.is_some()) {
        let why = "waypoints prefer near endpoints however many there are: remove it";
        ignored.push(("zoneAwareLbSetting.minClusterSize", why));
    }
    let is_fixed = consistent_hash.is_some()
        || matches!(simple, Some(SimpleBalancer::Random | SimpleBalancer::Passthrough));
    let why = "only ROUND_ROBIN and LEAST_REQUEST ease endpoints in: use one of them, or remove it";
    if is_fixed && balancer.warmup.is_some() {
        ignored.push(("warmup", why));
    }
    if is_fixed && balancer.warmup_duration_secs.is_some() {
        ignored.push(("warmupDurationSecs", why));
    }
    if consistent_hash.as_ref().is_some_and(|hash| hash.use_source_ip == Some(false)) {
        let why = "it names no key: set it to true, or name another one";
        ignored.push(("consistentHash.useSourceIp", why));
    }
    ignored
}

/// Notes what older rules for the same host say in place of this one.
fn note_older(context: &mut Context<'_>, rule: &DestinationRule) {
    let namespace = rule.metadata.namespace();
    let host = context.store.expanded(namespace, &rule.spec.host);
    let reach = &rule.spec.export_to;
    let rules = oldest_first(context, namespace, host, |other| other.spec.export_to == *reach);
    let older: Vec<_> = rules.into_iter().take_while(|other| *other != rule).collect();
    if rule.spec.traffic_policy.is_some()
        && let Some(other) = older.iter().find(|other| other.spec.traffic_policy.is_some())
    {
        let (field, by) = ("spec.trafficPolicy".to_owned(), other.metadata.name.clone());
        context.warn(Warning::SaidByOlder { field, by });
    }
    let mut seen = BTreeSet::new();
    for (i, subset) in rule.spec.subsets.iter().enumerate() {
        let names = |other: &&&DestinationRule| {
            other.spec.subsets.iter().any(|known| known.name == subset.name)
        };
        if let Some(other) = older.iter().find(names).filter(|_| seen.insert(&subset.name)) {
            let (field, by) = (format!("spec.subsets[{i}]"), other.metadata.name.clone());
            context.warn(Warning::SaidByOlder { field, by });
        }
    }
}
