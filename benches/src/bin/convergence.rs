//! Measures the time from an edit of the control plane's directory to its effect on connections.
#![forbid(unsafe_code)]

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use fairlead_lab::{
    Host as _, Pod, manifest,
    mesh::{ControlledMesh, ECHO, SERVICE_PORTS, service_of, vip4},
};

/// Number of the service whose endpoints come and go.
const SERVICE: u8 = 30;

/// Time until an edit counts as without effect.
const PATIENCE: Duration = Duration::from_secs(20);

/// First address of the pods that are only known, in a network that no pod of the lab is in.
const FIRST_POD: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

/// Edits files of a control plane's directory and watches connections between two nodes.
///
/// Programs are those of the release build, or of `FAIRLEAD_NODE_BIN` and `FAIRLEAD_CONTROL_BIN`.
#[derive(Debug, Parser)]
struct Cli {
    /// Edits of each kind.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    edits: u32,
    /// Pods that the control plane knows beside those of the lab.
    #[arg(long, default_value = "0")]
    pods: u32,
}

/// Times of one kind of edit.
#[derive(Debug)]
struct Times {
    edit: &'static str,
    effect: &'static str,
    taken: Vec<Duration>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "only figures of an optimised build mean something");
    let mut mesh = ControlledMesh::new("convergence")?;
    let b = mesh.b.clone();
    mesh.serve(&b, "echo.py", ECHO)?;
    if cli.pods > 0 {
        mesh.plane.write("known-pods.yaml", &known_pods(cli.pods))?;
    }
    let [added, removed] = policies(&mesh, cli.edits)?;
    let [gone, back] = endpoints(&mesh, cli.edits)?;
    println!("{} pods known beside those of the lab", cli.pods);
    for mut times in [added, removed, gone, back] {
        println!("{}", times.line()?);
    }
    Ok(())
}

/// Denies what `c` has open, and allows it again.
fn policies(mesh: &ControlledMesh, edits: u32) -> Result<[Times; 2]> {
    let policy = manifest::deny(["shop", "not-c"], &[&mesh.c]);
    let mut added = Times::new("policy added", "open connection is reset");
    let mut removed = Times::new("policy removed", "new connection passes");
    let server = vip4(10, ECHO);
    // All that was written before is known when this is.
    mesh.plane.write("policy.yaml", &policy)?;
    until(&mesh.c, server, false)?;
    mesh.plane.remove("policy.yaml")?;
    until(&mesh.c, server, true)?;
    for _ in 0..edits {
        let mut open = open(&mesh.c, server)?;
        added.push(|| {
            mesh.plane.write("policy.yaml", &policy)?;
            end_of(&mut open)
        })?;
        removed.push(|| {
            mesh.plane.remove("policy.yaml")?;
            until(&mesh.c, server, true)
        })?;
    }
    Ok([added, removed])
}

/// Takes the endpoint of a service away, and gives it back.
fn endpoints(mesh: &ControlledMesh, edits: u32) -> Result<[Times; 2]> {
    let service = service_of(["shop", "e"], "", SERVICE, None);
    let slice = manifest::endpoint_slice(["shop", "e"], &[&mesh.b], &SERVICE_PORTS);
    mesh.plane.write("service.yaml", &service)?;
    mesh.plane.write("slice.yaml", &slice)?;
    let mut gone = Times::new("endpoint removed", "new connection is refused");
    let mut back = Times::new("endpoint added", "new connection passes");
    let server = vip4(SERVICE, ECHO);
    until(&mesh.a, server, true)?;
    for _ in 0..edits {
        gone.push(|| {
            mesh.plane.remove("slice.yaml")?;
            until(&mesh.a, server, false)
        })?;
        back.push(|| {
            mesh.plane.write("slice.yaml", &slice)?;
            until(&mesh.a, server, true)
        })?;
    }
    Ok([gone, back])
}

/// Opens connections, one after the other, until one passes or is refused.
fn until(pod: &Pod, server: SocketAddr, passes: bool) -> Result<()> {
    pod.netns().enter(|| {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if connect(server).is_ok() == passes {
                return Ok(());
            }
        }
        bail!("{server}: not as wanted within {PATIENCE:?}")
    })
}

fn open(pod: &Pod, server: SocketAddr) -> Result<TcpStream> {
    pod.netns().enter(|| Ok(connect(server)?))
}

/// Connects and has a line echoed.
fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"?\n")?;
    stream.read_exact(&mut [0; 2])?;
    Ok(stream)
}

fn end_of(stream: &mut TcpStream) -> Result<()> {
    match stream.read(&mut [0]) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Ok(_) => bail!("more than the echo"),
        Err(error) => Err(error).context("the connection stays open"),
    }
}

fn known_pods(count: u32) -> String {
    manifest::join((0..count).map(|number| {
        let address = Ipv4Addr::from(u32::from(FIRST_POD) + number);
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: known-{number}, namespace: shop}}\n\
             spec: {{nodeName: elsewhere, containers: []}}\n\
             status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}\n"
        )
    }))
}

// === impl Times ===

impl Times {
    fn new(edit: &'static str, effect: &'static str) -> Self {
        Self { edit, effect, taken: Vec::new() }
    }

    fn push(&mut self, edit: impl FnOnce() -> Result<()>) -> Result<()> {
        let started = Instant::now();
        edit().with_context(|| format!("{} -> {}", self.edit, self.effect))?;
        self.taken.push(started.elapsed());
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        self.taken.sort_unstable();
        let at = |percent: usize| {
            // The nearest rank.
            let rank = (self.taken.len() * percent).div_ceil(100);
            self.taken
                .get(rank.saturating_sub(1))
                .map(|time| time.as_secs_f64() * 1e3)
                .context("no edit")
        };
        let (p50, p99, most) = (at(50)?, at(99)?, at(100)?);
        let (edit, effect, count) = (self.edit, self.effect, self.taken.len());
        Ok(format!(
            "{edit:16} -> {effect:26} {count} edits, ms: p50 {p50:.1}, p99 {p99:.1}, longest {most:.1}"
        ))
    }
}
