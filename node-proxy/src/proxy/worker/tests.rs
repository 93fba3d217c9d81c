use std::{
    io::{ErrorKind, Read},
    net::{TcpListener, TcpStream},
};

use fairlead_tunnel::testing::identities;

use super::*;
use crate::proxy::fixtures::{listeners, node, pod};

/// Clients of each kind: enough that the home thread gives some of them away.
const CLIENTS: usize = 40;

/// Connects without waiting for anyone to accept.
fn clients(of: &TcpListener) -> Vec<TcpStream> {
    let address = of.local_addr().unwrap();
    (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect()
}

#[tokio::test]
async fn a_process_that_drains_knows_every_connection_that_was_made() {
    let node = node();
    let workers = Workers::start(&node, 2).unwrap();
    let (identities, _dir) = identities();
    let (pod, listeners) = (pod(&identities, "a", 1), listeners());
    let _outbound = clients(&listeners.outbound);
    let _tunnels = clients(&listeners.inbound_hbone);
    workers.serve(&pod, listeners).await;
    workers.drain().await;
    assert_eq!(node.connections.open(), 2 * CLIENTS);
    assert_eq!(pod.connections.open(), 2 * CLIENTS);
    workers.stop().await;
}

#[tokio::test]
async fn a_pod_that_is_cut_leaves_no_connection_whatever_thread_it_was_on_its_way_to() {
    let node = node();
    let workers = Workers::start(&node, 2).unwrap();
    let (identities, _dir) = identities();
    // Takes the first thread, so that the other one, which is told last, gives to it.
    workers.serve(&pod(&identities, "first", 1), listeners()).await;
    for netns in 2..50 {
        let (pod, listeners) = (pod(&identities, "a", netns), listeners());
        let clients = clients(&listeners.outbound);
        workers.serve(&pod, listeners).await;
        workers.cut(pod.id).await;
        // Left alone, they would wait longer for the mesh to know the pod.
        let ended = timeout(STOP_TIME, pod.connections.wait_until_none()).await;
        assert!(ended.is_ok(), "{} are left", pod.connections.open());
        for mut client in clients {
            let end = client.read(&mut [0]).map_err(|e| e.kind());
            assert_eq!(end, Err(ErrorKind::ConnectionReset));
        }
    }
    workers.stop().await;
}
