//! Streams: every byte arrives, and every end stays the end it was.

mod idle;
mod load;
mod resets;
mod slow_reader;

use std::net::SocketAddr;

use anyhow::Result;

use crate::{clients::run_python, mesh::Mesh};

/// Port of the program under test in `b` and `d`.
const PORT: u16 = 7100;

/// Size of a transfer, in MiB: the demo moves a GiB.
const TRANSFER_MIB: &str = "256";

/// Size of what flows on after the other side has ended, in MiB.
const AFTER_THE_END_MIB: &str = "100";

/// Size of an answer that is read late, in MiB: past all windows and socket buffers on the way.
const LATE_MIB: &str = "64";

/// Serves `program` in `b` and `d`; returns the addresses of both: through a tunnel, and not.
fn serve_both(mesh: &mut Mesh, program: &str) -> Result<[SocketAddr; 2]> {
    let (b, d) = (mesh.b.clone(), mesh.d.clone());
    mesh.serve(&b, program, PORT)?;
    mesh.serve(&d, program, PORT)?;
    Ok([b.v4(PORT), d.v6(PORT)])
}

fn run(mesh: &Mesh, program: &str, verb: &[&str], server: SocketAddr, rest: &[&str]) -> Result<()> {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let args: Vec<&str> = [verb, &[host.as_str(), port.as_str()], rest].concat();
    let said = run_python(&mesh.a, program, &args)?;
    assert!(said.starts_with("ok"), "{program} {args:?}: {said}");
    Ok(())
}

#[test]
fn both_directions_at_once_carry_every_byte() -> Result<()> {
    let mut mesh = Mesh::new("transfer")?;
    for server in serve_both(&mut mesh, "transfer.py")? {
        run(&mesh, "transfer.py", &["run"], server, &[TRANSFER_MIB])?;
    }
    Ok(())
}

#[test]
fn the_side_that_ends_first_still_receives_everything() -> Result<()> {
    let mut mesh = Mesh::new("half-close")?;
    for server in serve_both(&mut mesh, "half_close.py")? {
        for mode in ["client-first", "server-first", "both"] {
            run(&mesh, "half_close.py", &[mode], server, &[AFTER_THE_END_MIB])?;
        }
    }
    Ok(())
}

#[test]
fn an_answer_that_is_read_late_arrives_whole_after_the_server_has_closed() -> Result<()> {
    let mut mesh = Mesh::new("late")?;
    for server in serve_both(&mut mesh, "late_reader.py")? {
        run(&mesh, "late_reader.py", &["run"], server, &[LATE_MIB])?;
    }
    Ok(())
}
