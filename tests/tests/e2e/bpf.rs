//! What a proxy has in the kernel's BPF subsystem, as `bpftool` shows it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{FairleadNode, Host as _};
use serde_json::Value;

/// Where the lab lets the proxy of a node pin what it has.
const BPF_FS: &str = "/sys/fs/bpf";

/// Kinds of pinned objects, and what each is called in bpftool.
const LINKS: [&str; 2] = ["fairlead_connect4", "fairlead_connect6"];

/// Maps of the proxy, all pinned.
const MAPS: [&str; 7] =
    ["ENROLLED", "PROXIES", "REGISTRATIONS", "LISTENERS", "PROBES", "PROBE_SOURCES", "COUNTS"];

/// Programs, links and maps of one proxy, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    /// Programs that use the proxy's maps.
    pub(crate) programs: BTreeSet<u64>,
    /// Links of these programs.
    pub(crate) links: BTreeSet<u64>,
    /// Maps of these programs.
    pub(crate) maps: BTreeSet<u64>,
}

/// Number of entries in the maps that hold pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entries {
    /// Captured pods.
    pub(crate) enrolled: usize,
    /// Pods whose connections are counted.
    pub(crate) counted: usize,
    /// Open connections of the kubelet.
    pub(crate) probes: usize,
    /// Listening sockets, three a pod.
    pub(crate) listeners: usize,
    /// Exempt processes.
    pub(crate) proxies: usize,
    /// Pinned links of pods.
    pub(crate) steered: usize,
}

// === impl Objects ===

impl Objects {
    /// Finds everything that belongs to the proxy with the pins of `node`.
    pub(crate) fn of(node: &FairleadNode) -> Result<Self> {
        let shared = MAPS.iter().map(|map| pinned_map(&pins(node).join(map)));
        let shared: BTreeSet<u64> = shared.collect::<Result<_>>()?;
        let mut found = Self { maps: shared.clone(), ..Self::default() };
        for program in list("prog")? {
            let maps: BTreeSet<u64> = numbers(&program["map_ids"]).collect();
            if !maps.is_disjoint(&shared) {
                found.programs.extend(program["id"].as_u64());
                found.maps.extend(maps);
            }
        }
        for link in list("link")? {
            let program = link["prog_id"].as_u64().unwrap_or_default();
            if found.programs.contains(&program) {
                found.links.extend(link["id"].as_u64());
            }
        }
        Ok(found)
    }

    /// Returns those that still exist.
    pub(crate) fn remaining(&self) -> Result<Self> {
        let still = |kind: &str, own: &BTreeSet<u64>| -> Result<BTreeSet<u64>> {
            let all: BTreeSet<u64> =
                list(kind)?.iter().filter_map(|object| object["id"].as_u64()).collect();
            Ok(own.intersection(&all).copied().collect())
        };
        Ok(Self {
            programs: still("prog", &self.programs)?,
            links: still("link", &self.links)?,
            maps: still("map", &self.maps)?,
        })
    }
}

// === impl Entries ===

impl Entries {
    /// Counts the entries of the proxy with the pins of `node`.
    pub(crate) fn of(node: &FairleadNode) -> Result<Self> {
        let dir = pins(node);
        let count = |map: &str| -> Result<usize> {
            let entries = bpftool(&["map", "dump", "pinned"], &dir.join(map))?;
            Ok(entries.as_array().context("no list of entries")?.len())
        };
        Ok(Self {
            enrolled: count("ENROLLED")?,
            counted: count("COUNTS")?,
            probes: count("PROBES")?,
            listeners: count("LISTENERS")?,
            proxies: count("PROXIES")?,
            steered: fs::read_dir(dir.join("pods"))?.count(),
        })
    }
}

/// Returns the directory that the proxy on a node has its pins in.
pub(crate) fn pins(node: &FairleadNode) -> PathBuf {
    pin_dir(node).join("v1")
}

/// Returns the directory that the proxy on a node was given for its pins.
pub(crate) fn pin_dir(node: &FairleadNode) -> PathBuf {
    Path::new(BPF_FS).join(node.node().netns().name())
}

/// Returns the paths of all pins of a proxy.
pub(crate) fn all_pins(node: &FairleadNode) -> Result<Vec<PathBuf>> {
    let dir = pins(node);
    let mut paths = Vec::new();
    for dir in [dir.clone(), dir.join("pods")] {
        for entry in fs::read_dir(dir)? {
            paths.push(entry?.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Returns the ids of the links that capture new connections: they change when a successor comes.
pub(crate) fn hooks(node: &FairleadNode) -> Result<Vec<u64>> {
    let id = |name: &&str| {
        let link = bpftool(&["link", "show", "pinned"], &pins(node).join(name))?;
        link["id"].as_u64().context("a link without an id")
    };
    LINKS.iter().map(id).collect()
}

fn pinned_map(path: &Path) -> Result<u64> {
    let map = bpftool(&["map", "show", "pinned"], path)?;
    map["id"].as_u64().context("a map without an id")
}

fn list(kind: &str) -> Result<Vec<Value>> {
    let mut command = Command::new("bpftool");
    command.args(["-j", kind, "show"]);
    Ok(json(&mut command)?.as_array().context("no list")?.clone())
}

fn bpftool(words: &[&str], path: &Path) -> Result<Value> {
    let mut command = Command::new("bpftool");
    command.arg("-j").args(words).arg(path);
    json(&mut command)
}

fn json(command: &mut Command) -> Result<Value> {
    let output = command.output().context("bpftool")?;
    // An object that ends while the list is made costs the rest of the list nothing.
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(!text.is_empty(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).with_context(|| format!("{command:?}: {text}"))
}

fn numbers(list: &Value) -> impl Iterator<Item = u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64)
}
