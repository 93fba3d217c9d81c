//! Services behind a waypoint: what applications send passes it, and what it is told is done.

mod automatic;
mod bodies;
mod connections;
mod credentials;
mod deployed;
mod extended;
mod grpc;
mod hostile;
mod http2_endpoints;
mod names;
mod origins;
mod outage;
mod policy;
mod required;
mod routes;
mod rules;
mod subscription;
mod tunnels;
mod upgrades;
mod websocket;

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Result;
use fairlead_lab::{
    Child, Host as _, Pod, WaypointProxy, manifest,
    mesh::{ControlledMesh, ECHO, HALF_CLOSE, HTTP, SERVICE_PORTS, TRANSFER, file_of, service_of},
    python, shown_identity, wait_for,
};

use crate::{
    clients::{Answer, curl_with},
    mesh::vip4,
    peer::dial,
    telemetry::same,
};

/// Time for a change of the configuration to be felt: generous for what takes milliseconds on an idle
/// machine.
const FELT: Duration = Duration::from_secs(30);

/// Name of the waypoint and of its pod.
const WAYPOINT: &str = "waypoint";

/// A mesh in which the service `b` of namespace `shop` is bound to a waypoint; it has a pod of each of
/// two versions, `b` and `b2`.
struct Bound {
    waypoint: WaypointProxy,
    /// Version 2.
    second: Pod,
    /// Its server.
    server: Child,
    mesh: ControlledMesh,
}

impl Bound {
    fn new(name: &str) -> Result<Self> {
        Self::with_args(name, &[])
    }

    /// Starts the mesh with further arguments for the waypoint.
    fn with_args(name: &str, args: &[&str]) -> Result<Self> {
        Self::in_pod(name, WAYPOINT, args)
    }

    /// Does so in the pod `pod`, which runs as the service account of that name.
    fn in_pod(name: &str, pod: &str, args: &[&str]) -> Result<Self> {
        let mesh = ControlledMesh::new(name)?;
        let (pod, second) = (mesh.add_pod(2, "shop", pod)?, mesh.add_pod(2, "shop", "b2")?);
        mesh.n2.enrol(&second)?;
        let server = second.serve(python("http_server.py", &[&HTTP.to_string()]), HTTP)?;
        let gateway_name = "gateway.networking.k8s.io/gateway-name: waypoint";
        let labels = format!("istio.io/dataplane-mode: none, {gateway_name}");
        mesh.plane.write(&file_of(&pod), &manifest::pod(&pod, &labels))?;
        mesh.plane.write(&file_of(&mesh.b), &manifest::pod(&mesh.b, "version: v1"))?;
        let written = manifest::pod(&second, "version: v2").replace("app: b2", "app: b");
        mesh.plane.write(&file_of(&second), &written)?;
        let waypoint = WaypointProxy::start_with(&mesh.plane, &pod, WAYPOINT, args)?;
        let bound = service_of(["shop", "b"], manifest::USE_WAYPOINT, 10, Some("b"));
        let free = service_of(["shop", "d"], "", 20, Some("d"));
        let gateway = manifest::waypoint(["shop", WAYPOINT], pod.v4(0).ip());
        mesh.plane.write("services.yaml", &manifest::join([bound, free, gateway]))?;
        let bound = Self { waypoint, second, server, mesh };
        // A pod that has just been enrolled may have no certificate yet.
        let (tunnels, roots) = (bound.second.v4(15008), bound.mesh.plane.root_cert());
        wait_for("version 2 has a certificate", FELT, || {
            let shown = shown_identity(&bound.mesh.outsider, tunnels, &roots);
            Ok(shown.is_ok_and(|identity| identity == bound.second.identity()).then_some(()))
        })?;
        bound.wait_for(&[], |answer| answer.is_ok() && bound.passed().is_ok_and(|n| n > 0.0))?;
        Ok(bound)
    }

    /// Makes `objects` part of the configuration.
    fn write(&self, objects: &str) -> Result<()> {
        self.mesh.plane.write("l7.yaml", objects)
    }

    /// Returns how many requests have passed the waypoint.
    fn passed(&self) -> Result<f64> {
        Ok(self.waypoint.metrics()?.sum("istio_requests_total", &[]))
    }

    /// Gets a page of the service as `a` does, with options of curl.
    fn get(&self, options: &[&str]) -> Result<Answer> {
        curl_with(&self.mesh.a, b(), options)
    }

    /// Does so until the answer is as it has to be.
    fn wait_for(&self, options: &[&str], wanted: impl Fn(&Answer) -> bool) -> Result<Answer> {
        self.wait_for_of(&self.mesh.a, options, wanted)
    }

    /// Does so as `client`.
    fn wait_for_of(
        &self,
        client: &Pod,
        options: &[&str],
        wanted: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        let mut last = None;
        let found = wait_for("the wanted answer", FELT, || {
            let answer = curl_with(client, b(), options)?;
            let found = wanted(&answer).then(|| answer.clone());
            last = Some(answer);
            Ok(found)
        });
        found.map_err(|error| {
            let log = self.waypoint.log().unwrap_or_default();
            error.context(format!("the last was {last:?}\n{log}"))
        })
    }

    /// Waits until answers have this in the header `x-mark`, which their route adds.
    fn wait_for_mark(&self, mark: &str) -> Result<()> {
        // In place of curl's own address of the server.
        let marked = ["-w", "\n--curl status=%{http_code} remote=%header{x-mark} local_port=0\n"];
        self.wait_for(&marked, |answer| answer.remote == mark).map(drop)
    }

    /// Returns whether the version 1 gave an answer.
    fn is_first(&self, answer: &Answer) -> bool {
        answer.seen("own") == self.mesh.b.ipv4().to_string()
    }

