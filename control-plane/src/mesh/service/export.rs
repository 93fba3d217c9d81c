//! Which namespaces see a service. Proxies know two answers: all, and its own.

use mesh_api::proto::workload::Visibility;

use crate::{
    mesh::{context::Context, names, warning::Warning},
    object::{Service, ServiceEntry},
};

const ALL: &str = "*";
const OWN: &str = ".";
const NONE: &str = "~";

/// Who sees a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mesh) enum Audience {
    /// Nobody; proxies are not told of it.
    Nobody,
    /// Its own namespace.
    Own,
    /// All namespaces.
    All,
    /// Some namespaces, which is not told apart from all.
    Some,
}

/// Returns who sees a Kubernetes service.
pub(in crate::mesh) fn of_service(context: &Context<'_>, service: &Service) -> Audience {
    let listed = service.metadata.annotation(names::EXPORT_TO).unwrap_or_default();
    let listed = listed.split(',').map(str::trim).filter(|name| !name.is_empty());
    audience(context, service.metadata.namespace(), listed.collect())
}

/// Returns who sees a service entry.
pub(in crate::mesh) fn of_entry(context: &Context<'_>, entry: &ServiceEntry) -> Audience {
    let listed = entry.spec.export_to.iter().map(String::as_str);
    audience(context, entry.metadata.namespace(), listed.collect())
}

/// Returns the wire form; none if nobody sees the service.
pub(super) fn visibility(context: &mut Context<'_>, audience: Audience) -> Option<Visibility> {
    match audience {
        Audience::Nobody => None,
        Audience::Own => Some(Visibility::Namespace),
        Audience::All => Some(Visibility::Public),
        Audience::Some => {
            context.warn(Warning::ExportedToAll);
            Some(Visibility::Public)
        }
    }
}

fn audience<'a>(context: &Context<'a>, namespace: &str, mut listed: Vec<&'a str>) -> Audience {
    if listed.is_empty() {
        listed = context.settings.default_export.iter().map(String::as_str).collect();
    }
    if listed.is_empty() || listed.contains(&ALL) {
        return Audience::All;
    }
    if listed == [NONE] {
        return Audience::Nobody;
    }
    let is_own = |name: &&str| *name == OWN || *name == namespace;
    if listed.iter().all(is_own) { Audience::Own } else { Audience::Some }
}
