//! One client's stream: takes its requests up and sends it what is new.

use std::{sync::Arc, time::Instant as StdInstant};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, sleep_until},
};
use tonic::Status;
use tracing::{debug, warn};

use super::{
    clearance::Clearance,
    clients::{Registration, TypeState},
    frame::Response,
    limits::{ACKNOWLEDGE_TIME, MAX_STARTING_CLIENTS, START_TIME},
    publisher::{Announcement, Published},
    request::Request,
    requests::{LargeRequests, Requests},
    resource_type::ResourceType,
    session::Session,
    subscription::{Refusal, Reply, remark},
};
use crate::{auth::Account, telemetry::metrics::Metrics};

/// What all streams share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) published: Arc<Published>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) max_response_bytes: usize,
    pub(super) large_requests: LargeRequests,
    /// Accounts of node proxies.
    node_accounts: Vec<Account>,
    starting: Arc<Semaphore>,
}

/// One client's stream.
pub(super) struct Stream {
    shared: Arc<Shared>,
    registration: Registration,
    session: Session,
    /// Whether there may be something to send.
    pending: bool,
    /// The oldest word of changes that the client has not caught up with.
    behind: Option<Announcement>,
    /// Whether a response has gone out since that word came.
    told: bool,
    in_flight: [Option<InFlight>; ResourceType::ALL.len()],
    starting: Option<Starting>,
}

/// A response that the client has not acknowledged.
#[derive(Clone, Copy)]
struct InFlight {
    since: Instant,
    late: bool,
}

/// A client that is being taken up.
struct Starting {
    until: Instant,
    _permit: OwnedSemaphorePermit,
}

