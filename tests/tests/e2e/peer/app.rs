//! An application in a pod.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::Result;
use fairlead_lab::{Host as _, Pod, wait_for};
use tokio::net::TcpStream;

use super::RUNTIME;

/// Time for a process to execute its program.
const SOON: Duration = Duration::from_secs(5);

/// A listening application in a pod.
#[derive(Debug)]
pub(crate) struct App {
    listener: tokio::net::TcpListener,
    probe: TcpListener,
}

// === impl App ===

impl App {
    /// Listens on `port` of `pod`, over IPv4 and IPv6.
    pub(crate) fn listen(pod: &Pod, port: u16) -> Result<Self> {
        // A process that another test starts has every descriptor until it executes its program, also
        // those of an application that listened here before.
        let probe = wait_for("nobody else listens", SOON, || {
            let bound = pod.netns().enter(|| Ok(TcpListener::bind(("::", port))));
            match bound? {
                Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
                bound => Ok(Some(bound?)),
            }
        })?;
        probe.set_nonblocking(true)?;
        let _inside = RUNTIME.enter();
        Ok(Self { listener: tokio::net::TcpListener::from_std(probe.try_clone()?)?, probe })
    }

    /// Accepts a connection; returns it with the address of its client.
    pub(crate) async fn accept(&self) -> Result<(TcpStream, SocketAddr)> {
        let (socket, client) = self.listener.accept().await?;
        socket.set_nodelay(true)?;
        Ok((socket, SocketAddr::new(client.ip().to_canonical(), client.port())))
    }

    /// Returns whether nobody has connected since the last accept.
    pub(crate) fn is_untouched(&self) -> bool {
        self.probe.accept().is_err()
    }
}
