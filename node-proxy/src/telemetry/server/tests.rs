use std::{cell::Cell, future::Future, net::SocketAddr};

use fairlead_component::{
    http::MAX_CONNECTIONS,
    logging::{DroppedLines, Levels},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    select,
};

use super::{Admin, serve_admin, serve_metrics, serve_readiness};
use crate::telemetry::{metrics::NodeMetrics, readiness::Readiness};

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).await
}

async fn with_server(server: impl Future<Output = std::convert::Infallible>, test: impl Future) {
    select! {
        never = server => match never {},
        _ = test => {}
    }
}

#[derive(Default)]
struct Page(Levels, Cell<u32>);

impl Admin for Page {
    async fn config_dump(&self) -> Value {
        json!({ "workloads": [] })
    }

    fn levels(&self) -> &Levels {
        &self.0
    }

    fn quit(&self) {
        self.1.set(self.1.get() + 1);
    }
}

fn metrics() -> NodeMetrics {
    NodeMetrics::new(DroppedLines::default())
}

#[tokio::test]
async fn metrics_are_served_at_both_paths_in_the_type_that_was_asked_for() {
    let (metrics, (listener, address)) = (metrics(), listener().await);
    (0..7).for_each(|_| metrics.pods.start());
    let test = async {
        for path in ["/metrics", "/stats/prometheus"] {
            let answer = get(address, path, "").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.contains("content-type: text/plain"), "{answer}");
            assert!(answer.contains("\nfairlead_pods_enrolled 7\n"), "{answer}");
        }
        let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
        let answer = get(address, "/metrics", accept).await;
        assert!(answer.contains("content-type: application/openmetrics-text;"), "{answer}");
    };
    with_server(async { serve_metrics(&listener, &metrics).await }, test).await;
}

#[tokio::test]
async fn readiness_names_what_is_pending() {
    let (metrics, (listener, address)) = (metrics(), listener().await);
    let readiness = Readiness::default();
    let gates = [readiness.gate("configuration"), readiness.gate("capture")];
    let test = async {
        let answer = get(address, "/healthz/ready", "").await;
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nnot ready, pending: configuration, capture"), "{answer}");
        for gate in &gates {
            gate.open();
        }
        let answer = get(address, "/healthz/ready", "").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nready"),
            "{answer}"
        );
    };
    with_server(async { serve_readiness(&listener, &readiness, &metrics).await }, test).await;
}

#[tokio::test]
async fn admin_dumps_the_configuration_and_names_its_paths() {
    let (metrics, (listener, address)) = (metrics(), listener().await);
    let admin = Page::default();
    let test = async {
        let answer = get(address, "/config_dump", "").await;
        assert!(answer.contains("\"workloads\": []"), "{answer}");
        let answer = get(address, "/", "").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("/logging?level"),
            "{answer}"
        );
        let answer = get(address, "/x", "").await;
        assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("/config_dump"), "{answer}");
        let answer = exchange(address, "POST /config_dump HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    };
    with_server(async { serve_admin(&listener, &admin, &metrics).await }, test).await;
}

#[tokio::test]
async fn who_posts_to_it_ends_the_node_proxy_and_who_looks_does_not() {
    let (metrics, (listener, address)) = (metrics(), listener().await);
    let admin = Page::default();
    let test = async {
        let answer = get(address, "/quitquitquit", "").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        assert_eq!(admin.1.get(), 0);
        let answer = exchange(address, "POST /quitquitquit HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(admin.1.get(), 1);
    };
    with_server(async { serve_admin(&listener, &admin, &metrics).await }, test).await;
}

#[tokio::test]
async fn admin_shows_and_changes_what_is_logged() {
    let (metrics, (listener, address)) = (metrics(), listener().await);
    let admin = Page::default();
    let test = async {
        let post = async |query: &str| {
            exchange(address, &format!("POST /logging{query} HTTP/1.1\r\nhost: x\r\n\r\n")).await
        };
        let answer = get(address, "/logging", "").await;
        assert!(answer.ends_with("\r\n\r\ncurrent log level is info\n"), "{answer}");
        let answer = post("?level=access:off").await;
        assert!(answer.ends_with("current log level is access=off,info\n"), "{answer}");
        for query in ["?level=access%3Dloud", "?colour=blue"] {
            let answer = post(query).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        }
        let answer = post("?reset").await;
        assert!(answer.ends_with("current log level is info\n"), "{answer}");
    };
    with_server(async { serve_admin(&listener, &admin, &metrics).await }, test).await;
}

#[tokio::test(start_paused = true)]
async fn connections_that_send_nothing_are_bounded_and_time_out() {
    let (metrics, (listener, address)) = (metrics(), listener().await);
    let test = async {
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        // This one is served once the idle ones have timed out.
        let answer = get(address, "/metrics", "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(metrics.limit("metrics_connections").get(), 1);
    };
    with_server(async { serve_metrics(&listener, &metrics).await }, test).await;
}

#[tokio::test]
async fn the_admin_page_says_where_profiles_are_taken() {
    let (metrics, (listener, address)) = (metrics(), listener().await);
    let page = Page::default();
    let test = async {
        for path in ["/debug/pprof", "/debug/pprof/profile?seconds=5", "/debug/pprof/heap"] {
            let answer = get(address, path, "").await;
            assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
            assert!(answer.contains("fairlead-node profile heap"), "{answer}");
        }
    };
    with_server(async { serve_admin(&listener, &page, &metrics).await }, test).await;
}
