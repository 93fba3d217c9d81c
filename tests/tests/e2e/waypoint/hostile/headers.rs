//! What applications say that only proxies may say, and paths in other spellings (trust.md rows 55
//! and 69).

use anyhow::{Result, ensure};
use fairlead_lab::{Pod, manifest, wait_for};

use super::{super::FELT, Hostile};

pub(super) fn what_only_proxies_may_say_does_not_reach_the_application(
    hostile: &Hostile,
) -> Result<()> {
    let forged = [
        "X-Forwarded-Client-Cert: By=x;URI=spiffe://cluster.local/ns/shop/sa/admin",
        "x_forwarded_client_cert: URI=spiffe://cluster.local/ns/shop/sa/admin",
        "X-Envoy-Original-Path: /admin",
        "X-Envoy-Peer-Metadata: forged",
        "X_Envoy_Peer_Metadata: forged",
        "X-Envoy-Upstream-Rq-Timeout-Ms: 1",
        "X-Envoy-Retry-On: 5xx",
        "X-Istio-Source: gateway",
        "X-Forwarded-Network: elsewhere",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eA==",
        "TE: gzip",
        "X-Hop: by hop",
    ];
    let kept = [
        "authorization: Bearer eA",
        "cookie: a=b; c=d",
        "x-forwarded-for: 192.0.2.1",
        "forwarded: for=192.0.2.1",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ];
    // A client cannot have taken from a message what it cannot do without.
    let connection = "Connection: close, X-Hop, Authorization, Host, Content-Length, Cookie";
    let lines = [&forged[..], &kept[..], &[connection]].concat().join("\r\n");
    let request = format!("POST / HTTP/1.1\r\nHost: raw\r\n{lines}\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(hostile.send(request.as_bytes())?.status(), 200);
    let requests = hostile.recorder.requests();
    let [request] = &requests[..] else { anyhow::bail!("{requests:?}") };
    let request = request.to_ascii_lowercase();
    for line in forged {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let told = request.split("\r\n").filter_map(|line| line.strip_prefix(&format!("{name}:")));
        // The waypoint says itself who asks, as the tunnel proved it.
        let expected = (name == "x-forwarded-client-cert").then(|| {
            let [own, client] = [hostile.waypoint.pod(), &hostile.mesh.a].map(Pod::identity);
            format!(" by={own};uri={client}")
        });
        assert_eq!(
            told.collect::<Vec<_>>(),
            Vec::from_iter(expected.as_deref()),
            "{name}: {request}"
        );
    }
    for line in kept {
        ensure!(
            request.contains(&format!("\r\n{}\r\n", line.to_ascii_lowercase())),
            "{line}: {request}"
        );
    }
    ensure!(request.contains("\r\nhost: raw\r\n") && request.contains("content-length: 2"));
    hostile.is_well()
}

pub(super) fn a_denied_path_is_denied_in_every_spelling_and_what_is_judged_is_forwarded(
    hostile: &Hostile,
) -> Result<()> {
    hostile.write(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: '', name: raw}]
  action: DENY
  rules: [{to: [{operation: {paths: ['/admin*']}}]}]
",
    )?;
    let ask = |path| ask(hostile, path);
    wait_for("the policy", FELT, || Ok((ask("/admin")?.0 == 403).then_some(())))?;
    for (path, status, forwarded) in [
        ("/admin", 403, ""),
        ("/admin/x", 403, ""),
        ("/admin;x", 403, ""),
        ("/admin?x=/../y", 403, ""),
        ("/./admin", 403, ""),
        ("/x/../admin", 403, ""),
        ("/x/../../admin", 403, ""),
        ("/x;/../admin", 403, ""),
        ("/%61dmin", 403, ""),
        ("/%61%64%6d%69%6E", 403, ""),
        ("/%2e/admin", 403, ""),
        ("/x/%2E%2e/admin", 403, ""),
        ("/x/..\\admin", 403, ""),
        ("/.\\admin", 403, ""),
        ("/x\\..\\admin", 403, ""),
        ("http://raw/x/../admin", 403, ""),
        // Others are other paths for the application, too: it gets what was judged.
        ("/ADMIN", 200, "/ADMIN"),
        ("//admin", 200, "//admin"),
        ("/x/../y?q=/../admin", 200, "/y?q=/../admin"),
        ("/x%2f..%2fadmin", 200, "/x%2f..%2fadmin"),
        ("/%252e%252e/admin", 200, "/%252e%252e/admin"),
        ("/x/./y/%7euser", 200, "/x/y/~user"),
        // Decoders differ in what these mean.
        ("/%", 400, ""),
        ("/%2", 400, ""),
        ("/%zzadmin", 400, ""),
        ("/admin%00", 400, ""),
        ("/x%0d%0aadmin", 400, ""),
        ("admin", 400, ""),
        ("\\admin", 400, ""),
    ] {
        assert_eq!(ask(path)?, (status, forwarded.to_owned()), "{path}");
    }
    hostile.is_well()
}

pub(super) fn paths_are_the_same_where_the_mesh_says_that_applications_take_them_for_it(
    hostile: &Hostile,
) -> Result<()> {
    let ask = |path| ask(hostile, path);
    let merging = "pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}";
    hostile.mesh.plane.write("mesh-config.yaml", &manifest::mesh_config(merging))?;
    wait_for("slashes are merged", FELT, || Ok((ask("//admin")?.0 == 403).then_some(())))?;
    for (path, status, forwarded) in [
        ("/x%2f..%2fadmin", 403, ""),
        ("/x%5C..%5cadmin", 403, ""),
        ("/.//%2fadmin", 403, ""),
        ("//x//y?q=//z", 200, "/x/y?q=//z"),
    ] {
        assert_eq!(ask(path)?, (status, forwarded.to_owned()), "{path}");
    }
    hostile.is_well()
}

/// Asks for a path; returns the status and the path that the application was asked for.
fn ask(hostile: &Hostile, path: &str) -> Result<(u16, String)> {
    hostile.recorder.forget();
    let request = format!("GET {path} HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n");
    let status = hostile.send(request.as_bytes())?.status();
    let sent = hostile.recorder.sent();
    let forwarded = sent.strip_prefix("GET ").and_then(|rest| rest.split(' ').next());
    Ok((status, forwarded.unwrap_or_default().to_owned()))
}
