//! Certificates are renewed while connections are open.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use fairlead_lab::{FairleadNode, wait_for};

use super::config_dump;
use crate::{
    clients::{curl, run_python, say, talk},
    mesh::{ECHO, HTTP, Mesh},
};

/// Lifetime of certificates, in seconds; they are renewed at half of it.
const TTL: &str = "4";

/// Certificates that each pod must have had in the end.
const CERTIFICATES: usize = 4;

/// Time that these take, generously.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the serial number of a pod's certificate.
fn serial(node: &FairleadNode, identity: &str) -> Result<String> {
    let dump = config_dump(node)?;
    let certificates = dump["certificates"].as_array().context("no certificates")?;
    let own = certificates.iter().find(|certificate| certificate["identity"] == identity);
    Ok(own.with_context(|| format!("{identity} in {dump}"))?["certChain"][0]["serialNumber"]
        .to_string())
}

#[test]
fn certificates_are_renewed_without_a_failure_and_new_connections_use_them() -> Result<()> {
    let mut mesh = Mesh::with_args("renewal", &["--svid-ttl", TTL])?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    let mut open = talk(&mesh.a, b.v4(ECHO))?;
    let (mut serials, mut shown) = (BTreeSet::new(), BTreeSet::new());
    let mut requests = 0;
    wait_for("several renewals", PATIENCE, || {
        say(&mut open, &format!("message {requests}"))?;
        for server in [b.v4(HTTP), mesh.d.v4(HTTP)] {
            let answer = curl(&mesh.a, server)?;
            anyhow::ensure!(answer.is_ok(), "request {requests}: {answer:?}");
        }
        requests += 1;
        serials.insert(serial(&mesh.n2, &b.identity())?);
        // What a peer that just connects is shown.
        let host = b.ipv4().to_string();
        shown.insert(run_python(
            &mesh.outsider,
            "peer_certificate.py",
            &[host, "15008".to_owned()],
        )?);
        Ok((serials.len() >= CERTIFICATES && shown.len() >= CERTIFICATES).then_some(()))
    })
    .with_context(|| format!("{requests} requests, {serials:?}, shown {}", shown.len()))?;
    say(&mut open, "to the end")?;
    println!("{requests} requests over {} certificates", serials.len());
    Ok(())
}
