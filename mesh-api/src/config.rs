//! The local configuration file: workloads, services and policies of a mesh without a control
//! plane.
//!
//! The file is YAML with the field names of the wire types. It is taken as a whole or not at all:
//! the first error names the place, the field and the remedy.

mod checks;
mod entries;
mod error;
mod yaml;

use std::fmt;

use self::entries::{Entries, values};
pub use self::error::{ConfigError, ConfigProblem, Position};
use crate::{
    policy::{Lowered, Policy, lower},
    workload::{PolicyKey, Service, Workload, WorkloadUid},
};

/// Longest configuration text accepted, in bytes.
///
/// Some 10,000 workloads fit; parsing has to finish well within a second on one core, and a file
/// that grew without end must not exhaust memory.
pub const MAX_CONFIG_BYTES: usize = 8 << 20;

/// Reader of the local configuration file.
#[derive(Clone, Copy, Debug)]
pub struct LocalConfig;

/// A checked configuration, with peer authentications lowered to policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshConfig {
    /// All workloads; their policies include those of peer authentications.
    pub workloads: Vec<Workload>,
    /// All services.
    pub services: Vec<Service>,
    /// All policies.
    pub policies: Vec<Policy>,
    /// What is accepted but probably not meant.
    pub warnings: Vec<ConfigWarning>,
}

/// Something in a configuration that is accepted but probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigWarning {
    /// A workload names a policy that does not exist, so it refuses all connections.
    UnknownPolicy {
        /// The workload.
        workload: WorkloadUid,
        /// The policy.
        policy: PolicyKey,
    },
    /// A policy applies only to workloads that name it, and none does.
    UnusedPolicy(PolicyKey),
    /// A peer authentication has no effect on some or all of its workloads.
    IgnoredPeerAuthentication(PolicyKey),
}

// === impl LocalConfig ===

impl LocalConfig {
    /// Parses and checks the text of a configuration file.
    pub fn parse(text: &str) -> Result<MeshConfig, ConfigError> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::whole(ConfigProblem::TooLarge(text.len())));
        }
        let entries = Entries::convert(yaml::parse(text)?)?;
        checks::conflicts(&entries)?;
        checks::references(&entries)?;
        let Entries { workloads, services, policies, peer_authentications } = entries;
        let mut workloads = values(workloads);
        let lowered = lower(&values(peer_authentications), &workloads);
        checks::reserved(&policies, &lowered.policies)?;
        let mut policies = values(policies);
        let mut warnings = checks::unused(&policies, &workloads);
        add_lowered(&mut workloads, &mut policies, &mut warnings, lowered);
        warnings.extend(checks::unknown(&policies, &workloads));
        Ok(MeshConfig { workloads, services: values(services), policies, warnings })
    }
}

// === impl ConfigWarning ===

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPolicy { workload, policy } => write!(
                f,
                "workload {workload} refuses all connections because it names policy {policy}, \
                 which does not exist: add the policy or remove its key"
            ),
            Self::UnusedPolicy(policy) => write!(
                f,
                "policy {policy} applies to no workload: add its key to the \
                 authorization_policies of those it is meant for, or set another scope"
            ),
            Self::IgnoredPeerAuthentication(key) => write!(
                f,
                "peer authentication {key} has no effect on some workloads: an earlier one of the \
                 same level wins, and one of the root namespace cannot list workloads"
            ),
        }
    }
}

fn add_lowered(
    workloads: &mut [Workload],
    policies: &mut Vec<Policy>,
    warnings: &mut Vec<ConfigWarning>,
    mut lowered: Lowered,
) {
    policies.append(&mut lowered.policies);
    warnings.extend(lowered.ignored.into_iter().map(ConfigWarning::IgnoredPeerAuthentication));
    for workload in workloads {
        let keys = lowered.workload_policies.remove(&workload.uid).unwrap_or_default();
        workload.authorization_policies.extend(keys);
    }
}

#[cfg(test)]
mod tests;
