//! What an API server says of a token: pure.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use mesh_api::workload::NodeName;

use crate::auth::{Account, AuthError, Caller, PodReference};

/// How the names of service accounts begin among those of all users; namespace and name follow.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Returns whom a token belongs to. It has to be meant for one of `audiences`, which a server that
/// knows no audiences does not say.
pub(super) fn caller(status: TokenReviewStatus, audiences: &[String]) -> Result<Caller, AuthError> {
    let meant = status.audiences.unwrap_or_default();
    if status.authenticated != Some(true) || !meant.iter().any(|one| audiences.contains(one)) {
        return Err(AuthError::Invalid);
    }
    let user = status.user.unwrap_or_default();
    let account = user.username.as_deref().and_then(account).ok_or(AuthError::Invalid)?;
    let extra = user.extra.unwrap_or_default();
    let pod = only(&extra, POD_NAME).zip(only(&extra, POD_UID));
    Ok(Caller {
        account,
        pod: pod.map(|(name, uid)| PodReference { name: name.to_owned(), uid: uid.to_owned() }),
        node: only(&extra, NODE_NAME).map(|node| NodeName(node.into())),
    })
}

fn account(user: &str) -> Option<Account> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    Some(Account { namespace: namespace.parse().ok()?, name: name.parse().ok()? })
}

/// Returns a value that is there once; several would contradict each other.
fn only<'a>(extra: &'a BTreeMap<String, Vec<String>>, name: &str) -> Option<&'a str> {
    match &extra.get(name)?[..] {
        [value] if !value.is_empty() => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const USER: &str = "system:serviceaccount:istio-system:ztunnel";

    fn of(authenticated: bool, audiences: &[&str], user: &str, extra: &Value) -> Option<Caller> {
        let status = json!({
            "authenticated": authenticated,
            "audiences": audiences,
            "user": { "username": user, "extra": extra },
        });
        caller(serde_json::from_value(status).unwrap(), &["istio-ca".to_owned()]).ok()
    }

    #[test]
    fn a_token_says_account_pod_and_node() {
        let extra = json!({ POD_NAME: ["zt-1"], POD_UID: ["u"], NODE_NAME: ["n1"] });
        let caller = of(true, &["other", "istio-ca"], USER, &extra).unwrap();
        assert_eq!(caller.account.to_string(), "istio-system/ztunnel");
        assert_eq!(caller.node, Some(NodeName("n1".into())));
        let pod = PodReference { name: "zt-1".to_owned(), uid: "u".to_owned() };
        assert_eq!(caller.pod, Some(pod));
    }

    #[test]
    fn what_is_not_said_plainly_is_not_known() {
        for extra in [
            json!({}),
            json!({ NODE_NAME: ["n1", "n2"], POD_NAME: ["zt-1"] }),
            json!({ NODE_NAME: [], POD_NAME: [""], POD_UID: ["u"] }),
        ] {
            let caller = of(true, &["istio-ca"], USER, &extra).unwrap();
            assert_eq!((caller.node, caller.pod), (None, None), "{extra}");
        }
    }

    #[test]
    fn a_token_that_is_not_meant_for_this_or_not_of_an_account_is_refused() {
        for (authenticated, audiences, user) in [
            (false, &["istio-ca"][..], USER),
            (true, &["other"], USER),
            (true, &[], USER),
            (true, &["istio-ca"], "admin"),
            (true, &["istio-ca"], "system:serviceaccount:istio-system"),
            (true, &["istio-ca"], "system:serviceaccount::ztunnel"),
            (true, &["istio-ca"], "system:serviceaccount:a/b:c"),
            (true, &["istio-ca"], "system:node:n1"),
        ] {
            let refused = of(authenticated, audiences, user, &json!({}));
            assert_eq!(refused, None, "{authenticated} {audiences:?} {user}");
        }
        let unsaid = caller(TokenReviewStatus::default(), &["istio-ca".to_owned()]);
        assert_eq!(unsaid, Err(AuthError::Invalid));
    }
}
