//! Puts the control plane together and serves.

use std::{future::pending, io, net::SocketAddr, sync::Arc};

use fairlead_component::clock::Clock;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tracing::{error, info};

use crate::{
    auth::{Authenticator, TokenFile, TokenFileError, TokenReviews},
    ca::{Authority, CaError, CaSecrets, CertificateService, Placement},
    cli::RunArgs,
    cluster::Cluster,
    resource::Change,
    server::{Server, ServingCertificate, TlsError},
    telemetry::{admin::Admin, metrics::Metrics},
    webhook::Webhook,
    xds::{DebounceOptions, Discovery, Published, clients::Clients, publish},
};

/// Where the state of the mesh comes from.
#[derive(Debug)]
pub struct Source {
    /// What changes. The first message is the whole first state, and may be empty: clients are
    /// turned away until it has come. The end of the channel ends the control plane.
    pub changes: mpsc::Receiver<Vec<Change>>,
    /// Says where workloads run.
    pub placement: Arc<dyn Placement>,
}

/// A control plane that has its ports and files, and does not serve yet.
#[derive(Debug)]
pub struct ControlPlane {
    server: Arc<Server>,
    certificate: Arc<ServingCertificate>,
    authority: Arc<Authority>,
    token_file: Option<Arc<TokenFile>>,
    cluster: Option<Cluster>,
    published: Arc<Published>,
    changes: mpsc::Receiver<Vec<Change>>,
    debounce: DebounceOptions,
    admin: Admin,
    listener: TcpListener,
    admin_listener: TcpListener,
    /// With a cluster, whose API server asks about objects.
    webhook: Option<(Webhook, TcpListener)>,
}

/// Why the control plane does not serve, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The authority's files are not usable.
    #[error("certificate authority: {0}")]
    Authority(#[from] CaError),
    /// Neither a directory nor a cluster has the authority's files.
    #[error("no --ca-dir: it has the files of the certificate authority")]
    NoAuthority,
    /// Nobody could connect.
    #[error("no --token-file: with --config-dir it says which tokens node proxies show")]
    NoTokenFile,
    /// The tokens are not usable.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// There is no certificate to serve with.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A port is not to be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The source of the state has ended.
    #[error("the source of the configuration has ended")]
    SourceEnded,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Opens files and ports; with a cluster, that one says whom tokens belong to and has the
    /// authority's files.
    pub async fn open(
        args: &RunArgs,
        source: Source,
        cluster: Option<Cluster>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, RunError> {
        let authority = authority(args, cluster.as_ref(), &metrics).await?;
        let certificate =
            ServingCertificate::new(Arc::clone(&authority), args.service_names.clone())?;
        let token_file = token_file(args, cluster.as_ref())?;
        let authenticator: Arc<dyn Authenticator> = match (&cluster, &token_file) {
            (_, Some(file)) => Arc::clone(file) as _,
            (Some(Cluster { client, .. }), None) => {
                Arc::new(TokenReviews::new(client.clone(), args.token_audiences.clone()))
            }
            (None, None) => return Err(RunError::NoTokenFile),
        };
        let published = Arc::new(Published::default());
        let clients = Clients::new(args.max_clients, Arc::clone(&metrics));
        let server = Server {
            discovery: Discovery::new(
                Arc::clone(&published),
                clients.clone(),
                Arc::clone(&metrics),
                args.max_response_bytes,
                args.issue_policy().node_accounts,
            ),
            certificates: CertificateService {
                authority: Arc::clone(&authority),
                policy: Arc::new(args.issue_policy()),
                placement: source.placement,
                metrics: Arc::clone(&metrics),
            },
            authenticator,
            metrics: Arc::clone(&metrics),
            options: args.server_options(),
        };
        let webhook = match &cluster {
            Some(_) => {
                let webhook = Webhook::new(args.mesh_options(), Arc::clone(&metrics));
                Some((webhook, listen(args.webhook_address).await?))
            }
            None => None,
        };
        Ok(Self {
            server: Arc::new(server),
            certificate,
            authority,
            token_file,
            cluster,
            changes: source.changes,
            debounce: args.debounce_options(),
            admin: Admin { metrics, published: Arc::clone(&published), clients },
            published,
            listener: listen(args.address).await?,
            admin_listener: listen(args.admin_address).await?,
            webhook,
        })
    }

    /// Returns the address that clients connect to.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns the address of the admin interface.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin_listener.local_addr()
    }

    /// Returns the address of the admission webhook, if there is one.
    pub fn webhook_address(&self) -> Option<SocketAddr> {
        self.webhook.as_ref()?.1.local_addr().ok()
    }

    /// Returns the certificate authority.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Serves until `terminated` is done and the clients have been sent away.
    pub async fn serve(self, terminated: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { server, certificate, authority, token_file, published, cluster, .. } = self;
        let (stop, stopped) = watch::channel(false);
        let metrics = Arc::clone(&server.metrics);
        let ready = async {
            published.first_state().await;
            info!("the first state is there: serving clients");
            pending::<()>().await;
        };
        let serving = async {
            let served = server.serve(self.listener, &certificate, stopped.clone()).await;
            stop.send_replace(true);
            served
        };
        let serving = async {
            let mut stopped = stopped.clone();
            // Whoever may say it being gone means the same.
            let stopped = async { drop(stopped.wait_for(|stopped| *stopped).await) };
            tokio::join!(serving, take_part(cluster, &authority, stopped)).0
        };
        let stopping = async {
            terminated.await;
            stop.send_replace(true);
            pending::<()>().await;
        };
        tokio::select! {
            result = serving => Ok(result?),
            () = publish(self.changes, &published, self.debounce, &metrics) => {
                error!("the source of the configuration has ended");
                Err(RunError::SourceEnded)
            }
            result = Arc::clone(&authority).follow() => Ok(result?),
            result = follow_tokens(token_file) => Ok(result?),
            result = review(self.webhook, &certificate) => Ok(result?),
            () = certificate.keep_fresh() => Ok(()),
            never = self.admin.serve(self.admin_listener) => never,
            () = ready => Ok(()),
            () = stopping => Ok(()),
        }
    }
}

