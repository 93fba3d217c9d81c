//! How the packets of a tunnel fare, as the kernel measures it.

use std::{
    cell::Cell,
    rc::{Rc, Weak},
    time::Duration,
};

use fairlead_sys::socket::{PathStats, path_stats};
use tokio::net::TcpStream;

/// The socket under a tunnel, which may be asked about while it is open and is closed without
/// regard to this value. What has been told is not told again: the streams of a tunnel share it.
#[derive(Debug)]
pub struct Wire {
    socket: Weak<TcpStream>,
    /// What was known when the socket was closed.
    last: Cell<Option<PathStats>>,
    /// Retransmitted segments that were told.
    told: Cell<u32>,
    /// Time that the connection took to make, until it is told.
    connect_time: Cell<Option<Duration>>,
}

/// The socket of a tunnel; the last that is known of it is kept.
pub(super) struct Watched {
    pub(super) socket: Rc<TcpStream>,
    pub(super) wire: Rc<Wire>,
}

/// What is new about a connection between two pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathReport {
    /// Smoothed time from sending a segment to its acknowledgement.
    pub round_trip: Option<Duration>,
    /// Segments that were sent again.
    pub retransmits: u32,
    /// Time to connect, if it is this side that connected.
    pub connect_time: Option<Duration>,
}

// === impl Wire ===

impl Wire {
    /// Notes how long it took to connect.
    pub fn connected_in(&self, time: Duration) {
        self.connect_time.set(Some(time));
    }

    /// Returns what is new since the last call.
    pub fn report(&self) -> PathReport {
        let now = self.socket.upgrade().and_then(|socket| path_stats(&*socket).ok());
        let connect_time = self.connect_time.take();
        let Some(stats) = now.or_else(|| self.last.get()) else {
            return PathReport { connect_time, ..PathReport::default() };
        };
        let told = self.told.replace(stats.retransmits);
        let retransmits = stats.retransmits.wrapping_sub(told);
        PathReport { round_trip: stats.round_trip, retransmits, connect_time }
    }
}

// === impl Watched ===

impl Watched {
    pub(super) fn new(socket: TcpStream) -> Self {
        let socket = Rc::new(socket);
        let wire = Rc::new(Wire {
            socket: Rc::downgrade(&socket),
            last: Cell::new(None),
            told: Cell::new(0),
            connect_time: Cell::new(None),
        });
        Self { socket, wire }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Nobody asks once the streams are gone.
        if Rc::strong_count(&self.wire) > 1 {
            self.wire.last.set(path_stats(&*self.socket).ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn what_is_known_outlives_the_socket_and_does_not_keep_it_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let watched = Watched::new(client);
        let wire = watched.wire.clone();
        wire.connected_in(Duration::from_millis(7));
        server.write_all(b"x").await.unwrap();
        watched.socket.readable().await.unwrap();
        assert_eq!(watched.socket.try_read(&mut [0]).unwrap(), 1);

        let first = wire.report();
        assert!(first.round_trip.is_some_and(|time| !time.is_zero()), "{first:?}");
        assert_eq!(first.connect_time, Some(Duration::from_millis(7)));
        assert_eq!(wire.report().connect_time, None, "it was told");
        drop(watched);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "the socket is closed");
        assert!(wire.report().round_trip.is_some());
    }
}
