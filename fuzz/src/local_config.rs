//! The local configuration file.

use std::collections::HashSet;

use fairlead_node::state::MeshState;
use mesh_api::{
    config::LocalConfig,
    workload::{Network, NetworkMode},
};

/// What is accepted is the same when it is read again, contains no address twice, and can be put
/// into force; what is refused is explained on a line of its own.
pub fn local_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match LocalConfig::parse(text) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(LocalConfig::parse(text).as_ref(), Ok(&config));
    let mut addresses = HashSet::new();
    let own = config.workloads.iter().filter(|w| w.network_mode != NetworkMode::HostNetwork);
    for workload in own {
        for address in &workload.addresses {
            assert!(addresses.insert((workload.network.clone(), *address)), "{address}");
        }
    }
    for warning in &config.warnings {
        assert!(!warning.to_string().is_empty());
    }
    let (workloads, services) = (config.workloads.len(), config.services.len());
    let policies = config.policies.len();
    let state = MeshState::new(config, Network("".into()));
    assert_eq!(state.counts(), (workloads, services, policies));
    for workload in state.workloads() {
        assert!(state.workload(&workload.uid).is_some());
    }
}
