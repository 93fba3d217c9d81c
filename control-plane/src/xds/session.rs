//! One client's subscriptions, one for each type.
//!
//! Pure: no clock, no locks, no I/O.

use std::collections::BTreeSet;

use mesh_api::{proto::discovery::DeltaDiscoveryRequest, xds_client::WILDCARD};

use super::{
    clearance::{Clearance, Scope},
    frame::Response,
    limits::{MAX_OTHER_TYPES, MAX_REMARK_BYTES, MAX_SUBSCRIBED_NAMES},
    request::Request,
    resource_type::ResourceType,
    store::Store,
    subscription::{Refusal, Reply, Subscription},
};

/// One client's subscriptions.
#[derive(Debug)]
pub(super) struct Session {
    /// Distinguishes the nonces of this stream from those of others.
    stream: u32,
    /// What of confidential types the client may be told.
    clearance: Clearance,
    /// In the order of [`ResourceType::ALL`].
    subscriptions: [Option<Subscription>; ResourceType::ALL.len()],
    others: Vec<OtherType>,
    /// Answers about other types.
    answered: u64,
}

/// A type that does not exist here. Who asks for it is told that there is nothing of it, since
/// clients of several types wait for the answer about each before they go on.
#[derive(Debug)]
struct OtherType {
    url: Box<str>,
    /// Names asked for, if the client waits for an answer.
    asked: Option<BTreeSet<Box<str>>>,
}

/// A response that is to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Its type, if it exists here.
    pub(super) resource_type: Option<ResourceType>,
    pub(super) bytes: usize,
    pub(super) response: Response,
}

// === impl Session ===

impl Session {
    /// Creates the session of a stream whose nonces are marked with `stream`.
    pub(super) fn new(stream: u32, clearance: Clearance) -> Self {
        let subscriptions = [const { None }; ResourceType::ALL.len()];
        Self { stream, clearance, subscriptions, others: Vec::new(), answered: 0 }
    }

    /// Takes up a request; the first of a type subscribes. Returns what it says about the response
    /// in flight of a type that exists here.
    pub(super) fn request(
        &mut self,
        request: &Request,
        store: &Store,
    ) -> Result<Option<(ResourceType, Reply)>, Refusal> {
        let Some(resource_type) = ResourceType::from_url(&request.message.type_url) else {
            return self.request_other(&request.message).map(|()| None);
        };
        let collection = store.of(resource_type);
        let subscription = &mut self.subscriptions[resource_type as usize];
        if let Some(subscription) = subscription {
            return Ok(Some((resource_type, subscription.request(&request.message, collection)?)));
        }
        let scope = Scope { resource_type, clearance: self.clearance.clone() };
        let new = Subscription::open(scope, self.stream, request, collection)?;
        *subscription = Some(new);
        // A nonce would be one of another stream.
        Ok(Some((resource_type, Reply::Nothing)))
    }

    fn request_other(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Refusal> {
        let url = request.type_url.as_str();
        let known = self.others.iter().position(|other| &*other.url == url);
        let names = request.resource_names_subscribe.iter().filter(|name| *name != WILDCARD);
        let names = names.map(|name| Box::from(name.as_str()));
        let other = match known {
            Some(index) => &mut self.others[index],
            None if self.others.len() < MAX_OTHER_TYPES && url.len() <= MAX_REMARK_BYTES => {
                let first = OtherType { url: url.into(), asked: Some(BTreeSet::new()) };
                self.others.push_mut(first)
            }
            None => return Err(Refusal::TooManyTypes),
        };
        if !request.resource_names_subscribe.is_empty() {
            other.asked.get_or_insert_default().extend(names);
        }
        if other.asked.as_ref().is_some_and(|asked| asked.len() > MAX_SUBSCRIBED_NAMES) {
            return Err(Refusal::TooManyNames);
        }
        Ok(())
    }

    /// Returns the next response of any type, of at most `limit` bytes or one resource.
    pub(super) fn next(
        &mut self,
        store: &Store,
        limit: usize,
    ) -> Result<Option<Outgoing>, Refusal> {
        for resource_type in ResourceType::ALL {
            let Some(subscription) = &mut self.subscriptions[resource_type as usize] else {
                continue;
            };
            if let Some(news) = subscription.next(store.of(resource_type), limit)? {
                let response = Response::new(resource_type, news);
                let (bytes, resource_type) = (response.len(), Some(resource_type));
                return Ok(Some(Outgoing { resource_type, bytes, response }));
            }
        }
        Ok(self.next_about_others())
    }

    fn next_about_others(&mut self) -> Option<Outgoing> {
        let (url, asked) = self.others.iter_mut().find_map(|o| Some((&o.url, o.asked.take()?)))?;
        self.answered += 1;
        let nonce = format!("{:08x}-other-{}", self.stream, self.answered);
        let response = Response::nothing(url, &nonce, asked.into_iter().collect());
        Some(Outgoing { resource_type: None, bytes: response.len(), response })
    }

    /// Returns whether every change is on its way to the client, or does not concern it.
    pub(super) fn is_current(&self, store: &Store) -> bool {
        self.subscriptions().all(|(t, subscription)| subscription.is_current(store.of(t)))
    }

    /// Returns the subscriptions that the client has.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = (ResourceType, &Subscription)> {
        ResourceType::ALL
            .into_iter()
            .filter_map(|t| Some((t, self.subscriptions[t as usize].as_ref()?)))
    }
}
