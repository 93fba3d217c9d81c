//! Pipes for `splice(2)`: bytes move between sockets without passing through user space.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};

/// Room asked for in a pipe, in bytes: what an unprivileged process may have by default.
pub const PIPE_BYTES: i32 = 1 << 20;

/// A pipe and the number of bytes in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
    capacity: usize,
}

// === impl Pipe ===

impl Pipe {
    /// Opens a pipe; fails when the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        // Past the user's pipe quota the kernel refuses; the default size works too.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let capacity = fcntl(&write, FcntlArg::F_GETPIPE_SZ)?;
        Ok(Self { read, write, filled: 0, capacity: usize::try_from(capacity).unwrap_or(0) })
    }

    /// Returns the number of bytes in the pipe.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Moves bytes from `socket` into the pipe; 0 means the end of the stream.
    pub fn fill(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        let n = splice(socket, None, &self.write, None, self.capacity, flags())?;
        self.filled += n;
        Ok(n)
    }

    /// Moves bytes from the pipe to `socket`.
    pub fn drain(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        let n = splice(&self.read, None, socket, None, self.filled, flags())?;
        self.filled -= n;
        Ok(n)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}
