//! gRPC in pods: a server that reports what it is called with, and a client.
//!
//! Both are those of a library that the mesh's own data path does not use.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    runtime::{self, Runtime},
    sync::oneshot,
};
use tonic::{
    Request, Response, Status,
    body::Body,
    client, server,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{host::Host as _, pod::Pod};

/// Time for a call: generous for what takes milliseconds on an idle machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// What is called with.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Call {
    /// Anything.
    #[prost(string, tag = "1")]
    pub text: String,
}

/// What arrived at a server.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Report {
    /// The server's name.
    #[prost(string, tag = "1")]
    pub server: String,
    /// The path that was called.
    #[prost(string, tag = "2")]
    pub path: String,
    /// The metadata; several values of one name are joined with commas.
    #[prost(map = "string, string", tag = "3")]
    pub metadata: HashMap<String, String>,
    /// What the call said.
    #[prost(string, tag = "4")]
    pub text: String,
}

/// A server of every service and method, until it is dropped.
#[derive(Debug)]
pub struct GrpcServer {
    /// Dropped, it ends the server.
    _stop: oneshot::Sender<()>,
}

/// A client with one connection.
#[derive(Debug)]
pub struct GrpcClient {
    runtime: Runtime,
    client: client::Grpc<Channel>,
}

// === impl GrpcServer ===

impl GrpcServer {
    /// Starts a server in `pod` that reports with this name.
    pub fn start(pod: &Pod, port: u16, name: &str) -> Result<Self> {
        let listener =
            pod.netns().enter(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?))?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = oneshot::channel();
        let (runtime, name): (_, Arc<str>) = (own_runtime()?, name.into());
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = serve(listener, name) => {
                        if let Err(error) = result {
                            eprintln!("gRPC server: {error}");
                        }
                    }
                    // An error as well as a value: the handle is gone.
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { _stop: stop })
    }
}

async fn serve(listener: TcpListener, name: Arc<str>) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        let name = name.clone();
        let service = service_fn(move |request| {
            let name = name.clone();
            async move { Ok::<_, Infallible>(answer(name, request).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(socket), service);
        // A client that goes away is no failure of the server.
        tokio::spawn(async { drop(connection.await) });
    }
}

async fn answer(name: Arc<str>, request: http::Request<Incoming>) -> http::Response<Body> {
    let path = request.uri().path().to_owned();
    let report = tower::service_fn(move |request: Request<Call>| {
        let report = report(&name, &path, request);
        async { Ok::<_, Status>(Response::new(report)) }
    });
    server::Grpc::new(ProstCodec::<Report, Call>::default()).unary(report, request).await
}

fn report(name: &str, path: &str, request: Request<Call>) -> Report {
    let headers = request.metadata().clone().into_headers();
    let joined = |name: &http::HeaderName| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        (name.to_string(), values.collect::<Vec<_>>().join(","))
    };
    let metadata = headers.keys().map(joined).collect();
    let text = request.into_inner().text;
    Report { server: name.to_owned(), path: path.to_owned(), metadata, text }
}

// === impl GrpcClient ===

impl GrpcClient {
    /// Connects from `pod` to `server`, which is called by `authority`.
    pub fn connect(pod: &Pod, server: SocketAddr, authority: &str) -> Result<Self> {
        let runtime = own_runtime()?;
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))?.timeout(CALL_TIMEOUT);
        let netns = pod.netns().clone();
        let connect = tower::service_fn(move |_| {
            // The socket stays in the namespace it was made in, whatever thread uses it.
            let socket = netns.enter(|| Ok(TcpStream::connect_timeout(&server, CALL_TIMEOUT)?));
            async move {
                let socket = socket.map_err(std::io::Error::other)?;
                socket.set_nonblocking(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(tokio::net::TcpStream::from_std(socket)?))
            }
        });
        let channel = runtime.block_on(endpoint.connect_with_connector(connect))?;
        Ok(Self { runtime, client: client::Grpc::new(channel) })
    }

    /// Calls a path, such as `/package.Service/Method`, and returns what arrived there.
    pub fn call(
        &mut self,
        path: &str,
        metadata: &[(&'static str, &str)],
    ) -> Result<Result<Report, Status>> {
        let mut request = Request::new(Call { text: "hello".to_owned() });
        for (name, value) in metadata {
            request.metadata_mut().insert(*name, value.parse()?);
        }
        let path = path.parse().context("no path of a call")?;
        let client = &mut self.client;
        let called = async {
            if let Err(error) = client.ready().await {
                return Err(Status::unavailable(error.to_string()));
            }
            client.unary(request, path, ProstCodec::<Call, Report>::default()).await
        };
        Ok(self.runtime.block_on(called).map(Response::into_inner))
    }
}

fn own_runtime() -> Result<Runtime> {
    Ok(runtime::Builder::new_current_thread().enable_all().build()?)
}
