//! A server that echoes messages and remembers whose they were.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use fairlead_lab::Pod;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{Cue, MESSAGE_BYTES, SECRET, Traffic};

/// Who wrote a message, for whom, and from which address it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Heard {
    /// Who the message says has written it.
    pub(crate) from: String,
    /// Whom the message says it is for.
    pub(crate) to: String,
    /// Address that the server sees as its peer's.
    pub(crate) peer: IpAddr,
}

type Counts = Arc<Mutex<BTreeMap<Heard, usize>>>;

/// Starts a server on `port` of `pod`, for both families; it counts what it hears.
pub(crate) fn serve_echo(pod: &Pod, port: u16) -> Result<Traffic<BTreeMap<Heard, usize>>> {
    let server = Traffic::start(pod, move |cue| serve(port, cue));
    fairlead_lab::Host::wait_listening(pod, port)?;
    Ok(server)
}

async fn serve(port: u16, cue: Cue) -> Result<BTreeMap<Heard, usize>> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    let counts = Counts::default();
    loop {
        let accepted = tokio::select! {
            () = cue.over() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = accepted.context("accept")?;
        let (peer, counts, cue) = (peer.ip().to_canonical(), counts.clone(), cue.clone());
        // How a connection ends is the client's matter.
        tokio::spawn(async move { echo(stream, peer, &counts, &cue).await.ok() });
    }
    let heard = counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(heard)
}

async fn echo(mut stream: TcpStream, peer: IpAddr, counts: &Counts, cue: &Cue) -> Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    while stream.read_exact(&mut message).await.is_ok() {
        let heard = read(&message, peer);
        *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(heard).or_default() += 1;
        cue.count();
        stream.write_all(&message).await?;
    }
    Ok(stream.shutdown().await?)
}

fn read(message: &[u8], peer: IpAddr) -> Heard {
    let text = String::from_utf8_lossy(message);
    let words: Vec<_> = text.split_whitespace().collect();
    match words[..] {
        [SECRET, from, to, _] => Heard { from: from.to_owned(), to: to.to_owned(), peer },
        _ => Heard { from: "unreadable".to_owned(), to: text.into_owned(), peer },
    }
}
