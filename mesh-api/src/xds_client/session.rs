//! What both ends of a stream know of each other. Pure: no clock, no I/O.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Change, INCOMPLETE, Interest, MAX_NAMED_REJECTIONS, Rejection, Subscription, Update, WILDCARD,
};
use crate::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource, Status,
};

/// `google.rpc.Code`: the response was refused, in part.
const INVALID_ARGUMENT: i32 = 3;

/// What one client retains, from one stream to the next.
#[derive(Clone, Debug)]
pub struct Session<T> {
    node: Node,
    types: Vec<Followed<T>>,
}

/// A type of resources and what is retained of it.
#[derive(Clone, Debug)]
struct Followed<T> {
    subscription: Subscription<T>,
    /// The version of each resource that the consumer has.
    retained: BTreeMap<Arc<str>, Box<str>>,
    answered: bool,
}

/// What follows from a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// For the consumer.
    pub update: Update<T>,
    /// For the control plane, once the consumer has the update.
    pub request: DeltaDiscoveryRequest,
}

/// The control plane sent a type that was not asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane sent resources of the type \"{0}\", which were not asked for")]
pub struct UnknownType(String);

// === impl Session ===

impl<T> Session<T> {
    /// Starts with nothing, as `node`.
    pub fn new(node: Node, subscriptions: impl IntoIterator<Item = Subscription<T>>) -> Self {
        let follow =
            |subscription| Followed { subscription, retained: BTreeMap::new(), answered: false };
        Self { node, types: subscriptions.into_iter().map(follow).collect() }
    }

    /// Returns the first requests of a stream: what is asked for of each type, but for what is retained.
    pub fn first_requests(&self) -> Vec<DeltaDiscoveryRequest> {
        let request = |followed: &Followed<T>| {
            let retained = followed.retained.iter();
            let (subscribe, unsubscribe) = names(&followed.subscription.interest);
            DeltaDiscoveryRequest {
                node: Some(self.node.clone()),
                type_url: followed.subscription.type_url.to_owned(),
                resource_names_subscribe: subscribe,
                resource_names_unsubscribe: unsubscribe,
                initial_resource_versions: retained
                    .map(|(name, version)| (name.as_ref().to_owned(), version.as_ref().to_owned()))
                    .collect(),
                ..DeltaDiscoveryRequest::default()
            }
        };
        self.types.iter().map(request).collect()
    }

    /// Takes a response.
    pub fn receive(&mut self, response: DeltaDiscoveryResponse) -> Result<Answer<T>, UnknownType> {
        let is_whole = response.system_version_info != INCOMPLETE;
        let DeltaDiscoveryResponse { resources, type_url, nonce, removed_resources, .. } = response;
        let followed = self.types.iter_mut().find(|t| t.subscription.type_url == type_url);
        let Some(followed) = followed else {
            return Err(UnknownType(type_url.escape_debug().to_string()));
        };
        let mut changes = Vec::with_capacity(resources.len() + removed_resources.len());
        let (mut rejections, mut bytes) = (Vec::new(), 0);
        for resource in resources {
            bytes += resource.resource.as_ref().map_or(0, |any| any.value.len());
            match followed.take(resource) {
                Ok(change) => changes.push(change),
                Err(rejection) => rejections.push(rejection),
            }
        }
        changes.extend(removed_resources.into_iter().map(|name| followed.remove(name)));
        followed.answered |= is_whole;
        let type_name = followed.subscription.type_url;
        let synced = self.is_synced();
        let request = acknowledgement(type_url, nonce, &rejections);
        let update = Update { type_url: type_name, changes, rejections, bytes, synced };
        Ok(Answer { update, request })
    }

    /// Returns whether every type has been answered.
    pub fn is_synced(&self) -> bool {
        self.types.iter().all(|followed| followed.answered)
    }
}

// === impl Followed ===

impl<T> Followed<T> {
    /// Reads a resource. One that is refused leaves what is retained as it is: the consumer has the
    /// version before, if any.
    fn take(&mut self, resource: Resource) -> Result<Change<T>, Rejection> {
        let Resource { version, resource, name, aliases: _ } = resource;
        let name: Arc<str> = name.into();
        let content = match resource {
            Some(any) if any.type_url == self.subscription.type_url => Ok(any.value),
            Some(any) => Err(format!("is of the type {}", any.type_url.escape_debug())),
            None => Err("has no content".to_owned()),
        };
        match content.and_then(|content| (self.subscription.read)(&name, &content)) {
            Ok(read) => {
                self.retained.insert(Arc::clone(&name), version.into());
                Ok(Change::Updated(name, read))
            }
            Err(reason) => Err(Rejection { name, reason }),
        }
    }

    fn remove(&mut self, name: String) -> Change<T> {
        self.retained.remove(name.as_str());
        Change::Removed(name.into())
    }
}

/// Returns what the first request of a type subscribes to and unsubscribes from.
fn names(interest: &Interest) -> (Vec<String>, Vec<String>) {
    match interest {
        Interest::Everything => (Vec::new(), Vec::new()),
        // A first request without any names would ask for everything.
        Interest::Names(names) => (names.clone(), vec![WILDCARD.to_owned()]),
    }
}

/// Returns the answer to the response with `nonce`.
fn acknowledgement(
    type_url: String,
    response_nonce: String,
    rejections: &[Rejection],
) -> DeltaDiscoveryRequest {
    let error_detail = (!rejections.is_empty()).then(|| Status {
        code: INVALID_ARGUMENT,
        message: describe(rejections),
        details: Vec::new(),
    });
    DeltaDiscoveryRequest {
        type_url,
        response_nonce,
        error_detail,
        ..DeltaDiscoveryRequest::default()
    }
}

/// Returns `name: reason; name: reason`.
fn describe(rejections: &[Rejection]) -> String {
    let mut parts: Vec<_> =
        rejections.iter().take(MAX_NAMED_REJECTIONS).map(ToString::to_string).collect();
    if let Some(more) = rejections.len().checked_sub(MAX_NAMED_REJECTIONS).filter(|n| *n > 0) {
        parts.push(format!("and {more} more"));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests;
