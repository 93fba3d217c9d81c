//! What one client knows of one type, and what it has to be told.
//!
//! Pure: no clock, no locks, no I/O.
//!
//! A client that subscribes to everything is a position in the store's order of changes, and while
//! it catches up after a reconnect, the positions of what changed while it was away. A client that
//! subscribes to names also has the set of what it holds. It is told of a resource if it asked for
//! its name or one of its aliases, or holds a service that the resource is an endpoint of: who asks
//! for a service wants to reach it. What it may not be told is not there for it ([`Scope`]). Whether
//! it is told further of what it holds, if none of this is so any longer, depends on the type.
//!
//! One response is in flight at a time: the next is made of the state at the time when the client
//! acknowledges, or rejects, the one before.

mod news;

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use mesh_api::{proto::discovery::DeltaDiscoveryRequest, xds_client::WILDCARD};

pub use self::news::News;
use super::{
    clearance::Scope,
    limits::{MAX_OTHER_TYPES, MAX_REMARK_BYTES, MAX_SUBSCRIBED_NAMES},
    request::{Had, Request},
    resource_type::ResourceType,
    store::{Collection, Entry, Position, Slot},
};
use crate::resource::{Kind, Resource, ResourceName};

/// What one client knows of one type.
#[derive(Debug)]
pub struct Subscription {
    scope: Scope,
    /// Distinguishes the nonces of this stream from those of others.
    stream: u32,
    everything: bool,
    /// Names and aliases asked for.
    keys: HashSet<Box<str>>,
    /// What the client holds; unused while it is subscribed to everything.
    held: HashSet<ResourceName>,
    /// Changes up to here have been looked at.
    cursor: Position,
    /// Removals up to here were before the client's time.
    removals_from: Position,
    /// Positions before the cursor that have to be sent nevertheless.
    catch_up: BTreeSet<Position>,
    /// Names to be told as removed, before anything else.
    removed: VecDeque<Box<str>>,
    /// Whether the client waits for a response, even an empty one.
    owes_answer: bool,
    in_flight: Option<String>,
    progress: Progress,
}

/// How a subscription went until now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Responses sent.
    pub sent: u64,
    /// Responses taken whole.
    pub acknowledged: u64,
    /// Responses of which the client refused a part.
    pub rejected: u64,
    /// Acknowledgements of something else than the response in flight.
    pub stale: u64,
    /// Why the client refused, the last time that it did.
    pub last_rejection: Option<String>,
}

/// What a request says about the response in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nothing,
    /// The client took it whole.
    Acknowledged,
    /// The client refused a part of it.
    Rejected,
    /// It is about another response.
    Stale,
}

/// Why a client is not served any longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The client asks for many types that do not exist here.
    #[error(
        "more than {MAX_OTHER_TYPES} types that are not served; this server has {types}",
        types = served_types()
    )]
    TooManyTypes,
    /// The client asks for too many names one by one.
    #[error(
        "more than {MAX_SUBSCRIBED_NAMES} names in one subscription; subscribe to everything \
         instead"
    )]
    TooManyNames,
    /// The client has what cannot be named.
    #[error("a name in initial_resource_versions is not text")]
    NotText,
    /// Removals that the client was not told of are forgotten.
    #[error("too far behind; reconnect and say in initial_resource_versions what is held")]
    TooFarBehind,
}

/// What to do with a resource that the client holds already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Send it again: the client asked for it.
    Resend,
    /// Let it be.
    Skip,
}

fn served_types() -> String {
    ResourceType::ALL.map(ResourceType::url).join(", ")
}

/// Returns text of a client in a form and size fit for logs.
pub(super) fn remark(text: &str) -> String {
    let mut escaped = text.escape_debug().to_string();
    escaped.truncate(escaped.floor_char_boundary(MAX_REMARK_BYTES));
    escaped
}

// === impl Subscription ===

impl Subscription {
    /// Creates what the first request of a type asks for.
    pub fn open(
        scope: impl Into<Scope>,
        stream: u32,
        request: &Request,
        collection: &Collection,
    ) -> Result<Self, Refusal> {
        let Request { message: request, had } = request;
        let subscribe = &request.resource_names_subscribe;
        let scope = scope.into();
        let has_wildcard = scope.resource_type.has_wildcard();
        let everything = has_wildcard && (subscribe.is_empty() || names_everything(subscribe));
        let mut subscription = Self {
            scope,
            stream,
            everything: everything && !names_everything(&request.resource_names_unsubscribe),
            keys: HashSet::new(),
            held: HashSet::new(),
            cursor: collection.latest(),
            removals_from: collection.latest(),
            catch_up: BTreeSet::new(),
            removed: VecDeque::new(),
            owes_answer: false,
            in_flight: None,
            progress: Progress::default(),
        };
        subscription.change_keys(request)?;
        if subscription.everything {
            subscription.open_everything(had, collection)?;
        } else {
            // Who takes everything back at once looks names up later.
            subscription.owes_answer = !has_wildcard || !names_everything(subscribe);
            subscription.open_named(had, collection)?;
        }
        Ok(subscription)
    }

