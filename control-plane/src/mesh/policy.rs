//! Policies: authorization policies, and what peer authentications amount to.

mod authorization;
mod lower;
mod peer;

use std::sync::Arc;

pub(super) use self::{
    authorization::of_authorization_policy,
    peer::{of_peer_authentication, strict_policy},
};
use super::context::Context;
use crate::object::Labels;

/// Returns the keys of the policies that a workload has to name.
pub(super) fn keys_for(
    context: &Context<'_>,
    namespace: &Arc<str>,
    labels: &Labels,
) -> Vec<String> {
    let mut keys = authorization::keys_for(context, namespace, labels);
    keys.extend(peer::key_for(context, namespace, labels));
    keys
}

#[cfg(test)]
mod tests;