/// What connects a stream with its client.
pub(super) struct Wire {
    pub(super) requests: Requests,
    pub(super) responses: mpsc::Sender<Result<Response, Status>>,
    /// Becomes true when the stream has to end.
    pub(super) ended: watch::Receiver<bool>,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(
        published: Arc<Published>,
        metrics: Arc<Metrics>,
        max_response_bytes: usize,
        node_accounts: Vec<Account>,
    ) -> Self {
        let starting = Arc::new(Semaphore::new(MAX_STARTING_CLIENTS));
        let large_requests = LargeRequests::new(Arc::clone(&metrics));
        Self { published, metrics, max_response_bytes, large_requests, node_accounts, starting }
    }
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, registration: Registration) -> Self {
        let clearance = Clearance::of(registration.client().caller(), &shared.node_accounts);
        Self {
            shared,
            registration,
            session: Session::new(rand::random(), clearance),
            pending: false,
            behind: None,
            told: false,
            in_flight: [None; ResourceType::ALL.len()],
            starting: None,
        }
    }

    /// Serves the client until it goes away or has to; an error is the client's to see.
    pub(super) async fn run(mut self, wire: Wire) {
        let Wire { requests, responses, mut ended } = wire;
        let result = tokio::select! {
            result = self.serve(requests, &responses) => result,
            () = responses.closed() => Ok(()),
            // The sender of this word lives as long as the connection.
            _ = ended.wait_for(|ended| *ended) => Ok(()),
        };
        if let Err(status) = result {
            debug!(client = self.registration.id(), %status, "discovery stream refused");
            // A client that is gone does not need to know.
            let _ = responses.send(Err(status)).await;
        }
    }

    async fn serve(
        &mut self,
        mut requests: Requests,
        responses: &mpsc::Sender<Result<Response, Status>>,
    ) -> Result<(), Status> {
        let mut news = self.shared.published.news();
        self.starting = self.start().await;
        loop {
            tokio::select! {
                received = requests.next() => match received? {
                    Some(received) => self.take_up(&received.request)?,
                    None => return Ok(()),
                },
                Ok(()) = news.changed() => {
                    let announced = *news.borrow_and_update();
                    self.behind = self.behind.or(announced);
                    self.pending = true;
                }
                Ok(permit) = responses.reserve(), if self.pending => {
                    if let Some(response) = self.next()? {
                        permit.send(Ok(response));
                    }
                }
                () = at(self.next_late()) => self.show_late(),
                () = at(self.starting.as_ref().map(|starting| starting.until)) => {
                    self.starting = None;
                }
            }
        }
    }

    async fn start(&self) -> Option<Starting> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.shared.starting).acquire_owned().await.ok()?;
        Some(Starting { until: Instant::now() + START_TIME, _permit: permit })
    }

    fn take_up(&mut self, request: &Request) -> Result<(), Status> {
        let Request { message, .. } = request;
        if let Some(node) = &message.node {
            self.registration.client().state().node = remark(&node.id);
        }
        let reply = {
            let store = self.shared.published.store();
            self.session.request(request, &store).map_err(|refusal| refused(&refusal))?
        };
        // About a type that does not exist here there is nothing to account for.
        let Some((resource_type, reply)) = reply else {
            debug!(
                client = self.registration.id(),
                r#type = remark(&message.type_url),
                "the client asks for a type that is not served"
            );
            self.pending = true;
            return Ok(());
        };
        match reply {
            Reply::Nothing => {}
            Reply::Acknowledged => self.settle(resource_type),
            Reply::Rejected => {
                self.settle(resource_type);
                self.shared.metrics.rejects(resource_type).inc();
                let reason = message.error_detail.as_ref().map(|error| remark(&error.message));
                let client = self.registration.client().state().node.clone();
                warn!(client, r#type = resource_type.short_name(), reason, "client refuses");
            }
            Reply::Stale => self.shared.metrics.stale_nonces.inc(),
        }
        self.pending = true;
        self.show();
        Ok(())
    }

    /// Returns the next response; none if there is nothing to send for now.
    fn next(&mut self) -> Result<Option<Response>, Status> {
        let started = StdInstant::now();
        let (outgoing, current) = {
            let store = self.shared.published.store();
            let outgoing = self.session.next(&store, self.shared.max_response_bytes);
            (outgoing.map_err(|refusal| refused(&refusal))?, self.session.is_current(&store))
        };
        let metrics = &self.shared.metrics;
        let Some(outgoing) = outgoing else {
            self.pending = false;
            if self.in_flight.iter().all(Option::is_none) {
                self.starting = None;
                if current {
                    self.converged();
                }
            }
            self.show();
            return Ok(None);
        };
        let Some(resource_type) = outgoing.resource_type else {
            return Ok(Some(outgoing.response));
        };
        if let Some(news) = &self.behind
            && !self.told
        {
            metrics.queue_time.observe(news.published.elapsed().as_secs_f64());
            self.told = true;
        }
        metrics.pushed(resource_type, outgoing.bytes, started.elapsed());
        let in_flight = InFlight { since: Instant::now(), late: false };
        self.in_flight[resource_type as usize] = Some(in_flight);
        self.show();
        Ok(Some(outgoing.response))
    }

    /// Takes note that the client has confirmed all there is.
    fn converged(&mut self) {
        let told = std::mem::take(&mut self.told);
        if let Some(news) = self.behind.take()
            && told
        {
            let time = news.since.elapsed().as_secs_f64();
            self.shared.metrics.convergence_time.observe(time);
        }
    }

    /// Takes note of an acknowledgement.
    fn settle(&mut self, resource_type: ResourceType) {
        self.starting = None;
        let settled = self.in_flight[resource_type as usize].take();
        if settled.is_some_and(|in_flight| in_flight.late) {
            self.shared.metrics.late_clients.dec();
        }
    }

    /// Returns when the next response becomes late.
    fn next_late(&self) -> Option<Instant> {
        let waiting = self.in_flight.iter().flatten().filter(|in_flight| !in_flight.late);
        waiting.map(|in_flight| in_flight.since + ACKNOWLEDGE_TIME).min()
    }

    fn show_late(&mut self) {
        let now = Instant::now();
        for resource_type in ResourceType::ALL {
            let Some(in_flight) = &mut self.in_flight[resource_type as usize] else { continue };
            if in_flight.late || now < in_flight.since + ACKNOWLEDGE_TIME {
                continue;
            }
            in_flight.late = true;
            self.shared.metrics.late_clients.inc();
            let client = self.registration.client().state().node.clone();
            warn!(
                client,
                r#type = resource_type.short_name(),
                seconds = ACKNOWLEDGE_TIME.as_secs(),
                "client does not acknowledge; it is told no more of this type until it does"
            );
        }
    }

    /// Makes what is known of the client visible to people.
    fn show(&self) {
        let store = self.shared.published.store();
        let types = self.session.subscriptions().map(|(resource_type, subscription)| TypeState {
            resource_type,
            everything: subscription.is_everything(),
            names: subscription.names(),
            current: subscription.is_current(store.of(resource_type)),
            in_flight_since: self.in_flight[resource_type as usize].map(|sent| sent.since),
            progress: subscription.progress().clone(),
        });
        let types = types.collect();
        drop(store);
        self.registration.client().state().types = types;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        for in_flight in self.in_flight.iter().flatten() {
            if in_flight.late {
                self.shared.metrics.late_clients.dec();
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn refused(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::TooManyTypes | Refusal::NotText => Status::invalid_argument(message),
        Refusal::TooManyNames => Status::resource_exhausted(message),
        Refusal::TooFarBehind => Status::aborted(message),
    }
}
