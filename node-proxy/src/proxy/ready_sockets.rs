//! Sockets made inside a pod ahead of their use: no round trip to capture in a connection's path.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use socket2::Socket;
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

use crate::link::{
    channel::MAX_DESCRIPTORS,
    message::{PodId, SocketKind, ToCapture},
};

/// Fewest sockets that are asked for at once.
const SMALLEST_BATCH: usize = 4;

/// Sockets of one kind that a pod may have ready: what one message brings, and as many again that
/// were there when it came.
const MOST_READY: usize = 2 * MAX_DESCRIPTORS;

/// Time that a connection waits for a socket; capture is started again in a fraction of it.
const WAIT: Duration = Duration::from_secs(10);

/// The ready-made sockets of a pod, by kind.
#[derive(Debug)]
pub struct ReadySockets {
    pod: PodId,
    stocks: [Stock; SocketKind::ALL.len()],
    requests: mpsc::Sender<ToCapture>,
}

/// Sockets of one kind.
#[derive(Debug)]
struct Stock {
    kind: SocketKind,
    ready: ArrayQueue<OwnedFd>,
    /// How many are asked for at once: grows while connections find the stock empty.
    batch: AtomicUsize,
    /// Whether capture was asked and has not answered.
    asked: AtomicBool,
    /// Whether a socket was taken since the last [`ReadySockets::tidy`].
    used: AtomicBool,
    /// Number of the error that capture answered with; 0 for none.
    error: AtomicUsize,
    answered: Notify,
}

// === impl ReadySockets ===

impl ReadySockets {
    /// Starts with none; asks for more through `requests`.
    pub fn new(pod: PodId, requests: mpsc::Sender<ToCapture>) -> Self {
        Self { pod, stocks: SocketKind::ALL.map(Stock::new), requests }
    }

    /// Returns a socket that nobody has used.
    pub(super) async fn take(&self, kind: SocketKind) -> io::Result<Socket> {
        let stock = self.stock(kind);
        stock.used.store(true, Ordering::Relaxed);
        if let Some(socket) = self.take_ready(stock) {
            return Ok(socket);
        }
        stock.grow();
        let wait = timeout(WAIT, self.wait(stock)).await;
        wait.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Asks for sockets of a kind that capture gives only when it is asked, now that it knows the
    /// pod: an earlier question may have been in vain.
    pub(super) fn prepare(&self, kind: SocketKind) {
        let stock = self.stock(kind);
        stock.asked.store(false, Ordering::Release);
        if stock.ready.len() < stock.batch.load(Ordering::Relaxed) {
            self.ask(stock);
        }
    }

    /// Adds what capture sent; `error` says why it did not send more.
    pub(super) fn add(&self, kind: SocketKind, sockets: Vec<OwnedFd>, error: Option<i32>) {
        let stock = self.stock(kind);
        // Descriptors that this process has no room for do not arrive.
        let lost = sockets.is_empty().then_some(nix::libc::EMFILE);
        let error = error.or(lost).and_then(|number| usize::try_from(number).ok());
        for socket in sockets {
            // A full stock drops it: there are enough.
            let _ = stock.ready.push(socket);
        }
        stock.error.store(error.unwrap_or(0), Ordering::Release);
        stock.asked.store(false, Ordering::Release);
        stock.answered.notify_waiters();
    }

    /// Asks again for what a capture process that is gone has not sent.
    pub(super) fn ask_again(&self) {
        for stock in &self.stocks {
            if stock.asked.swap(false, Ordering::AcqRel) {
                self.ask(stock);
            }
        }
    }

    /// Brings stocks that were not used since the last call closer to the smallest batch, so that
    /// what an idle pod holds does not depend on its past.
    pub(super) fn tidy(&self) {
        for stock in &self.stocks {
            if stock.used.swap(false, Ordering::Relaxed) {
                continue;
            }
            let batch = (stock.batch.load(Ordering::Relaxed) / 4).max(SMALLEST_BATCH);
            stock.batch.store(batch, Ordering::Relaxed);
            while stock.ready.len() > batch {
                drop(stock.ready.pop());
            }
            if !stock.ready.is_empty() && stock.ready.len() < batch {
                self.ask(stock);
            }
        }
    }

    async fn wait(&self, stock: &Stock) -> io::Result<Socket> {
        loop {
            let answered = stock.answered.notified();
            tokio::pin!(answered);
            // Enlisted before the look at the stock, so that no answer is missed.
            answered.as_mut().enable();
            if let Some(socket) = self.take_ready(stock) {
                return Ok(socket);
            }
            self.ask(stock);
            answered.await;
            if let Some(socket) = self.take_ready(stock) {
                return Ok(socket);
            }
            let error = stock.error.load(Ordering::Acquire);
            if let Some(number) = i32::try_from(error).ok().filter(|number| *number != 0) {
                return Err(io::Error::from_raw_os_error(number));
            }
        }
    }

    /// Takes a socket, and sees to it that the stock is filled again before it is empty.
    fn take_ready(&self, stock: &Stock) -> Option<Socket> {
        let socket = stock.ready.pop()?;
        if stock.ready.len() * 2 < stock.batch.load(Ordering::Relaxed) {
            self.ask(stock);
        }
        Some(socket.into())
    }

    fn ask(&self, stock: &Stock) {
        if stock.asked.swap(true, Ordering::AcqRel) {
            return;
        }
        let (pod, kind) = (self.pod, stock.kind);
        let batch = stock.batch.load(Ordering::Relaxed);
        let count = batch.saturating_sub(stock.ready.len()).max(1);
        if self.requests.try_send(ToCapture::Need { pod, kind, count }).is_err() {
            // The queue has room for every stock: the process is ending.
            stock.asked.store(false, Ordering::Release);
        }
    }

    fn stock(&self, kind: SocketKind) -> &Stock {
        &self.stocks[kind as usize]
    }
}

// === impl Stock ===

impl Stock {
    fn new(kind: SocketKind) -> Self {
        Self {
            kind,
            ready: ArrayQueue::new(MOST_READY),
            batch: AtomicUsize::new(SMALLEST_BATCH),
            asked: AtomicBool::new(false),
            used: AtomicBool::new(false),
            error: AtomicUsize::new(0),
            answered: Notify::new(),
        }
    }

