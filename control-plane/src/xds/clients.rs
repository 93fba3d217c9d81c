//! The clients that are connected, for their number to be bounded and for people to look at.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use super::{limits::ACKNOWLEDGE_TIME, resource_type::ResourceType, subscription::Progress};
use crate::{auth::Caller, telemetry::metrics::Metrics};

/// The clients that are connected.
#[derive(Clone, Debug)]
pub struct Clients {
    max: usize,
    metrics: Arc<Metrics>,
    connected: Arc<Mutex<Connected>>,
}

#[derive(Debug, Default)]
struct Connected {
    last_id: u64,
    clients: BTreeMap<u64, Arc<Client>>,
}

/// A client that is connected.
#[derive(Debug)]
pub struct Client {
    caller: Caller,
    address: SocketAddr,
    since: Instant,
    state: Mutex<State>,
}

/// Keeps a client among the connected ones until dropped.
#[derive(Debug)]
pub(super) struct Registration {
    id: u64,
    client: Arc<Client>,
    clients: Clients,
}

/// What a client said last, and what it was told.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) node: String,
    pub(super) types: Vec<TypeState>,
}

/// How one type of one client stands.
#[derive(Clone, Debug)]
pub(super) struct TypeState {
    pub(super) resource_type: ResourceType,
    pub(super) everything: bool,
    pub(super) names: usize,
    pub(super) current: bool,
    pub(super) in_flight_since: Option<Instant>,
    pub(super) progress: Progress,
}

/// A client as shown to people.
#[derive(Debug, Serialize)]
pub struct ClientView {
    /// The node's own name for itself.
    pub node_id: String,
    /// Account that the client showed a token of.
    pub account: String,
    /// Node that the token belongs to.
    pub node: Option<String>,
    /// Where it connects from.
    pub address: SocketAddr,
    /// Time since it connected.
    pub connected_seconds: u64,
    /// Its subscriptions, by type URL.
    pub types: BTreeMap<&'static str, TypeView>,
}

/// A subscription as shown to people.
#[derive(Debug, Serialize)]
pub struct TypeView {
    /// How it stands.
    pub status: Status,
    /// Whether it is subscribed to everything.
    pub everything: bool,
    /// How many names it asked for.
    pub names: usize,
    /// Responses sent.
    pub sent: u64,
    /// Responses taken whole.
    pub acknowledged: u64,
    /// Responses of which the client refused a part.
    pub rejected: u64,
    /// Acknowledgements of something else than was sent last.
    pub stale: u64,
    /// Why the client refused, the last time that it did.
    pub last_rejection: Option<String>,
    /// Time that the client has owed an acknowledgement for.
    pub unacknowledged_seconds: Option<u64>,
}

/// How a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// The client has confirmed all that there is.
    Synced,
    /// News is on its way.
    Pending,
    /// The client has not confirmed a response for longer than [`ACKNOWLEDGE_TIME`].
    Stale,
    /// The client has all that there is, and refused a part of it at some time.
    Rejected,
}

/// There are as many clients as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this server has its {0} clients already; try another replica")]
pub struct Full(usize);

// === impl Clients ===

impl Clients {
    /// Creates a list of at most `max` clients.
    pub fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self { max, metrics, connected: Arc::default() }
    }

    /// Returns the clients as they stand now.
    pub fn view(&self) -> Vec<ClientView> {
        let clients: Vec<_> = self.lock().clients.values().cloned().collect();
        let now = Instant::now();
        clients.iter().map(|client| client.view(now)).collect()
    }

    pub(super) fn register(
        &self,
        caller: Caller,
        address: SocketAddr,
    ) -> Result<Registration, Full> {
        let state = Mutex::default();
        let client = Arc::new(Client { caller, address, since: Instant::now(), state });
        let mut connected = self.lock();
        if connected.clients.len() >= self.max {
            return Err(Full(self.max));
        }
        connected.last_id += 1;
        let id = connected.last_id;
        connected.clients.insert(id, Arc::clone(&client));
        drop(connected);
        self.metrics.clients.inc();
        Ok(Registration { id, client, clients: self.clone() })
    }

    /// The list is valid after every statement that changes it.
    fn lock(&self) -> MutexGuard<'_, Connected> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Client ===

impl Client {
    /// Returns whom the client's token belongs to.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The state is replaced field by field; each is valid for itself.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self, now: Instant) -> ClientView {
        let state = self.state();
        ClientView {
            node_id: state.node.clone(),
            account: self.caller.account.to_string(),
            node: self.caller.node.as_ref().map(|node| node.0.to_string()),
            address: self.address,
            connected_seconds: (now - self.since).as_secs(),
            types: state.types.iter().map(|t| (t.resource_type.url(), t.view(now))).collect(),
        }
    }
}

// === impl TypeState ===

impl TypeState {
    fn view(&self, now: Instant) -> TypeView {
        let Progress { sent, acknowledged, rejected, stale, last_rejection } = &self.progress;
        let unacknowledged = self.in_flight_since.map(|since| now - since);
        TypeView {
            status: self.status(unacknowledged),
            everything: self.everything,
            names: self.names,
            sent: *sent,
            acknowledged: *acknowledged,
            rejected: *rejected,
            stale: *stale,
            last_rejection: last_rejection.clone(),
            unacknowledged_seconds: unacknowledged.map(|time| time.as_secs()),
        }
    }

    fn status(&self, unacknowledged: Option<Duration>) -> Status {
        match unacknowledged {
            Some(time) if time > ACKNOWLEDGE_TIME => Status::Stale,
            Some(_) => Status::Pending,
            None if !self.current => Status::Pending,
            None if self.progress.rejected > 0 => Status::Rejected,
            None => Status::Synced,
        }
    }
}

// === impl Registration ===

impl Registration {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the client's number, which no other client of this process has.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.clients.lock().clients.remove(&self.id);
        self.clients.metrics.clients.dec();
    }
}
