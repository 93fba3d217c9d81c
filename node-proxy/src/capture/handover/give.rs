//! The predecessor's part.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener as StdUnixListener},
    },
    path::{Path, PathBuf},
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
        proxies::{ProxyNumber, greet},
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

/// Where a successor asks for everything. Dropping it removes the file, unless a successor has taken
/// over and listens there.
#[derive(Debug)]
pub struct HandoverSocket {
    listener: UnixListener,
    path: PathBuf,
    handed_over: bool,
}

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
        match listen_at(&path) {
            Ok(listener) => Ok(Self { listener, path, handed_over: false }),
            Err(cause) => Err(HandoverError::Socket { path, cause }),
        }
    }

    /// Leaves the file to a successor.
    pub fn leave(mut self) {
        self.handed_over = true;
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
            let (successor, _) = self.listener.accept().await?;
            let uid = Uid::from_raw(successor.peer_cred()?.uid());
            if uid.is_root() || uid == Uid::effective() {
                return Ok(Channel::new(successor.into_std()?.into())?);
            }
            tracing::warn!(%uid, "refused another user at the hand-over socket");
        }
    }
}

impl Drop for HandoverSocket {
    fn drop(&mut self) {
        if self.handed_over {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the hand-over socket");
        }
    }
}

fn listen_at(path: &Path) -> io::Result<UnixListener> {
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
    UnixListener::from_std(StdUnixListener::from(socket))
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
        links.extend(link.hand_over().await.map(|socket| (link.number, socket)));
    }
    let locks = [programs.lock(), heirlooms.run_lock];
    let given = timeout(HANDOVER_TIMEOUT, give(shared, &successor, locks, heirlooms.api, &links));
    match given.await.unwrap_or(Err(HandoverError::Timeout)) {
        Err(error) if !was_taken(&successor).await => {
            take_back(control, links).await;
            Err(error)
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Decides a hand-over that has failed on this side: returns whether the successor has everything all
/// the same. If not, it cannot have it any more.
async fn was_taken(successor: &Channel) -> bool {
    // Fails on a socket whose other end is gone, which sends nothing either.
    let _ = successor.close_for_receiving();
    loop {
        match successor.receive::<ToPredecessor>().await {
            Ok(Some(received)) if received.message == ToPredecessor::Taken => return true,
            // What makes no sense may stand before what does.
            Ok(Some(_)) | Err(ChannelError::Malformed(_) | ChannelError::TooLong) => {}
            Ok(None) | Err(ChannelError::Io(_)) => return false,
        }
    }
}

/// Serves proxies again whose links were not handed over. On return they are known to `control`: a
/// signal that has waited so long reaches them.
async fn take_back(control: &Control, links: Vec<(ProxyNumber, OwnedFd)>) {
    let arrivals = &control.0.arrivals;
    let greetings =
        links.into_iter().map(|(number, link)| greet(link, arrivals.arrive_again(number)));
    for greeted in join_all(greetings).await {
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
    links: &[(ProxyNumber, OwnedFd)],
) -> Result<(), HandoverError> {
    successor.send(&ToSuccessor::Hello { version: VERSION }, &[]).await?;
    successor.send(&ToSuccessor::Locks, &locks).await?;
    successor.send(&ToSuccessor::Api, &[api]).await?;
    successor.send(&ToSuccessor::Endpoints, &shared.endpoints.descriptors()).await?;
    for (pod, listeners) in shared.listeners() {
        successor.send(&ToSuccessor::Pod { pod }, &listeners.descriptors()).await?;
    }
    for (_, link) in links {
        successor.send(&ToSuccessor::Proxy, &[link.as_fd()]).await?;
    }
    successor.send(&ToSuccessor::End, &[]).await?;
    let answer = successor.receive::<ToPredecessor>().await?.ok_or(HandoverError::Gone)?;
    match answer.message {
        ToPredecessor::Taken => Ok(()),
        ToPredecessor::TakeOver { .. } | ToPredecessor::Unknown => Err(HandoverError::Incomplete),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{capture::handover::Predecessor, link::channel::pair};
    use fairlead_sys::descriptors;

    fn channels() -> (Channel, Predecessor) {
        let (ours, theirs) = pair().unwrap();
        (Channel::new(ours).unwrap(), Predecessor::at(Channel::new(theirs).unwrap()))
    }

    #[tokio::test]
    async fn the_socket_of_the_run_directory_goes_with_its_owner_unless_it_has_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket_path(dir.path());
        let first = HandoverSocket::bind(dir.path()).unwrap();
        let second = HandoverSocket::bind(dir.path()).unwrap();
        first.leave();
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_successor_that_was_faster_than_the_time_limit_has_everything() {
        let (successor, predecessor) = channels();
        predecessor.end().await.unwrap();
        assert!(was_taken(&successor).await);
    }

    #[tokio::test]
    async fn a_successor_that_was_too_slow_cannot_take_anything() {
        let (successor, predecessor) = channels();
        assert!(!was_taken(&successor).await);
        predecessor.end().await.unwrap_err();
        let (successor, predecessor) = channels();
        drop(predecessor);
        assert!(!was_taken(&successor).await);
    }

    #[tokio::test]
    async fn there_is_one_owner_whoever_is_faster() {
        let taken = serde_json::to_vec(&ToPredecessor::Taken).unwrap();
        for _ in 0..1_000 {
            let (ours, theirs) = pair().unwrap();
            let ours = Channel::new(ours).unwrap();
            let taken = taken.clone();
            let end = thread::spawn(move || descriptors::send(&theirs, &taken, &[]).is_ok());
            let was_taken = was_taken(&ours).await;
            assert_eq!(end.join().unwrap(), was_taken);
        }
    }
}
