//! The API's client, for `fairlead-node pod add|remove|list` and for the agent.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fairlead_component::logging::LevelChange;
use fairlead_sys::descriptors::Channel;
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, sync::watch, time::timeout};

use super::{
    EXPLAIN_PATH, INVENTORY_PATH, Inventory, LOGGING_PATH, Logging, NOTES_PATH, Note, PODS_PATH,
    PROFILE_PATH, PodKey, PodSpec, PodStatus, passed::Passing, socket_path, types::ErrorBody,
};
use crate::{
    explain::Explanation,
    profile::{Kind, Window},
};

/// Time for a whole request; more than the server takes before it gives up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(35);

/// Largest answer, in bytes: a list of 10,000 pods.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// A client of the API; each request makes its own connection.
#[derive(Clone, Debug)]
pub struct Client {
    dial: Dial,
}

/// How connections are made.
#[derive(Clone, Debug)]
enum Dial {
    /// By the name of a socket.
    Socket(PathBuf),
    /// Over a link to the server's process.
    Link(Passing),
}

/// Where a client finds the latest link to the server's process.
#[derive(Debug)]
pub struct Links(watch::Sender<Option<Arc<Channel>>>);

/// Why a request failed, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket does not exist.
    #[error("no socket at {}: is fairlead-node running, and with the same --run-dir?", .0.display())]
    NoSocket(PathBuf),
    /// The socket exists and nobody listens.
    #[error("nobody listens on {}: fairlead-node died; start it again", .0.display())]
    NotRunning(PathBuf),
    /// This user may not connect.
    #[error("no permission for {}: run this command as the user of fairlead-node (root)", .0.display())]
    NotPermitted(PathBuf),
    /// The process that listens is gone, and no other has been linked yet.
    #[error("capture is gone: {0}; waiting for its successor")]
    Unlinked(io::Error),
    /// The connect failed in another way.
    #[error("cannot connect to {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("no answer within {} s: see the log of fairlead-node", .0.as_secs())]
    Timeout(Duration),
    /// The server closed the connection, or does not speak this protocol.
    #[error("the connection to fairlead-node broke: {0}; see its log")]
    Broken(#[from] hyper::Error),
    /// The answer cannot be read.
    #[error("unusable answer: {0}; is fairlead-node of the same version as this command?")]
    Answer(Box<dyn Error + Send + Sync>),
    /// The server refused the request.
    #[error("{error}: {remedy}")]
    Refused {
        /// Status of the answer.
        status: StatusCode,
        /// What happened.
        error: String,
        /// What to do.
        remedy: String,
    },
}

// === impl Client ===

impl Client {
    /// Creates a client of the process with this run directory.
    pub fn new(run_dir: &Path) -> Self {
        Self { dial: Dial::Socket(socket_path(run_dir)) }
    }

    /// Creates a client of the process at the other end of the latest link. Its requests wait for
    /// the first.
    pub fn linked() -> (Self, Links) {
        let (links, latest) = watch::channel(None);
        (Self { dial: Dial::Link(Passing::over(latest)) }, Links(links))
    }

    /// Enrols a pod.
    pub async fn add(&self, spec: &PodSpec) -> Result<PodStatus, ClientError> {
        let body = serde_json::to_vec(spec).map_err(unusable)?;
        self.request(Method::POST, PODS_PATH, body).await
    }

    /// Releases a pod.
    pub async fn remove(&self, pod: &PodKey) -> Result<(), ClientError> {
        let path = format!("{PODS_PATH}/{pod}");
        let _: serde_json::Value = self.request(Method::DELETE, &path, Vec::new()).await?;
        Ok(())
    }

    /// Returns the enrolled pods.
    pub async fn list(&self) -> Result<Vec<PodStatus>, ClientError> {
        self.request(Method::GET, PODS_PATH, Vec::new()).await
    }

    /// Returns what becomes of a connection of a pod to an address.
    pub async fn explain(&self, pod: &PodKey, to: SocketAddr) -> Result<Explanation, ClientError> {
        self.request(Method::GET, &format!("{EXPLAIN_PATH}/{pod}/{to}"), Vec::new()).await
    }

