//! One connection, from the TLS handshake to its end.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::debug;

use super::{
    Server,
    limits::{
        AGE_JITTER, HANDSHAKE_TIME, INTRODUCTION_TIME, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
        LINGER_TIME, MAX_HEADER_BYTES, MAX_STREAMS, SEND_BUFFER_BYTES, WINDOW_BYTES,
    },
};

/// Where a request comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    /// Becomes true when the connection's streams have to end.
    pub(super) ended: watch::Receiver<bool>,
    known: Arc<AtomicBool>,
}

// === impl Origin ===

impl Origin {
    /// Takes note that the client has shown a valid token.
    pub(super) fn is_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
}

// === impl Server ===

impl Server {
    /// Serves one connection until it ends.
    pub(super) async fn connection(
        self: Arc<Self>,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        address: SocketAddr,
        stop: watch::Receiver<bool>,
    ) {
        // Small messages go both ways; a failure costs delay only.
        let _ = stream.set_nodelay(true);
        match timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.requests(stream, address, stop).await,
            Ok(Err(error)) => {
                self.metrics.refused_connection("handshake").inc();
                debug!(%address, %error, "TLS handshake failed");
            }
            Err(_) => {
                self.metrics.refused_connection("handshake").inc();
                debug!(%address, "TLS handshake took too long");
            }
        }
    }

    async fn requests(
        self: Arc<Self>,
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        stop: watch::Receiver<bool>,
    ) {
        let (end, ended) = watch::channel(false);
        let known = Arc::new(AtomicBool::new(false));
        let origin = Origin { address, ended, known: Arc::clone(&known) };
        let server = Arc::clone(&self);
        let service = service_fn(move |request| {
            let (server, origin) = (Arc::clone(&server), origin.clone());
            async move { Ok::<_, Infallible>(server.answer(request, origin).await) }
        });
        let connection = http_server().serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let unknown = async {
            sleep(INTRODUCTION_TIME).await;
            if known.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            result = &mut connection => {
                if let Err(error) = result {
                    debug!(%address, %error, "connection failed");
                }
                return;
            }
            () = unknown => {
                self.metrics.refused_connection("no-token").inc();
                debug!(%address, "connection closed: no valid token was shown");
            }
            () = self.term(stop) => {}
        }
        // The connection's last streams hold the other end.
        let _ = end.send(true);
        connection.as_mut().graceful_shutdown();
        if timeout(LINGER_TIME, connection).await.is_err() {
            debug!(%address, "connection closed: its client did not leave");
        }
    }

    /// Waits until a connection has to end: of age, or its turn when the server stops.
    async fn term(&self, mut stop: watch::Receiver<bool>) {
        let age = self.options.max_connection_age.mul_f64(1.0 - AGE_JITTER * rand::random::<f64>());
        let stopping = async {
            // Whoever may say it being gone means the same.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        if timeout(age, stopping).await.is_ok() {
            sleep(self.turn()).await;
        }
    }

    /// Draws when a client is sent away: all of them, evenly over the drain time.
    fn turn(&self) -> Duration {
        self.options.drain_time.mul_f64(rand::random())
    }
}

fn http_server() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    builder
}
