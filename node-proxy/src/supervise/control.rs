//! The control channel: how the supervisor gives its children the links that join them.
//!
//! A child finds its end on standard input. Each datagram brings one link, an end of a socket pair
//! whose other end another process gets: capture one of each proxy and agent, and those one of
//! capture. The end of the channel says that the supervisor is gone; the child then ends too.
//!
//! By the same channel a child is told what it is to log, and asks something of the supervisor. Only
//! capture is heard.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use fairlead_component::logging::LevelChange;
use fairlead_sys::descriptors::{self, Channel, Datagram};
use nix::sys::{
    signal::{Signal, raise},
    socket::{SockType, getsockopt, sockopt},
};
use tracing::{error, warn};

use super::Role;

/// What the datagram says that brings a link between the halves.
const LINK: &[u8] = b"link";

/// What the datagram says that brings capture a link to an agent.
const AGENT: &[u8] = b"agent";

/// What the datagram says by which the node proxy is asked to end.
const QUIT: &[u8] = b"quit";

/// Before a filter of the log that a child is to put in force, or capture asks to be put in force
/// everywhere; before nothing, what was in force at the start.
const LOG: &[u8] = b"log:";

/// Longest filter of the log, in bytes: room for a hundred modules with levels of their own.
pub const MAX_FILTER_BYTES: usize = 8 * 1024;

/// Longest datagram, in bytes.
const MAX_BYTES: usize = LOG.len() + MAX_FILTER_BYTES;

/// A child's end of its control channel.
#[derive(Debug)]
pub struct Control {
    channel: Channel,
}

/// An end of a socket pair.
#[derive(Debug)]
pub struct Link {
    /// What the process at the other end is. To another process than capture it is a half, since it
    /// has links to no others.
    pub to: LinkedTo,
    /// The end.
    pub socket: OwnedFd,
}

/// What a process at the other end of a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkedTo {
    /// To capture a proxy, to any other process capture.
    Half,
    /// An agent.
    Agent,
}

/// What a child asks of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To end the node proxy, as upon SIGTERM.
    Quit,
    /// To change what all processes log.
    Log(LevelChange),
}

/// What a child is told.
#[derive(Debug)]
pub enum Told {
    /// To use a link.
    Link(Link),
    /// To change what it logs.
    Log(LevelChange),
}

/// Whom a process asks that is not its own master.
#[derive(Debug)]
pub enum Superior {
    /// The supervisor, by this child's end of the channel.
    Supervisor(OwnedFd),
    /// Nobody: this process is all of them.
    Nobody,
}

/// What the channel held.
enum Received {
    Told(Told),
    /// Not of this protocol.
    Unknown,
    End,
}

// === impl Control ===

impl Control {
    /// Takes the channel from standard input. Must be called in a runtime, before anything else
    /// reads standard input.
    pub fn from_stdin() -> io::Result<Self> {
        let stdin = io::stdin();
        if !matches!(getsockopt(&stdin, sockopt::SockType), Ok(SockType::SeqPacket)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "standard input is no control channel: start this with `fairlead-node run`",
            ));
        }
        Self::new(stdin.as_fd().try_clone_to_owned()?)
    }

    /// Uses `socket` as the child's end. Must be called in a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { channel: Channel::new(socket)? })
    }

    /// Returns what asks the supervisor.
    pub fn superior(&self) -> io::Result<Superior> {
        self.channel.as_fd().try_clone_to_owned().map(Superior::Supervisor)
    }

    /// Waits for what the supervisor says next; `None` says that it is gone and that this process is
    /// to end.
    ///
    /// A call that is dropped while it waits loses nothing.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            let mut data = [0; MAX_BYTES];
            let received = match self.channel.receive(&mut data).await {
                Ok(datagram) => read(&data, datagram),
                Err(error) => {
                    error!(%error, "lost the supervisor");
                    return None;
                }
            };
            match received {
                Received::Told(told) => return Some(told),
                Received::Unknown => warn!("ignored a message of the supervisor"),
                Received::End => return None,
            }
        }
    }
}

// === impl Superior ===

impl Superior {
    /// Asks; never waits.
    pub fn ask(&self, request: Request) -> io::Result<()> {
        match (self, request) {
            (Self::Supervisor(channel), Request::Quit) => descriptors::send(channel, QUIT, &[]),
            (Self::Nobody, Request::Quit) => Ok(raise(Signal::SIGTERM)?),
            (Self::Supervisor(channel), Request::Log(change)) => {
                descriptors::send(channel, &log(&change), &[])
            }
            // Who asks has made the change.
            (Self::Nobody, Request::Log(_)) => Ok(()),
        }
    }
}

/// Waits for what the child at the other end of `channel` asks; `None` says that it asks nothing any
/// more. A call that is dropped while it waits loses nothing.
pub(super) async fn asked(channel: &Channel) -> Option<Request> {
    loop {
        let mut data = [0; MAX_BYTES];
        let datagram = channel.receive(&mut data).await.ok()?;
        if datagram.length == 0 {
            return None;
        }
        match data.get(..datagram.length).filter(|_| !datagram.truncated) {
            Some(QUIT) => return Some(Request::Quit),
            Some(data) if let Some(change) = read_log(data) => return Some(Request::Log(change)),
            Some(_) | None => warn!("ignored a request of a process"),
        }
    }
}

