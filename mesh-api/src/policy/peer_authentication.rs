//! Lowers Istio's `PeerAuthentication` to authorization policies that deny plaintext.
//!
//! Plaintext is accepted unless such a policy denies it. "No authenticated peer" is the condition
//! that no principal is present.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::{Action, Clause, Condition, Match, Policy, Rule, Scope, StringMatch};
use crate::{
    identity::Namespace,
    workload::{PolicyKey, Workload, WorkloadUid},
};

/// Namespace whose objects apply to the whole mesh.
pub const ROOT_NAMESPACE: &str = "istio-system";

const STRICT_POLICY: &str = "istio_converted_static_strict";
const CONVERTED_PREFIX: &str = "converted_peer_authentication_";

/// What a workload demands of its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MtlsMode {
    /// What the next wider level says.
    #[default]
    Unset,
    /// Plaintext; the same as [`MtlsMode::Permissive`] here, as mutual TLS is never refused.
    Disable,
    /// Mutual TLS or plaintext.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// Demands of some workloads on their peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Unique key among peer authentications.
    pub key: PolicyKey,
    /// Mode of the ports that `target` does not list.
    pub mode: MtlsMode,
    /// Workloads it applies to.
    pub target: PeerAuthenticationTarget,
}

/// Workloads that a [`PeerAuthentication`] applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAuthenticationTarget {
    /// All workloads of the object's namespace, or of the mesh in [`ROOT_NAMESPACE`].
    Namespace,
    /// These workloads, as far as they are of the object's namespace.
    Workloads {
        /// The workloads.
        uids: Vec<WorkloadUid>,
        /// Modes of single ports of the workloads; not the ports of a service.
        ports: BTreeMap<u16, MtlsMode>,
    },
}

/// What peer authentications amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lowered {
    /// Policies that enforce them.
    pub policies: Vec<Policy>,
    /// Keys to add to the `authorization_policies` of workloads.
    pub workload_policies: BTreeMap<WorkloadUid, Vec<PolicyKey>>,
    /// Objects without effect on some workload: an older one of the same level wins, or they name
    /// workloads in the root namespace.
    pub ignored: Vec<PolicyKey>,
}

/// The object in force at each level, from the widest to the narrowest.
#[derive(Default)]
struct Levels<'a> {
    mesh: Option<&'a PeerAuthentication>,
    namespaces: HashMap<&'a Namespace, &'a PeerAuthentication>,
    workloads: HashMap<&'a WorkloadUid, &'a PeerAuthentication>,
}

/// Lowers `authentications`, oldest first, for `workloads`.
pub fn lower(authentications: &[PeerAuthentication], workloads: &[Workload]) -> Lowered {
    if authentications.is_empty() {
        return Lowered::default();
    }
    let (levels, ignored) = Levels::of(authentications, workloads);
    let converted = authentications.iter().filter_map(|object| levels.convert(object));
    let policies = std::iter::once(strict_policy()).chain(converted).collect();
    let workload_policies = workloads
        .iter()
        .filter_map(|workload| Some((workload.uid.clone(), vec![levels.key_for(workload)?])))
        .collect();
    Lowered { policies, workload_policies, ignored }
}

// === impl PeerAuthentication ===

impl PeerAuthentication {
    fn is_of_root_namespace(&self) -> bool {
        self.key.namespace.as_str() == ROOT_NAMESPACE
    }
}

// === impl MtlsMode ===

impl MtlsMode {
    /// Returns whether plaintext is refused; `None` when the next wider level says.
    fn is_strict(self) -> Option<bool> {
        match self {
            Self::Unset => None,
            Self::Disable | Self::Permissive => Some(false),
            Self::Strict => Some(true),
        }
    }
}

// === impl Levels ===

impl<'a> Levels<'a> {
    fn of(
        authentications: &'a [PeerAuthentication],
        workloads: &'a [Workload],
    ) -> (Self, Vec<PolicyKey>) {
        let namespaces: HashMap<_, _> =
            workloads.iter().map(|workload| (&workload.uid, workload.namespace())).collect();
        let mut levels = Self::default();
        let mut ignored = Vec::new();
        for object in authentications {
            if !levels.insert(object, &namespaces) {
                ignored.push(object.key.clone());
            }
        }
        (levels, ignored)
    }

