//! What a proxy holds open for connections.

use std::fs;

use anyhow::Result;
use fairlead_lab::FairleadNode;

/// Counts the sockets and pipes of a proxy: what connections cost, and nothing that a thread opens
/// once.
pub(crate) fn of_connections(node: &FairleadNode) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(format!("/proc/{}/fd", node.pid()))? {
        // One that is closed in the meantime is none.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy();
        count += usize::from(target.starts_with("socket:") || target.starts_with("pipe:"));
    }
    Ok(count)
}
