//! All policies, and those that apply to one service.

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

use mesh_api::{
    identity::Namespace,
    proto::l7,
    workload::{PolicyKey, ServiceKey},
};
use rpds::{HashTrieMapSync, RedBlackTreeSetSync};

use super::{Action, Decision, Denied, Policy, SharedPolicy, Subject, Target, Verdict};
use crate::route::{Invalid, RequestHead};

/// Key of a waypoint: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayKey {
    /// Namespace of the gateway object.
    pub namespace: Namespace,
    /// Name of the gateway object.
    pub name: Arc<str>,
}

/// All policies, by what they apply to. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    policies: HashTrieMapSync<PolicyKey, SharedPolicy>,
    by_target: HashTrieMapSync<Target, RedBlackTreeSetSync<PolicyKey>>,
}

/// The policies of one service.
#[derive(Clone, Debug, Default)]
pub struct ServicePolicies {
    audit: Box<[SharedPolicy]>,
    enforced: Selection,
    on_trial: Selection,
}

/// Policies that decide together.
#[derive(Clone, Debug, Default)]
struct Selection {
    custom: Box<[SharedPolicy]>,
    deny: Box<[SharedPolicy]>,
    allow: Box<[SharedPolicy]>,
}

// === impl GatewayKey ===

impl FromStr for GatewayKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (namespace, name) = text.split_once('/').ok_or(())?;
        let namespace = namespace.parse().map_err(drop)?;
        if name.is_empty() { Err(()) } else { Ok(Self { namespace, name: name.into() }) }
    }
}

impl fmt::Display for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl PolicySet ===

impl PolicySet {
    /// Adds a policy, or replaces the one with its key. Until one that is not understood is
    /// replaced, everything that it is for is refused.
    pub fn insert(&mut self, wire: l7::Authorization) -> Result<(), Invalid> {
        let (policy, outcome) = match Policy::try_from(wire.clone()) {
            Ok(policy) => (policy, Ok(())),
            Err(invalid) => (Policy::refusing(wire)?, Err(invalid)),
        };
        self.remove(&policy.key);
        for target in &policy.targets {
            let keys = self.by_target.get(target).cloned().unwrap_or_default();
            self.by_target.insert_mut(target.clone(), keys.insert(policy.key.clone()));
        }
        self.policies.insert_mut(policy.key.clone(), Arc::new(policy));
        outcome
    }

    /// Removes a policy.
    pub fn remove(&mut self, key: &PolicyKey) {
        let Some(policy) = self.policies.get(key).cloned() else { return };
        self.policies.remove_mut(key);
        for target in &policy.targets {
            let Some(keys) = self.by_target.get(target) else { continue };
            let rest = keys.remove(key);
            if rest.is_empty() {
                self.by_target.remove_mut(target);
            } else {
                self.by_target.insert_mut(target.clone(), rest);
            }
        }
    }

    /// Returns the policies of a service behind a waypoint; without a service, of what is addressed
    /// to workloads themselves.
    pub fn of(&self, gateway: &GatewayKey, service: Option<&ServiceKey>) -> ServicePolicies {
        let service = service.cloned().map(Target::Service);
        let targets = [Some(Target::All), Some(Target::Gateway(gateway.clone())), service];
        let keys: BTreeSet<&PolicyKey> = targets
            .iter()
            .flatten()
            .filter_map(|target| self.by_target.get(target))
            .flat_map(RedBlackTreeSetSync::iter)
            .collect();
        let policies: Vec<_> = keys.into_iter().filter_map(|key| self.policies.get(key)).collect();
        let with = |action, is_on_trial| {
            let is_meant = |policy: &&&SharedPolicy| {
                policy.action == action && policy.is_on_trial == is_on_trial
            };
            policies.iter().filter(is_meant).map(|p| Arc::clone(p)).collect()
        };
        let selection = |is_on_trial| Selection {
            custom: with(Action::Custom, is_on_trial),
            deny: with(Action::Deny, is_on_trial),
            allow: with(Action::Allow, is_on_trial),
        };
        ServicePolicies {
            audit: with(Action::Audit, false),
            enforced: selection(false),
            on_trial: selection(true),
        }
    }
}

// === impl ServicePolicies ===

impl ServicePolicies {
    /// Decides a request, or, without one, a connection whose protocol is not looked at.
    pub fn decide(&self, subject: &Subject<'_>, request: Option<&RequestHead<'_>>) -> Decision {
        let on_trial = self.on_trial.decide(subject, request);
        Decision {
            verdict: self.enforced.decide(subject, request),
            audited: first(&self.audit, subject, request).map(|(policy, _)| policy),
            on_trial: Some(on_trial).filter(|verdict| *verdict != Verdict::Allow(None)),
        }
    }
}

// === impl Selection ===

impl Selection {
    fn decide(&self, subject: &Subject<'_>, request: Option<&RequestHead<'_>>) -> Verdict {
        let first = |policies: &[SharedPolicy]| first(policies, subject, request);
        if let Some((policy, rule)) = first(&self.custom).or_else(|| first(&self.deny)) {
            Verdict::Deny(Denied::Matched { policy, rule })
        } else if self.allow.is_empty() {
            Verdict::Allow(None)
        } else {
            match first(&self.allow) {
                Some((policy, _)) => Verdict::Allow(Some(policy)),
                None => Verdict::Deny(Denied::NoneMatched),
            }
        }
    }
}

/// Returns the first of some policies that matches, with the index of its rule.
fn first(
    policies: &[SharedPolicy],
    subject: &Subject<'_>,
    request: Option<&RequestHead<'_>>,
) -> Option<(PolicyKey, usize)> {
    policies.iter().find_map(|policy| {
        let rule = policy.matching_rule(subject, request)?;
        Some((policy.key.clone(), rule))
    })
}
