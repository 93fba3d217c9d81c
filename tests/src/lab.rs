//! A lab: its nodes, the wires between them, and the end of it all.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;

use crate::{
    capture::{Capture, CaptureOptions},
    host::Host as _,
    leftovers::Claim,
    link::{VethEnd, configure, wait_usable},
    node::Node,
};

/// Nodes of a lab that names no number: enough for traffic to cross a wire.
const DEFAULT_NODES: u8 = 2;

/// Most nodes of a lab: the numbers of two nodes are the digits of their wire's network.
const MAX_NODES: u8 = 9;

/// Prefix length of a wire's IPv4 network.
const WIRE_PREFIX_V4: u8 = 24;

/// Prefix length of a wire's IPv6 network.
const WIRE_PREFIX_V6: u8 = 64;

/// Added to the number of the node at the other end, this is the index of a wire's interface; no
/// index that the kernel chooses gets there.
const WIRE_INDEX: u32 = 1000;

/// Output shown of each program when a test panics, in bytes: the end, where the reason is.
const SHOWN_OUTPUT_BYTES: i64 = 4096;

/// Nodes and pods that exist until it is dropped.
#[derive(Debug)]
pub struct Lab {
    claim: Claim,
    nodes: Vec<Node>,
    kept: bool,
}

// === impl Lab ===

impl Lab {
    /// Makes two nodes, joined by a wire; removes what killed labs left.
    pub fn new(name: &str) -> Result<Self> {
        Self::with_nodes(name, DEFAULT_NODES)
    }

    /// Makes `nodes` nodes, each joined with each other by a wire; removes what killed labs left.
    pub fn with_nodes(name: &str, nodes: u8) -> Result<Self> {
        ensure!((1..=MAX_NODES).contains(&nodes), "a lab has 1 to {MAX_NODES} nodes");
        let mut lab = Self { claim: Claim::new(name)?, nodes: Vec::new(), kept: false };
        for number in 1..=nodes {
            lab.nodes.push(Node::create(lab.id(), lab.dir(), number)?);
        }
        for second in 2..=nodes {
            for first in 1..second {
                lab.join(first, second)?;
            }
        }
        Ok(lab)
    }

    /// Returns the id that all of its namespaces' names begin with.
    pub fn id(&self) -> &str {
        &self.claim.id
    }

    /// Returns a directory that is removed with the lab.
    pub fn dir(&self) -> &Path {
        &self.claim.dir
    }

    /// Returns a node by its number, from 1.
    pub fn node(&self, number: u8) -> &Node {
        &self.nodes[usize::from(number) - 1]
    }

    /// Returns all nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Records what crosses the wire between node 1 and node 2.
    pub fn capture_wire(&self) -> Result<Capture> {
        Capture::start(self.node(1), &self.wire_name(2), CaptureOptions::default())
    }

    /// Returns the name of the interface that leads to node `peer`.
    pub fn wire_name(&self, peer: u8) -> String {
        if self.nodes.len() == 2 { "wire".to_owned() } else { format!("wire{peer}") }
    }

    /// Leaves everything in place; the next lab on this machine, once this process has ended,
    /// removes it.
    pub fn keep(mut self) {
        self.kept = true;
    }

    fn join(&self, first: u8, second: u8) -> Result<()> {
        let (left, right) = (self.node(first), self.node(second));
        let (left_end, right_end) = (self.wire_name(second), self.wire_name(first));
        configure(left.netns(), async |links| {
            let end =
                |name, peer: u8| VethEnd { name, index: WIRE_INDEX + u32::from(peer), mac: None };
            links.add_veth(end(&left_end, second), end(&right_end, first), right.netns()).await
        })?;
        let (left_nets, right_nets) =
            (wire_nets(first, second, first), wire_nets(first, second, second));
        left.join_wire(&left_end, left_nets, right, right_nets.map(|net| net.addr()))?;
        right.join_wire(&right_end, right_nets, left, left_nets.map(|net| net.addr()))?;
        wait_usable(left.netns(), &left_end)?;
        wait_usable(right.netns(), &right_end)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            show_outputs(self.dir());
        }
        if self.kept {
            return;
        }
        if let Err(error) = self.claim.remove() {
            eprintln!("lab {}: {error:#}", self.claim.id);
        }
    }
}

/// Returns the addresses of node `host` on the wire between two nodes.
fn wire_nets(first: u8, second: u8, host: u8) -> [IpNet; 2] {
    let pair = first * 10 + second;
    let v4 = IpAddr::V4(Ipv4Addr::new(192, 168, pair, host));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfdff, pair.into(), 0, 0, 0, 0, 0, host.into()));
    [IpNet::new_assert(v4, WIRE_PREFIX_V4), IpNet::new_assert(v6, WIRE_PREFIX_V6)]
}

/// Prints the end of each program's output: the lab's directory is gone when someone looks.
fn show_outputs(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| is_output(path)) {
        match tail(path) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => eprintln!("--- {}\n{text}", path.display()),
            Err(error) => eprintln!("--- {}: {error:#}", path.display()),
        }
    }
}

fn is_output(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "stdout" || extension == "stderr")
}

fn tail(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).context("cannot open")?;
    if file.metadata()?.len() > SHOWN_OUTPUT_BYTES.unsigned_abs() {
        file.seek(SeekFrom::End(-SHOWN_OUTPUT_BYTES))?;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