async fn authority(
    args: &RunArgs,
    cluster: Option<&Cluster>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Authority>, RunError> {
    let (options, clock) = (args.authority_options(), Clock::system());
    match (args.ca_dir(), cluster) {
        (None, Some(Cluster { client, leadership, .. })) => {
            let namespace = &args.system_namespace;
            let secrets = CaSecrets::new(client.clone(), namespace, leadership.clone());
            Ok(Authority::open_secrets(secrets, options, clock, Arc::clone(metrics)).await?)
        }
        (None, None) => Err(RunError::NoAuthority),
        (Some(path), _) => Ok(Authority::open(&path, options, clock, Arc::clone(metrics))?),
    }
}

/// Takes part in the cluster, if there is one, until `stopped` is done.
async fn take_part(
    cluster: Option<Cluster>,
    authority: &Arc<Authority>,
    stopped: impl Future<Output = ()>,
) {
    if let Some(cluster) = cluster {
        cluster.run(Arc::clone(authority), stopped).await;
    }
}

/// Opens the file of tokens; there is none with a cluster.
fn token_file(
    args: &RunArgs,
    cluster: Option<&Cluster>,
) -> Result<Option<Arc<TokenFile>>, RunError> {
    if cluster.is_some() {
        return Ok(None);
    }
    let path = args.token_file.as_deref().ok_or(RunError::NoTokenFile)?;
    Ok(Some(TokenFile::open(path)?))
}

/// Serves the webhook, if there is one.
async fn review(
    webhook: Option<(Webhook, TcpListener)>,
    certificate: &Arc<ServingCertificate>,
) -> Result<(), TlsError> {
    match webhook {
        Some((webhook, listener)) => webhook.serve(listener, certificate).await.map(|_| ()),
        None => pending().await,
    }
}

async fn follow_tokens(file: Option<Arc<TokenFile>>) -> Result<(), TokenFileError> {
    match file {
        Some(file) => file.follow().await,
        None => pending().await,
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}
