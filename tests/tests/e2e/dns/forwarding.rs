//! What is not the mesh's goes to the name server and comes back as it is.

use std::time::Instant;

use anyhow::{Context as _, Result};
use fairlead_lab::{Host as _, PodSpec, python};

use super::{DNS, OTHER_ADDRESS, Scene, first_line};
use crate::clients::SOON;

/// A query of type SRV with EDNS, a cookie and the name in mixed case.
const QUERY: &str = "123401200001000000000001055365725665076558416d706c650000210001\
                     0000290fa000008000000c000a00080102030405060708";

/// Queries of the client that floods.
const FLOOD: u32 = 600;

/// Queries that may wait for name servers.
const MAX_QUERIES: u32 = 512;

/// Bytes of the number of a message, in hexadecimal digits.
const ID_DIGITS: usize = 4;

#[test]
fn other_queries_and_their_answers_are_untouched() -> Result<()> {
    let scene = Scene::new("dns-bytes")?;
    let direct = scene.mesh.lab.node(1).add_pod(PodSpec::new("direct"))?;
    let server = scene.servers()[0];
    let seen = |pod| -> Result<(String, String)> {
        let answer = Scene::ask(pod, "raw", server, QUERY)?;
        let asked = scene.server.stdout()?;
        let asked = asked.lines().rfind(|line| line.contains("SRV")).context("not asked")?;
        let bytes = asked.split(' ').next_back().context("no bytes")?;
        Ok((bytes[ID_DIGITS..].to_owned(), answer))
    };
    let expected = seen(&direct)?;
    assert_eq!(expected.0, QUERY[ID_DIGITS..]);
    assert_eq!(seen(&scene.mesh.a)?, expected);
    Ok(())
}

#[test]
fn the_name_server_sees_the_pod_itself() -> Result<()> {
    let scene = Scene::new("dns-who")?;
    let a = &scene.mesh.a;
    let own = |protocol| format!("\"{protocol} {}\"", a.ipv4());
    assert_eq!(scene.dig_short(a, &["who.example", "TXT"])?, [own("udp")]);
    assert_eq!(scene.dig_short(a, &["+tcp", "who.example", "TXT"])?, [own("tcp")]);
    Ok(())
}

#[test]
fn an_answer_that_the_name_server_cut_is_asked_for_again_over_tcp() -> Result<()> {
    let scene = Scene::new("dns-big")?;
    let a = &scene.mesh.a;
    assert_eq!(scene.dig_short(a, &["big.example"])?.len(), 100);
    // The C library does the same.
    let said = scene.with_resolv_conf(a, "getent ahostsv4 big.example.")?.checked()?.stdout;
    assert!(said.lines().count() >= 100, "{said}");
    Ok(())
}

#[test]
fn a_query_that_nobody_answers_fails_at_once_or_in_time() -> Result<()> {
    let scene = Scene::new("dns-silent")?;
    let a = &scene.mesh.a;
    let started = Instant::now();
    let said = scene.dig(a, &["silent.example"])?.stdout;
    assert!(said.contains("status: SERVFAIL"), "{said}");
    assert!(started.elapsed() < SOON);
    // No name server at all: the kernel there says so.
    let nobody = scene.mesh.b.ipv4().to_string();
    let said = Scene::ask(a, "connected", nobody.parse()?, "other.example")?;
    assert_eq!(first_line(&said)?, format!("from {nobody} port 53 result 2: "));
    let labels = [("request_protocol", "udp")];
    scene.assert_metric("istio_dns_upstream_failures_total", &labels, 2)
}

#[test]
fn no_datagram_harms_the_resolver() -> Result<()> {
    let scene = Scene::new("dns-noise")?;
    let (a, server) = (&scene.mesh.a, scene.servers()[0]);
    for noise in [
        "00".to_owned(),
        "00".repeat(11),
        // An answer.
        "12348000000100000000000001780000010001".to_owned(),
        // A compression pointer to itself, and one beyond the end.
        "123401000001000000000000c00c00010001".to_owned(),
        "123401000001000000000000ffff00010001".to_owned(),
        // A label that is longer than the message.
        "1234010000010000000000003f61".to_owned(),
        "ff".repeat(5_000),
    ] {
        Scene::ask(a, "raw", server, &noise)?;
    }
    let said = Scene::ask(a, "connected", server, "other.example")?;
    assert!(first_line(&said)?.ends_with(OTHER_ADDRESS), "{said}");
    scene.assert_metric("fairlead_limit_reached_total", &[("limit", "dns_answers")], 1)
}

#[test]
fn more_queries_than_may_wait_are_refused_and_the_mesh_is_answered_all_the_same() -> Result<()> {
    let scene = Scene::new("dns-flood")?;
    let (a, server) = (&scene.mesh.a, scene.servers()[0].to_string());
    let flood = python("dns_client.py", &["flood", &server, "silent.example"]);
    let mut flood = a.spawn_interactive(flood)?;
    flood.wait_for_output(&format!("refused {}", FLOOD - MAX_QUERIES), SOON)?;
    let said = Scene::ask(a, "connected", server.parse()?, super::B)?;
    assert!(first_line(&said)?.ends_with(super::B_ADDRESS), "{said}");
    flood.close_input();
    let limit = [("limit", "dns_queries")];
    scene.assert_metric("fairlead_limit_reached_total", &limit, FLOOD - MAX_QUERIES)
}

#[test]
fn a_pod_may_have_a_name_server_of_its_own() -> Result<()> {
    let scene = Scene::new("dns-own")?;
    let a = &scene.mesh.a;
    let own = a.serve(python("name_server.py", &[DNS.to_string()]), DNS)?;
    for server in ["127.0.0.1".to_owned(), a.ipv4().to_string(), a.ipv6().to_string()] {
        for way in ["musl", "connected"] {
            let said = Scene::ask(a, way, server.parse()?, super::B)?;
            assert!(first_line(&said)?.ends_with(OTHER_ADDRESS), "{way} {server}: {said}");
        }
    }
    assert!(own.stdout()?.contains(super::B));
    // The proxy answers what is asked elsewhere all the same.
    let said = Scene::ask(a, "musl", scene.servers()[0], super::B)?;
    assert!(first_line(&said)?.ends_with(super::B_ADDRESS), "{said}");
    Ok(())
}
