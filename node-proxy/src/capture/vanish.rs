//! Tells whether a pod's namespace is still the one that was enrolled.
//!
//! The proxy's own sockets keep a namespace alive, so its end does not show in the kernel; but the
//! path by which the runtime named it goes away, or leads elsewhere.

use std::{fs, io, os::fd::AsFd, os::unix::fs::MetadataExt, path::Path, time::Duration};

use fairlead_sys::netns::Netns;
use nix::sys::stat::fstat;

/// Pause between looks at the paths of all pods: how long a vanished pod may keep its listeners.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Returns whether `path` no longer names `netns`.
pub(super) fn is_gone(path: &Path, netns: &Netns) -> bool {
    let Ok(open) = fstat(netns.as_fd()) else { return false };
    match fs::metadata(path) {
        Ok(found) => (found.dev(), found.ino()) != (open.st_dev, open.st_ino),
        // Any other failure is ours, not the pod's.
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}
