//! Tokens, and the answer to who holds one.

use serde_json::{Value, json};

/// Who holds a token, as `TokenReview` tells.
#[derive(Clone, Debug)]
pub struct TokenUser {
    /// Namespace of the service account.
    pub namespace: String,
    /// Name of the service account.
    pub service_account: String,
    /// The pod that the token is bound to: its name and its uid.
    pub pod: Option<(String, String)>,
    /// The node that the pod runs on.
    pub node: Option<String>,
    /// Whom the token is for.
    pub audiences: Vec<String>,
}

/// Returns the review with its verdict.
pub(crate) fn review(mut request: Value, holder: Option<&TokenUser>) -> Value {
    let asked = request["spec"]["audiences"].as_array().cloned().unwrap_or_default();
    let meant = |user: &TokenUser| -> Vec<Value> {
        let all = user.audiences.iter().map(|audience| json!(audience));
        all.filter(|audience| asked.is_empty() || asked.contains(audience)).collect()
    };
    request["status"] = match holder.map(|user| (user, meant(user))) {
        Some((user, audiences)) if !audiences.is_empty() => json!({
            "authenticated": true,
            "user": user.to_json(),
            "audiences": audiences,
        }),
        _ => {
            json!({ "authenticated": false, "error": "the token is not known or not meant for this" })
        }
    };
    request
}

// === impl TokenUser ===

impl TokenUser {
    fn to_json(&self) -> Value {
        let Self { namespace, service_account, pod, node, .. } = self;
        let mut extra = json!({});
        if let Some((name, uid)) = pod {
            extra["authentication.kubernetes.io/pod-name"] = json!([name]);
            extra["authentication.kubernetes.io/pod-uid"] = json!([uid]);
        }
        if let Some(node) = node {
            extra["authentication.kubernetes.io/node-name"] = json!([node]);
        }
        json!({
            "username": format!("system:serviceaccount:{namespace}:{service_account}"),
            "groups": [
                "system:serviceaccounts",
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated",
            ],
            "extra": extra,
        })
    }
}
