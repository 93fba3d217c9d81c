//! Other protocols with endpoints that speak HTTP/2: what a client upgrades is an extended CONNECT there
//! (RFC 8441).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use fairlead_lab::{
    Host as _, Pod,
    mesh::{TRANSFER, vip4},
    python, wait_for,
};
use h2::{RecvStream, SendStream, client, ext::Protocol, server};
use http::{Method, Request, Response, StatusCode};
use tokio::{net::TcpStream, task::JoinSet};

use super::{Bound, FELT};
use crate::{
    clients::{SOON, curl_with, run_python},
    peer::{App, Task, adopt, block_on, dial},
};

/// A masked text frame with `hi`, its key being zero (RFC 6455 section 5.2).
const HI: &[u8] = b"\x81\x82\0\0\0\0hi";

/// Bytes of the head of a short frame, and of the key that a client's is masked with.
const HEAD: usize = 2;
const KEY: usize = 4;

/// Which endpoints take extended CONNECTs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offers {
    All,
    None,
}

/// What the endpoints were asked.
#[derive(Debug, Default)]
struct Asked {
    /// Extended CONNECTs.
    connects: AtomicUsize,
    /// Anything else.
    others: AtomicUsize,
}

/// A mesh whose bound service is declared to speak HTTP/2, with endpoints that do.
struct Chat {
    asked: Arc<Asked>,
    _tasks: Vec<Task>,
    bound: Bound,
}

// === impl Chat ===

impl Chat {
    fn new(name: &str, offers: Offers) -> Result<Self> {
        let bound = Bound::new(name)?;
        let asked = Arc::<Asked>::default();
        let task = |pod: &Pod| {
            let (app, asked) = (App::listen(pod, TRANSFER)?, asked.clone());
            Ok(Task::spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((socket, _)) = app.accept().await {
                    connections.spawn(serve(socket, offers, asked.clone()));
                }
            }))
        };
        let tasks = [&bound.mesh.b, &bound.second].into_iter().map(task).collect::<Result<_>>()?;
        bound.ask_in_http_2("")?;
        Ok(Self { asked, _tasks: tasks, bound })
    }

    fn connects(&self) -> usize {
        self.asked.connects.load(Relaxed)
    }
}

/// Where the endpoints are asked.
fn service() -> SocketAddr {
    vip4(10, TRANSFER)
}

/// Answers requests for `/refuse` with 418, others as an endpoint of WebSocket that echoes, or of a
/// protocol `plain`, which begins with a greeting and ends with a farewell.
async fn serve(socket: TcpStream, offers: Offers, asked: Arc<Asked>) -> Result<()> {
    let mut builder = server::Builder::new();
    if offers == Offers::All {
        builder.enable_connect_protocol();
    }
    let mut connection = builder.handshake::<_, Bytes>(socket).await?;
    let mut streams = JoinSet::new();
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        let protocol = request.extensions().get::<Protocol>().map(|name| name.as_str().to_owned());
        let is_connect = request.method() == Method::CONNECT;
        let count = if is_connect { &asked.connects } else { &asked.others };
        count.fetch_add(1, Relaxed);
        let path = request.uri().path().to_owned();
        let recv = request.into_body();
        if let Some(protocol) = protocol.filter(|_| path != "/refuse") {
            let send = respond.send_response(Response::new(()), false)?;
            streams.spawn(talk(protocol, send, recv));
        } else {
            let status = if is_connect { StatusCode::IM_A_TEAPOT } else { StatusCode::OK };
            let answer = Response::builder().status(status).body(())?;
            respond.send_response(answer, false)?.send_data("own pot\n".into(), true)?;
        }
    }
    Ok(())
}

async fn talk(protocol: String, mut send: SendStream<Bytes>, recv: RecvStream) -> Result<()> {
    match protocol.as_str() {
        "websocket" => echo_frames(send, recv).await,
        "plain" => {
            send.send_data("greeting ".into(), false)?;
            let mut recv = recv;
            while let Some(data) = next(&mut recv).await? {
                send.send_data(data, false)?;
            }
            Ok(send.send_data(" farewell".into(), true)?)
        }
        _ => Ok(()),
    }
}

/// Sends short frames back as a server does, which masks nothing, until one says that it is the last.
async fn echo_frames(mut send: SendStream<Bytes>, mut recv: RecvStream) -> Result<()> {
    const CLOSE: u8 = 0x88;
    let mut read = BytesMut::new();
    loop {
        while read.len() < HEAD || read.len() < frame_bytes(&read) {
            read.extend(next(&mut recv).await?.context("the end within a frame")?);
        }
        let frame = read.split_to(frame_bytes(&read));
        let (head, rest) = frame.split_at(HEAD);
        let (key, masked) = rest.split_at(KEY);
        let text = masked.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        let answer: Vec<_> = [head[0], head[1] & 0x7f].into_iter().chain(text).collect();
        let is_last = head[0] == CLOSE;
        send.send_data(answer.into(), is_last)?;
        if is_last {
            return Ok(());
        }
    }
}

