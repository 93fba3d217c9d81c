//! What nodes and pods have in common: programs run in them, and their sockets can be looked at.

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::Result;

use crate::{
    http::{Response, http_get},
    netns::Netns,
    process::{Child, Input, IntoCommand, Output, OutputFiles},
    socket_table::{self, TcpSocket, TcpState},
    wait::wait_for,
};

/// Time a program gets that [`Host::run`] starts.
pub(crate) const RUN_TIMEOUT: Duration = Duration::from_mins(1);

/// Time a server gets to listen: interpreters start slowly when both cores are busy.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

static NEXT_OUTPUT: AtomicU32 = AtomicU32::new(1);

/// A node or a pod: something with a network namespace of its own.
pub trait Host {
    /// Returns its network namespace.
    fn netns(&self) -> &Netns;

    /// Returns the directory of its lab, where output of programs goes.
    fn lab_dir(&self) -> &Path;

    /// Starts a program inside.
    fn spawn(&self, command: impl IntoCommand) -> Result<Child> {
        start(self.netns(), self.lab_dir(), command, Input::Empty)
    }

    /// Starts a program inside that gets its input from [`Child::send_line`].
    fn spawn_interactive(&self, command: impl IntoCommand) -> Result<Child> {
        start(self.netns(), self.lab_dir(), command, Input::Lines)
    }

    /// Starts a server inside and waits until it listens on `port`.
    fn serve(&self, command: impl IntoCommand, port: u16) -> Result<Child> {
        let mut server = self.spawn(command)?;
        wait_for(&format!("a listener on port {port}"), LISTEN_TIMEOUT, || {
            if !server.is_running()? {
                server.wait(Duration::ZERO)?.checked()?;
            }
            Ok(is_listening(self.netns(), port)?.then_some(()))
        })?;
        Ok(server)
    }

    /// Runs a program inside to its end, for at most a minute.
    fn run(&self, command: impl IntoCommand) -> Result<Output> {
        self.run_within(command, RUN_TIMEOUT)
    }

    /// Runs a program inside to its end, for at most `timeout`.
    fn run_within(&self, command: impl IntoCommand, timeout: Duration) -> Result<Output> {
        self.spawn(command)?.wait(timeout)
    }

    /// Waits until a program inside listens on `port`.
    fn wait_listening(&self, port: u16) -> Result<()> {
        wait_for(&format!("a listener on port {port}"), LISTEN_TIMEOUT, || {
            Ok(is_listening(self.netns(), port)?.then_some(()))
        })
    }

    /// Returns the TCP sockets inside.
    fn tcp_sockets(&self) -> Result<Vec<TcpSocket>> {
        self.netns().enter(socket_table::read)
    }

    /// Gets a page as a client inside would.
    fn http_get(&self, server: SocketAddr, path: &str) -> Result<Response> {
        http_get(self.netns(), server, path)
    }
}

fn start(netns: &Netns, dir: &Path, command: impl IntoCommand, input: Input) -> Result<Child> {
    let command = command.into_command();
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let number = NEXT_OUTPUT.fetch_add(1, Ordering::Relaxed);
    let stem = format!("{number:04}-{}-{}", netns.name(), program.to_string_lossy());
    let output = OutputFiles {
        stdout: dir.join(format!("{stem}.stdout")),
        stderr: dir.join(format!("{stem}.stderr")),
    };
    Child::spawn(netns, command, output, input)
}

fn is_listening(netns: &Netns, port: u16) -> Result<bool> {
    let sockets = netns.enter(socket_table::read)?;
    Ok(sockets.iter().any(|s| s.state == TcpState::Listen && s.local.port() == port))
}
