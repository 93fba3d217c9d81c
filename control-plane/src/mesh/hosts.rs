//! Which of several objects with the same host name is given it.
//!
//! Within a namespace there is one service for a host: a Kubernetes service before a service entry,
//! an older one before a younger one. Among the namespaces one is canonical.

use std::sync::Arc;

use super::{
    context::Context,
    service::{
        self, Declaration,
        export::{self, Audience},
    },
};
use crate::object::{ObjectKey, ObjectKind};

/// What decides between objects; the least is given the host.
type Rank<'a> = (bool, Option<&'a str>, &'a ObjectKey);

/// Returns the object that is given a host in a namespace.
pub(super) fn owner<'a>(
    context: &Context<'a>,
    namespace: &Arc<str>,
    host: &str,
) -> Option<&'a ObjectKey> {
    let claimants = context.store.hosts.get(host);
    let of_namespace = claimants.filter(|key| {
        key.name.namespace == *namespace && seen_by(context, key) != Audience::Nobody
    });
    of_namespace.min_by_key(|key| rank(context, key))
}

/// Returns whether the object that is given a host in its namespace is the one for the whole mesh.
pub(super) fn is_canonical(context: &Context<'_>, key: &ObjectKey, host: &str) -> bool {
    let claimants = context.store.hosts.get(host);
    let visible = claimants.filter(|key| match seen_by(context, key) {
        Audience::All | Audience::Some => true,
        // What Kubernetes resolves for all is the same for all.
        Audience::Own => key.kind == ObjectKind::Service,
        Audience::Nobody => false,
    });
    visible.min_by_key(|key| rank(context, key)) == Some(key)
}

fn rank<'a>(context: &Context<'a>, key: &'a ObjectKey) -> Rank<'a> {
    let created = context.store.get(key).and_then(|object| object.metadata().created.as_deref());
    (key.kind != ObjectKind::Service, created, key)
}

fn seen_by(context: &Context<'_>, key: &ObjectKey) -> Audience {
    match context.store.get(key).and_then(Declaration::of) {
        Some(Declaration::Service(service)) if !service::is_sent(service) => Audience::Nobody,
        Some(Declaration::Service(service)) => export::of_service(context, service),
        Some(Declaration::Entry(entry)) => export::of_entry(context, entry),
        None => Audience::Nobody,
    }
}
