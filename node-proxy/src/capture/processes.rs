//! Finds a pod's network namespace by the pod's processes.
//!
//! The container runtime puts each process of a pod below a control group that names the pod. That
//! group is the outermost one that does: what a container makes further down, under whatever name,
//! is its own.
//!
//! A process may end while its pod goes on, so a namespace is better named by the file that the
//! runtime has mounted it on, if it has.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What names the control groups of pods.
const PODS_GROUP: &str = "kubepods";

/// Ending of a control group's name that systemd manages.
const SLICE: &str = ".slice";

/// Field of `/proc/PID/stat` with the start of the process, counted from the one after the name.
const START_TIME_FIELD: usize = 19;

/// The processes of the node.
#[derive(Clone, Debug)]
pub struct Processes {
    proc_dir: PathBuf,
    netns_dir: PathBuf,
}

/// A process of a pod.
#[derive(Debug)]
struct Process {
    started: u64,
    netns: PathBuf,
    id: NetnsId,
}

/// Device and inode, which tell namespaces apart.
type NetnsId = (u64, u64);

// === impl Processes ===

impl Processes {
    /// Looks for processes in `proc_dir`, which has to show all of the node's, and for what the
    /// runtime has mounted in `netns_dir`.
    pub fn in_dirs(proc_dir: PathBuf, netns_dir: PathBuf) -> Self {
        Self { proc_dir, netns_dir }
    }

    /// Returns the network namespaces that processes of the pod are in, other than the node's own;
    /// that of the oldest process of all comes first.
    ///
    /// Reads much: not for a thread that others wait for.
    pub(super) fn namespaces_of(&self, uid: &str) -> io::Result<Vec<PathBuf>> {
        let uid = uid.to_ascii_lowercase();
        let own = [self.proc_dir.join("1"), self.proc_dir.join("self")];
        let nodes: Vec<_> = own.iter().filter_map(|dir| netns_id(&dir.join("ns/net"))).collect();
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.proc_dir)? {
            let dir = entry?.path();
            let is_process = dir.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
            // A process that has ended in the meantime is none.
            if is_process.is_some()
                && is_of_pod(&dir, &uid)
                && let Some(process) = Process::of(&dir)
                && !nodes.contains(&process.id)
            {
                found.push(process);
            }
        }
        found.sort_by_key(|process| process.started);
        let mounted = self.mounted();
        let mut seen = Vec::new();
        found.retain(|process| {
            let is_new = !seen.contains(&process.id);
            seen.push(process.id);
            is_new
        });
        let path = |process: Process| mounted.get(&process.id).cloned().unwrap_or(process.netns);
        Ok(found.into_iter().map(path).collect())
    }

    /// Returns the namespaces that the runtime has mounted.
    fn mounted(&self) -> HashMap<NetnsId, PathBuf> {
        // Not every runtime does, or has a directory for it.
        let entries = fs::read_dir(&self.netns_dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((netns_id(&entry.path())?, entry.path()))).collect()
    }
}

// === impl Process ===

impl Process {
    fn of(dir: &Path) -> Option<Self> {
        let started = start_time(&fs::read_to_string(dir.join("stat")).ok()?)?;
        let netns = dir.join("ns/net");
        let id = netns_id(&netns)?;
        Some(Self { started, netns, id })
    }
}

fn is_of_pod(dir: &Path, uid: &str) -> bool {
    let groups = fs::read_to_string(dir.join("cgroup"));
    groups.is_ok_and(|groups| pod_of(&groups).is_some_and(|found| found == uid))
}

fn netns_id(path: &Path) -> Option<NetnsId> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Returns the uid of the pod that a process with these control groups (`/proc/PID/cgroup`) is of.
fn pod_of(groups: &str) -> Option<String> {
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    groups.lines().filter_map(path).find_map(|path| {
        let mut names = path.split('/').skip_while(|name| !name.contains(PODS_GROUP));
        names.find_map(pod_named_by)
    })
}

/// Returns the uid of the pod that a control group is named after: `pod<uid>`, or in systemd's form
/// `kubepods-burstable-pod<uid with underscores>.slice`.
fn pod_named_by(group: &str) -> Option<String> {
    let uid = match group.strip_suffix(SLICE) {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => group.strip_prefix("pod")?,
    };
    let is_id =
        !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    is_id.then(|| uid.to_ascii_lowercase().replace('_', "-"))
}

