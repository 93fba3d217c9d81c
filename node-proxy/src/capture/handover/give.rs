//! The predecessor's part.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener as StdUnixListener},
    },
    path::Path,
    time::Duration,
};

use futures_util::future::{FutureExt as _, join_all};
use nix::{
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    unistd::Uid,
};
use tokio::{
    net::UnixListener,
    time::{sleep, timeout},
};

use super::{HANDOVER_TIMEOUT, HandoverError, socket_path};
use crate::{
    capture::{
        control::{Control, Shared},
        proxies::greet,
    },
    link::{
        VERSION,
        channel::{Channel, ChannelError},
        handover::{ToPredecessor, ToSuccessor},
        understands,
    },
};

/// Successors that wait to be heard; one is the rule.
const BACKLOG: i32 = 4;

/// Mode of the socket.
const MODE: u32 = 0o600;

/// Time for a successor to say what it wants; it says so at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a successor asks for everything.
#[derive(Debug)]
pub struct HandoverSocket(UnixListener);

/// A process that wants to take over.
#[derive(Debug)]
pub struct Successor(Channel);

/// What is handed over beside what [`Control`] has.
#[derive(Clone, Copy, Debug)]
pub struct Heirlooms<'a> {
    /// Open file whose lock says who owns the run directory.
    pub run_lock: BorrowedFd<'a>,
    /// Listening socket of the API.
    pub api: BorrowedFd<'a>,
}

// === impl HandoverSocket ===

impl HandoverSocket {
    /// Listens in `run_dir`, which must be this process's own.
    pub fn bind(run_dir: &Path) -> Result<Self, HandoverError> {
        let path = socket_path(run_dir);
        listen_at(&path).map_err(|cause| HandoverError::Socket { path, cause })
    }

    /// Waits for a process that asks for everything.
    pub async fn successor(&self) -> Successor {
        loop {
            let asked = async {
                let successor = self.accept().await?;
                hear(&successor).await?;
                Ok::<_, HandoverError>(successor)
            };
            match asked.await {
                Ok(successor) => return Successor(successor),
                Err(error) => {
                    tracing::error!(%error, "going on: nothing was handed over");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept(&self) -> Result<Channel, ChannelError> {
        loop {
            let (successor, _) = self.0.accept().await?;
            let uid = Uid::from_raw(successor.peer_cred()?.uid());
            if uid.is_root() || uid == Uid::effective() {
                return Ok(Channel::new(successor.into_std()?.into())?);
            }
            tracing::warn!(%uid, "refused another user at the hand-over socket");
        }
    }
}

fn listen_at(path: &Path) -> io::Result<HandoverSocket> {
    // The run directory's lock is ours, so a socket that is there belongs to a process that is gone.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    // Of another type than the library expects, but accepted from in the same way.
    UnixListener::from_std(StdUnixListener::from(socket)).map(HandoverSocket)
}

/// Waits for the request of a successor.
async fn hear(successor: &Channel) -> Result<(), HandoverError> {
    let request = timeout(REQUEST_TIMEOUT, successor.receive::<ToPredecessor>());
    let request = request.await.map_err(|_| HandoverError::Timeout)??;
    match request.ok_or(HandoverError::Gone)?.message {
        ToPredecessor::TakeOver { version } if understands(version) => Ok(()),
        ToPredecessor::TakeOver { version } => Err(HandoverError::Version(version)),
        ToPredecessor::Taken | ToPredecessor::Unknown => Err(HandoverError::Incomplete),
    }
}

/// Gives everything to a successor, and leaves the kernel's state as it is. If that fails the proxies
/// are served as before.
///
/// Not to be dropped half-way: the proxies would be without capture.
pub async fn hand_over(
    control: &Control,
    Successor(successor): Successor,
    heirlooms: Heirlooms<'_>,
) -> Result<(), HandoverError> {
    let shared = &control.0;
    // Held to the end: no pod comes or goes any more.
    let programs = shared.programs.lock().await;
    tracing::info!("handing over to a successor");
    let mut links = Vec::new();
    for link in shared.proxies.all() {
        links.extend(link.hand_over().await);
    }
    let locks = [programs.lock(), heirlooms.run_lock];
    let given = timeout(HANDOVER_TIMEOUT, give(shared, &successor, locks, heirlooms.api, &links));
    let given = given.await.unwrap_or(Err(HandoverError::Timeout));
    if given.is_err() {
        take_back(control, links).await;
    }
    given
}

/// Serves proxies again whose links were not handed over. On return they are known to `control`: a
/// signal that has waited so long reaches them.
async fn take_back(control: &Control, links: Vec<OwnedFd>) {
    for greeted in join_all(links.into_iter().map(greet)).await {
        match greeted {
            Ok(greeted) => {
                let control = control.clone();
                let mut serving = Box::pin(async move { control.serve_proxy(greeted).await });
                // Begun here, for the sake of those who ask next.
                if (&mut serving).now_or_never().is_none() {
                    tokio::spawn(serving);
                }
            }
            Err(error) => tracing::error!(%error, "a proxy is lost"),
        }
    }
}

async fn give(
    shared: &Shared,
    successor: &Channel,
    locks: [BorrowedFd<'_>; 2],
    api: BorrowedFd<'_>,
    links: &[OwnedFd],
) -> Result<(), HandoverError> {
    successor.send(&ToSuccessor::Hello { version: VERSION }, &[]).await?;
    successor.send(&ToSuccessor::Locks, &locks).await?;
    successor.send(&ToSuccessor::Api, &[api]).await?;
    successor.send(&ToSuccessor::Endpoints, &shared.endpoints.descriptors()).await?;
    for (pod, listeners) in shared.listeners() {
        successor.send(&ToSuccessor::Pod { pod }, &listeners.descriptors()).await?;
    }
    for link in links {
        successor.send(&ToSuccessor::Proxy, &[link.as_fd()]).await?;
    }
    successor.send(&ToSuccessor::End, &[]).await?;
    let answer = successor.receive::<ToPredecessor>().await?.ok_or(HandoverError::Gone)?;
    match answer.message {
        ToPredecessor::Taken => Ok(()),
        ToPredecessor::TakeOver { .. } | ToPredecessor::Unknown => Err(HandoverError::Incomplete),
    }
}
