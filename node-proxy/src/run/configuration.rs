//! What tells the proxy of the mesh: the local file, or the control plane.

use std::sync::Arc;

use anyhow::{Result, bail};
use fairlead_node::{
    cli::{Configuration, RunArgs},
    discovery::{self, Discovery, EVENT_QUEUE},
    local_config::WatchedConfig,
    proxy::node::Node,
    telemetry::readiness::Gate,
};
use fairlead_tunnel::identity::IdentityStore;
use mesh_api::{
    control_plane::ControlPlane,
    workload::{Network, NodeName},
    xds_client::{self, MeshResource, Session, introduce, mesh_subscriptions},
};
use tokio::sync::{mpsc, watch};

/// What follows the changes of the mesh.
pub(super) enum Follower {
    File(WatchedConfig),
    ControlPlane(Box<(ControlPlane, Session<MeshResource>, Discovery)>),
}

// === impl Follower ===

impl Follower {
    /// Applies the file; a control plane is asked later. Opens `known` once the mesh is known, and
    /// makes true what is returned with the follower.
    pub(super) fn start(
        args: &RunArgs,
        from: Configuration,
        (node, identities): (&Arc<Node>, &IdentityStore),
        known: Gate,
    ) -> Result<(Self, watch::Receiver<bool>)> {
        let (configured, is_configured) = watch::channel(false);
        let network = Network(args.network.as_str().into());
        match from {
            Configuration::File(file) => {
                let config = WatchedConfig::start(&file, network, node.clone())?;
                known.open();
                configured.send_replace(true);
                Ok((Self::File(config), is_configured))
            }
            Configuration::ControlPlane(control_plane, introduction) => {
                let session = Session::new(introduce(&introduction), mesh_subscriptions());
                let discovery = Discovery::new(discovery::Parts {
                    node: node.clone(),
                    identities: identities.clone(),
                    node_name: NodeName(args.node_name.as_str().into()),
                    network,
                    known,
                    configured,
                });
                let parts = Box::new((*control_plane, session, discovery));
                Ok((Self::ControlPlane(parts), is_configured))
            }
        }
    }

    /// Applies every change. Never returns without an error.
    pub(super) async fn follow(self) -> Result<()> {
        match self {
            Self::File(config) => {
                config.follow().await;
                bail!("the configuration is no longer watched")
            }
            Self::ControlPlane(parts) => {
                let (control_plane, session, discovery) = *parts;
                let (send, events) = mpsc::channel(EVENT_QUEUE);
                tokio::join!(
                    xds_client::run(control_plane, session, send),
                    discovery.follow(events)
                );
                bail!("the control plane is no longer followed")
            }
        }
    }
}
