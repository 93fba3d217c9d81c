//! Socket to socket: through user space at first, inside the kernel once a direction is busy.

use std::io;

use tokio::{io::Interest, net::TcpStream};

use super::{
    Broken, Side,
    copy::{finish, read, write},
};
use crate::{
    adaptive_read::ReadSize,
    sys::{pipe::Pipe, socket::at_urgent_byte},
};

/// Bytes that a direction moves through user space before it gets a pipe: most connections never
/// move as many, and a pipe costs two descriptors.
const SPLICE_AFTER_BYTES: u64 = 64 << 10;

/// What a socket had for a pipe.
enum Filled {
    /// Bytes; they are in the pipe.
    Bytes,
    /// The end of the stream.
    End,
    /// A byte sent as urgent: the kernel does not splice it.
    Urgent,
}

/// Moves bytes to the end of the stream, which it passes on.
pub(super) async fn copy(
    (from, source): (&TcpStream, Side),
    (to, sink): (&TcpStream, Side),
    moved: impl Fn(u64),
) -> Result<(), Broken> {
    let mut size = ReadSize::new();
    let mut total = 0;
    while total < SPLICE_AFTER_BYTES {
        let data = read(from, &mut size).await.map_err(|_| Broken::Reset(source))?;
        if data.is_empty() {
            return finish(to).map_err(|_| Broken::Reset(sink));
        }
        let length = data.len() as u64;
        write(to, data).await.map_err(|_| Broken::Reset(sink))?;
        moved(length);
        total += length;
    }
    match Pipe::new() {
        Ok(pipe) => splice(pipe, (from, source), (to, sink), moved).await,
        // Out of descriptors: slower, but it goes on.
        Err(_) => Box::pin(copy((from, source), (to, sink), moved)).await,
    }
}

async fn splice(
    mut pipe: Pipe,
    (from, source): (&TcpStream, Side),
    (to, sink): (&TcpStream, Side),
    moved: impl Fn(u64),
) -> Result<(), Broken> {
    loop {
        let filled = from.async_io(Interest::READABLE, || fill(&mut pipe, from));
        match filled.await.map_err(|_| Broken::Reset(source))? {
            Filled::Bytes => {}
            Filled::End => return finish(to).map_err(|_| Broken::Reset(sink)),
            Filled::Urgent => {
                let data = read(from, &mut ReadSize::new()).await;
                let data = data.map_err(|_| Broken::Reset(source))?;
                let length = data.len() as u64;
                write(to, data).await.map_err(|_| Broken::Reset(sink))?;
                moved(length);
            }
        }
        while pipe.filled() > 0 {
            let drained = to.async_io(Interest::WRITABLE, || retry(pipe.drain(to)));
            moved(drained.await.map_err(|_| Broken::Reset(sink))? as u64);
        }
    }
}

fn fill(pipe: &mut Pipe, from: &TcpStream) -> io::Result<Filled> {
    let filled = retry(pipe.fill(from));
    let nothing = match &filled {
        // Before an urgent byte the kernel reports an end that came after it.
        Ok(bytes) => *bytes == 0,
        Err(e) => e.kind() == io::ErrorKind::WouldBlock,
    };
    if nothing && at_urgent_byte(from) {
        return Ok(Filled::Urgent);
    }
    filled.map(|_| if nothing { Filled::End } else { Filled::Bytes })
}

/// An interrupted call is tried again like one that would block.
fn retry(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(io::ErrorKind::WouldBlock.into()),
        other => other,
    }
}
