//! `PeerAuthentication` of `security.istio.io`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::WorkloadSelector;
use crate::policy::MtlsMode;

/// What some workloads demand of their peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerAuthentication {
    /// Workloads it applies to; all of the namespace without it.
    pub selector: Option<WorkloadSelector>,
    /// The demand.
    pub mtls: MutualTls,
    /// The demand at single ports of the workloads.
    pub port_level_mtls: BTreeMap<u32, MutualTls>,
}

/// A demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MutualTls {
    /// The mode.
    pub mode: MtlsMode,
}
