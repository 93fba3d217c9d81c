//! The waypoint under test, in a pod.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use crate::{
    ControlPlane,
    host::Host as _,
    metrics::Metrics,
    pod::Pod,
    process::{Child, Output},
    wait::wait_for,
};

/// Names the binary to test in place of the release build.
const BINARY_VARIABLE: &str = "FAIRLEAD_WAYPOINT_BIN";

/// The release build, as `cargo xtask build` leaves it.
const RELEASE_BINARY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/fairlead-waypoint");

/// Port of the admin page.
const ADMIN_PORT: u16 = 15000;

/// Port of the metrics.
const METRICS_PORT: u16 = 15020;

/// Port of the readiness probe.
const READINESS_PORT: u16 = 15021;

/// Time to learn of the mesh and to get a certificate.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Time to drain and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// A `fairlead-waypoint` that runs; dropping it kills the process.
#[derive(Debug)]
pub struct WaypointProxy {
    pod: Pod,
    process: Child,
}

// === impl WaypointProxy ===

impl WaypointProxy {
    /// Returns the program.
    pub fn program() -> PathBuf {
        env::var_os(BINARY_VARIABLE).map_or_else(|| RELEASE_BINARY.into(), PathBuf::from)
    }

    /// Starts the waypoint of the gateway `gateway` in `pod`, which is in the gateway's namespace, and
    /// waits until it serves.
    pub fn start(plane: &ControlPlane, pod: &Pod, gateway: &str) -> Result<Self> {
        Self::start_with(plane, pod, gateway, &[])
    }

    /// Does so with further arguments.
    pub fn start_with(
        plane: &ControlPlane,
        pod: &Pod,
        gateway: &str,
        args: &[&str],
    ) -> Result<Self> {
        Self::start_program(&Self::program(), plane, pod, gateway, args)
    }

    /// Does so with another program, and with further arguments.
    pub fn start_program(
        program: &Path,
        plane: &ControlPlane,
        pod: &Pod,
        gateway: &str,
        args: &[&str],
    ) -> Result<Self> {
        let account = format!("{}/{}", pod.namespace(), pod.service_account());
        let token = plane.token_for(pod.name(), pod.node(), &account)?;
        let mut command = Command::new(program);
        command.args(["run", "--gateway", gateway, "--pod-name", pod.name()]);
        command.args(["--pod-namespace", pod.namespace()]);
        command.args(["--service-account", pod.service_account()]);
        command.args(["--instance-ip", &pod.ipv4().to_string(), "--node-name", pod.node()]);
        command.args(["--xds-address", &plane.address().to_string()]);
        command.arg("--xds-root-ca").arg(plane.root_cert()).arg("--auth-token").arg(token);
        command.args(args);
        let process = pod.spawn(command)?;
        let mut waypoint = Self { pod: pod.clone(), process };
        waypoint.wait_ready()?;
        Ok(waypoint)
    }

    /// Returns the pod that it runs in.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Returns its process id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Returns what it logged so far, its access log among it.
    pub fn log(&self) -> Result<String> {
        Ok(self.process.stdout()? + &self.process.stderr()?)
    }

    /// Returns its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        let page = self.pod.http_get(own(METRICS_PORT), "/stats/prometheus")?;
        ensure!(page.status == 200, "metrics: status {}", page.status);
        Metrics::parse(&page.body)
    }

    /// Sends a signal to it.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Returns what its admin page shows of what it knows.
    pub fn config_dump(&self) -> Result<Value> {
        let page = self.pod.http_get(own(ADMIN_PORT), "/config_dump")?;
        ensure!(page.status == 200, "config dump: status {}", page.status);
        Ok(serde_json::from_str(&page.body)?)
    }

    /// Asks it to end (`SIGTERM`) and waits until it has.
    pub fn stop(mut self) -> Result<Output> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(STOP_TIMEOUT)
    }

    /// Lets it run on without this handle.
    pub fn detach(self) {
        self.process.detach();
    }

    fn wait_ready(&mut self) -> Result<()> {
        wait_for("fairlead-waypoint is ready", READY_TIMEOUT, || {
            if !self.process.is_running()? {
                let output = self.process.wait(Duration::ZERO)?;
                bail!("it ended: {}\n{}{}", output.status, output.stdout, output.stderr);
            }
            // Until it listens, connecting fails; the time limit is the judge of that.
            let ready = self.pod.http_get(own(READINESS_PORT), "/healthz/ready");
            Ok(ready.is_ok_and(|page| page.status == 200).then_some(()))
        })
        .with_context(|| self.log().unwrap_or_default())
    }
}

fn own(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}
