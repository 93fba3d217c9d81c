//! All known policies, compiled, by key and by the workloads they apply to.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Action, Clause, Flow, Policy, Rule, Scope};
use crate::{identity::Namespace, workload::PolicyKey};

/// All policies of the mesh, ready for [`WorkloadPolicies::compile`](super::WorkloadPolicies::compile).
#[derive(Clone, Debug, Default)]
pub struct PolicyIndex {
    by_key: BTreeMap<PolicyKey, Arc<Compiled>>,
    global: Vec<Arc<Compiled>>,
    by_namespace: HashMap<Namespace, Vec<Arc<Compiled>>>,
}

/// A policy whose rules hold no empty match and no clause that is always true or always false.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compiled(Policy);

// === impl PolicyIndex ===

impl PolicyIndex {
    /// Compiles `policies`; of several with the same key the last one counts.
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        let mut index = Self::default();
        for policy in policies {
            index.insert(policy);
        }
        index
    }

    /// Adds a policy, in place of the one with its key.
    pub fn insert(&mut self, policy: Policy) {
        self.remove(&policy.key);
        let policy = Arc::new(Compiled::new(policy));
        self.by_key.insert(policy.key().clone(), Arc::clone(&policy));
        if let Some(shared) = self.shared(&policy) {
            // By key, so that it does not matter in which order policies arrive.
            let place = shared.partition_point(|other| other.key() < policy.key());
            shared.insert(place, policy);
        }
    }

    /// Removes the policy with `key`, if there is one.
    pub fn remove(&mut self, key: &PolicyKey) {
        if let Some(policy) = self.by_key.remove(key)
            && let Some(shared) = self.shared(&policy)
        {
            shared.retain(|other| other.key() != key);
        }
    }

    /// Returns the number of policies.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Returns whether there is no policy.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Returns the policies, by key. Matches and clauses that decide nothing are left out.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.by_key.values().map(|policy| &policy.0)
    }

    /// Returns whether a policy of this key is known.
    pub fn contains(&self, key: &PolicyKey) -> bool {
        self.by_key.contains_key(key)
    }

    pub(super) fn get(&self, key: &PolicyKey) -> Option<&Arc<Compiled>> {
        self.by_key.get(key)
    }

    /// Returns the list of those that apply to the same workloads, unless these name them.
    fn shared(&mut self, policy: &Compiled) -> Option<&mut Vec<Arc<Compiled>>> {
        match policy.0.scope {
            Scope::Global => Some(&mut self.global),
            Scope::Namespace => {
                Some(self.by_namespace.entry(policy.0.key.namespace.clone()).or_default())
            }
            Scope::WorkloadSelector => None,
        }
    }

    /// Returns the policies that apply to every workload of `namespace`, the namespace's own first.
    pub(super) fn of_namespace(
        &self,
        namespace: &Namespace,
    ) -> impl Iterator<Item = &Arc<Compiled>> {
        self.by_namespace.get(namespace).into_iter().flatten().chain(&self.global)
    }
}

// === impl Compiled ===

impl Compiled {
    fn new(mut policy: Policy) -> Self {
        policy.rules = policy.rules.into_iter().filter_map(simplify_rule).collect();
        Self(policy)
    }

    pub(super) fn key(&self) -> &PolicyKey {
        &self.0.key
    }

    pub(super) fn action(&self) -> Action {
        self.0.action
    }

    /// Returns whether the scope covers every workload of `namespace`.
    pub(super) fn applies_to_all_of(&self, namespace: &Namespace) -> bool {
        match self.0.scope {
            Scope::Global => true,
            Scope::Namespace => self.0.key.namespace == *namespace,
            Scope::WorkloadSelector => false,
        }
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.0.dry_run
    }

    /// Returns whether a rule matches; `flow` is canonical.
    pub(super) fn matches(&self, flow: &Flow<'_>) -> bool {
        self.0.rules.iter().any(|rule| {
            rule.clauses.iter().all(|clause| clause.matches.iter().any(|m| m.holds(flow)))
        })
    }
}

/// Drops the clauses of `rule` that are always true; `None` when one is always false.
fn simplify_rule(rule: Rule) -> Option<Rule> {
    let mut clauses = rule.clauses;
    clauses.retain(|clause| !clause.matches.is_empty());
    let clauses = clauses.into_iter().map(simplify_clause).collect::<Option<_>>()?;
    Some(Rule { clauses })
}

/// Drops the empty matches of a clause that has some matches; `None` when nothing is left.
fn simplify_clause(mut clause: Clause) -> Option<Clause> {
    clause.matches.retain(|m| !m.is_empty());
    (!clause.matches.is_empty()).then_some(clause)
}
