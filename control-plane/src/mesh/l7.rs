//! What only waypoints are told: how traffic is routed, who may send it, and how it is spread.

use crate::resource::Resource;

/// What the names of policies begin with.
const POLICY_PREFIX: &str = "authorization/";

/// Returns whether a resource is a policy, for which traffic must not be ahead.
pub(super) fn is_policy(resource: &Resource) -> bool {
    resource.name.as_str().starts_with(POLICY_PREFIX)
}