fn frame_bytes(head: &[u8]) -> usize {
    HEAD + KEY + usize::from(head[1] & 0x7f)
}

async fn next(recv: &mut RecvStream) -> Result<Option<Bytes>> {
    let Some(data) = recv.data().await.transpose()? else { return Ok(None) };
    recv.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

#[test]
fn a_client_of_websocket_over_http_1_talks_to_an_endpoint_of_http_2() -> Result<()> {
    let chat = Chat::new("wpextended", Offers::All)?;
    let (ip, port) = (service().ip().to_string(), service().port().to_string());
    let talk = |path: &str| {
        chat.bound.mesh.a.spawn_interactive(python("websocket.py", &["talk", &ip, &port, path]))
    };
    let mut clients = [talk("/one")?, talk("/two")?];
    for client in &mut clients {
        // The library has checked the hash of its key.
        client.wait_for_output("connected", SOON)?;
    }
    for client in &mut clients {
        client.send_line("said")?;
        client.wait_for_output("received said", SOON)?;
    }
    for client in &mut clients {
        client.close_input();
        client.wait_for_output("closed 1000", SOON)?;
    }
    talk("/refuse")?.wait_for_output("refused 418", SOON)?;
    ensure!(chat.connects() == 3, "{:?}", chat.asked);
    // The connection is as good for what follows.
    ensure!(curl_with(&chat.bound.mesh.a, service(), &[])?.status == "200");
    Ok(())
}

#[test]
fn each_way_of_a_stream_ends_on_its_own() -> Result<()> {
    let chat = Chat::new("wpextplain", Offers::All)?;
    let (ip, port) = (service().ip().to_string(), service().port().to_string());
    let said = run_python(&chat.bound.mesh.a, "upgrade.py", &["ask", &ip, &port, "/echo"])?;
    assert_eq!(said, "101 plain\ngreeting ping farewell\n");
    let line = r#""GET /echo HTTP/1.1" 101 - via_upstream - "-" 4 22 "#;
    wait_for(line, FELT, || Ok(chat.bound.waypoint.log()?.contains(line).then_some(())))
}

#[test]
fn an_extended_connect_stays_one() -> Result<()> {
    let chat = Chat::new("wpextconnect", Offers::All)?;
    let socket = dial(&chat.bound.mesh.a, service())?;
    let said = block_on(async {
        let (requests, connection) =
            client::Builder::new().handshake::<_, Bytes>(adopt(socket)?).await?;
        let _connection = Task::spawn(async move { drop(connection.await) });
        let mut requests = requests.ready().await?;
        let plain = Request::get(format!("http://{}/plain", service())).body(())?;
        requests.send_request(plain, true)?.0.await?;
        let ask = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{}/h2", service()))
            .header("sec-websocket-version", "13")
            .extension(Protocol::from_static("websocket"))
            .body(())?;
        let (answer, mut send) = requests.send_request(ask, false)?;
        let answer = answer.await?;
        ensure!(answer.status() == StatusCode::OK, "{answer:?}");
        ensure!(answer.headers().get("sec-websocket-accept").is_none(), "{answer:?}");
        let mut body = answer.into_body();
        send.send_data(HI.into(), false)?;
        let mut received = Vec::new();
        while received.len() < HEAD + "hi".len() {
            received.extend(next(&mut body).await?.context("the end")?);
        }
        Ok(received)
    })?;
    assert_eq!(said, b"\x81\x02hi");
    Ok(())
}

#[test]
fn an_endpoint_that_takes_no_extended_connect_is_not_asked_for_one() -> Result<()> {
    let chat = Chat::new("wpextnone", Offers::None)?;
    let (ip, port) = (service().ip().to_string(), service().port().to_string());
    let client = python("websocket.py", &["talk", &ip, &port, "/room"]);
    chat.bound.mesh.a.spawn_interactive(client)?.wait_for_output("refused 503", SOON)?;
    let line = r#""GET /room HTTP/1.1" 503 UR upstream_reset_before_response_started{remote_reset"#;
    wait_for(line, FELT, || Ok(chat.bound.waypoint.log()?.contains(line).then_some(())))?;
    ensure!(chat.connects() == 0, "{:?}", chat.asked);
    ensure!(chat.asked.others.load(Relaxed) > 0, "{:?}", chat.asked);
    ensure!(curl_with(&chat.bound.mesh.a, service(), &[])?.status == "200");
    Ok(())
}
