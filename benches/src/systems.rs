//! What is compared: no proxy, Fairlead, and other proxies.

use std::{fmt, str::FromStr};

/// A way to join a client and a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// Nothing but the network.
    Direct,
    /// The build under test.
    Fairlead,
    /// Another proxy.
    Peer(Peer),
}

/// A proxy that an adapter starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Name in the results.
    pub(crate) name: String,
    /// Its adapter.
    pub(crate) command: String,
}

/// Name in the results of what needs no proxy.
pub(crate) const DIRECT: &str = "direct";

/// Name in the results of the build under test.
pub(crate) const FAIRLEAD: &str = "fairlead";

/// Longest name: it is the head of a column.
const MAX_NAME: usize = 20;

/// Lists the systems in the order of the table.
pub(crate) fn all(peers: &[Peer]) -> Result<Vec<System>, String> {
    for (index, peer) in peers.iter().enumerate() {
        if peers[..index].iter().any(|earlier| earlier.name == peer.name) {
            return Err(format!("two peers are called {}", peer.name));
        }
    }
    let peers = peers.iter().cloned().map(System::Peer);
    Ok([System::Direct, System::Fairlead].into_iter().chain(peers).collect())
}

// === impl System ===

impl System {
    /// Returns the name in the results.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Direct => DIRECT,
            Self::Fairlead => FAIRLEAD,
            Self::Peer(peer) => &peer.name,
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Peer ===

impl FromStr for Peer {
    type Err = String;

    /// Reads `NAME=COMMAND`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("give NAME=COMMAND")?;
        let in_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(in_name) {
            return Err(format!(
                "a name has 1 to {MAX_NAME} letters, digits, \"-\", \"_\" or \".\""
            ));
        }
        if [DIRECT, FAIRLEAD].contains(&name) {
            return Err(format!("{name} is measured anyway: choose another name"));
        }
        if command.trim().is_empty() {
            return Err("the command is empty".to_owned());
        }
        Ok(Self { name: name.to_owned(), command: command.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_and_a_command() {
        let peer: Peer = "before=A=b adapter.sh --x=1".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.command.as_str()), ("before", "A=b adapter.sh --x=1"));
        for bad in ["", "before", "=x", "a b=x", "before=", "before= ", "direct=x", "fairlead=x"] {
            assert!(bad.parse::<Peer>().is_err(), "{bad:?}");
        }
        assert!(format!("{}=x", "n".repeat(MAX_NAME + 1)).parse::<Peer>().is_err());
    }

    #[test]
    fn systems_are_listed_in_order_and_have_different_names() {
        let peers: Vec<Peer> = ["b=x", "a=x"].iter().map(|p| p.parse().unwrap()).collect();
        let names: Vec<_> = all(&peers).unwrap().iter().map(System::to_string).collect();
        assert_eq!(names, ["direct", "fairlead", "b", "a"]);
        assert!(all(&[peers[0].clone(), peers[0].clone()]).is_err());
    }
}
