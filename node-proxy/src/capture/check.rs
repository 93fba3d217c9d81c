//! What the kernel must offer, asked one by one, so that a missing piece is named and not guessed.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};
use fairlead_sys::socket;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::kubelet::{Kubelet, KubeletCgroup};
use crate::cli::ProbeArgs;

/// Where a BPF file system is mounted by convention.
const BPF_FS: &str = "/sys/fs/bpf";

/// What the kernel offers that sees calls of functions of programs.
const CALLS_SOURCE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// Capabilities that capture needs: name, number, purpose.
const CAPABILITIES: [(&str, u32, &str); 4] = [
    ("CAP_NET_ADMIN", 12, "attaches socket programs and sets up the routing of pods"),
    ("CAP_NET_RAW", 13, "answers DNS queries in the name of name servers"),
    ("CAP_SYS_ADMIN", 21, "enters the network namespaces of pods"),
    ("CAP_BPF", 39, "loads BPF programs"),
];

/// One thing that capture needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// What it is.
    pub name: String,
    /// Why it is needed.
    pub purpose: &'static str,
    /// Why it is missing, and what to do; none if it is there.
    pub missing: Option<String>,
}

/// What capture needs and does not find.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Unsupported(pub Vec<Requirement>);

/// Checks everything that capture needs.
pub fn requirements(cgroup: Option<&Path>) -> Vec<Requirement> {
    let mut found = vec![cgroup_requirement(cgroup)];
    found.extend(CAPABILITIES.map(|(name, number, purpose)| Requirement {
        name: name.to_owned(),
        purpose,
        missing: (!has_capability(number)).then(|| "add it to the container".to_owned()),
    }));
    found.push(netns_cookie());
    found.push(program("sk_lookup", ProgramType::SkLookup, "5.9"));
    found.push(program("cgroup/connect and sendmsg", ProgramType::CgroupSockAddr, "4.17"));
    found.push(program("sock_ops", ProgramType::SockOps, "4.13"));
    found.push(map("sockhash", MapType::SockHash, "4.18"));
    found.push(map("hash", MapType::Hash, "3.19"));
    found.push(map("LRU hash", MapType::LruHash, "4.10"));
    found.push(map("per-CPU hash", MapType::PerCpuHash, "4.6"));
    found.push(Requirement {
        name: "sysctl net.ipv4.tcp_fwmark_accept".to_owned(),
        purpose: "brings the application's answers back to the proxy",
        missing: (!Path::new("/proc/sys/net/ipv4/tcp_fwmark_accept").exists())
            .then(|| "use a kernel of 3.16 or newer, with /proc/sys mounted".to_owned()),
    });
    found
}

/// Says by what the kubelet's probes are recognised, if they are.
pub fn probes(cgroup_root: Option<&Path>, options: &ProbeArgs) -> String {
    let named = options.kubelet_cgroup.as_deref();
    let found = cgroup_root.map(|root| KubeletCgroup::below(root, named).find());
    let kubelet = match found.unwrap_or(Kubelet::Absent) {
        Kubelet::Found { path, .. } => format!("ok       kubelet's cgroup {}", path.display()),
        Kubelet::HasOthersBelow(path) => format!(
            "note     the cgroup {} has others below it, which must not pass for the kubelet: name the \
             kubelet's own with --kubelet-cgroup, or its probes are refused where only mutual TLS is \
             allowed",
            path.display()
        ),
        Kubelet::Absent => {
            "note     no cgroup of a kubelet: if this node has one, name its cgroup with \
                 --kubelet-cgroup, or its probes are refused where only mutual TLS is allowed"
                .to_owned()
        }
    };
    let sources = options.probe_sources.iter();
    let source = |source| format!("\nnote     whatever comes from {source} passes as a probe");
    sources.map(source).fold(kubelet, |text, line| text + &line)
}

