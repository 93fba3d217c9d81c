//! Where the kubelet's processes are: the cgroup by which its probes are recognised.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Cgroups of the kubelet on the distributions that are known, below the root of the tree: systemd
/// services of their usual names and slices (the third is kind's), k3s and RKE2, which have the kubelet
/// in their own process, and Talos.
const KNOWN: [&str; 8] = [
    "system.slice/kubelet.service",
    "runtime.slice/kubelet.service",
    "kubelet.slice/kubelet.service",
    "system.slice/k3s.service",
    "system.slice/k3s-agent.service",
    "system.slice/rke2-server.service",
    "system.slice/rke2-agent.service",
    "podruntime/kubelet",
];

/// The cgroups that the kubelet may be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletCgroup {
    candidates: Vec<PathBuf>,
}

/// What is there of the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kubelet {
    /// Its cgroup.
    Found {
        /// The directory.
        path: PathBuf,
        /// Tells it from one of the same name: a service that is started anew has another cgroup.
        id: u64,
    },
    /// A cgroup that has others below it: their processes, pods perhaps, would pass for the kubelet.
    HasOthersBelow(PathBuf),
    /// No cgroup.
    Absent,
}

// === impl KubeletCgroup ===

impl KubeletCgroup {
    /// Looks below `root`, the root of the cgroup v2 tree, for the cgroup that an operator has named,
    /// or else for the known ones.
    pub fn below(root: &Path, named: Option<&Path>) -> Self {
        let place = |path: &Path| {
            if path.starts_with(root) {
                return path.to_owned();
            }
            // As /proc/PID/cgroup has it: from the root of the tree.
            root.join(path.strip_prefix("/").unwrap_or(path))
        };
        let candidates = match named {
            Some(path) => vec![place(path)],
            None => KNOWN.iter().map(|path| root.join(path)).collect(),
        };
        Self { candidates }
    }

    /// Returns the first that exists.
    pub fn find(&self) -> Kubelet {
        let found = self.candidates.iter().find_map(|path| look_at(path).ok());
        found.unwrap_or(Kubelet::Absent)
    }
}

fn look_at(path: &Path) -> io::Result<Kubelet> {
    let id = fs::metadata(path)?.ino();
    for entry in fs::read_dir(path)? {
        if entry?.file_type()?.is_dir() {
            return Ok(Kubelet::HasOthersBelow(path.to_owned()));
        }
    }
    Ok(Kubelet::Found { path: path.to_owned(), id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_may_be_named_in_full_or_as_the_kernel_names_it() {
        let root = Path::new("/sys/fs/cgroup");
        for named in [
            "system.slice/kubelet.service",
            "/system.slice/kubelet.service",
            "/sys/fs/cgroup/system.slice/kubelet.service",
        ] {
            let candidates = KubeletCgroup::below(root, Some(Path::new(named))).candidates;
            assert_eq!(candidates, [root.join("system.slice/kubelet.service")], "{named}");
        }
    }

    #[test]
    fn the_first_known_cgroup_that_exists_is_the_kubelets() {
        let root = tempfile::tempdir().unwrap();
        let kubelet = KubeletCgroup::below(root.path(), None);
        assert_eq!(kubelet.find(), Kubelet::Absent);
        for (made, found) in [
            ("system.slice/k3s.service", "system.slice/k3s.service"),
            ("system.slice/kubelet.service", "system.slice/kubelet.service"),
            ("podruntime/kubelet", "system.slice/kubelet.service"),
        ] {
            fs::create_dir_all(root.path().join(made)).unwrap();
            let Kubelet::Found { path, .. } = kubelet.find() else { panic!("{made}") };
            assert_eq!(path, root.path().join(found), "{made}");
        }
    }

    #[test]
    fn a_cgroup_that_was_made_anew_is_another_one() {
        let root = tempfile::tempdir().unwrap();
        let kubelet = KubeletCgroup::below(root.path(), Some(Path::new("kubelet")));
        let path = root.path().join("kubelet");
        fs::create_dir(&path).unwrap();
        let first = kubelet.find();
        assert_eq!(kubelet.find(), first);
        // The file system does not give away the first one's number while it is there.
        fs::rename(&path, root.path().join("before")).unwrap();
        fs::create_dir(&path).unwrap();
        assert_ne!(kubelet.find(), first);
    }

    #[test]
    fn a_named_cgroup_is_the_only_one_looked_for() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(KNOWN[0])).unwrap();
        let other = KubeletCgroup::below(root.path(), Some(Path::new("other")));
        assert_eq!(other.find(), Kubelet::Absent);
    }

    #[test]
    fn a_cgroup_with_others_below_it_is_not_the_kubelets_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("system.slice/k3s.service");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("cgroup.procs"), "1").unwrap();
        let kubelet = KubeletCgroup::below(root.path(), None);
        assert!(matches!(kubelet.find(), Kubelet::Found { .. }));
        fs::create_dir(path.join("kubepods.slice")).unwrap();
        assert_eq!(kubelet.find(), Kubelet::HasOthersBelow(path));
    }
}
