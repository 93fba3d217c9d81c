//! Protocols that show what a proxy does to a stream: who speaks first, and how soon bytes arrive.

use anyhow::Result;
use fairlead_lab::{Host as _, Pod, PodSpec, python};

use crate::{
    clients::run_python,
    mesh::{ECHO, GREETER, Mesh, vip4, vip6},
};

/// What the mesh may add to the first byte of a server that speaks first, in milliseconds; waiting
/// for the client to speak, as protocol detection does, would show as hundreds.
const MAX_ADDED_MS: f64 = 50.0;

/// Round trips of the ping-pong, and the time they may take in milliseconds: one delayed
/// acknowledgement in each would cost 40 ms a round, 8 s in all.
const ROUNDS: (&str, f64) = ("200", 2000.0);

/// Port of the server that takes urgent bytes in line.
const URGENT: u16 = 7001;

#[test]
fn a_server_that_speaks_first_is_heard_at_once() -> Result<()> {
    let mut mesh = Mesh::new("first")?;
    let direct = mesh.lab.node(2).add_pod(PodSpec::new("direct"))?;
    for pod in [mesh.b.clone(), mesh.d.clone(), direct.clone()] {
        mesh.serve(&pod, "server_first.py", GREETER)?;
    }
    let baseline = first_byte(&mesh.outsider, &direct.ipv4().to_string())?;
    for server in [vip4(10, 0), vip6(10, 0), mesh.b.v4(0), vip4(20, 0), mesh.d.v6(0)] {
        let meshed = first_byte(&mesh.a, &server.ip().to_string())?;
        println!("first byte from {server}: {meshed} ms, direct {baseline} ms");
        assert!(meshed - baseline < MAX_ADDED_MS, "{server}: {meshed} ms, direct {baseline} ms");
    }
    Ok(())
}

#[test]
fn short_messages_are_not_held_back() -> Result<()> {
    let mut mesh = Mesh::new("pingpong")?;
    for pod in [mesh.b.clone(), mesh.d.clone()] {
        mesh.serve_echo(&pod)?;
    }
    let (rounds, limit) = ROUNDS;
    for server in [vip4(10, ECHO), vip6(20, ECHO)] {
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        for size in ["1", "1024"] {
            let arguments = ["ping-pong", &host, &port, rounds, size];
            let took = milliseconds(&run_python(&mesh.a, "timing.py", &arguments)?)?;
            println!("{rounds} rounds of {size} bytes with {server}: {took} ms");
            assert!(took < limit, "{server}, {size} bytes: {took} ms");
        }
    }
    Ok(())
}

#[test]
fn urgent_data_single_bytes_and_empty_writes_arrive_in_order() -> Result<()> {
    let mesh = Mesh::new("urgent")?;
    let serve = |pod: &Pod| pod.serve(python("urgent.py", &["serve", "7001"]), URGENT);
    let _servers = [serve(&mesh.b)?, serve(&mesh.d)?];
    for client in [&mesh.a, &mesh.outsider] {
        for server in [mesh.b.v4(URGENT), mesh.b.v6(URGENT), mesh.d.v4(URGENT)] {
            for kib in ["0", "256"] {
                let arguments = ["run", &server.ip().to_string(), "7001", kib];
                assert_eq!(run_python(client, "urgent.py", &arguments)?, "ok\n", "{server}");
            }
        }
    }
    Ok(())
}

fn first_byte(client: &Pod, host: &str) -> Result<f64> {
    let arguments = ["first-byte", host, &GREETER.to_string(), "10"];
    milliseconds(&run_python(client, "timing.py", &arguments)?)
}

fn milliseconds(text: &str) -> Result<f64> {
    Ok(text.trim().parse()?)
}
