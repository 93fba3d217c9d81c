//! WebSocket, with a real server and real clients: over HTTP/1.1, and over HTTP/2.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fairlead_lab::{
    Child, Host as _,
    mesh::{TRANSFER, vip4},
    python,
};
use h2::{client, ext::Protocol};
use http::{Method, Request, StatusCode};

use super::Bound;
use crate::{
    clients::SOON,
    peer::{Task, adopt, block_on, dial},
};

/// A masked text frame with `hi`, its key being zero (RFC 6455 section 5.2).
const HI: &[u8] = b"\x81\x82\0\0\0\0hi";

/// A mesh whose bound service has servers of WebSocket at [`service`], one in each of its pods.
struct Chat {
    servers: [Child; 2],
    bound: Bound,
}

// === impl Chat ===

impl Chat {
    fn new(name: &str) -> Result<Self> {
        let bound = Bound::new(name)?;
        let serve = |name: &str| ["serve".to_owned(), TRANSFER.to_string(), name.to_owned()];
        let [first, second] = [(&bound.mesh.b, "one"), (&bound.second, "two")]
            .map(|(pod, name)| pod.serve(python("websocket.py", &serve(name)), TRANSFER));
        Ok(Self { servers: [first?, second?], bound })
    }

    /// Begins a conversation.
    fn talk(&self, path: &str) -> Result<Child> {
        let (ip, port) = (service().ip().to_string(), service().port().to_string());
        let client = python("websocket.py", &["talk", &ip, &port, path]);
        self.bound.mesh.a.spawn_interactive(client)
    }
}

/// Where the servers are asked.
fn service() -> SocketAddr {
    vip4(10, TRANSFER)
}

#[test]
fn a_conversation_over_websocket_lasts_while_routes_change_and_ends_in_order() -> Result<()> {
    let chat = Chat::new("wpwebsocket")?;
    let mut client = chat.talk("/room")?;
    client.wait_for_output("connected", SOON)?;
    client.send_line("bytes 5000000")?;
    client.wait_for_output("received 5000000 bytes", SOON)?;
    for number in 0..5 {
        let mark = format!("m{number}");
        chat.bound.write(&format!(
            "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: b, namespace: shop}}
spec:
  hosts: [b]
  http:
  - route: [{{destination: {{host: b}}}}]
    headers: {{response: {{set: {{x-mark: {mark}}}}}}}
"
        ))?;
        chat.bound.wait_for_mark(&mark)?;
        client.send_line(&format!("said {number}"))?;
        client.wait_for_output(&format!("/room said {number}"), SOON)?;
    }
    client.close_input();
    client.wait_for_output("closed 1000", SOON)?;
    let mut refused = chat.talk("/refuse")?;
    refused.wait_for_output("refused 418", SOON)?;
    Ok(())
}

#[test]
fn a_client_of_http_2_speaks_websocket_with_a_server_of_http_1() -> Result<()> {
    let chat = Chat::new("wpwsconnect")?;
    let socket = dial(&chat.bound.mesh.a, service())?;
    let answers = block_on(async {
        let (requests, connection) =
            client::Builder::new().handshake::<_, Bytes>(adopt(socket)?).await?;
        let _connection = Task::spawn(async move { drop(connection.await) });
        // The settings, which say that it may be asked, come with the first answer at the latest.
        let mut requests = requests.ready().await?;
        let plain = Request::get(format!("http://{}/plain", service())).body(())?;
        requests.send_request(plain, true)?.0.await?;
        assert!(requests.is_extended_connect_protocol_enabled());
        let ask = |path: &str| {
            let request = Request::builder().method(Method::CONNECT);
            let uri = format!("http://{}{path}", service());
            request
                .uri(uri)
                .header("sec-websocket-version", "13")
                .extension(Protocol::from_static("websocket"))
                .body(())
        };
        let (refused, _) = requests.send_request(ask("/refuse")?, false)?;
        assert_eq!(refused.await?.status(), StatusCode::IM_A_TEAPOT);
        let (answer, mut send) = requests.send_request(ask("/h2")?, false)?;
        let answer = answer.await?;
        assert_eq!(answer.status(), StatusCode::OK);
        for name in ["upgrade", "connection", "sec-websocket-accept"] {
            assert!(!answer.headers().contains_key(name), "{name}");
        }
        let mut body = answer.into_body();
        send.send_data(HI.into(), false)?;
        let mut received = Vec::new();
        // Two bytes before the text.
        while received.len() < 2 + "one /h2 hi".len() {
            let data = body.data().await.context("the end")??;
            body.flow_control().release_capacity(data.len())?;
            received.extend(data);
        }
        // What it wanted was a tunnel to anywhere.
        let anywhere =
            Request::builder().method(Method::CONNECT).uri(service().to_string()).body(())?;
        let (refused, _) = requests.send_request(anywhere, false)?;
        assert_eq!(refused.await?.status(), StatusCode::FORBIDDEN);
        Ok(received)
    })?;
    let said = String::from_utf8_lossy(&answers[2..]).into_owned();
    assert!(["one /h2 hi", "two /h2 hi"].contains(&&*said), "{said}");
    drop(chat.servers);
    Ok(())
}