    /// Returns what the agent needs to know; waits a while for another version than `known`.
    pub async fn inventory(&self, known: Option<u64>) -> Result<Inventory, ClientError> {
        let path = match known {
            Some(version) => format!("{INVENTORY_PATH}/{version}"),
            None => INVENTORY_PATH.to_owned(),
        };
        self.request(Method::GET, &path, Vec::new()).await
    }

    /// Says what is to be known of pods that are not captured.
    pub async fn note(&self, notes: &[Note]) -> Result<(), ClientError> {
        let body = serde_json::to_vec(notes).map_err(unusable)?;
        let _: serde_json::Value = self.request(Method::PUT, NOTES_PATH, body).await?;
        Ok(())
    }

    /// Returns what the node proxy logs.
    pub async fn logging(&self) -> Result<Logging, ClientError> {
        self.request(Method::GET, LOGGING_PATH, Vec::new()).await
    }

    /// Changes what all processes of the node proxy log; returns what they log then.
    pub async fn log(&self, change: LevelChange) -> Result<Logging, ClientError> {
        match change {
            LevelChange::Put(level) => {
                let body = serde_json::to_vec(&Logging { level }).map_err(unusable)?;
                self.request(Method::PUT, LOGGING_PATH, body).await
            }
            LevelChange::Reset => self.request(Method::DELETE, LOGGING_PATH, Vec::new()).await,
        }
    }

    /// Takes a profile of the proxy; returns it when the time is over, in the form of a file.
    pub async fn profile(&self, kind: Kind, window: Window) -> Result<Bytes, ClientError> {
        let path = format!("{PROFILE_PATH}/{kind}/{window}");
        let limit = window.duration().saturating_add(REQUEST_TIMEOUT);
        self.answer(Method::POST, &path, Vec::new(), limit).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let body = self.answer(method, path, body, REQUEST_TIMEOUT).await?;
        serde_json::from_slice(&body).map_err(unusable)
    }

    /// Returns the body of an answer that says that the request was carried out.
    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        let (status, body) = timeout(limit, self.exchange(method, path, body))
            .await
            .map_err(|_| ClientError::Timeout(limit))??;
        if status.is_success() {
            return Ok(body);
        }
        let ErrorBody { error, remedy } = serde_json::from_slice(&body).map_err(unusable)?;
        Err(ClientError::Refused { status, error, remedy })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = self.dial.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request: Request<Full<Bytes>> = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .body(Full::from(body))
            .map_err(unusable)?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok((status, body.map_err(unusable)?.to_bytes()))
        };
        let connection = async {
            match connection.await {
                // The answer tells the outcome; the connection has none of its own.
                Ok(()) | Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = answer => answer,
            never = connection => never,
        }
    }
}

// === impl Links ===

impl Links {
    /// Goes on with `link`. Must be called in a runtime.
    pub fn replace(&self, link: OwnedFd) -> io::Result<()> {
        self.0.send_replace(Some(Arc::new(Channel::new(link)?)));
        Ok(())
    }
}

// === impl Dial ===

impl Dial {
    async fn connect(&self) -> Result<UnixStream, ClientError> {
        match self {
            Self::Socket(path) => {
                UnixStream::connect(path).await.map_err(|error| unreachable(path, error))
            }
            Self::Link(link) => link.connect().await.map_err(ClientError::Unlinked),
        }
    }
}

fn unreachable(path: &Path, source: io::Error) -> ClientError {
    let path = path.to_owned();
    let kind = source.kind();
    if kind == io::ErrorKind::NotFound {
        ClientError::NoSocket(path)
    } else if kind == io::ErrorKind::ConnectionRefused {
        ClientError::NotRunning(path)
    } else if kind == io::ErrorKind::PermissionDenied {
        ClientError::NotPermitted(path)
    } else {
        ClientError::Connect { path, source }
    }
}

fn unusable(error: impl Into<Box<dyn Error + Send + Sync>>) -> ClientError {
    ClientError::Answer(error.into())
}
