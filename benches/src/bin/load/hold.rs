//! Connections that stay open, for weighing them.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result};

/// Opens `count` connections, prints "open", and keeps them until standard input ends.
pub(crate) fn run(to: SocketAddr, count: usize) -> Result<()> {
    let mut streams = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream =
            TcpStream::connect(to).with_context(|| format!("connection {number} to {to}"))?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        streams.push(stream);
    }
    println!("open");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(streams);
    Ok(())
}
