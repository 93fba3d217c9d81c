//! The control plane under test, on a host of its own, with a directory of YAML that tests edit.

use std::{
    env,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    fairlead::FairleadBuilder,
    host::Host as _,
    metrics::Metrics,
    node::Node,
    process::{Child, Output},
    wait::wait_for,
    whole_file,
};

/// Names the binary to test in place of the release build.
const BINARY_VARIABLE: &str = "FAIRLEAD_CONTROL_BIN";

/// The release build, as `cargo xtask build` leaves it.
const RELEASE_BINARY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/fairlead-control");

/// Port of discovery and of the certificate service.
const PORT: u16 = 15012;

/// Port of the admin interface.
const ADMIN_PORT: u16 = 15014;

/// Time to read the directory and listen.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Time to send clients away and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Account of node proxies, of whom the authority takes requests for other identities.
const NODE_ACCOUNT: &str = "istio-system/ztunnel";

/// How to start `fairlead-control`.
#[derive(Clone, Debug)]
#[must_use]
pub struct ControlPlaneBuilder {
    host: Node,
    binary: PathBuf,
    dir: PathBuf,
    args: Vec<String>,
    /// With a cluster in place of a directory: how to find it.
    kubeconfig: Option<PathBuf>,
}

/// A `fairlead-control` that runs; dropping it kills the process.
#[derive(Debug)]
pub struct ControlPlane {
    settings: ControlPlaneBuilder,
    process: Child,
}

// === impl ControlPlaneBuilder ===