fn read(data: &[u8], mut datagram: Datagram) -> Received {
    if datagram.length == 0 && datagram.descriptors.is_empty() {
        return Received::End;
    }
    let Some(data) = data.get(..datagram.length).filter(|_| !datagram.truncated) else {
        return Received::Unknown;
    };
    let to = match data {
        LINK => LinkedTo::Half,
        AGENT => LinkedTo::Agent,
        _ => {
            let change = read_log(data);
            return change.map_or(Received::Unknown, |change| Received::Told(Told::Log(change)));
        }
    };
    let socket = datagram.descriptors.pop().filter(|_| datagram.descriptors.is_empty());
    socket.map_or(Received::Unknown, |socket| Received::Told(Told::Link(Link { to, socket })))
}

/// Writes a change of what is logged.
fn log(change: &LevelChange) -> Vec<u8> {
    let filter = match change {
        LevelChange::Put(filter) => filter.as_str(),
        LevelChange::Reset => "",
    };
    [LOG, filter.as_bytes()].concat()
}

fn read_log(data: &[u8]) -> Option<LevelChange> {
    let filter = std::str::from_utf8(data.strip_prefix(LOG)?).ok()?;
    Some(if filter.is_empty() { LevelChange::Reset } else { LevelChange::Put(filter.to_owned()) })
}

/// Tells the child at the other end of `channel` to change what it logs.
pub(super) fn tell_log(channel: &Channel, change: &LevelChange) -> io::Result<()> {
    descriptors::send(channel, &log(change), &[])
}

/// Gives a link to a process of role `to` to the child at the other end of `channel`.
pub(super) fn give_link(channel: &Channel, to: Role, link: &OwnedFd) -> io::Result<()> {
    let data = match to {
        Role::Capture | Role::Proxy => LINK,
        Role::Agent => AGENT,
    };
    descriptors::send(channel, data, &[link.as_fd()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_link(told: Option<Told>) -> Link {
        match told {
            Some(Told::Link(link)) => link,
            Some(Told::Log(_)) | None => panic!("{told:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_to_be_logged_goes_both_ways() {
        let (supervisor, child) = descriptors::pair().unwrap();
        let supervisor = Channel::new(supervisor).unwrap();
        let mut control = Control::new(child).unwrap();
        let superior = control.superior().unwrap();
        let longest = "x".repeat(MAX_FILTER_BYTES);
        let put = |filter: &str| LevelChange::Put(filter.to_owned());
        for change in [put("info,hbone:debug"), LevelChange::Reset, put(&longest)] {
            superior.ask(Request::Log(change.clone())).unwrap();
            assert_eq!(asked(&supervisor).await, Some(Request::Log(change.clone())));
            tell_log(&supervisor, &change).unwrap();
            assert!(matches!(control.next().await, Some(Told::Log(told)) if told == change));
        }
        superior.ask(Request::Log(put(&(longest + "x")))).unwrap();
        superior.ask(Request::Quit).unwrap();
        assert_eq!(asked(&supervisor).await, Some(Request::Quit));
    }

    #[tokio::test]
    async fn links_arrive_in_order_until_the_supervisor_is_gone() {
        let (supervisor, child) = descriptors::pair().unwrap();
        let mut control = Control::new(child).unwrap();
        let (left, right) = descriptors::pair().unwrap();
        let supervisor = Channel::new(supervisor).unwrap();
        give_link(&supervisor, Role::Proxy, &left).unwrap();
        give_link(&supervisor, Role::Agent, &right).unwrap();
        let first = as_link(control.next().await);
        let second = as_link(control.next().await);
        assert_eq!((first.to, second.to), (LinkedTo::Half, LinkedTo::Agent));
        descriptors::send(&first.socket, b"hello", &[]).unwrap();
        assert_eq!(descriptors::receive(&second.socket, &mut [0; 8]).unwrap().length, 5);
        drop(supervisor);
        assert!(control.next().await.is_none());
    }

    #[tokio::test]
    async fn what_is_no_link_is_ignored() {
        let (supervisor, child) = descriptors::pair().unwrap();
        let mut control = Control::new(child).unwrap();
        let supervisor = Channel::new(supervisor).unwrap();
        let (link, _) = descriptors::pair().unwrap();
        let one = [link.as_fd()];
        for (data, attached) in [
            (&b"link"[..], &[][..]),
            (b"lin", &one[..]),
            (b"links", &one[..]),
            (b"agentagent", &one[..]),
            (b"link", &[link.as_fd(), link.as_fd()][..]),
        ] {
            descriptors::send(&supervisor, data, attached).unwrap();
        }
        give_link(&supervisor, Role::Capture, &link).unwrap();
        as_link(control.next().await);
        drop(supervisor);
        assert!(control.next().await.is_none());
    }

    #[tokio::test]
    async fn what_a_child_asks_arrives_and_nothing_else_does() {
        let (supervisor, child) = descriptors::pair().unwrap();
        let supervisor = Channel::new(supervisor).unwrap();
        let control = Control::new(child.try_clone().unwrap()).unwrap();
        for unknown in [&b"qui"[..], b"quits", b"quitquitquit"] {
            descriptors::send(&child, unknown, &[]).unwrap();
        }
        control.superior().unwrap().ask(Request::Quit).unwrap();
        assert_eq!(asked(&supervisor).await, Some(Request::Quit));
        drop((control, child));
        assert_eq!(asked(&supervisor).await, None);
    }
}
