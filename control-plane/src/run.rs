//! Puts the control plane together and serves.

use std::{io, net::SocketAddr, sync::Arc};

use fairlead_component::clock::Clock;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tracing::{error, info};

use crate::{
    auth::{TokenFile, TokenFileError},
    ca::{Authority, CaError, CertificateService, Placement},
    cli::RunArgs,
    resource::Change,
    server::{Server, ServingCertificate, TlsError},
    telemetry::{admin::Admin, metrics::Metrics},
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
    tokens: Arc<TokenFile>,
    published: Arc<Published>,
    changes: mpsc::Receiver<Vec<Change>>,
    debounce: DebounceOptions,
    admin: Admin,
    listener: TcpListener,
    admin_listener: TcpListener,
}

/// Why the control plane does not serve, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The authority's files are not usable.
    #[error("certificate authority: {0}")]
    Authority(#[from] CaError),
    /// Nobody could connect.
    #[error("no --token-file: it says which tokens node proxies show")]
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
    /// Opens files and ports.
    pub async fn open(
        args: &RunArgs,
        source: Source,
        metrics: Arc<Metrics>,
    ) -> Result<Self, RunError> {
        let options = args.authority_options();
        let authority =
            Authority::open(&args.ca_dir, options, Clock::system(), Arc::clone(&metrics))?;
        let certificate =
            ServingCertificate::new(Arc::clone(&authority), args.service_names.clone())?;
        let tokens = TokenFile::open(args.token_file.as_deref().ok_or(RunError::NoTokenFile)?)?;
        let published = Arc::new(Published::default());
        let clients = Clients::new(args.max_clients, Arc::clone(&metrics));
        let server = Server {
            discovery: Discovery::new(
                Arc::clone(&published),
                clients.clone(),
                Arc::clone(&metrics),
                args.max_response_bytes,
            ),
            certificates: CertificateService {
                authority: Arc::clone(&authority),
                policy: Arc::new(args.issue_policy()),
                placement: source.placement,
                metrics: Arc::clone(&metrics),
            },
            authenticator: Arc::clone(&tokens) as _,
            metrics: Arc::clone(&metrics),
            options: args.server_options(),
        };
        Ok(Self {
            server: Arc::new(server),
            certificate,
            authority,
            tokens,
            changes: source.changes,
            debounce: args.debounce_options(),
            admin: Admin { metrics, published: Arc::clone(&published), clients },
            published,
            listener: listen(args.address).await?,
            admin_listener: listen(args.admin_address).await?,
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

    /// Returns the certificate authority.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Serves until `terminated` is done and the clients have been sent away.
    pub async fn serve(self, terminated: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { server, certificate, authority, tokens, published, .. } = self;
        let (stop, stopped) = watch::channel(false);
        let metrics = Arc::clone(&server.metrics);
        let ready = async {
            published.first_state().await;
            info!("the first state is there: serving clients");
            std::future::pending::<()>().await;
        };
        let stopping = async {
            terminated.await;
            stop.send_replace(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = server.serve(self.listener, &certificate, stopped) => Ok(result?),
            () = publish(self.changes, &published, self.debounce, &metrics) => {
                error!("the source of the configuration has ended");
                Err(RunError::SourceEnded)
            }
            result = authority.follow() => Ok(result?),
            result = tokens.follow() => Ok(result?),
            () = certificate.keep_fresh() => Ok(()),
            never = self.admin.serve(self.admin_listener) => never,
            () = ready => Ok(()),
            () = stopping => Ok(()),
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}