/// Says which profiles of the proxy can be taken. Without them capture works all the same.
pub fn profiles() -> String {
    let timers = is_program_supported(ProgramType::PerfEvent).unwrap_or(false);
    let calls = is_program_supported(ProgramType::KProbe).unwrap_or(false)
        && Path::new(CALLS_SOURCE).exists();
    let line = |possible, kind, option| {
        if possible {
            format!("ok       profile {kind}")
        } else {
            format!("note     profile {kind} is not possible: the kernel lacks {option}")
        }
    };
    let cpu = line(timers, "cpu", "BPF programs at perf events (CONFIG_BPF_EVENTS)");
    cpu + "\n" + &line(calls, "heap", "BPF programs at calls of programs (CONFIG_UPROBE_EVENTS)")
}

/// Fails with the list of what is missing.
pub fn ensure(cgroup: Option<&Path>) -> Result<(), Unsupported> {
    let missing: Vec<_> =
        requirements(cgroup).into_iter().filter(|r| r.missing.is_some()).collect();
    if missing.is_empty() { Ok(()) } else { Err(Unsupported(missing)) }
}

/// Returns the root of the cgroup v2 tree, which need not be at its conventional place.
pub fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| {
        line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("cgroup2 "))
    })?;
    // Fields: id, parent, device, root, mount point (proc(5)).
    line.split(' ').nth(4).map(PathBuf::from)
}

/// Makes sure that `dir` can hold pins: mounts the BPF file system at its conventional place if no
/// one has.
pub fn ensure_bpf_fs(dir: &Path) -> std::io::Result<()> {
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/"));
    if statfs(existing)?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    if !dir.starts_with(BPF_FS) {
        return Err(std::io::Error::other(format!(
            "{} is not on a BPF file system; use a directory below {BPF_FS}",
            dir.display()
        )));
    }
    mount(Some("bpf"), BPF_FS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
    Ok(())
}

fn cgroup_requirement(cgroup: Option<&Path>) -> Requirement {
    Requirement {
        name: "cgroup v2".to_owned(),
        purpose: "sees the connections that pods open",
        missing: match cgroup {
            Some(path) if path.join("cgroup.controllers").exists() => None,
            Some(path) => Some(format!("{} is not the root of a cgroup v2 tree", path.display())),
            None => Some("mount it, or give its place with --cgroup-root".to_owned()),
        },
    }
}

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << number) != 0)
}

fn netns_cookie() -> Requirement {
    Requirement {
        name: "SO_NETNS_COOKIE".to_owned(),
        purpose: "tells pods apart",
        missing: socket::probe()
            .and_then(|probe| socket::netns_cookie(&probe))
            .err()
            .map(|error| format!("use a kernel of 5.14 or newer ({error})")),
    }
}

fn program(name: &str, kind: ProgramType, since: &str) -> Requirement {
    Requirement {
        name: format!("BPF program type {name}"),
        purpose: "steers connections to the proxy, and the kubelet's past it",
        missing: missing(is_program_supported(kind), since),
    }
}

fn map(name: &str, kind: MapType, since: &str) -> Requirement {
    Requirement {
        name: format!("BPF map type {name}"),
        purpose: "holds the enrolled pods, their sockets and what is counted of them",
        missing: missing(is_map_supported(kind), since),
    }
}

fn missing<E: fmt::Display>(supported: Result<bool, E>, since: &str) -> Option<String> {
    match supported {
        Ok(true) => None,
        Ok(false) => Some(format!("use a kernel of {since} or newer, built with BPF support")),
        Err(error) => Some(format!("the kernel does not say ({error}); is CAP_BPF given?")),
    }
}

// === impl Requirement ===

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.missing {
            None => write!(f, "ok       {} ({})", self.name, self.purpose),
            Some(remedy) => write!(f, "MISSING  {} ({}): {remedy}", self.name, self.purpose),
        }
    }
}

// === impl Unsupported ===

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this node cannot capture traffic:")?;
        for requirement in &self.0 {
            write!(f, "\n  {requirement}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let error = ensure(Some(Path::new("/nowhere"))).unwrap_err();
        assert!(error.to_string().contains("cgroup v2"), "{error}");
        assert!(error.to_string().contains("/nowhere is not the root"), "{error}");
    }
}
