//! What connections to endpoints begin with: TLS of the application, and the PROXY protocol.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::Result;
use fairlead_lab::{
    Child, Host as _, Pod,
    mesh::{TRANSFER, vip4},
    python, wait_for,
};
use rcgen::SanType;

use super::{Bound, FELT};
use crate::{
    clients::{Answer, curl_with},
    peer::{Ca, Credentials, workload_params},
};

/// Name of the server.
pub(super) const NAME: &str = "api.outside.example";

/// A name that it does not have.
pub(super) const SNI: &str = "other.example";

/// Another name of the server.
const URI: &str = "spiffe://outside.example/ns/api/sa/api";

/// Port of the server, and of its service entry.
const PORT: u16 = 8443;

/// A mesh with a server by HTTPS outside of it, for which a service entry stands that is bound to the
/// waypoint.
pub(super) struct Outside {
    /// Signs the server's certificate and, where one is wanted, the client's.
    pub(super) ca: Ca,
    dir: PathBuf,
    _server: Child,
    pub(super) bound: Bound,
}

// === impl Outside ===

impl Outside {
    /// Starts the server, which asks clients for a certificate of the CA or does not.
    pub(super) fn new(name: &str, asks_clients: bool) -> Result<Self> {
        let bound = Bound::new(name)?;
        let ca = Ca::foreign()?;
        let dir = bound.mesh.lab.dir().join("origin");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("ca.pem"), ca.pem())?;
        let [certificate, key] = issue(&ca, NAME)?.write(&dir, "server")?;
        let mut arguments = vec![PORT.to_string(), path(&certificate), path(&key)];
        arguments.extend(asks_clients.then(|| path(&dir.join("ca.pem"))));
        let outsider = bound.mesh.outsider.clone();
        let server = outsider.serve(python("https_server.py", &arguments), PORT)?;
        bound.mesh.plane.write("outside.yaml", &entry(&outsider))?;
        Ok(Self { ca, dir, _server: server, bound })
    }

    /// Has TLS be used as `fields` say.
    pub(super) fn rule(&self, fields: &str) -> Result<()> {
        self.bound.write(&format!(
            "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: outside, namespace: shop}}
spec: {{host: {NAME}, trafficPolicy: {{{fields}}}}}
"
        ))
    }

    /// Returns the field that names the file of this name.
    fn file(&self, field: &str, name: &str) -> String {
        format!("{field}: {}", path(&self.dir.join(name)))
    }

    fn get(&self) -> Result<Answer> {
        let host = format!("Host: {NAME}");
        curl_with(&self.bound.mesh.a, address(), &["-H", &host])
    }

    /// Waits until the answer is as it has to be, and returns it.
    pub(super) fn wait_for(&self, what: &str, wanted: impl Fn(&Answer) -> bool) -> Result<Answer> {
        let found = wait_for(what, FELT, || Ok(Some(self.get()?).filter(|answer| wanted(answer))));
        found.map_err(|error| error.context(self.bound.waypoint.log().unwrap_or_default()))
    }

    /// Waits until requests fail, and until the log says why in these words.
    pub(super) fn wait_for_failure(&self, reason: &str) -> Result<()> {
        wait_for(reason, FELT, || {
            let refused = self.get()?.status == "503";
            let log = self.bound.waypoint.log()?;
            let says = |line: &str| line.contains(" 503 UF") && line.contains(reason);
            Ok((refused && log.lines().any(says)).then_some(()))
        })
        .map_err(|error| error.context(self.bound.waypoint.log().unwrap_or_default()))
    }
}

/// Where the service entry is found.
fn address() -> SocketAddr {
    vip4(40, PORT)
}

/// Signs a certificate for this name.
pub(super) fn issue(ca: &Ca, name: &str) -> Result<Credentials> {
    let mut params = workload_params(URI)?;
    params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    ca.issue(&params)
}

fn path(path: &std::path::Path) -> String {
    path.display().to_string()
}

fn entry(server: &Pod) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: outside
  namespace: shop
  labels: {{istio.io/use-waypoint: waypoint}}
spec:
  hosts: [{NAME}]
  addresses: [{}]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: {PORT}, name: http, protocol: HTTP}}]
  endpoints: [{{address: {}}}]
",
        address().ip(),
        server.ipv4()
    )
}

#[test]
fn a_waypoint_speaks_tls_with_servers_that_a_rule_says_have_it() -> Result<()> {
    let outside = Outside::new("wporigin", false)?;
    let roots = outside.file("caCertificates", "ca.pem");
    outside.rule(&format!("tls: {{mode: SIMPLE, {roots}}}"))?;
    let answer = outside.wait_for("an answer over TLS", Answer::is_ok)?;
    // Who is asked for is who the request is for.
    assert_eq!((answer.seen("sni"), answer.seen("version")), (NAME, "TLSv1.3"), "{answer:?}");
    outside.rule(&format!("tls: {{mode: SIMPLE, sni: {SNI}, {roots}}}"))?;
    outside.wait_for_failure("TLS_error")?;
    for name in [NAME, URI] {
        let names = format!("subjectAltNames: [no.example, '{name}']");
        outside.rule(&format!("tls: {{mode: SIMPLE, sni: {SNI}, {names}, {roots}}}"))?;
        let answer = outside.wait_for("an answer to one of the names", Answer::is_ok)?;
        assert_eq!(answer.seen("sni"), SNI);
        outside.rule(&format!("tls: {{mode: SIMPLE, sni: {SNI}, {roots}}}"))?;
        outside.wait_for("a refusal", |answer| answer.status == "503")?;
    }
    outside.rule(&format!("tls: {{mode: SIMPLE, subjectAltNames: [no.example], {roots}}}"))?;
    outside.wait_for_failure("TLS_error")
}

