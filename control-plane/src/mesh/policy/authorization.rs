//! Authorization policies.

use std::sync::Arc;

use mesh_api::{
    crd::AuthorizationAction,
    proto::security::{Action, Authorization, Scope},
};

use super::lower::lower;
use crate::{
    mesh::{context::Context, names, warning::Warning},
    object::{AuthorizationPolicy, Labels, Object},
    resource::Resource,
};

/// Returns the wire form of a policy, if it is for node proxies.
pub(in crate::mesh) fn of_authorization_policy(
    context: &mut Context<'_>,
    policy: &AuthorizationPolicy,
) -> Option<Resource> {
    let action = match action(policy) {
        Ok(action) => action?,
        Err(unsupported) => {
            context.warn(Warning::UnsupportedAction(unsupported));
            return None;
        }
    };
    let namespace = policy.metadata.namespace();
    let scope = if has_selector(policy) {
        Scope::WorkloadSelector
    } else if *namespace == context.settings.root_namespace {
        Scope::Global
    } else {
        Scope::Namespace
    };
    let lowered = lower(&policy.spec.rules, action, namespace);
    if !lowered.unsupported.is_empty() {
        let denies = action == Action::Deny;
        context.warn(Warning::OnlyAtWaypoint { fields: lowered.unsupported, denies });
    }
    Some(Resource::authorization(&Authorization {
        name: policy.metadata.name.name.to_string(),
        namespace: namespace.to_string(),
        scope: scope.into(),
        action: action.into(),
        rules: lowered.rules,
        dry_run: policy.metadata.annotation(names::DRY_RUN) == Some("true"),
        extensions: Vec::new(),
    }))
}

/// Returns the keys of the policies whose selectors select something with `labels`.
pub(super) fn keys_for(
    context: &Context<'_>,
    namespace: &Arc<str>,
    labels: &Labels,
) -> Vec<String> {
    let root = &context.settings.root_namespace;
    let other = (root != namespace).then_some(root);
    let selecting = std::iter::once(namespace)
        .chain(other)
        .flat_map(|namespace| context.store.policy_selectors.selecting(namespace, labels));
    let sent = selecting.filter(|key| {
        let Some(Object::AuthorizationPolicy(policy)) = context.store.get(key) else {
            return false;
        };
        matches!(action(policy), Ok(Some(_)))
    });
    let mut keys: Vec<_> = sent.map(|key| key.name.to_string()).collect();
    keys.sort_unstable();
    keys
}

/// Returns whether a policy applies to selected workloads only.
fn has_selector(policy: &AuthorizationPolicy) -> bool {
    policy.spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty())
}

/// Returns the action of a policy that is for node proxies: none if it is for waypoints, its name
/// if only these know it.
fn action(policy: &AuthorizationPolicy) -> Result<Option<Action>, &'static str> {
    if policy.spec.targets().next().is_some() {
        return Ok(None);
    }
    match policy.spec.action {
        AuthorizationAction::Allow => Ok(Some(Action::Allow)),
        AuthorizationAction::Deny => Ok(Some(Action::Deny)),
        AuthorizationAction::Audit => Err("AUDIT"),
        AuthorizationAction::Custom => Err("CUSTOM"),
    }
}
