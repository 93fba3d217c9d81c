//! A control plane that serves a directory.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use fairlead_control::{cli::Cli, feed::Feed, run::ControlPlane, telemetry::metrics::Metrics};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

/// Token of the node proxy on n1.
pub(crate) const TOKEN: &str = "token-of-the-proxy-on-n1";

/// More than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// A control plane that serves until it is dropped.
pub(crate) struct Plane {
    pub(crate) address: SocketAddr,
    admin_address: SocketAddr,
    dir: TempDir,
    serving: JoinHandle<Result<()>>,
}

// === impl Plane ===

impl Plane {
    /// Serves the objects in `yaml`.
    pub(crate) async fn start(yaml: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (mesh, tokens) = (dir.path().join("mesh"), dir.path().join("tokens"));
        fs::create_dir(&mesh)?;
        fs::write(mesh.join("mesh.yaml"), yaml)?;
        fs::write(&tokens, format!("{TOKEN} n1 istio-system/ztunnel\n"))?;
        let program = ["fairlead-control".as_ref(), "--config-dir".as_ref(), mesh.as_os_str()];
        let mut args = Cli::parse_from(program).run;
        args.ca_dir = Some(dir.path().join("ca"));
        args.token_file = Some(tokens);
        args.address = SocketAddr::from(([127, 0, 0, 1], 0));
        args.admin_address = args.address;
        let metrics = Arc::new(Metrics::new());
        let (feed, source) = Feed::new(args.mesh_options(), Arc::clone(&metrics));
        let plane = ControlPlane::open(&args, source, None, metrics).await?;
        let (address, admin_address) = (plane.address()?, plane.admin_address()?);
        let serving = tokio::spawn(async move {
            tokio::select! {
                followed = feed.follow_directory(mesh) => followed?,
                served = plane.serve(std::future::pending()) => served?,
            }
            bail!("the control plane ended")
        });
        Ok(Self { address, admin_address, dir, serving })
    }

    /// Waits until clients are not turned away any more.
    pub(crate) async fn wait_ready(&self) -> Result<()> {
        let ready = async {
            while !self.is_ready().await.unwrap_or(false) {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, ready).await.context("it is not ready")
    }

    async fn is_ready(&self) -> Result<bool> {
        let mut page = TcpStream::connect(self.admin_address).await?;
        page.write_all(b"GET /ready HTTP/1.1\r\nhost: admin\r\n\r\n").await?;
        let mut answer = String::new();
        page.read_to_string(&mut answer).await?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    }

    /// Returns the file with the root that its certificate chains to.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("ca/root-cert.pem")
    }

    /// Returns a directory for files of the test.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Returns why it does not serve any more.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let ended = (&mut self.serving).await.context("the control plane panicked");
        ended.and_then(|ended| ended).err().unwrap_or_else(|| anyhow::anyhow!("it ended"))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
