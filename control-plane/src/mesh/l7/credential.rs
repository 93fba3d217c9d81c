//! What waypoints need of secrets for TLS with endpoints.

use std::collections::BTreeSet;

use mesh_api::proto::l7::Credential;

use super::aliases;
use crate::{
    mesh::{context::Context, names::CA_SECRET_SUFFIX},
    object::ObjectName,
    resource::Resource,
};

/// Returns what there is under the name of a secret, for the waypoints that need it. Roots are those
/// of the secret with the suffix `-cacert`, if there is one.
pub(in crate::mesh) fn credential(
    context: &Context<'_>,
    name: &ObjectName,
    waypoints: BTreeSet<&ObjectName>,
) -> Option<Resource> {
    let ca_name = format!("{}{CA_SECRET_SUFFIX}", name.name);
    let secret = context.store.secret(name);
    let ca = context.store.secret(&ObjectName::new(name.namespace.clone(), ca_name)).or(secret)?;
    if waypoints.is_empty() {
        return None;
    }
    let pair = secret.and_then(|secret| secret.pair.clone());
    let (certificate_chain, private_key) = pair.unwrap_or_default();
    let credential = Credential {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        certificate_chain,
        private_key,
        ca_certificates: ca.roots.clone().unwrap_or_default(),
        revocation_list: ca.revocation_list.clone().unwrap_or_default(),
    };
    Some(Resource::credential(&credential, aliases(waypoints)))
}
