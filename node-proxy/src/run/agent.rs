//! The agent as a process.

use std::{os::fd::OwnedFd, pin::Pin};

use anyhow::{Context as _, Result, bail};
use fairlead_component::logging;
use tokio::sync::mpsc;

use fairlead_node::{
    agent::{self, AgentError, Parts},
    api::client::Client,
    cli::{Authority, RunArgs, Sources},
};

use super::{
    Termination,
    confine::{confine, resolved},
    links_of_supervisor,
};
use crate::on_this_thread;

/// Runs the agent until SIGTERM or SIGINT.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let authority = Authority::of(args, &Sources::of(args)?)?;
    let mut authority = authority.context("nobody decides but operators: see --enrol")?;
    authority.map_files(resolved)?;
    confine(args.enrolment.agent_user, &authority.files(), None, true)?;
    let log = logging::init(args.log_format, &args.log_level)?;
    on_this_thread(async {
        let mut termination = Termination::catch()?;
        let links = links_of_supervisor(log.levels())?.halves;
        tokio::select! {
            ended = serve(args, authority, links) => ended,
            signal = termination.asked() => {
                tracing::info!(signal, "agent stopped");
                Ok(())
            }
        }
    })
}

/// Decides which pods the captures at the other ends of `links` enrol, one after the other. Never
/// returns without an error.
pub(super) async fn serve(
    args: &RunArgs,
    authority: Authority,
    mut links: mpsc::Receiver<OwnedFd>,
) -> Result<()> {
    let (capture, latest) = Client::linked();
    let linked = async {
        while let Some(link) = links.recv().await {
            latest.replace(link)?;
        }
        bail!("the supervisor is gone")
    };
    tracing::info!(node = args.node_name, "agent started");
    let parts = Parts { capture, node_name: args.node_name.clone() };
    let follow: Pin<Box<dyn Future<Output = Result<(), AgentError>>>> = match authority {
        Authority::Kubernetes(api) => Box::pin(agent::follow_cluster(parts, api)),
        Authority::ControlPlane(control_plane, introduction) => {
            Box::pin(agent::follow_control_plane(parts, *control_plane, *introduction))
        }
    };
    tokio::select! {
        ended = linked => ended,
        ended = follow => ended.map_err(Into::into),
    }
}
