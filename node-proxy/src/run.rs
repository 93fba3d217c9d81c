//! `fairlead-node run`: supervises the two halves as processes of their own, or is both itself.

pub(crate) mod capture;
mod configuration;
pub(crate) mod proxy;

use std::{env, ffi::OsString, io, os::fd::OwnedFd};

use anyhow::{Context as _, Result};
use fairlead_component::logging;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use fairlead_node::{
    cli::{RunArgs, Sources},
    link::channel::pair,
    supervise::{self, HalfSpec, Supervisor, control::Control},
    sys::memory,
};

use crate::on_this_thread;

/// Links that may wait to be taken up: each is a process that has just been started.
const LINK_QUEUE: usize = 8;

/// The signals that ask this process to end. They wait here from the start: one that comes while the
/// process takes over from another must not leave pods without either.
struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

/// Serves the node until SIGTERM or SIGINT.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    // Said here, before anything is started; the proxy goes by it.
    Sources::of(args)?;
    if args.single_process {
        return single(args);
    }
    let _log = logging::init(args.log_format, &args.log_level)?;
    let spec = Supervisor {
        capture: HalfSpec::of_this_program(arguments_for("capture"))?,
        proxy: HalfSpec::of_this_program(arguments_for("proxy"))?,
        drain_timeout: args.drain_timeout,
    };
    on_this_thread(async { Ok(supervise::run(spec).await?) })
}

/// Both halves in this process, for development.
fn single(args: &RunArgs) -> Result<()> {
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
        tokio::try_join!(
            capture::serve(args, capture_links, Termination::catch()?),
            proxy::serve(args, opened, &log, proxy_links, std::future::pending()),
        )?;
        drop((to_capture, to_proxy));
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

/// Returns the links that the supervisor gives; their end means that it is gone.
fn links_of_supervisor() -> Result<mpsc::Receiver<OwnedFd>> {
    let mut control = Control::from_stdin().context("no supervisor")?;
    let (send, links) = mpsc::channel(LINK_QUEUE);
    tokio::spawn(async move {
        while let Some(link) = control.next_link().await {
            if send.send(link).await.is_err() {
                return;
            }
        }
    });
    Ok(links)
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
