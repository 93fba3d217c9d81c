//! The agent: decides which pods of this node are in the mesh, by what the cluster or the control
//! plane says, and has capture enrol and release them.
//!
//! It reads what comes from the network, so it has no privilege; capture carries out what an agent
//! can rightly want and nothing else. All that it does follows from three things, each of which is
//! whole at any time: what is wanted ([`cluster`], [`view`]), what capture has (the inventory), and
//! what was tried before ([`plan`]). So it may die and start anew, come late or hear things twice.
//!
//! | What happens | What becomes of the pods |
//! |---|---|
//! | whoever is asked is away | they stay as they are |
//! | it has not said everything yet, after a start | likewise: nothing is released for what is not known |
//! | the agent dies | likewise |
//! | capture dies | its successor takes up what is on record, and the agent compares |
//! | an operator has enrolled a pod | the agent leaves it alone |

mod cluster;
pub mod kubernetes;
mod plan;
mod view;
mod wanted;
mod work;

use mesh_api::{
    control_plane::ControlPlane,
    xds_client::{self, Introduction, Session, introduce},
};
use tokio::sync::mpsc;

use self::{
    cluster::Cluster,
    kubernetes::{Api, ApiAccess, ApiError},
    view::{View, subscription},
    work::work,
};
use crate::api::client::Client;

/// Events that may wait to be taken.
const EVENT_QUEUE: usize = 64;

/// What the agent works with.
#[derive(Debug)]
pub struct Parts {
    /// Reaches capture.
    pub capture: Client,
    /// Name of this node.
    pub node_name: String,
}

/// Why the agent cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The API server cannot be talked to.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Nothing is followed any more.
    #[error("nothing is followed any more")]
    Ended,
}

/// Enrols the pods that the labels in a Kubernetes cluster opt in. Never returns without an error.
pub async fn follow_cluster(parts: Parts, access: ApiAccess) -> Result<(), AgentError> {
    let Parts { capture, node_name } = parts;
    let api = Api::connect(&access)?;
    let (send, events) = mpsc::channel(EVENT_QUEUE);
    tokio::select! {
        () = api.follow(&node_name, send) => {}
        () = work(Cluster::default(), events, capture, Some(api.clone())) => {}
    }
    Err(AgentError::Ended)
}

/// Enrols the registered pods that the control plane says take part. Never returns without an error.
pub async fn follow_control_plane(
    parts: Parts,
    control_plane: ControlPlane,
    introduction: Introduction,
) -> Result<(), AgentError> {
    let Parts { capture, node_name } = parts;
    let view = View::of(&node_name, &control_plane.cluster_id);
    let session = Session::new(introduce(&introduction), [subscription()]);
    let (send, events) = mpsc::channel(EVENT_QUEUE);
    tokio::join!(xds_client::run(control_plane, session, send), work(view, events, capture, None));
    Err(AgentError::Ended)
}