/// Returns when a process was started, by its `/proc/PID/stat`.
fn start_time(stat: &str) -> Option<u64> {
    // The name of the process is in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(START_TIME_FIELD)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const UID: &str = "0f5c2a9e-7f0b-4a51-9d3e-0123456789ab";

    #[test]
    fn the_outermost_group_that_names_a_pod_counts() {
        let slice = "kubepods-burstable-pod0f5c2a9e_7f0b_4a51_9d3e_0123456789ab.slice";
        for (groups, is_found) in [
            (format!("0::/kubepods/burstable/pod{UID}/8e3b"), true),
            (format!("0::/kubepods/pod{UID}/8e3b"), true),
            (format!("0::/kubepods/pod{}/8e3b", UID.to_uppercase()), true),
            (format!("0::/kubepods.slice/kubepods-burstable.slice/{slice}/cri-8e3b.scope"), true),
            (format!("0::/kubepods.slice/{}/x", slice.replace("-burstable", "")), true),
            (format!("0::/kubelet.slice/kubelet-kubepods.slice/kubelet-{slice}/x"), true),
            (format!("0::/../../kubepods/besteffort/pod{UID}"), true),
            (format!("12:cpu:/\n1:name=systemd:/kubepods/pod{UID}/8e3b\n0::/"), true),
            (format!("0::/kubepods/podother/8e3b/kubepods/pod{UID}"), false),
            (format!("0::/kubepods/podother/pod{UID}"), false),
            (format!("0::/user.slice/pod{UID}"), false),
            (format!("0::/pod{UID}/kubepods"), false),
            (format!("0::/kubepods/pod{UID}x"), false),
            (format!("0::/kubepods/xpod{UID}"), false),
            ("0::/kubepods/pod".to_owned(), false),
            ("0::/kubepods/burstable".to_owned(), false),
            ("0::/system.slice/cron.service".to_owned(), false),
            (String::new(), false),
            ("nonsense".to_owned(), false),
        ] {
            let found = pod_of(&groups).is_some_and(|found| found == UID);
            assert_eq!(found, is_found, "{groups}");
        }
    }

    #[test]
    fn a_process_tells_when_it_was_started_whatever_its_name() {
        let stat = |name: &str| {
            format!("7 ({name}) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 12 34 56")
        };
        for name in ["sleep", "a b", ") S 1", "", "(("] {
            assert_eq!(start_time(&stat(name)), Some(4711), "{name}");
        }
        for broken in ["", "7 (x", "7 (x) S 1 2"] {
            assert_eq!(start_time(broken), None, "{broken}");
        }
    }

    /// A directory like `/proc` whose processes are of pods, in namespaces, started in order.
    fn proc_dir(processes: &[(u32, &str, &str, u64)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut namespaces = HashMap::new();
        for (pid, pod, netns, started) in processes {
            let process = dir.path().join(pid.to_string());
            fs::create_dir_all(process.join("ns")).unwrap();
            fs::write(process.join("cgroup"), format!("0::/kubepods/pod{pod}/c")).unwrap();
            let zeros = ["0"; START_TIME_FIELD - 1].join(" ");
            fs::write(process.join("stat"), format!("{pid} (x) S {zeros} {started} 0")).unwrap();
            let namespace = namespaces.entry(*netns).or_insert_with(|| {
                let path = dir.path().join(netns);
                fs::write(&path, "").unwrap();
                path
            });
            symlink(namespace, process.join("ns/net")).unwrap();
        }
        symlink("1", dir.path().join("self")).unwrap();
        fs::create_dir(dir.path().join("sys")).unwrap();
        dir
    }

    #[test]
    fn a_namespace_is_named_by_its_mount_or_oldest_process_and_the_nodes_is_left_out() {
        let dir = proc_dir(&[
            (1, "none", "node", 1),
            (30, "a", "pod-a", 10),
            (20, "a", "inner", 20),
            (10, "a", "pod-a", 30),
            (40, "a", "node", 5),
            (50, "b", "pod-b", 1),
        ]);
        let mounts = dir.path().join("mounts");
        let processes = Processes::in_dirs(dir.path().to_owned(), mounts.clone());
        let found = |uid| {
            let found = processes.namespaces_of(uid).unwrap();
            let relative = |path: PathBuf| path.strip_prefix(dir.path()).unwrap().to_owned();
            found.into_iter().map(relative).collect::<Vec<_>>()
        };
        assert_eq!(found("a"), ["30/ns/net", "20/ns/net"].map(PathBuf::from));
        assert_eq!(found("b"), ["50/ns/net"].map(PathBuf::from));
        assert!(found("c").is_empty());
        fs::create_dir(&mounts).unwrap();
        symlink(dir.path().join("pod-a"), mounts.join("cni-a")).unwrap();
        assert_eq!(found("a"), ["mounts/cni-a", "20/ns/net"].map(PathBuf::from));
    }
}
