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
            if self.has_to_wait(resource_type, store) {
                continue;
            }
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

    /// Returns whether news of a type would overtake news of another one that the client cannot be sent
    /// yet. A service that leaves its waypoint takes its routes along: while the waypoint is not told
    /// of the former, it would forward past the latter.
    fn has_to_wait(&self, resource_type: ResourceType, store: &Store) -> bool {
        let addresses = match resource_type {
            ResourceType::L7 => &self.subscriptions[ResourceType::Address as usize],
            ResourceType::Authorization
            | ResourceType::Address
            | ResourceType::Workload
            | ResourceType::Service
            | ResourceType::Credential => return false,
        };
        let collection = store.of(ResourceType::Address);
        addresses.as_ref().is_some_and(|addresses| !addresses.is_current(collection))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        resource::Kind,
        xds::fixtures::{gone, labels, received, reply, request, service, workload},
    };

    const HOST: &str = "cart.shop.svc.cluster.local";

    /// Returns the type that a client is told of next; none if it has to acknowledge something first.
    fn next(session: &mut Session, store: &Store) -> Option<ResourceType> {
        session.next(store, usize::MAX).unwrap()?.resource_type
    }

    /// Acknowledges the response number `sent` of a type.
    fn acknowledge(session: &mut Session, store: &Store, resource_type: ResourceType, sent: u64) {
        let reply = reply(resource_type, &format!("00000007-{sent}"), None);
        let (_, taken) = session.request(&received(&reply), store).unwrap().unwrap();
        assert_eq!(taken, Reply::Acknowledged);
    }

    #[test]
    fn the_routes_of_a_service_go_after_it_has_left_its_waypoint_however_slow_that_is_to_answer() {
        use ResourceType::{Address, L7};

        let mut store = Store::default();
        store.apply(service("shop", HOST, 1, &[]));
        store.apply(labels("a", &["shop/w"]));
        let mut session = Session::new(7, Clearance::default());
        for (resource_type, names) in [(L7, &["shop/w"][..]), (Address, &[])] {
            session.request(&received(&request(resource_type, names)), &store).unwrap();
        }
        assert_eq!(next(&mut session, &store), Some(Address));
        assert_eq!(next(&mut session, &store), Some(L7));
        acknowledge(&mut session, &store, L7, 1);
        // The answer about addresses is still to come when the service leaves.
        store.apply(service("shop", HOST, 2, &[]));
        store.apply(gone(Kind::L7, "labels/a"));
        assert_eq!(next(&mut session, &store), None);
        acknowledge(&mut session, &store, Address, 1);
        assert_eq!(next(&mut session, &store), Some(Address));
        assert_eq!(next(&mut session, &store), Some(L7));
        // What is said of others does not matter, and what does not concern the client neither.
        acknowledge(&mut session, &store, L7, 2);
        store.apply(labels("a", &["shop/w"]));
        assert_eq!(next(&mut session, &store), Some(L7));
        acknowledge(&mut session, &store, L7, 3);
        store.apply(workload("b", 1));
        store.apply(gone(Kind::L7, "labels/a"));
        assert_eq!(next(&mut session, &store), None);
        acknowledge(&mut session, &store, Address, 2);
        assert_eq!([Address, L7].map(|_| next(&mut session, &store)), [Some(Address), Some(L7)]);
    }

    #[test]
    fn who_asks_for_routes_only_is_told_of_them_at_once() {
        let mut store = Store::default();
        let mut session = Session::new(7, Clearance::default());
        session.request(&received(&request(ResourceType::L7, &["shop/w"])), &store).unwrap();
        store.apply(service("shop", HOST, 1, &[]));
        store.apply(labels("a", &["shop/w"]));
        assert_eq!(next(&mut session, &store), Some(ResourceType::L7));
    }
}
