//! The change of guard between two capture processes: a successor takes listening sockets, links and
//! locks from its predecessor over a unix socket in the run directory, so that no connection is
//! refused and no pod is without capture.

mod give;
mod take;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    give::{HandoverSocket, Heirlooms, Successor, hand_over},
    take::{Inheritance, Predecessor, take_over},
};
use crate::link::{VERSION, channel::ChannelError};

/// Name of the socket in the run directory.
const SOCKET_NAME: &str = "handover.sock";

/// Time that a hand-over may take: the successor loads its programs in it.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(20);

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The socket of the run directory cannot be used.
    #[error("cannot use {}: {cause}", path.display())]
    Socket {
        /// Path of the socket.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// The connection between the two broke.
    #[error("the hand-over broke off: {0}")]
    Channel(#[from] ChannelError),
    /// The other process ended or gave up.
    #[error("the other fairlead-node ended before the hand-over was complete")]
    Gone,
    /// The other process does not answer.
    #[error("the other fairlead-node does not answer")]
    Timeout,
    /// The two releases are too far apart.
    #[error(
        "the running fairlead-node speaks version {0} of the hand-over; this release speaks \
         {VERSION}: stop it with SIGTERM first, or upgrade by way of a release between"
    )]
    Version(u16),
    /// A message came without its descriptors.
    #[error("a part of the hand-over is missing; is a process out of descriptors?")]
    Incomplete,
}

fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET_NAME)
}
