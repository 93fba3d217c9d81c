//! Whether exchanges get on: clients that owe something, and do nothing about it, are given up.
//!
//! A client owes the rest of its request until it is answered, and then has to take what there is of
//! the answer. One that waits for more of an answer owes nothing, however long that takes: streams
//! that are quiet for hours are in order.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{limits::CLIENT_IDLE_TIMEOUT, route::LocalReply, telemetry::Metrics};

/// Looks that are taken at a connection in the shortest of its times: what lapses is noticed a
/// quarter of it late at most.
const LOOKS: u32 = 4;

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the head of a request over HTTP/1, from its first byte on.
    pub head: Duration,
    /// Without a byte of what is owed; none for ever.
    pub stream_idle: Option<Duration>,
    /// For a request; none for ever.
    pub request: Option<Duration>,
}

/// The exchanges of a connection that are under way.
#[derive(Debug)]
pub(super) struct Exchanges {
    open: RefCell<Vec<Rc<Progress>>>,
    /// When the last one ended.
    unused_since: Cell<Instant>,
}

/// How an exchange gets on.
#[derive(Debug)]
pub(super) struct Progress {
    owes: Cell<Owes>,
    began: Instant,
    has_moved: Cell<bool>,
    /// When it was seen to have moved.
    moved: Cell<Instant>,
    lapsed: Cell<Option<Lapse>>,
    has_lapsed: Notify,
    /// Ends the stream that it is of, if it is one of several.
    stop: OnceCell<Rc<Notify>>,
}

/// What a client owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owes {
    /// The rest of its request.
    Request,
    /// To take what there is of the answer.
    Reading,
    Nothing,
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lapse {
    /// Nothing moved.
    Idle,
    /// The request.
    Request,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its only exchange has lapsed after its answer began.
    Stuck,
    /// Nobody has used it for long.
    Unused,
}

/// An exchange that is under way for as long as this lives.
#[derive(Debug)]
pub(super) struct UnderWay {
    exchanges: Rc<Exchanges>,
    progress: Rc<Progress>,
}

// === impl Patience ===

impl Patience {
    fn look_interval(self) -> Duration {
        let times = [self.stream_idle, self.request, Some(CLIENT_IDLE_TIMEOUT)];
        times.into_iter().flatten().min().unwrap_or(CLIENT_IDLE_TIMEOUT) / LOOKS
    }

    /// Returns what took too long of something that a client owes.
    fn lapse(self, owes: Owes, since_moved: Duration, since_began: Duration) -> Option<Lapse> {
        let is_over = |time: Duration, limit: Option<Duration>| limit.is_some_and(|l| time >= l);
        match owes {
            Owes::Nothing => None,
            Owes::Request if is_over(since_began, self.request) => Some(Lapse::Request),
            Owes::Request | Owes::Reading => {
                is_over(since_moved, self.stream_idle).then_some(Lapse::Idle)
            }
        }
    }
}

// === impl Lapse ===

impl From<Lapse> for LocalReply {
    fn from(lapse: Lapse) -> Self {
        match lapse {
            Lapse::Idle => Self::StreamIdle,
            Lapse::Request => Self::RequestTimeout,
        }
    }
}

impl Metrics {
    /// Counts something that took too long.
    pub(super) fn lapsed(&self, lapse: Lapse) {
        let limit = match lapse {
            Lapse::Idle => "stream_idle",
            Lapse::Request => "request_time",
        };
        self.limit(limit).inc();
    }
}

// === impl Exchanges ===

impl Exchanges {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self { open: RefCell::default(), unused_since: Cell::new(Instant::now()) })
    }

    /// Begins an exchange.
    pub(super) fn begin(self: &Rc<Self>) -> UnderWay {
        let now = Instant::now();
        let progress = Rc::new(Progress {
            owes: Cell::new(Owes::Request),
            began: now,
            has_moved: Cell::new(false),
            moved: Cell::new(now),
            lapsed: Cell::new(None),
            has_lapsed: Notify::new(),
            stop: OnceCell::new(),
        });
        self.open.borrow_mut().push(progress.clone());
        UnderWay { exchanges: self.clone(), progress }
    }

    /// Watches over the exchanges until something has to become of the connection. What lapses is
    /// given to `count`.
    pub(super) async fn watch(&self, patience: Patience, count: impl Fn(Lapse)) -> Fate {
        loop {
            sleep(patience.look_interval()).await;
            let now = Instant::now();
            let mut is_stuck = false;
            for progress in &*self.open.borrow() {
                if let Some(lapse) = progress.look(patience, now) {
                    count(lapse);
                    is_stuck |= progress.give_up(lapse, now);
                }
            }
            if is_stuck {
                return Fate::Stuck;
            }
            let is_unused = self.open.borrow().is_empty();
            if is_unused && now.duration_since(self.unused_since.get()) >= CLIENT_IDLE_TIMEOUT {
                self.unused_since.set(now);
                return Fate::Unused;
            }
        }
    }
}

// === impl Progress ===

impl Progress {
    /// Notes what ends the stream that it is of, one of several.
    pub(super) fn stops_by(&self, stop: Rc<Notify>) {
        // A stream has one.
        let _ = self.stop.set(stop);
    }

    /// Notes that some of the request has come.
    pub(super) fn received(&self) {
        self.has_moved.set(true);
    }

    /// Notes that all of the request has come.
    pub(super) fn is_received(&self) {
        if self.owes.get() == Owes::Request {
            self.owes.set(Owes::Nothing);
        }
    }

    /// Notes that there is something of the answer for the client to take.
    pub(super) fn offered(&self) {
        self.owes.set(Owes::Reading);
        self.has_moved.set(true);
    }

