//! Socket to socket: through user space at first, inside the kernel once a direction is busy.

use std::io;

use fairlead_sys::{pipe::Pipe, socket::at_urgent_byte};
use fairlead_tunnel::adaptive_read::ReadSize;
use tokio::{io::Interest, net::TcpStream};

use super::{
    Broken, Side,
    copy::{finish, read, write},
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
pub(super) fn copy(
    from: (&TcpStream, Side),
    to: (&TcpStream, Side),
    moved: impl Fn(u64),
) -> impl Future<Output = Result<(), Broken>> {
    copy_with(Pipe::new, from, to, moved)
}

async fn copy_with(
    open_pipe: impl Fn() -> io::Result<Pipe>,
    (from, source): (&TcpStream, Side),
    (to, sink): (&TcpStream, Side),
    moved: impl Fn(u64),
) -> Result<(), Broken> {
    let mut size = ReadSize::default();
    let mut unspliced = 0;
    let pipe = loop {
        let data = read(from, &mut size).await.map_err(|_| Broken::Reset(source))?;
        if data.is_empty() {
            return finish(to).map_err(|_| Broken::Reset(sink));
        }
        let length = data.len() as u64;
        write(to, data, &moved).await.map_err(|_| Broken::Reset(sink))?;
        unspliced += length;
        if unspliced >= SPLICE_AFTER_BYTES {
            match open_pipe() {
                Ok(pipe) => break pipe,
                // Out of descriptors: slower, but it goes on, and there may be some later.
                Err(_) => unspliced = 0,
            }
        }
    };
    splice(pipe, (from, source), (to, sink), moved).await
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
                let data = read(from, &mut ReadSize::default()).await;
                let data = data.map_err(|_| Broken::Reset(source))?;
                write(to, data, &moved).await.map_err(|_| Broken::Reset(sink))?;
            }
        }
        while pipe.filled() > 0 {
            let drained = to.async_io(Interest::WRITABLE, || uninterrupted(|| pipe.drain(to)));
            moved(drained.await.map_err(|_| Broken::Reset(sink))? as u64);
        }
    }
}

fn fill(pipe: &mut Pipe, from: &TcpStream) -> io::Result<Filled> {
    let filled = uninterrupted(|| pipe.fill(from));
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

/// Repeats an interrupted call: said to the runtime as one that would block, it would wait for news
/// that may have come already.
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = tokio::join!(client, listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    /// Moves `bytes` bytes and their end, which must all arrive and be counted.
    async fn moves(bytes: u64, open_pipe: impl Fn() -> io::Result<Pipe>) {
        let ((mut client, from), (to, mut server)) = (sockets().await, sockets().await);
        let counted = Cell::new(0);
        let count = |n| counted.set(counted.get() + n);
        let copied = copy_with(open_pipe, (&from, Side::Client), (&to, Side::Server), count);
        let send = async {
            let piece = vec![7; 1 << 20];
            for _ in 0..bytes / piece.len() as u64 {
                client.write_all(&piece).await.unwrap();
            }
            client.shutdown().await.unwrap();
        };
        let receive = async {
            let (mut received, mut piece) = (0, vec![0; 1 << 20]);
            loop {
                match server.read(&mut piece).await.unwrap() {
                    0 => return received,
                    n => received += n as u64,
                }
            }
        };
        let (copied, (), received) = tokio::join!(copied, send, receive);
        copied.unwrap();
        assert_eq!((received, counted.get()), (bytes, bytes));
    }

    #[tokio::test]
    async fn every_byte_moves_and_counts_with_a_pipe_and_without() {
        moves(64 << 20, Pipe::new).await;
        // As long as this, a stack that grows with the bytes would be full.
        moves(512 << 20, || Err(io::Error::from_raw_os_error(nix::libc::EMFILE))).await;
    }

    #[tokio::test]
    async fn a_pipe_is_opened_once_descriptors_are_free_again() {
        let tried = Cell::new(0);
        let open_pipe = || {
            tried.set(tried.get() + 1);
            if tried.get() < 3 { Err(io::ErrorKind::Other.into()) } else { Pipe::new() }
        };
        moves(8 << 20, open_pipe).await;
        assert_eq!(tried.get(), 3);
    }
}
