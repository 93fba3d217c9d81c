//! Profiles of the running proxy, read by the published form of such files.

use std::{fs, io::Read as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{FairleadNode, Half, Host as _, Output, wait_for};
use flate2::read::GzDecoder;
use prost::Message;

use crate::{
    mesh::{ECHO, Mesh},
    traffic::{Target, Traffic, open_connections, serve_echo},
};

/// Connections a second through the proxy while it is profiled.
const PER_SECOND: usize = 100;

/// Time of a profile that is waited for, in seconds.
const SECONDS: &str = "3";

/// Time of a profile that is not waited for, in seconds: much longer than the test.
const LONG: &str = "60";

/// `BPF_PROG_TYPE_PERF_EVENT` of `linux/bpf.h`.
const BPF_PROG_TYPE_PERF_EVENT: &str = "7";

/// Time in which a profile has to begin, to end, or to find the proxy at work: many profiles, if one
/// finds it idle.
const PATIENCE: Duration = Duration::from_mins(1);

/// What of `profile.proto` of github.com/google/pprof the tests look at.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    types: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    locations: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    functions: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    texts: Vec<String>,
    #[prost(int64, tag = "10")]
    nanoseconds: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    name: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    locations: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    values: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    lines: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}

// === impl Profile ===

impl Profile {
    fn text(&self, place: i64) -> &str {
        usize::try_from(place).ok().and_then(|place| self.texts.get(place)).map_or("", |t| t)
    }

    /// Returns the sum of a value over the samples whose stack has a function like this.
    fn sum(&self, value: &str, function: &str) -> Result<i64> {
        let place =
            self.types.iter().position(|t| self.text(t.name) == value).context("no value")?;
        let named = |id: &u64| {
            let is_named = |f: &&Function| self.text(f.name).contains(function);
            let functions = self.functions.iter().filter(is_named).map(|f| f.id);
            let lines = self.locations.iter().filter(|l| l.id == *id).flat_map(|l| &l.lines);
            let ids: Vec<_> = lines.map(|line| line.function).collect();
            functions.into_iter().any(|id| ids.contains(&id))
        };
        let samples = self.samples.iter().filter(|s| s.locations.iter().any(named));
        Ok(samples.filter_map(|sample| sample.values.get(place)).sum())
    }
}

fn command<'a>(node: &'a FairleadNode, arguments: &[&'a str]) -> Result<Vec<&'a str>> {
    let program = node.binary().to_str().context("the program's path")?;
    let run_dir = node.run_dir().to_str().context("the run directory's path")?;
    Ok([&[program, "profile"], arguments, &["--run-dir", run_dir]].concat())
}

fn profile(node: &FairleadNode, arguments: &[&str]) -> Result<Output> {
    node.node().run(command(node, arguments)?)
}

/// Returns whether capture has loaded the program that looks at processors.
fn is_looking(node: &FairleadNode) -> Result<bool> {
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", node.pid_of(Half::Capture)?))?;
    // One that is closed meanwhile is none.
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    Ok(infos.flat_map(|info| info.lines().map(str::to_owned).collect::<Vec<_>>()).any(|line| {
        line.split_once(':').is_some_and(|(field, value)| {
            field == "prog_type" && value.trim() == BPF_PROG_TYPE_PERF_EVENT
        })
    }))
}

/// Returns a profile in the form of a file, and what is printed.
fn taken(node: &FairleadNode, kind: &str) -> Result<(Profile, String)> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("profile.pb.gz");
    let path = file.to_string_lossy();
    let arguments = [kind, "--seconds", SECONDS, "--output", &*path];
    let printed = profile(node, &arguments)?.checked()?.stdout;
    let mut bytes = Vec::new();
    GzDecoder::new(&*fs::read(&file)?).read_to_end(&mut bytes)?;
    Ok((Profile::decode(&*bytes)?, printed))
}

#[test]
fn profiles_name_the_proxys_functions_and_leave_nothing_behind() -> Result<()> {
    let mesh = Mesh::new("profile")?;
    let (a, b) = (mesh.a.clone(), mesh.b.clone());
    let server = serve_echo(&b, ECHO)?;
    let targets = vec![Target::new("b", b.v4(ECHO))];
    let client =
        Traffic::start(&a, move |cue| open_connections("a".to_owned(), targets, PER_SECOND, cue));
    client.wait_more(PER_SECOND)?;
    let proxy = mesh.n1.pid_of(Half::Proxy)?;

    let (cpu, printed) = wait_for("the proxy is seen at work", PATIENCE, || {
        let (cpu, printed) = taken(&mesh.n1, "cpu")?;
        let seen = cpu.sum("samples", "fairlead_node::")? > 0;
        Ok(seen.then_some((cpu, printed)))
    })?;
    ensure!(cpu.sum("cpu", "")? > 0 && cpu.nanoseconds >= 3_000_000_000, "{printed}");
    ensure!(printed.contains("cpu: ") && printed.contains("FUNCTION"), "{printed}");

    let (heap, printed) = taken(&mesh.n1, "heap")?;
    for value in ["alloc_objects", "alloc_space"] {
        ensure!(heap.sum(value, "alloc::")? > 0, "no {value}: {printed}");
    }
    // Of what one connection after the other has allocated, most is freed again.
    let (allocated, used) = (heap.sum("alloc_space", "")?, heap.sum("inuse_space", "")?);
    ensure!((0..allocated).contains(&used), "{used} of {allocated} in use");
    ensure!(printed.contains("inuse_space: "), "{printed}");

    client.wait_more(PER_SECOND)?;
    let seen = client.finish()?;
    ensure!(seen.failures.is_empty(), "{:?}", seen.failures);
    server.finish()?;
    assert_eq!(mesh.n1.pid_of(Half::Proxy)?, proxy, "the proxy died");
    Ok(())
}

#[test]
fn the_check_says_which_profiles_can_be_taken() -> Result<()> {
    let mesh = Mesh::new("profcheck")?;
    let program = mesh.n1.binary().to_string_lossy().into_owned();
    let said = mesh.n1.node().run([program.as_str(), "check"])?.checked()?.stdout;
    for kind in ["cpu", "heap"] {
        ensure!(said.lines().any(|line| line == format!("ok       profile {kind}")), "{said}");
    }
    Ok(())
}

#[test]
fn one_profile_is_taken_at_a_time_and_ends_with_who_wants_it() -> Result<()> {
    let mesh = Mesh::new("profiles")?;
    let node = &mesh.n1;
    ensure!(!is_looking(node)?, "a program is loaded without a profile");
    let first = node.node().spawn(command(node, &["cpu", "--seconds", LONG])?)?;
    wait_for("the profile begins", PATIENCE, || Ok(is_looking(node)?.then_some(())))?;
    let second = profile(node, &["heap", "--seconds", "1"])?;
    ensure!(!second.status.success(), "{second:?}");
    ensure!(second.stderr.contains("another profile is being taken"), "{second:?}");

    drop(first);
    wait_for("the profile ends", PATIENCE, || Ok((!is_looking(node)?).then_some(())))?;
    wait_for("the next profile", PATIENCE, || {
        let next = profile(node, &["cpu", "--seconds", "1"])?;
        Ok(next.status.success().then_some(()))
    })?;
    ensure!(!is_looking(node)?, "a program is loaded after the profile");
    Ok(())
}
