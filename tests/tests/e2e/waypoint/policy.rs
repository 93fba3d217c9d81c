//! Who may send what, as authorization policies of the service say.

use std::io::{ErrorKind, Read as _, Write as _};

use anyhow::Result;
use fairlead_lab::{mesh::ECHO, wait_for};

use super::{Bound, FELT, b};
use crate::{
    clients::curl_with,
    mesh::vip4,
    peer::{dial, echo},
};

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

#[test]
fn connections_that_are_no_http_are_refused_by_what_cannot_be_known_of_them_and_logged()
-> Result<()> {
    let mut bound = Bound::new("wpunread")?;
    for pod in [&bound.mesh.b.clone(), &bound.second.clone()] {
        bound.mesh.serve(pod, "echo.py", ECHO)?;
    }
    bound.write(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: names, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: '', name: b}]
  action: DENY
  rules: [{when: [{key: connection.sni, values: [secret.example]}]}]
",
    )?;
    wait_for("a refusal", FELT, || {
        let mut socket = dial(&bound.mesh.a, vip4(10, ECHO))?;
        // It may be gone already.
        let _ = socket.write_all(b"words\n");
        let mut answer = [0; 6];
        Ok(socket.read_exact(&mut answer).is_err().then_some(()))
    })?;
    // Requests prove that they have no such name.
    assert!(bound.get(&[])?.is_ok());
    let log = bound.waypoint.log()?;
    let line = "\"- - -\" 0 - - rbac_access_denied_matched_policy[ns[shop]-policy[names]-rule[0]] ";
    assert!(log.contains(line), "{log}");
    Ok(())
}

#[test]
fn a_connection_that_is_no_http_ends_when_a_policy_comes_that_refuses_it() -> Result<()> {
    let mut bound = Bound::new("wprevoked")?;
    for pod in [&bound.mesh.b.clone(), &bound.second.clone()] {
        bound.mesh.serve(pod, "echo.py", ECHO)?;
    }
    let mut connections =
        [dial(&bound.mesh.a, vip4(10, ECHO))?, dial(&bound.mesh.c, vip4(10, ECHO))?];
    for connection in &mut connections {
        echo(connection)?;
    }
    bound.write(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: but-a, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: '', name: b}]
  action: DENY
  rules: [{from: [{source: {principals: [spiffe://cluster.local/ns/shop/sa/a]}}]}]
",
    )?;
    let [refused, other] = &mut connections;
    match refused.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
    echo(other)?;
    wait_for("a line of the connection", FELT, || {
        let line =
            "\"- - -\" 0 - - rbac_access_denied_matched_policy[ns[shop]-policy[but-a]-rule[0]] ";
        Ok(bound.waypoint.log()?.contains(line).then_some(()))
    })
}
