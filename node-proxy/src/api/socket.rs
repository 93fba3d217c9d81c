//! The socket file: one process per run directory, and nobody else's hands on it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
            net::UnixListener as StdUnixListener,
        },
    },
    path::{Path, PathBuf},
};

use fairlead_component::http::Listener;
use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use super::socket_path;

/// Mode of the run directory that this process creates.
const DIRECTORY_MODE: u32 = 0o700;

/// Mode of the socket and of the lock file.
const FILE_MODE: u32 = 0o600;

/// Permission bits that let others replace the socket.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Name of the file whose lock says that a process owns the run directory.
const LOCK_NAME: &str = "node.lock";

/// The listening socket of the API; dropping it removes the file, unless a successor listens there.
#[derive(Debug)]
pub struct ApiSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Released by the kernel when the last process that has it open dies, so that a stale socket is
    /// known as such.
    lock: File,
    handed_over: bool,
}

/// Why the API has no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process serves in the same run directory.
    #[error(
        "another fairlead-node runs with run directory {}: stop it, or choose another --run-dir",
        .0.display()
    )]
    InUse(PathBuf),
    /// Other users could replace the socket.
    #[error(
        "others than this user may write to run directory {} (mode {mode:o}, owner {owner}): make \
         it private with chmod 700 and chown, or choose another --run-dir",
        path.display()
    )]
    NotPrivate {
        /// The run directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// User id of its owner.
        owner: u32,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}; choose another --run-dir if this one is unusable", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

// === impl ApiSocket ===

impl ApiSocket {
    /// Creates the socket in `run_dir`, and the directory where needed.
    ///
    /// Must be called in a runtime.
    pub fn bind(run_dir: &Path) -> Result<Self, SocketError> {
        ensure_private(run_dir)?;
        let lock = lock(run_dir)?;
        let path = socket_path(run_dir);
        // The lock is ours, so a socket that is there belongs to a process that is gone.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let listener = StdUnixListener::bind(&path).map_err(failed("bind", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(FILE_MODE))
            .map_err(failed("change the mode of", &path))?;
        listener.set_nonblocking(true).map_err(failed("listen on", &path))?;
        let listener = UnixListener::from_std(listener).map_err(failed("listen on", &path))?;
        Ok(Self { listener, path, lock, handed_over: false })
    }

    /// Goes on with the socket and the lock of a predecessor. Must be called in a runtime.
    pub fn inherit(
        run_dir: &Path,
        listener: StdUnixListener,
        lock: File,
    ) -> Result<Self, SocketError> {
        let path = socket_path(run_dir);
        let listener = UnixListener::from_std(listener).map_err(failed("listen on", &path))?;
        Ok(Self { listener, path, lock, handed_over: false })
    }

    /// Returns the open file whose lock says who owns the run directory.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Leaves the file to a successor.
    pub fn leave(mut self) {
        self.handed_over = true;
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Listener for ApiSocket {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let uid = Uid::from_raw(stream.peer_cred()?.uid());
            if uid.is_root() || uid == Uid::effective() {
                return Ok(stream);
            }
            warn!(%uid, "refused another user at the API socket");
        }
    }
}

impl AsFd for ApiSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        if self.handed_over {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the API socket");
        }
    }
}

/// Creates the directory, or checks that nobody else may write to it.
fn ensure_private(run_dir: &Path) -> Result<(), SocketError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(run_dir)
        .map_err(failed("create", run_dir))?;
    let metadata = fs::metadata(run_dir).map_err(failed("read", run_dir))?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    if mode & WRITABLE_BY_OTHERS == 0 && Uid::from_raw(owner) == Uid::effective() {
        return Ok(());
    }
    Err(SocketError::NotPrivate { path: run_dir.to_owned(), mode, owner })
}

fn lock(run_dir: &Path) -> Result<File, SocketError> {
    let path = run_dir.join(LOCK_NAME);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&path)
        .map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::InUse(run_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> SocketError {
    move |source| SocketError::Io { action, path: path.to_owned(), source }
}