impl ControlPlaneBuilder {
    /// Adds arguments.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Runs `program` in place of the release build.
    pub fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.binary);
        self
    }

    /// Follows a cluster in place of the directory; `kubeconfig` says how to find it.
    pub fn kubernetes(mut self, kubeconfig: &str) -> Result<Self> {
        let path = self.dir.join("kubeconfig");
        whole_file::write(&path, kubeconfig)?;
        self.kubeconfig = Some(path);
        Ok(self)
    }

    /// Returns the token of a node's proxy.
    pub fn node_token(&self, node: &str) -> Result<String> {
        Ok(fs::read_to_string(self.token_of(node))?)
    }

    /// Makes `content` a file of the configuration; a reader sees the old file or the new one, whole.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        whole_file::write(&self.config_dir().join(name), content)
    }

    /// Starts it and waits until it serves.
    pub fn start(self) -> Result<ControlPlane> {
        fs::create_dir_all(self.config_dir())?;
        let mut command = Command::new(&self.binary);
        command.args(["--log-format", "json"]);
        if let Some(path) = &self.kubeconfig {
            command.arg("--kubernetes").env("KUBECONFIG", path);
        } else {
            command.arg("--config-dir").arg(self.config_dir());
            command.arg("--token-file").arg(self.dir.join("tokens"));
        }
        command.arg("--ca-dir").arg(self.ca_dir());
        command.args(["--service-name", &self.host.ipv4().to_string()]).args(&self.args);
        let process = self.host.spawn(command)?;
        let mut plane = ControlPlane { settings: self, process };
        plane.wait_ready()?;
        Ok(plane)
    }

    fn config_dir(&self) -> PathBuf {
        self.dir.join("mesh")
    }

    fn ca_dir(&self) -> PathBuf {
        self.dir.join("ca")
    }

    fn token_of(&self, node: &str) -> PathBuf {
        // The proxy, another user, watches what is beside the token, too.
        self.dir.join("nodes").join(node).join("token")
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Prepares a control plane on `host` with a token for each of `nodes` and an empty
    /// configuration.
    pub fn on(host: &Node, nodes: &[Node]) -> Result<ControlPlaneBuilder> {
        let binary = env::var_os(BINARY_VARIABLE);
        let settings = ControlPlaneBuilder {
            host: host.clone(),
            binary: binary.map_or_else(|| PathBuf::from(RELEASE_BINARY), PathBuf::from),
            dir: host.lab_dir().join("control-plane"),
            args: Vec::new(),
            kubeconfig: None,
        };
        fs::create_dir_all(settings.config_dir())?;
        let mut tokens = String::new();
        for node in nodes {
            let token = format!("{}-secret-of-{}", host.netns().name(), node.name());
            // Writing to a string never fails.
            let _ = writeln!(tokens, "{token} {} {NODE_ACCOUNT}", node.name());
            let path = settings.token_of(node.name());
            fs::create_dir_all(path.with_file_name(""))?;
            whole_file::write(&path, &token)?;
        }
        whole_file::write(&settings.dir.join("tokens"), &tokens)?;
        Ok(settings)
    }

    /// Returns how it was started, to start it again in the same way.
    pub fn settings(&self) -> ControlPlaneBuilder {
        self.settings.clone()
    }

    /// Makes a node proxy join it, with the token of its node.
    pub fn join(&self, proxy: FairleadBuilder) -> FairleadBuilder {
        let root = self.root_cert();
        let token = self.token_of(proxy.node().name());
        let address = self.address().to_string();
        let files = [root.to_string_lossy(), token.to_string_lossy()];
        proxy
            .args(["--xds-address", &address, "--xds-root-ca", &files[0]])
            .args(["--auth-token", &files[1]])
    }

    /// Returns where node proxies find it.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.settings.host.ipv4().into(), PORT)
    }

    /// Returns the file with the token of a node's proxy.
    pub fn token_of(&self, node: &str) -> PathBuf {
        self.settings.token_of(node)
    }

    /// Makes a token that says that its bearer runs on `node` as the account `NAMESPACE/NAME`; returns
    /// the file that holds it.
    pub fn token_for(&self, bearer: &str, node: &str, account: &str) -> Result<PathBuf> {
        let token = format!("{}-secret-of-{bearer}", self.settings.host.netns().name());
        let tokens = self.settings.dir.join("tokens");
        let known = fs::read_to_string(&tokens)?;
        whole_file::write(&tokens, &format!("{known}{token} {node} {account}\n"))?;
        let path = self.settings.token_of(bearer);
        fs::create_dir_all(path.with_file_name(""))?;
        whole_file::write(&path, &token)?;
        Ok(path)
    }

    /// Returns the directory of the configuration.
    pub fn config_dir(&self) -> PathBuf {
        self.settings.config_dir()
    }

    /// Returns the directory of the certificate authority.
    pub fn ca_dir(&self) -> PathBuf {
        self.settings.ca_dir()
    }

    /// Returns the file with the roots that workloads trust.
    pub fn root_cert(&self) -> PathBuf {
        self.ca_dir().join("root-cert.pem")
    }

    /// Makes `content` a file of the configuration; a reader sees the old file or the new one, whole.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        self.settings.write(name, content)
    }

    /// Removes a file of the configuration.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.config_dir().join(name);
        fs::remove_file(&path).with_context(|| path.display().to_string())
    }

    /// Runs `fairlead-control` with a subcommand.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.settings.binary);
        command.args(args);
        self.settings.host.run(command)
    }

    /// Returns what it logged so far.
    pub fn log(&self) -> Result<String> {
        Ok(self.process.stdout()? + &self.process.stderr()?)
    }

    /// Returns its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.page("/metrics")?)
    }

    /// Returns its clients, and what each was told and confirmed.
    pub fn clients(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.page("/debug/syncz")?)?)
    }

    /// Returns what one of its resources holds, in its debug form; none without such a resource.
    pub fn resource(&self, name: &str) -> Result<Option<String>> {
        let page = self.get(&format!("/debug/config_dump?name={name}"))?;
        Ok((page.status == 200).then_some(page.body))
    }

    /// Asks it to end (`SIGTERM`) and waits until it has.
    pub fn stop(mut self) -> Result<Output> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(STOP_TIMEOUT)
    }

    /// Kills it without a chance to say anything.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Lets it run on without this handle.
    pub fn detach(self) {
        self.process.detach();
    }

    fn wait_ready(&mut self) -> Result<()> {
        wait_for("fairlead-control is ready", READY_TIMEOUT, || {
            if !self.process.is_running()? {
                let output = self.process.wait(Duration::ZERO)?;
                bail!("it ended: {}\n{}{}", output.status, output.stdout, output.stderr);
            }
            // Until it listens, connecting fails; the time limit is the judge of that.
            let ready = self.get("/ready").is_ok_and(|page| page.status == 200);
            Ok(ready.then_some(()))
        })
        .with_context(|| self.log().unwrap_or_default())
    }

    fn page(&self, path: &str) -> Result<String> {
        let page = self.get(path)?;
        ensure!(page.status == 200, "{path}: status {}", page.status);
        Ok(page.body)
    }

    fn get(&self, path: &str) -> Result<crate::Response> {
        let admin = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT);
        self.settings.host.http_get(admin, path)
    }
}
