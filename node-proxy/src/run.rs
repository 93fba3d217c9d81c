//! `fairlead-node run`: supervises the two halves and the agent as processes of their own, or is all
//! of them itself.

pub(crate) mod agent;
pub(crate) mod capture;
mod configuration;
mod confine;
mod pages;
pub(crate) mod proxy;

use std::{env, ffi::OsString, io, os::fd::OwnedFd};

use anyhow::{Context as _, Result};
use fairlead_component::logging::{self, Levels};
use fairlead_node::{
    cli::{Authority, RunArgs, Sources},
    link::channel::pair,
    supervise::{
        self, RoleSpec, Supervisor,
        control::{Control, Link, LinkedTo, Superior, Told},
    },
};
use fairlead_sys::memory;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::on_this_thread;

/// Links that may wait to be taken up: each is a process that has just been started.
const LINK_QUEUE: usize = 8;

/// The links that this process gets, by what is at their other ends.
struct Links {
    halves: mpsc::Receiver<OwnedFd>,
    agents: mpsc::Receiver<OwnedFd>,
    superior: Superior,
}

/// The signals that ask this process to end. They wait here from the start: one that comes while the
/// process takes over from another must not leave pods without either.
struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

/// Serves the node until SIGTERM or SIGINT.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    // Said here, before anything is started; proxy and agent go by it.
    let authority = Authority::of(args, &Sources::of(args)?)?;
    if args.single_process {
        return single(args, authority);
    }
    let log = logging::init(args.log_format, &args.log_level)?;
    let role = |command| RoleSpec::of_this_program(arguments_for(command));
    let spec = Supervisor {
        levels: log.levels(),
        capture: role("capture")?,
        proxy: role("proxy")?,
        agent: authority.map(|_| role("agent")).transpose()?,
        drain_timeout: args.drain_timeout,
    };
    on_this_thread(async { Ok(supervise::run(spec).await?) })
}

/// Everything in this process, for development.
fn single(args: &RunArgs, authority: Option<Authority>) -> Result<()> {
    raise_descriptor_limit();
    memory::keep_buffers();
    let opened = proxy::Opened::of(args)?;
    let log = logging::init(args.log_format, &args.log_level)?;
    on_this_thread(async {
        let (capture_end, proxy_end) = pair()?;
        let (to_capture, capture_links) = mpsc::channel(LINK_QUEUE);
        let (to_proxy, proxy_links) = mpsc::channel(LINK_QUEUE);
        to_capture.send(capture_end).await?;
        to_proxy.send(proxy_end).await?;
        let (capture_end, agent_end) = pair()?;
        let (agent_to_capture, agents) = mpsc::channel(LINK_QUEUE);
        let (to_agent, agent_links) = mpsc::channel(LINK_QUEUE);
        agent_to_capture.send(capture_end).await?;
        to_agent.send(agent_end).await?;
        let agent = async {
            match authority {
                Some(authority) => Box::pin(agent::serve(args, authority, agent_links)).await,
                None => std::future::pending().await,
            }
        };
        let halves = async {
            let links = Links { halves: capture_links, agents, superior: Superior::Nobody };
            tokio::try_join!(
                capture::serve(args, links, &log, Termination::catch()?),
                proxy::serve(args, opened, &log, proxy_links, std::future::pending()),
            )
        };
        tokio::select! {
            ended = halves => ended.map(drop)?,
            ended = agent => ended?,
        }
        drop((to_capture, to_proxy, agent_to_capture, to_agent));
        Ok(())
    })
}

/// Returns the arguments of this process with another command.
fn arguments_for(command: &str) -> Vec<OsString> {
    let mut arguments: Vec<_> = env::args_os().skip(1).collect();
    if let Some(first) = arguments.first_mut() {
        *first = command.into();
    }
    arguments
}

/// Returns the links that the supervisor gives; their end means that it is gone. From here on it says
/// what is logged.
fn links_of_supervisor(levels: Levels) -> Result<Links> {
    let mut control = Control::from_stdin().context("no supervisor")?;
    let superior = control.superior()?;
    let (to_half, halves) = mpsc::channel(LINK_QUEUE);
    let (to_agent, agents) = mpsc::channel(LINK_QUEUE);
    tokio::spawn(async move {
        while let Some(told) = control.next().await {
            match told {
                Told::Link(Link { to, socket }) => {
                    let taker = match to {
                        LinkedTo::Half => &to_half,
                        LinkedTo::Agent => &to_agent,
                    };
                    // What nobody takes is closed, which the other end sees.
                    let _ = taker.send(socket).await;
                }
                Told::Log(change) => {
                    if let Err(error) = levels.apply(&change) {
                        tracing::warn!(%error, "cannot change what is logged");
                    }
                }
            }
        }
    });
    Ok(Links { halves, agents, superior })
}

// === impl Termination ===

impl Termination {
    /// Must be called in a runtime.
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal, and names it.
    async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Each connection costs two descriptors or more; the soft limit is often 1,024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
}