    /// Notes that the client has taken what there was of the answer.
    pub(super) fn taken(&self) {
        self.owes.set(Owes::Nothing);
    }

    /// Waits until the client is given up before it is answered.
    pub(super) async fn lapsed(&self) -> Lapse {
        loop {
            self.has_lapsed.notified().await;
            if let Some(lapse) = self.lapsed.get() {
                return lapse;
            }
        }
    }

    fn look(&self, patience: Patience, now: Instant) -> Option<Lapse> {
        if self.has_moved.take() {
            self.moved.set(now);
        }
        let (since_moved, since_began) = (now - self.moved.get(), now - self.began);
        patience.lapse(self.owes.get(), since_moved, since_began)
    }

    /// Ends the exchange; returns whether that takes the connection.
    fn give_up(&self, lapse: Lapse, now: Instant) -> bool {
        // What is said in place of an answer has as much time again.
        self.moved.set(now);
        self.lapsed.set(Some(lapse));
        match (self.owes.get(), self.stop.get()) {
            (Owes::Request | Owes::Nothing, _) => {
                self.owes.set(Owes::Nothing);
                self.has_lapsed.notify_one();
                false
            }
            (Owes::Reading, Some(stop)) => {
                stop.notify_one();
                false
            }
            (Owes::Reading, None) => true,
        }
    }
}

// === impl UnderWay ===

impl UnderWay {
    /// Returns how it gets on.
    pub(super) fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut open = self.exchanges.open.borrow_mut();
        open.retain(|progress| !Rc::ptr_eq(progress, &self.progress));
        if open.is_empty() {
            self.exchanges.unused_since.set(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::limits::DEFAULT_HEAD_TIMEOUT;

    const PATIENCE: Patience = Patience {
        head: DEFAULT_HEAD_TIMEOUT,
        stream_idle: Some(Duration::from_secs(8)),
        request: Some(Duration::from_mins(1)),
    };

    /// Advances by `seconds`, one by one, and returns what lapsed, and what became of the connection.
    async fn pass(
        exchanges: &Exchanges,
        seconds: u64,
        each: impl Fn(),
    ) -> (Vec<Lapse>, Option<Fate>) {
        let lapses = RefCell::new(Vec::new());
        let time = async {
            for _ in 0..seconds {
                sleep(Duration::from_secs(1)).await;
                each();
            }
        };
        let fate = tokio::select! {
            biased;
            fate = exchanges.watch(PATIENCE, |lapse| lapses.borrow_mut().push(lapse)) => {
                Some(fate)
            }
            () = time => None,
        };
        (lapses.into_inner(), fate)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_of_which_nothing_comes_is_given_up_and_answered() {
        let exchanges = Exchanges::new();
        let exchange = exchanges.begin();
        let found = pass(&exchanges, 7, || {}).await;
        assert_eq!(found, (vec![], None));
        assert!(timeout(Duration::ZERO, exchange.progress().lapsed()).await.is_err());
        assert_eq!(pass(&exchanges, 10, || {}).await, (vec![Lapse::Idle], None));
        assert_eq!(exchange.progress().lapsed().await, Lapse::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_of_which_something_comes_has_its_time_in_all() {
        let exchanges = Exchanges::new();
        let exchange = exchanges.begin();
        let found = pass(&exchanges, 55, || exchange.progress().received()).await;
        assert_eq!(found, (vec![], None));
        let found = pass(&exchanges, 10, || exchange.progress().received()).await;
        assert_eq!(found, (vec![Lapse::Request], None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_owes_nothing_may_wait_for_ever() {
        let exchanges = Exchanges::new();
        let exchange = exchanges.begin();
        exchange.progress().is_received();
        assert_eq!(pass(&exchanges, 100_000, || {}).await, (vec![], None));
        exchange.progress().offered();
        exchange.progress().taken();
        assert_eq!(pass(&exchanges, 100_000, || {}).await, (vec![], None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_ends_its_stream_or_the_connection() {
        let stop = Rc::new(Notify::new());
        let exchanges = Exchanges::new();
        let exchange = exchanges.begin();
        exchange.progress().stops_by(stop.clone());
        exchange.progress().offered();
        let found = pass(&exchanges, 30, || exchange.progress().offered()).await;
        assert_eq!(found, (vec![], None));
        let (lapses, fate) = pass(&exchanges, 12, || {}).await;
        assert_eq!((lapses, fate), (vec![Lapse::Idle], None));
        timeout(Duration::ZERO, stop.notified()).await.unwrap();
        drop(exchange);
        let exchange = exchanges.begin();
        exchange.progress().offered();
        assert_eq!(pass(&exchanges, 12, || {}).await, (vec![Lapse::Idle], Some(Fate::Stuck)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_uses_is_closed_an_hour_after_its_last_exchange() {
        let exchanges = Exchanges::new();
        let exchange = exchanges.begin();
        exchange.progress().is_received();
        assert_eq!(pass(&exchanges, 7_200, || {}).await, (vec![], None));
        drop(exchange);
        assert_eq!(pass(&exchanges, 3_590, || {}).await, (vec![], None));
        assert_eq!(pass(&exchanges, 12, || {}).await, (vec![], Some(Fate::Unused)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nothing_lapses() {
        let exchanges = Exchanges::new();
        let exchange = exchanges.begin();
        exchange.progress().offered();
        let patience = Patience { stream_idle: None, request: None, ..PATIENCE };
        let watch = exchanges.watch(patience, |lapse| panic!("{lapse:?}"));
        assert!(timeout(Duration::from_hours(48), watch).await.is_err());
    }
}
