//! Network namespaces: entering one for the length of a call.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use fairlead_ebpf::NetnsCookie;
use nix::sched::{CloneFlags, setns};

use super::socket;

/// An open network namespace. Keeps the namespace alive.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    cookie: NetnsCookie,
}

thread_local! {
    /// The namespace that the thread belongs to and returns to.
    static HOME: io::Result<File> = File::open("/proc/thread-self/ns/net");
}

/// Returns to the thread's own namespace when dropped, also while unwinding.
struct Return<'a>(BorrowedFd<'a>);

// === impl Netns ===

impl Netns {
    /// Opens the namespace at `path`, such as `/run/netns/name` or `/proc/1/ns/net`.
    ///
    /// Fails if the path is no network namespace or the caller may not enter it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = OwnedFd::from(File::open(path)?);
        let cookie = enter(fd.as_fd(), || socket::netns_cookie(&socket::probe()?))??;
        Ok(Self { fd, cookie })
    }

    /// Returns the namespace's cookie.
    pub fn cookie(&self) -> NetnsCookie {
        self.cookie
    }

    /// Calls `f` with the calling thread inside the namespace.
    ///
    /// `f` must not wait: another task of the same thread would run in the wrong namespace.
    pub fn within<T>(&self, f: impl FnOnce() -> T) -> io::Result<T> {
        enter(self.fd.as_fd(), f)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// === impl Return ===

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if setns(self.0, CloneFlags::CLONE_NEWNET).is_err() {
            // A thread stuck in a pod's namespace would give one pod's sockets to another.
            std::process::abort();
        }
    }
}

fn enter<T>(namespace: BorrowedFd<'_>, f: impl FnOnce() -> T) -> io::Result<T> {
    HOME.with(|home| {
        let home = home.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let _return = Return(home.as_fd());
        Ok(f())
    })
}