    fn grow(&self) {
        let batch = (self.batch.load(Ordering::Relaxed) * 2).min(MAX_DESCRIPTORS);
        self.batch.store(batch, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;

    const POD: PodId = PodId { netns: 1, enrolment: 1 };
    const KIND: SocketKind = SocketKind::DeliveryV4;

    fn made(count: usize) -> Vec<OwnedFd> {
        let make = |_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap().into();
        (0..count).map(make).collect()
    }

    fn sockets() -> (ReadySockets, mpsc::Receiver<ToCapture>) {
        let (requests, asked) = mpsc::channel(16);
        (ReadySockets::new(POD, requests), asked)
    }

    fn need(count: usize) -> ToCapture {
        ToCapture::Need { pod: POD, kind: KIND, count }
    }

    #[tokio::test]
    async fn a_shelf_is_filled_again_before_it_is_empty() {
        let (sockets, mut asked) = sockets();
        sockets.add(KIND, made(4), None);
        for _ in 0..2 {
            sockets.take(KIND).await.unwrap();
        }
        assert!(asked.try_recv().is_err());
        sockets.take(KIND).await.unwrap();
        sockets.take(KIND).await.unwrap();
        assert_eq!(asked.try_recv().unwrap(), need(3));
        assert!(asked.try_recv().is_err(), "asked once");
    }

    #[tokio::test]
    async fn a_connection_that_finds_none_waits_and_more_are_asked_for() {
        let (sockets, mut asked) = sockets();
        let answer = async {
            assert_eq!(asked.recv().await.unwrap(), need(8));
            sockets.add(KIND, made(1), None);
        };
        let (taken, ()) = tokio::join!(sockets.take(KIND), answer);
        taken.unwrap();
    }

    #[tokio::test]
    async fn every_waiting_connection_gets_one() {
        let (sockets, mut asked) = sockets();
        let answer = async {
            for _ in 0..3 {
                asked.recv().await.unwrap();
                sockets.add(KIND, made(1), None);
            }
        };
        let take = || sockets.take(KIND);
        let (a, b, c, ()) = tokio::join!(take(), take(), take(), answer);
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
    }

    #[tokio::test]
    async fn the_error_of_capture_ends_the_wait() {
        for (sent, expected) in [
            (Some(nix::libc::ENODEV), nix::libc::ENODEV),
            // No error, but no socket either: they did not fit into this process.
            (None, nix::libc::EMFILE),
        ] {
            let (sockets, mut asked) = sockets();
            let answer = async {
                asked.recv().await.unwrap();
                sockets.add(KIND, Vec::new(), sent);
            };
            let (taken, ()) = tokio::join!(sockets.take(KIND), answer);
            assert_eq!(taken.unwrap_err().raw_os_error(), Some(expected));
        }
    }

    #[tokio::test]
    async fn a_question_that_a_dead_capture_has_not_answered_is_repeated() {
        let (sockets, mut asked) = sockets();
        sockets.ask_again();
        assert!(asked.try_recv().is_err(), "nothing was asked");
        sockets.add(KIND, made(1), None);
        sockets.take(KIND).await.unwrap();
        assert_eq!(asked.try_recv().unwrap(), need(4));
        sockets.ask_again();
        assert_eq!(asked.try_recv().unwrap(), need(4));
    }

    #[tokio::test]
    async fn what_a_capture_did_not_know_of_is_asked_for_again_when_it_does() {
        let (sockets, mut asked) = sockets();
        for _ in 0..2 {
            sockets.prepare(KIND);
            assert_eq!(asked.try_recv().unwrap(), need(4));
        }
        sockets.add(KIND, made(4), None);
        sockets.prepare(KIND);
        assert!(asked.try_recv().is_err(), "there are enough");
    }

    #[tokio::test]
    async fn an_idle_pod_ends_up_with_the_smallest_batch() {
        let (sockets, mut asked) = sockets();
        let stock = sockets.stock(KIND);
        sockets.add(KIND, made(40), None);
        stock.batch.store(32, Ordering::Relaxed);
        sockets.take(KIND).await.unwrap();
        sockets.tidy();
        assert_eq!(stock.ready.len(), 39, "it was used");
        sockets.tidy();
        assert_eq!(stock.ready.len(), 8);
        for _ in 0..4 {
            sockets.tidy();
        }
        assert_eq!(stock.ready.len(), SMALLEST_BATCH);
        assert!(asked.try_recv().is_err());
        sockets.take(KIND).await.unwrap();
        sockets.tidy();
        sockets.tidy();
        assert_eq!(asked.try_recv().unwrap(), need(1), "topped up");
    }
}
