//! Who may send what, as authorization policies of the service say.

use anyhow::Result;

use super::{Bound, b};
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
