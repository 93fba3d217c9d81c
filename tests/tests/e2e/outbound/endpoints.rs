//! Endpoints that stand in for each other.

use std::time::Duration;

use anyhow::Result;
use fairlead_lab::{ServiceEntry, wait_for};

use crate::{
    clients::curl,
    mesh::{Mesh, vip4},
};

/// A port that `b` serves, and at first nobody else.
const PORT: u16 = 9001;

/// Connections of which each endpoint surely gets some.
const MANY: usize = 40;

/// Time in which an endpoint is used again that works again: several times that for which it was set
/// aside.
const BACK: Duration = Duration::from_mins(1);

#[test]
fn an_endpoint_that_fails_is_stood_in_for_and_set_aside_until_it_works() -> Result<()> {
    let mut mesh = Mesh::new("setaside")?;
    let (b, d) = (mesh.b.clone(), mesh.d.clone());
    mesh.serve(&b, "http_server.py", PORT)?;
    let pair = ServiceEntry::new("shop", "pair").address(vip4(30, 0).ip()).port(80, PORT);
    mesh.config.add_service(pair, [&b, &d]);
    mesh.apply()?;
    for _ in 0..MANY {
        let answer = curl(&mesh.a, vip4(30, 80))?;
        assert!(answer.is_ok() && answer.seen("own") == b.ipv4().to_string(), "{answer:?}");
    }
    let metrics = mesh.n1.metrics()?;
    let times = metrics.sum("fairlead_endpoints_set_aside_total", &[]);
    assert!((1.0..=3.0).contains(&times), "{times}");
    // Three failures set it aside, and one more each further time.
    let failed = mesh.n1.access_log()?;
    let failed =
        failed.iter().filter(|l| l.is("dst.workload", "d") && l.is("direction", "inbound"));
    assert!((3..=6).contains(&failed.count()));
    let explained = mesh.n1.explain(&mesh.a, vip4(30, 80))?;
    let listed = explained["decision"]["endpoints"]["listed"].as_array().cloned();
    let is_d = |endpoint: &&serde_json::Value| endpoint["workload"] == "shop/d";
    assert!(listed.iter().flatten().any(|endpoint| is_d(&endpoint)), "{explained:#}");

    mesh.serve(&d, "http_server.py", PORT)?;
    wait_for("a connection to the endpoint that works again", BACK, || {
        let answer = curl(&mesh.a, vip4(30, 80))?;
        assert!(answer.is_ok(), "{answer:?}");
        Ok((answer.seen("own") == d.ipv4().to_string()).then_some(()))
    })
}

#[test]
fn where_every_endpoint_fails_every_one_is_tried() -> Result<()> {
    let mut mesh = Mesh::new("allfail")?;
    let (b, d) = (mesh.b.clone(), mesh.d.clone());
    let pair = ServiceEntry::new("shop", "pair").address(vip4(30, 0).ip()).port(80, PORT);
    mesh.config.add_service(pair, [&b, &d]);
    mesh.apply()?;
    for _ in 0..MANY {
        assert!(curl(&mesh.a, vip4(30, 80))?.is_refused());
    }
    assert!(mesh.n1.metrics()?.sum("fairlead_endpoints_set_aside_total", &[]) >= 2.0);
    // Both are set aside: the first that works is found at once.
    mesh.serve(&b, "http_server.py", PORT)?;
    assert!(curl(&mesh.a, vip4(30, 80))?.is_ok());
    Ok(())
}