#[test]
fn a_server_that_is_not_known_to_be_who_it_should_be_gets_no_request() -> Result<()> {
    let outside = Outside::new("wpdistrust", false)?;
    fs::write(outside.dir.join("other.pem"), Ca::foreign()?.pem())?;
    fs::write(outside.dir.join("empty.pem"), "")?;
    for (fields, reason) in [
        (outside.file("caCertificates", "other.pem"), "TLS_error: invalid peer certificate"),
        (outside.file("caCertificates", "missing.pem"), "caCertificates: "),
        (outside.file("caCertificates", "empty.pem"), "there is none in it"),
        (outside.file("caCrl", "missing.pem"), "caCrl: "),
        ("credentialName: secret".to_owned(), "trafficPolicy.tls.credentialName"),
        // Those of the operating system do not know this one either.
        ("caCertificates: system".to_owned(), "TLS_error: "),
    ] {
        let roots = outside.file("caCertificates", "ca.pem");
        let more = if fields.starts_with("caCrl") { format!(", {roots}") } else { String::new() };
        outside.rule(&format!("tls: {{mode: SIMPLE, {fields}{more}}}"))?;
        outside.wait_for_failure(reason)?;
    }
    outside.rule("tls: {mode: SIMPLE, insecureSkipVerify: true}")?;
    outside.wait_for("an answer from whomever", Answer::is_ok).map(drop)
}

#[test]
fn a_server_that_asks_for_a_certificate_is_shown_that_of_the_rule() -> Result<()> {
    let outside = Outside::new("wpmutual", true)?;
    let roots = outside.file("caCertificates", "ca.pem");
    outside.rule(&format!("tls: {{mode: SIMPLE, {roots}}}"))?;
    outside.wait_for("a refusal", |answer| answer.status == "503")?;
    issue(&outside.ca, "client.example")?.write(&outside.dir, "client")?;
    let own = outside.file("clientCertificate", "client.pem");
    let key = outside.file("privateKey", "client-key.pem");
    outside.rule(&format!("tls: {{mode: MUTUAL, {roots}, {own}, {key}}}"))?;
    let answer = outside.wait_for("an answer to the certificate", Answer::is_ok)?;
    assert!(answer.seen("client").contains("client.example"), "{answer:?}");
    let other = outside.file("privateKey", "server-key.pem");
    outside.rule(&format!("tls: {{mode: MUTUAL, {roots}, {own}, {other}}}"))?;
    outside.wait_for_failure("trafficPolicy.tls: ")
}

#[test]
fn endpoints_are_told_who_connects_in_a_header_of_the_proxy_protocol() -> Result<()> {
    let bound = Bound::new("wpproxyhead")?;
    let service = vip4(10, TRANSFER);
    let port = TRANSFER.to_string();
    let serve = |pod: &Pod| pod.serve(python("proxy_server.py", &[&port]), service.port());
    let _servers = [serve(&bound.mesh.b)?, serve(&bound.second)?];
    bound.write(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec:
  host: b
  trafficPolicy:
    proxyProtocol: {version: V2}
",
    )?;
    // Each client has its own connections, whatever was open before.
    for client in [&bound.mesh.a, &bound.mesh.c, &bound.mesh.a] {
        let answer = wait_for("an answer", FELT, || {
            Ok(Some(curl_with(client, service, &[])?).filter(Answer::is_ok))
        });
        let answer =
            answer.map_err(|error| error.context(bound.waypoint.log().unwrap_or_default()))?;
        assert_eq!(answer.seen("source"), client.ipv4().to_string(), "{answer:?}");
        let target = (answer.seen("target"), answer.seen("target_port"));
        assert_eq!(target, (&*service.ip().to_string(), &*port), "{answer:?}");
    }
    Ok(())
}

#[test]
fn connections_to_servers_outside_are_probed_as_a_rule_says() -> Result<()> {
    let outside = Outside::new("wpprobes", false)?;
    let roots = outside.file("caCertificates", "ca.pem");
    let keepalive = "tcpKeepalive: {time: 1000s, interval: 7s, probes: 3}";
    outside.rule(&format!(
        "tls: {{mode: SIMPLE, {roots}}}, connectionPool: {{tcp: {{{keepalive}}}}}"
    ))?;
    let server = outside.bound.mesh.outsider.ipv4().to_string();
    // Sixteen minutes and some seconds.
    wait_for("a connection that is probed", FELT, || {
        let answer = outside.get()?;
        let sockets = ["ss", "-tnoH", "state", "established", "dst", &server];
        let sockets = outside.bound.waypoint.pod().run(sockets)?.checked()?.stdout;
        Ok((answer.is_ok() && sockets.contains("timer:(keepalive,16min")).then_some(()))
    })
}
