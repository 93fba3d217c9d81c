//! What a proxy is to have in the kernel, and has.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, Result};
use fairlead_lab::{FairleadNode, Host as _, Pod, TcpState};
use serde_json::Value;

use crate::bpf::{Entries, all_pins};

/// What a proxy has on record and in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Name, identity, addresses and state of each enrolled pod.
    pods: Vec<[String; 4]>,
    /// Entries of its maps.
    entries: Entries,
    /// What it has pinned.
    pins: Vec<PathBuf>,
    /// Listening sockets, rules and routes inside each pod.
    inside: Vec<Inside>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inside {
    listeners: Vec<SocketAddr>,
    routing: String,
}

// === impl State ===

impl State {
    /// Looks at the proxy `node`, and into `pods`.
    pub(crate) fn of(node: &FairleadNode, pods: &[&Pod]) -> Result<Self> {
        Ok(Self {
            pods: enrolled(node)?,
            entries: Entries::of(node)?,
            pins: all_pins(node)?,
            inside: pods.iter().map(|pod| Inside::of(pod)).collect::<Result<_>>()?,
        })
    }
}

// === impl Inside ===

impl Inside {
    fn of(pod: &Pod) -> Result<Self> {
        let sockets = pod.tcp_sockets()?.into_iter();
        let listening = sockets.filter(|socket| socket.state == TcpState::Listen);
        let mut listeners: Vec<_> = listening.map(|socket| socket.local).collect();
        listeners.sort_unstable();
        let script = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all";
        let routing = pod.run(["sh", "-c", script])?.checked()?.stdout;
        Ok(Self { listeners, routing })
    }
}

/// Returns what does not change from one list of pods to the next.
fn enrolled(node: &FairleadNode) -> Result<Vec<[String; 4]>> {
    let list = node.pod_command(&["list", "-o", "json"])?.checked()?.stdout;
    let pods: Vec<Value> = serde_json::from_str(&list).context(list)?;
    let keys = ["name", "identity", "addresses", "state"];
    Ok(pods.iter().map(|pod| keys.map(|key| pod[key].to_string())).collect())
}