    /// Returns whether the version 2 did.
    fn is_second(&self, answer: &Answer) -> bool {
        answer.seen("own") == self.second.ipv4().to_string()
    }

    /// Has endpoints be asked in HTTP/2 at the port for transfers, with `more` settings of connections.
    fn ask_in_http_2(&self, more: &str) -> Result<()> {
        self.write(&format!(
            "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: b, namespace: shop}}
spec:
  host: b
  trafficPolicy:
    portLevelSettings:
    - port: {{number: {TRANSFER}}}
      connectionPool: {{http: {{h2UpgradePolicy: UPGRADE{more}}}}}
"
        ))?;
        wait_for("endpoints are asked in HTTP/2", FELT, || {
            let answer = curl_with(&self.mesh.a, vip4(10, TRANSFER), &[])?;
            Ok((answer.status == "200").then_some(()))
        })
    }
}

/// The service.
fn b() -> SocketAddr {
    vip4(10, SERVICE_PORTS[0].0)
}

#[test]
fn requests_to_a_bound_service_pass_its_waypoint_and_are_counted_there() -> Result<()> {
    let bound = Bound::new("wppass")?;
    let before = bound.passed()?;
    for _ in 0..5 {
        assert!(bound.get(&[])?.is_ok());
    }
    let metrics = bound.waypoint.metrics()?;
    let labels = [
        ("reporter", "waypoint"),
        ("source_workload", "a"),
        ("source_principal", "spiffe://cluster.local/ns/shop/sa/a"),
        ("destination_service", "b.shop.svc.cluster.local"),
        ("response_code", "200"),
        ("response_flags", "-"),
        ("connection_security_policy", "mutual_tls"),
        ("request_protocol", "http"),
    ];
    assert!(metrics.sum("istio_requests_total", &labels) >= before + 5.0, "{metrics:?}");
    // A GET has no body, and its answers have some.
    assert!(metrics.sum("istio_response_bytes_count", &labels) >= before + 5.0, "{metrics:?}");
    assert!(metrics.sum("istio_response_bytes_sum", &labels) >= 5.0, "{metrics:?}");
    assert!(metrics.sum("istio_request_bytes_sum", &labels) < 1.0, "{metrics:?}");
    let line = r#""GET / HTTP/1.1" 200 - via_upstream"#;
    assert!(bound.waypoint.log()?.contains(line), "{}", bound.waypoint.log()?);
    // What does not belong to the service goes past it.
    assert!(curl_with(&bound.mesh.a, vip4(20, 80), &[])?.is_ok());
    assert!(bound.waypoint.stop()?.status.success());
    Ok(())
}

#[test]
fn bytes_that_are_no_http_pass_as_they_are() -> Result<()> {
    let mut bound = Bound::new("wpbytes")?;
    let (first, second) = (bound.mesh.b.clone(), bound.second.clone());
    for pod in [&first, &second] {
        bound.mesh.serve(pod, "echo.py", ECHO)?;
        bound.mesh.serve(pod, "half_close.py", HALF_CLOSE)?;
    }
    // Whichever end is done first, what the other one still sends arrives.
    for mode in ["client-first", "server-first", "both"] {
        let (ip, port) = (b().ip().to_string(), HALF_CLOSE.to_string());
        let client = python("half_close.py", &[mode, &ip, &port, "8"]);
        bound.mesh.a.run(client)?.checked()?;
    }
    let address = vip4(10, ECHO).to_string();
    let script = "exec 3<>/dev/tcp/${0%:*}/${0#*:}; echo plain words >&3; head -c 12 <&3";
    let output = bound.mesh.a.run(["bash", "-c", script, &address])?;
    assert_eq!(output.stdout, "plain words\n", "{output:?}");
    let metrics = bound.waypoint.metrics()?;
    let labels = [("request_protocol", "tcp"), ("source_workload", "a")];
    assert!(metrics.sum("istio_tcp_connections_opened_total", &labels) >= 1.0, "{metrics:?}");
    wait_for("a line of a connection", FELT, || {
        let log = bound.waypoint.log()?;
        let passed = log.lines().find(|line| line.contains(r#""- - -" 0 - - - "-" 12 12 "#));
        Ok(passed.is_some_and(|line| line.contains("b.shop.svc.cluster.local")).then_some(()))
    })
}

#[test]
fn the_bytes_of_a_connection_are_counted_while_it_lasts_and_once() -> Result<()> {
    let mut bound = Bound::new("wplasting")?;
    for pod in [&bound.mesh.b.clone(), &bound.second.clone()] {
        bound.mesh.serve(pod, "echo.py", ECHO)?;
    }
    let is_counted = |name: &str, count: usize| {
        let labels = [("request_protocol", "tcp"), ("source_workload", "a")];
        let counter = bound.waypoint.metrics()?.sum(name, &labels);
        Ok::<_, anyhow::Error>(same(counter, count))
    };
    let [sent, received, closed] = ["sent_bytes", "received_bytes", "connections_closed"]
        .map(|n| format!("istio_tcp_{n}_total"));
    let mut connection = dial(&bound.mesh.a, vip4(10, ECHO))?;
    for total in [1000, 2000] {
        connection.write_all(&[b'x'; 1000])?;
        connection.read_exact(&mut [0; 1000])?;
        wait_for("bytes are counted", FELT, || Ok(is_counted(&received, total)?.then_some(())))?;
        assert!(is_counted(&sent, total)? && is_counted(&closed, 0)?);
    }
    drop(connection);
    wait_for("the end is counted", FELT, || Ok(is_counted(&closed, 1)?.then_some(())))?;
    assert!(is_counted(&sent, 2000)? && is_counted(&received, 2000)?);
    Ok(())
}
