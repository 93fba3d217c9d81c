//! The evaluator of one workload.

use std::sync::Arc;

use super::{Action, DenyReason, Flow, PolicyIndex, Verdict, index::Compiled};
use crate::workload::{PolicyKey, Workload};

/// The policies that apply to one workload, in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadPolicies {
    enforced: Selection,
    dry_run: Selection,
    missing: Option<PolicyKey>,
}

/// Policies to ask, by action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Selection {
    deny: Vec<Arc<Compiled>>,
    allow: Vec<Arc<Compiled>>,
}

/// What dry-run policies would have done to a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// The first dry-run DENY policy that matched.
    pub denied_by: Option<PolicyKey>,
    /// What the dry-run ALLOW policies would have done.
    pub allow: DryRunAllow,
}

/// What dry-run ALLOW policies would have done to a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRunAllow {
    /// Nothing: an enforced policy denies anyway, or the enforced ALLOW policies decide.
    NoEffect,
    /// This one matched.
    Matched(PolicyKey),
    /// None matched and no ALLOW policy is enforced, so they would have refused the flow.
    WouldDeny,
}

// === impl WorkloadPolicies ===

impl WorkloadPolicies {
    /// Selects the policies for `workload`: its namespace's, the mesh's, and those it names.
    pub fn compile(workload: &Workload, all: &PolicyIndex) -> Self {
        let mut policies = Self::default();
        let namespace = workload.namespace();
        for policy in all.of_namespace(namespace) {
            policies.add(policy);
        }
        for key in &workload.authorization_policies {
            match all.get(key) {
                Some(policy) if policy.applies_to_all_of(namespace) => {}
                Some(policy) => policies.add(policy),
                None => policies.missing = policies.missing.or_else(|| Some(key.clone())),
            }
        }
        policies
    }

    /// Returns the decision about `flow`, without what dry-run policies say.
    ///
    /// A matching DENY policy wins. A policy that the workload names but that is unknown denies,
    /// because it may be a DENY policy. Otherwise any ALLOW policy must match, if there are some.
    pub fn decide(&self, flow: &Flow<'_>) -> Verdict {
        let flow = flow.canonical();
        if let Some(key) = first_match(&self.enforced.deny, &flow) {
            return Verdict::Deny(DenyReason::Policy(key));
        }
        if let Some(key) = &self.missing {
            return Verdict::Deny(DenyReason::UnknownPolicy(key.clone()));
        }
        let Some(first) = self.enforced.allow.first() else {
            return Verdict::Allow(None);
        };
        match first_match(&self.enforced.allow, &flow) {
            Some(key) => Verdict::Allow(Some(key)),
            None => Verdict::Deny(DenyReason::NotAllowed(first.key().clone())),
        }
    }

    /// Returns what the dry-run policies would have done to `flow`.
    pub fn dry_run(&self, flow: &Flow<'_>) -> DryRun {
        let flow = flow.canonical();
        DryRun {
            denied_by: first_match(&self.dry_run.deny, &flow),
            allow: self.dry_run_allow(&flow),
        }
    }

    /// Returns whether there are dry-run policies to report on.
    pub fn has_dry_run(&self) -> bool {
        !self.dry_run.deny.is_empty() || !self.dry_run.allow.is_empty()
    }

    fn dry_run_allow(&self, flow: &Flow<'_>) -> DryRunAllow {
        let denied = self.missing.is_some() || first_match(&self.enforced.deny, flow).is_some();
        if denied || self.dry_run.allow.is_empty() {
            return DryRunAllow::NoEffect;
        }
        match first_match(&self.dry_run.allow, flow) {
            Some(key) => DryRunAllow::Matched(key),
            None if self.enforced.allow.is_empty() => DryRunAllow::WouldDeny,
            None => DryRunAllow::NoEffect,
        }
    }

    fn add(&mut self, policy: &Arc<Compiled>) {
        let selection = if policy.is_dry_run() { &mut self.dry_run } else { &mut self.enforced };
        let policies = match policy.action() {
            Action::Allow => &mut selection.allow,
            Action::Deny => &mut selection.deny,
        };
        policies.push(Arc::clone(policy));
    }
}

/// Returns the key of the first policy that matches; cloning a key allocates nothing.
fn first_match(policies: &[Arc<Compiled>], flow: &Flow<'_>) -> Option<PolicyKey> {
    policies.iter().find(|policy| policy.matches(flow)).map(|policy| policy.key().clone())
}

#[cfg(test)]
mod tests;