    /// Takes up a further request.
    pub fn request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        collection: &Collection,
    ) -> Result<Reply, Refusal> {
        let reply = self.reply(request);
        let (subscribe, unsubscribe) =
            (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
        self.change_keys(request)?;
        let (begin, end) = (names_everything(subscribe), names_everything(unsubscribe));
        if begin && !end && !self.everything && self.scope.resource_type.has_wildcard() {
            self.widen(collection);
        } else if end && self.everything {
            self.narrow(collection);
        }
        if !unsubscribe.is_empty() && !self.everything {
            self.forget_unwanted(collection);
        }
        for key in subscribe {
            if self.keys.contains(key.as_str()) {
                self.look_up(key, collection, Known::Resend);
            }
        }
        Ok(reply)
    }

    /// Returns whether a response waits for the client.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Returns whether every change is on its way to the client, or does not concern it.
    pub fn is_current(&self, collection: &Collection) -> bool {
        self.cursor == collection.latest()
            && self.catch_up.is_empty()
            && self.removed.is_empty()
            && !self.owes_answer
    }

    /// Returns whether the client is subscribed to everything.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// Returns how many names the client asked for.
    pub fn names(&self) -> usize {
        self.keys.len()
    }

    /// Returns how it went until now.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    fn open_everything(&mut self, had: &[Had], collection: &Collection) -> Result<(), Refusal> {
        self.owes_answer = true;
        self.remove_gone(collection);
        if had.is_empty() {
            self.cursor = Position::default();
            return Ok(());
        }
        // Nodes come back together: this looks at each name once, and at the state in its order.
        let mut known = Vec::with_capacity(had.len());
        for had in had {
            let name = had.name().ok_or(Refusal::NotText)?;
            match collection.current(name) {
                Some((at, kind, version)) if self.scope.has(kind) => {
                    if version.is(had.version()) {
                        known.push(at);
                    }
                }
                Some(_) | None => self.removed.push_back(name.into()),
            }
        }
        known.sort_unstable();
        known.dedup();
        let mut known = known.into_iter().peekable();
        for (at, entry) in collection.live() {
            if known.next_if_eq(&at).is_none() && self.scope.admits(entry.resource()) {
                self.catch_up.insert(at);
            }
        }
        Ok(())
    }

    fn open_named(&mut self, had: &[Had], collection: &Collection) -> Result<(), Refusal> {
        let mut services = Vec::new();
        for had in had {
            let name = had.name().ok_or(Refusal::NotText)?;
            let found = self.carried(collection.get(name));
            let Some((at, entry)) = found.filter(|(_, entry)| self.may_keep(entry)) else {
                self.removed.push_back(name.into());
                continue;
            };
            let resource = entry.resource();
            self.held.insert(resource.name.clone());
            if !resource.version.is(had.version()) {
                self.catch_up.insert(at);
            }
            if resource.kind == Kind::Service {
                services.push(resource.name.clone());
            }
        }
        for service in services {
            self.want_endpoints(&service, collection);
        }
        for key in self.keys.clone() {
            self.look_up(&key, collection, Known::Skip);
        }
        Ok(())
    }

    fn change_keys(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Refusal> {
        let subscribe = request.resource_names_subscribe.iter().filter(|key| *key != WILDCARD);
        self.keys.extend(subscribe.map(|key| key.as_str().into()));
        for key in &request.resource_names_unsubscribe {
            self.keys.remove(key.as_str());
        }
        if self.keys.len() > MAX_SUBSCRIBED_NAMES {
            return Err(Refusal::TooManyNames);
        }
        Ok(())
    }

    fn reply(&mut self, request: &DeltaDiscoveryRequest) -> Reply {
        if request.response_nonce.is_empty() {
            return Reply::Nothing;
        }
        if self.in_flight.as_ref() != Some(&request.response_nonce) {
            self.progress.stale += 1;
            return Reply::Stale;
        }
        self.in_flight = None;
        let Some(error) = &request.error_detail else {
            self.progress.acknowledged += 1;
            return Reply::Acknowledged;
        };
        self.progress.rejected += 1;
        self.progress.last_rejection = Some(remark(&error.message));
        Reply::Rejected
    }

    /// Subscribes to everything from now on.
    fn widen(&mut self, collection: &Collection) {
        self.everything = true;
        self.owes_answer = true;
        let held = std::mem::take(&mut self.held);
        let seen = collection.live().take_while(|(at, _)| *at <= self.cursor);
        let unknown = seen.filter(|(_, entry)| {
            self.scope.admits(entry.resource()) && !held.contains(&entry.resource().name)
        });
        self.catch_up.extend(unknown.map(|(at, _)| at));
    }

    /// Subscribes only to the names asked for from now on.
    fn narrow(&mut self, collection: &Collection) {
        self.everything = false;
        // The client may have all that there is and was.
        let live = collection.live().map(|(_, entry)| (&entry.resource().name, entry.kind()));
        let gone = collection.after(self.cursor).filter_map(|(_, slot)| match slot {
            Slot::Live(_) => None,
            Slot::Gone(name, kind) => Some((name, *kind)),
        });
        let all = live.chain(gone).filter(|(_, kind)| self.scope.has(*kind));
        self.held = all.map(|(name, _)| name.clone()).collect();
    }

    /// Tells as removed what the client holds and does not ask for any longer.
    fn forget_unwanted(&mut self, collection: &Collection) {
        let held = std::mem::take(&mut self.held);
        let (services, others): (Vec<_>, Vec<_>) = held.into_iter().partition(|name| {
            collection.get(name.as_str()).is_some_and(|(_, e)| e.kind() == Kind::Service)
        });
        // Services first: if one stays, its endpoints do.
        for name in services.into_iter().chain(others) {
            match collection.get(name.as_str()) {
                Some((_, entry)) if !self.wants(entry) => {
                    self.removed.push_back(name.as_str().into());
                }
                // What is gone is found behind the cursor.
                Some(_) | None => drop(self.held.insert(name)),
            }
        }
    }

    /// Has whatever a key names sent, or told as removed.
    fn look_up(&mut self, key: &str, collection: &Collection, known: Known) {
        let mut exists = false;
        for (at, entry) in collection.find(key) {
            if !self.scope.admits(entry.resource()) {
                continue;
            }
            exists = true;
            if known == Known::Resend || !self.held.contains(&entry.resource().name) {
                self.want(at);
            }
        }
        if !exists {
            self.removed.push_back(key.into());
        }
    }

    /// Has a resource sent, unless the walk comes by it anyway.
    fn want(&mut self, at: Position) {
        if at <= self.cursor {
            self.catch_up.insert(at);
        }
    }

    fn want_endpoints(&mut self, service: &ResourceName, collection: &Collection) {
        for (at, entry) in collection.endpoints(service.as_str()) {
            let resource = entry.resource();
            if self.scope.admits(resource) && !self.held.contains(&resource.name) {
                self.want(at);
            }
        }
    }

    /// Tells of the names asked for that nothing has.
    fn remove_gone(&mut self, collection: &Collection) {
        for key in &self.keys {
            if !collection.find(key).any(|(_, entry)| self.scope.admits(entry.resource())) {
                self.removed.push_back(key.clone());
            }
        }
    }

    /// Passes on a resource if it is of this type, and the client may be told of it.
    fn carried<'a>(
        &self,
        found: Option<(Position, &'a Arc<Entry>)>,
    ) -> Option<(Position, &'a Arc<Entry>)> {
        found.filter(|(_, entry)| self.scope.admits(entry.resource()))
    }

    fn wants(&self, entry: &Entry) -> bool {
        let resource = entry.resource();
        if !self.scope.admits(resource) {
            return false;
        }
        self.everything
            || (self.scope.resource_type.outlasts_its_aliases()
                && self.held.contains(&resource.name))
            || self.asks_for(resource)
            || resource.services.iter().any(|service| self.held.contains(&**service))
    }

    /// Returns whether a client that holds a resource goes on to do so.
    fn may_keep(&self, entry: &Entry) -> bool {
        self.scope.resource_type.outlasts_its_aliases() || self.asks_for(entry.resource())
    }

    fn asks_for(&self, resource: &Resource) -> bool {
        self.keys.contains(resource.name.as_str())
            || resource.aliases.iter().any(|alias| self.keys.contains(alias))
    }
}

fn names_everything(names: &[String]) -> bool {
    names.iter().any(|name| name == WILDCARD)
}

#[cfg(test)]
mod tests;
