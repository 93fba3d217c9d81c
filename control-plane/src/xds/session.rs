//! One client's subscriptions, one for each type.
//!
//! Pure: no clock, no locks, no I/O.

use mesh_api::proto::discovery::DeltaDiscoveryRequest;

use super::{
    frame::Response,
    resource_type::ResourceType,
    store::Store,
    subscription::{Refusal, Reply, Subscription},
};

/// One client's subscriptions.
#[derive(Debug)]
pub(super) struct Session {
    /// Distinguishes the nonces of this stream from those of others.
    stream: u32,
    /// In the order of [`ResourceType::ALL`].
    subscriptions: [Option<Subscription>; ResourceType::ALL.len()],
}

/// A response that is to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) resource_type: ResourceType,
    pub(super) bytes: usize,
    pub(super) response: Response,
}

// === impl Session ===

impl Session {
    /// Creates the session of a stream whose nonces are marked with `stream`.
    pub(super) fn new(stream: u32) -> Self {
        Self { stream, subscriptions: [const { None }; ResourceType::ALL.len()] }
    }

    /// Takes up a request; the first of a type subscribes.
    pub(super) fn request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        store: &Store,
    ) -> Result<(ResourceType, Reply), Refusal> {
        let url = &request.type_url;
        let resource_type = ResourceType::from_url(url)
            .ok_or_else(|| Refusal::UnknownType(super::subscription::remark(url)))?;
        let collection = store.of(resource_type);
        let subscription = &mut self.subscriptions[resource_type as usize];
        if let Some(subscription) = subscription {
            return Ok((resource_type, subscription.request(request, collection)?));
        }
        let new = Subscription::open(resource_type, self.stream, request, collection)?;
        *subscription = Some(new);
        // A nonce would be one of another stream.
        Ok((resource_type, Reply::Nothing))
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
                return Ok(Some(Outgoing { resource_type, bytes: response.len(), response }));
            }
        }
        Ok(None)
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
