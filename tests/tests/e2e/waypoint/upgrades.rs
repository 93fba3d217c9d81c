//! Connections that begin with HTTP and go on with something else.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use fairlead_lab::{
    Child, Host as _,
    mesh::{TRANSFER, vip4},
    python, wait_for,
};

use super::{Bound, FELT};
use crate::clients::{Answer, SOON, curl_with, run_python};

/// A mesh whose bound service has servers of `upgrade.py` at [`service`], one in each of its pods.
struct Upgrading {
    servers: [Child; 2],
    bound: Bound,
}

// === impl Upgrading ===

impl Upgrading {
    fn new(name: &str) -> Result<Self> {
        let bound = Bound::new(name)?;
        let serve = ["serve".to_owned(), TRANSFER.to_string()];
        let [first, second] = [&bound.mesh.b, &bound.second]
            .map(|pod| pod.serve(python("upgrade.py", &serve), TRANSFER));
        Ok(Self { servers: [first?, second?], bound })
    }

    /// Asks for another protocol and returns what the client printed.
    fn ask(&self, path: &str) -> Result<String> {
        let (ip, port) = (service().ip().to_string(), service().port().to_string());
        run_python(&self.bound.mesh.a, "upgrade.py", &["ask", &ip, &port, path])
    }

    /// Asks for nothing but a page, with options of curl.
    fn get(&self, options: &[&str]) -> Result<Answer> {
        curl_with(&self.bound.mesh.a, service(), options)
    }

    /// Returns what the servers were asked for.
    fn heard(&self) -> Result<Vec<String>> {
        let said = [self.servers[0].stdout()?, self.servers[1].stdout()?].concat();
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// Waits until a server has printed a line that ends so, and returns it.
    fn wait_for(&self, end: &str) -> Result<String> {
        wait_for(end, SOON, || Ok(self.heard()?.into_iter().find(|line| line.ends_with(end))))
    }

    /// Waits until the waypoint has logged this: it does so when an exchange is over.
    fn wait_for_log(&self, line: &str) -> Result<()> {
        let found =
            wait_for(line, FELT, || Ok(self.bound.waypoint.log()?.contains(line).then_some(())));
        found.map_err(|error| error.context(self.bound.waypoint.log().unwrap_or_default()))
    }

    fn metric(&self, code: &str) -> Result<f64> {
        let labels = [("response_code", code), ("request_protocol", "http")];
        Ok(self.bound.waypoint.metrics()?.sum("istio_requests_total", &labels))
    }
}

/// Where the servers are asked.
fn service() -> SocketAddr {
    vip4(10, TRANSFER)
}

#[test]
fn bytes_pass_both_ways_once_an_endpoint_has_agreed_and_each_way_ends_on_its_own() -> Result<()> {
    let upgrading = Upgrading::new("wpupgrade")?;
    // What the endpoint sends at once with its agreement, what the client sends, and what the endpoint
    // sends after the client has ended.
    assert_eq!(upgrading.ask("/echo")?, "101 plain\ngreeting ping farewell\n");
    assert_eq!(upgrading.ask("/first")?, "101 plain\nall said\nsent\n");
    upgrading.wait_for(&format!("received {}", 1 << 20))?;
    wait_for("both are counted", FELT, || Ok((upgrading.metric("101")? >= 2.0).then_some(())))?;
    // Status, flags, details, two without a value, and the bytes that went up and down.
    upgrading.wait_for_log(r#""GET /echo HTTP/1.1" 101 - via_upstream - "-" 4 22 "#)
}

#[test]
fn an_endpoint_that_refuses_an_upgrade_answers_as_any_and_gets_no_other_request_on_it() -> Result<()>
{
    let upgrading = Upgrading::new("wprefuse")?;
    for (path, status) in [("/refuse", "400"), ("/ignore", "200")] {
        // What came in one segment with the first request may have been meant for another protocol: the
        // connection of the client ends.
        assert_eq!(upgrading.ask(path)?, format!("{status} -\n"));
    }
    let heard = upgrading.heard()?;
    assert!(!heard.iter().any(|line| line.contains("/second")), "{heard:?}");
    for _ in 0..4 {
        assert_eq!(upgrading.get(&["--request-target", "/other"])?.status, "200");
    }
    let connection = |line: &String| line.split(' ').next().map(str::to_owned);
    let asked: Vec<_> = heard.iter().filter(|line| line.ends_with(" plain")).collect();
    assert_eq!(asked.len(), 2, "{heard:?}");
    for server in &upgrading.servers {
        let said = server.stdout()?;
        let lines: Vec<_> = said.lines().map(str::to_owned).collect();
        for asked in lines.iter().filter(|line| line.ends_with(" plain")) {
            let shared = lines.iter().filter(|line| connection(line) == connection(asked));
            assert_eq!(shared.count(), 1, "{said}");
        }
    }
    // Nobody asked the endpoint to switch: what it sends then is no answer.
    assert_eq!(upgrading.get(&["--request-target", "/unasked"])?.status, "502");
    upgrading.wait_for_log(r#""GET /unasked HTTP/1.1" 502 UPE"#)
}

#[test]
fn an_upgrade_to_http_2_and_a_connect_are_not_heard() -> Result<()> {
    let upgrading = Upgrading::new("wpnoupgrade")?;
    let (a, address) = (&upgrading.bound.mesh.a, service());
    // What curl asks for in clear text.
    let answer = upgrading.get(&["--http2", "--request-target", "/h2c"])?;
    assert!(answer.is_ok(), "{answer:?}");
    let line = upgrading.wait_for("GET /h2c -");
    line.context("the upgrade to HTTP/2 reached the endpoint")?;
    let proxied = ["--proxytunnel", "--proxy", &format!("http://{address}")];
    let answer = curl_with(a, vip4(20, 80), &proxied)?;
    assert_eq!((answer.code, answer.is_ok()), (56, false), "{answer:?}");
    upgrading.wait_for_log(r#"" 403 - upgrade_failed "#)?;
    assert!(!upgrading.heard()?.iter().any(|line| line.contains("CONNECT")));
    Ok(())
}

#[test]
fn routes_and_policies_of_an_upgrade_are_those_of_its_handshake() -> Result<()> {
    let upgrading = Upgrading::new("wproutedup")?;
    let bound = &upgrading.bound;
    bound.write(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec:
  host: b
  subsets: [{name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec:
  hosts: [b]
  http:
  - match: [{headers: {upgrade: {exact: plain}}}]
    route: [{destination: {host: b, subset: v2}}]
  - directResponse: {status: 404}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: paths, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: '', name: b}]
  action: DENY
  rules: [{to: [{operation: {paths: [/first]}}]}]
",
    )?;
    wait_for("the policy", FELT, || {
        Ok((upgrading.get(&["--request-target", "/first"])?.status == "403").then_some(()))
    })?;
    wait_for("the route", FELT, || Ok((upgrading.get(&[])?.status == "404").then_some(())))?;
    assert_eq!(upgrading.ask("/echo")?, "101 plain\ngreeting ping farewell\n");
    let second = upgrading.servers[1].stdout()?;
    assert!(second.contains("GET /echo plain"), "{second}");
    let refused = upgrading.ask("/first")?;
    assert!(refused.starts_with("403 "), "{refused}");
    Ok(())
}
