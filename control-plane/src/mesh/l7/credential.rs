//! What waypoints need of secrets for TLS with endpoints.

use std::collections::BTreeSet;

use mesh_api::proto::l7::Credential;

use super::aliases;
use crate::{
    auth::Account,
    mesh::{
        context::Context,
        names::CA_SECRET_SUFFIX,
        waypoint::{is_waypoint, runs_as},
    },
    object::ObjectName,
    resource::Resource,
};

/// Returns what there is under the name of a secret, or that there is nothing, for the waypoints of its
/// namespace that need it. Roots are those of the secret with the suffix `-cacert`, if there is one.
pub(in crate::mesh) fn credential(
    context: &Context<'_>,
    name: &ObjectName,
    waypoints: BTreeSet<&ObjectName>,
) -> Option<Resource> {
    let own = waypoints.iter().copied().filter(|waypoint| waypoint.namespace == name.namespace);
    let accounts: Vec<_> = own.filter_map(|waypoint| account(context, waypoint)).collect();
    if accounts.is_empty() {
        return None;
    }
    let ca_name = format!("{}{CA_SECRET_SUFFIX}", name.name);
    let secret = context.store.secret(name);
    let ca = context.store.secret(&ObjectName::new(name.namespace.clone(), ca_name)).or(secret);
    let pair = secret.and_then(|secret| secret.pair.clone());
    let (certificate_chain, private_key) = pair.unwrap_or_default();
    let credential = Credential {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        certificate_chain,
        private_key,
        ca_certificates: ca.and_then(|ca| ca.roots.clone()).unwrap_or_default(),
        revocation_list: ca.and_then(|ca| ca.revocation_list.clone()).unwrap_or_default(),
        is_absent: ca.is_none(),
    };
    Some(Resource::credential(&credential, aliases(waypoints), accounts.into()))
}

/// Returns whom a waypoint proves to be, if its gateway is there.
fn account(context: &Context<'_>, waypoint: &ObjectName) -> Option<Account> {
    let declared = context.store.gateway(waypoint).is_some_and(|gateway| is_waypoint(gateway));
    let ObjectName { namespace, name } = runs_as(context, waypoint);
    let account = declared.then(|| Some((namespace.parse().ok()?, name.parse().ok()?)));
    account.flatten().map(|(namespace, name)| Account { namespace, name })
}
