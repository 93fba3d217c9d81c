//! Who may send what, as authorization policies of the service say.

use anyhow::Result;
use fairlead_lab::wait_for;

use super::{Bound, FELT, b};
use crate::clients::curl_with;

#[test]
fn a_policy_of_the_service_decides_by_method_path_and_identity() -> Result<()> {
    let bound = Bound::new("wppolicy")?;
    bound.write(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: viewer, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: '', name: b}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/a]}}]
    to: [{operation: {methods: [GET], paths: [/public*, /]}}]
",
    )?;
    bound.wait_for(&["-X", "POST"], |answer| answer.status == "403")?;
    assert!(bound.get(&[])?.is_ok());
    assert!(bound.get(&["--request-target", "/public/page"])?.is_ok());
    // Other spellings of a path are that path.
    for path in ["/private", "/public/../private", "/%70rivate", "/public/%2e%2e/private"] {
        let answer = bound.get(&["--path-as-is", "--request-target", path])?;
        assert_eq!(answer.status, "403", "{path}");
    }
    // Another identity, whatever it says of itself.
    let claims = ["-H", "x-forwarded-client-cert: By=x;URI=spiffe://cluster.local/ns/shop/sa/a"];
    assert_eq!(curl_with(&bound.mesh.c, b(), &claims)?.status, "403");
    let log = bound.waypoint.log()?;
    assert!(log.contains("rbac_access_denied"), "{log}");
    Ok(())
}

#[test]
fn a_policy_on_trial_and_one_of_audit_are_told_of_and_refuse_nothing() -> Result<()> {
    let bound = Bound::new("wptrial")?;
    let policy = |name: &str, annotations: &str, spec: &str| {
        format!(
            "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}
spec:
  targetRefs: [{{kind: Service, group: '', name: b}}]
  {spec}
"
        )
    };
    let get = "rules: [{to: [{operation: {methods: [GET]}}]}]";
    bound.write(
        &[
            policy("trial", "istio.io/dry-run: 'true'", &format!("action: DENY\n  {get}")),
            policy("audit", "", &format!("action: AUDIT\n  {get}")),
            policy("marker", "", "action: DENY\n  rules: [{to: [{operation: {methods: [PUT]}}]}]"),
        ]
        .concat(),
    )?;
    bound.wait_for(&["-X", "PUT"], |answer| answer.status == "403")?;
    wait_for("what they would have done", FELT, || {
        assert!(bound.get(&[])?.is_ok());
        let log = bound.waypoint.log()?;
        let tells = |part: &str, policy: &str| {
            log.lines().any(|line| line.contains(part) && line.contains(policy))
        };
        let denied = tells("would be denied", "ns[shop]-policy[trial]-rule[0]");
        Ok((denied && tells("audited", "shop/audit")).then_some(()))
    })?;
    let log = bound.waypoint.log()?;
    let other =
        log.lines().find(|line| line.contains("would be denied") && line.contains("marker"));
    assert_eq!(other, None);
    Ok(())
}
