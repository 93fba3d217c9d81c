//! What is found by its host name, in which letters of either case count as the same.

use std::sync::Arc;

use mesh_api::{
    identity::Namespace,
    workload::{ServiceKey, Workload},
};

use super::MeshState;

// === impl MeshState ===

impl MeshState {
    /// Returns the workload that has this host name, of the namespace that the key names: workloads of
    /// others do not take a name over.
    pub(in crate::state) fn workload_named(&self, key: &ServiceKey) -> Option<&Arc<Workload>> {
        let namesakes = self.by_own_hostname.get(&key_of(&key.namespace, &key.hostname))?;
        namesakes.first().map(|entry| &entry.workload)
    }

    /// Returns the services of this host name, in all namespaces.
    pub(in crate::state) fn keys_named(&self, hostname: &str) -> &[ServiceKey] {
        self.by_hostname.get(hostname).map_or(&[], Vec::as_slice)
    }

    pub(super) fn insert_host(&mut self, key: &ServiceKey) {
        let host = lower(&key.hostname);
        if let Some(keys) = self.by_hostname.get_mut(&host) {
            keys.push(key.clone());
        } else {
            self.by_hostname.insert_mut(host, vec![key.clone()]);
        }
    }

    pub(super) fn remove_host(&mut self, key: &ServiceKey) {
        let host = lower(&key.hostname);
        let Some(keys) = self.by_hostname.get_mut(&host) else { return };
        keys.retain(|other| other != key);
        if keys.is_empty() {
            self.by_hostname.remove_mut(&host);
        }
    }
}

/// Returns the key by which a workload with this host name is found.
pub(super) fn key_of(namespace: &Namespace, hostname: &Arc<str>) -> ServiceKey {
    ServiceKey { namespace: namespace.clone(), hostname: lower(hostname) }
}

/// Returns the name as it is looked up; nearly always as it is.
fn lower(hostname: &Arc<str>) -> Arc<str> {
    if hostname.bytes().any(|byte| byte.is_ascii_uppercase()) {
        hostname.to_ascii_lowercase().into()
    } else {
        hostname.clone()
    }
}
