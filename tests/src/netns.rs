//! Network namespaces by name, as `ip netns` knows them.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    panic,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

/// Where `ip netns` keeps its names.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// A network namespace with a name under `/run/netns`.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
}

/// What tells one network namespace from all others: device and inode of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetnsId {
    device: u64,
    inode: u64,
}

// === impl Netns ===

impl Netns {
    /// Makes a new namespace with nothing in it but `lo`, which is down.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let netns = Self::named(name);
        fs::create_dir_all(NETNS_DIR)?;
        File::create_new(&netns.path).with_context(|| format!("namespace {name}"))?;
        in_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let own = "/proc/thread-self/ns/net";
            mount(Some(own), &netns.path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        })
        .with_context(|| format!("cannot create the network namespace {name}"))?;
        Ok(netns)
    }

    /// Refers to the namespace of that name, which need not exist.
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), path: Path::new(NETNS_DIR).join(name) }
    }

    /// Returns the name, as in `ip netns exec NAME`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the path of the file that stands for the namespace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a thread inside the namespace and returns its result.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = self.open()?;
        in_new_thread(|| {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter the network namespace {}", self.name))?;
            work()
        })
    }

    /// Reads the kernel parameter `key`, such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let path = Path::new("/proc/sys").join(key);
        let read = || fs::read_to_string(&path).with_context(|| format!("sysctl {key}"));
        Ok(self.enter(read)?.trim_end().to_owned())
    }

    /// Writes the kernel parameters `settings`.
    pub fn set_sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                fs::write(Path::new("/proc/sys").join(key), value)
                    .with_context(|| format!("sysctl {key}={value} in {}", self.name))?;
            }
            Ok(())
        })
    }

    /// Removes the name; the kernel frees the namespace when nothing uses it any more.
    pub(crate) fn delete(&self) -> Result<()> {
        match umount2(&self.path, MntFlags::MNT_DETACH) {
            // EINVAL: not a mount point, left by a process that died between file and mount.
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot unmount {}", self.name));
            }
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.name))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn open(&self) -> Result<File> {
        File::open(&self.path).with_context(|| format!("network namespace {}", self.name))
    }

    pub(crate) fn id(&self) -> Result<NetnsId> {
        NetnsId::of_file(&self.path)
    }
}

// === impl NetnsId ===

impl NetnsId {
    pub(crate) fn of_file(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// A thread's namespace is its own, so a thread that ends takes the change with it.
fn in_new_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(payload) => panic::resume_unwind(payload),
    })
}
