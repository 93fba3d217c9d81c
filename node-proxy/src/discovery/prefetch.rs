//! Certificates for the workloads of this node, requested before their first connection.

use std::{collections::HashMap, fmt};

use fairlead_tunnel::identity::{IdentityHandle, IdentityStore};
use mesh_api::{
    workload::{NodeName, TunnelProtocol, Workload, WorkloadUid},
    xds_client::{Change, MeshResource},
};

/// The certificates in use or soon to be: each is kept as long as a workload has its identity.
pub(super) struct Prefetch {
    identities: IdentityStore,
    node: NodeName,
    held: HashMap<WorkloadUid, IdentityHandle>,
}

// === impl Prefetch ===

impl Prefetch {
    pub(super) fn new(identities: IdentityStore, node: NodeName) -> Self {
        Self { identities, node, held: HashMap::new() }
    }

    /// Notes a change of what the mesh consists of.
    pub(super) fn note(&mut self, change: &Change<MeshResource>) {
        match change {
            Change::Updated(_, MeshResource::Workload(workload)) => {
                if self.wants(workload) {
                    let handle = self.identities.acquire(&workload.identity);
                    // What is replaced goes last, so that the same identity is not forgotten.
                    let _before = self.held.insert(workload.uid.clone(), handle);
                } else {
                    self.held.remove(&workload.uid);
                }
            }
            Change::Removed(name) => drop(self.held.remove(&WorkloadUid(name.clone()))),
            Change::Updated(_, MeshResource::Service(_) | MeshResource::Policy(_)) => {}
        }
    }

    fn wants(&self, workload: &Workload) -> bool {
        workload.node == self.node && workload.tunnel_protocol == TunnelProtocol::Hbone
    }
}

impl fmt::Debug for Prefetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefetch").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::identity::Identity;

    use super::*;
    use crate::telemetry::fixtures::workload;

    fn updated(uid: &str, edit: impl FnOnce(&mut Workload)) -> Change<MeshResource> {
        let mut workload = workload("cart");
        workload.uid = WorkloadUid(uid.into());
        edit(&mut workload);
        Change::Updated(uid.into(), MeshResource::Workload(Box::new(workload)))
    }

    #[tokio::test]
    async fn identities_of_this_node_are_held_while_a_workload_has_them() {
        let own: Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let (store, _dir) = fairlead_tunnel::testing::identities();
        let mut prefetch = Prefetch::new(store.clone(), NodeName("n1".into()));
        let held = || store.certificates().into_iter().map(|c| c.identity).collect::<Vec<_>>();

        prefetch.note(&updated("elsewhere", |w| w.node = NodeName("n2".into())));
        prefetch.note(&updated("plain", |w| w.tunnel_protocol = TunnelProtocol::None));
        assert!(held().is_empty());
        prefetch.note(&updated("a", |_| ()));
        prefetch.note(&updated("b", |_| ()));
        assert_eq!(held(), std::slice::from_ref(&own));
        prefetch.note(&Change::Removed("a".into()));
        prefetch.note(&updated("b", |w| w.canonical_revision = "v2".into()));
        assert_eq!(held(), [own]);
        prefetch.note(&updated("b", |w| w.node = NodeName("n2".into())));
        assert!(held().is_empty());
    }
}