    /// Puts `object` in force where no older one is; returns whether it is in force everywhere.
    fn insert(
        &mut self,
        object: &'a PeerAuthentication,
        namespaces: &HashMap<&WorkloadUid, &Namespace>,
    ) -> bool {
        let root = object.is_of_root_namespace();
        match &object.target {
            PeerAuthenticationTarget::Namespace if root => {
                std::ptr::eq(*self.mesh.get_or_insert(object), object)
            }
            PeerAuthenticationTarget::Namespace => {
                let winner = self.namespaces.entry(&object.key.namespace).or_insert(object);
                std::ptr::eq(*winner, object)
            }
            PeerAuthenticationTarget::Workloads { .. } if root => false,
            PeerAuthenticationTarget::Workloads { uids, .. } => {
                let mut wins = true;
                for uid in uids {
                    if namespaces.get(uid) == Some(&&object.key.namespace) {
                        let winner = self.workloads.entry(uid).or_insert(object);
                        wins &= std::ptr::eq(*winner, object);
                    }
                }
                wins
            }
        }
    }

    /// Returns the key of the policy that `workload` needs, if it refuses any plaintext.
    fn key_for(&self, workload: &Workload) -> Option<PolicyKey> {
        let Some(object) = self.workloads.get(&workload.uid) else {
            return self.is_strict(workload.namespace()).then(strict_key);
        };
        match self.convert(object) {
            Some(policy) => Some(policy.key),
            None => self.is_strict_by(object).then(strict_key),
        }
    }

    /// Returns whether workloads of `namespace` without an object of their own refuse plaintext.
    fn is_strict(&self, namespace: &Namespace) -> bool {
        [self.namespaces.get(namespace).copied(), self.mesh]
            .into_iter()
            .flatten()
            .find_map(|object| object.mode.is_strict())
            .unwrap_or(false)
    }

    /// Returns whether workloads that `object` selects refuse plaintext at unlisted ports.
    fn is_strict_by(&self, object: &PeerAuthentication) -> bool {
        object.mode.is_strict().unwrap_or_else(|| self.is_strict(&object.key.namespace))
    }

    /// Returns the policy for an object whose ports differ from the mode of the others.
    fn convert(&self, object: &PeerAuthentication) -> Option<Policy> {
        if object.is_of_root_namespace() {
            return None;
        }
        let ports = match &object.target {
            PeerAuthenticationTarget::Namespace => return None,
            PeerAuthenticationTarget::Workloads { ports, .. } => ports,
        };
        let strict = self.is_strict_by(object);
        let differing = ports
            .iter()
            .filter(|(_, mode)| mode.is_strict().is_some_and(|port| port != strict))
            .map(|(port, _)| *port);
        let rules: Vec<Rule> = if strict {
            strict_but_at(differing).into_iter().collect()
        } else {
            differing.map(strict_at).collect()
        };
        let name = format!("{CONVERTED_PREFIX}{}", object.key.name);
        let key = PolicyKey { namespace: object.key.namespace.clone(), name: name.into() };
        (!rules.is_empty()).then(|| deny_policy(key, rules))
    }
}

fn strict_key() -> PolicyKey {
    #[expect(clippy::expect_used, reason = "a constant; a test parses it")]
    let namespace = ROOT_NAMESPACE.parse().expect("the root namespace is a valid name");
    PolicyKey { namespace, name: STRICT_POLICY.into() }
}

fn strict_policy() -> Policy {
    deny_policy(strict_key(), vec![Rule { clauses: vec![clause(unauthenticated())] }])
}

fn deny_policy(key: PolicyKey, rules: Vec<Rule>) -> Policy {
    Policy { key, scope: Scope::WorkloadSelector, action: Action::Deny, dry_run: false, rules }
}

/// Matches plaintext at all ports but `relaxed`; `None` when there are none of these.
fn strict_but_at(relaxed: impl Iterator<Item = u16>) -> Option<Rule> {
    let mut exempt = relaxed.map(|port| {
        let destination_ports = Condition { none_of: vec![port], ..Condition::default() };
        clause(Match { destination_ports, ..Match::default() })
    });
    let first = exempt.next()?;
    Some(Rule { clauses: [clause(unauthenticated()), first].into_iter().chain(exempt).collect() })
}

/// Matches plaintext at `port`.
fn strict_at(port: u16) -> Rule {
    let destination_ports = Condition { any_of: vec![port], ..Condition::default() };
    Rule { clauses: vec![clause(Match { destination_ports, ..unauthenticated() })] }
}

/// Matches peers without an identity.
fn unauthenticated() -> Match {
    let principals = Condition { none_of: vec![StringMatch::Presence], ..Condition::default() };
    Match { principals, ..Match::default() }
}

fn clause(condition: Match) -> Clause {
    Clause { matches: vec![condition] }
}

#[cfg(test)]
mod tests;
