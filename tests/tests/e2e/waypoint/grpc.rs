//! gRPC, with a real server and real clients.

use std::net::SocketAddr;

use anyhow::Result;
use fairlead_lab::{
    Child, Host as _,
    mesh::{TRANSFER, vip4},
    python, wait_for,
};

use super::{Bound, FELT};
use crate::clients::{SOON, run_python};

/// Routes that change at once, and how often they do: a thousand changes.
const ROUTES: usize = 50;
const ROUNDS: usize = 20;

/// A mesh whose bound service has servers of `grpc_calls.py` at [`service`], one in each of its pods.
struct Calls {
    servers: [Child; 2],
    bound: Bound,
}

// === impl Calls ===

impl Calls {
    fn new(name: &str) -> Result<Self> {
        let bound = Bound::new(name)?;
        let serve = |name: &str| ["serve".to_owned(), TRANSFER.to_string(), name.to_owned()];
        let [first, second] = [(&bound.mesh.b, "one"), (&bound.second, "two")]
            .map(|(pod, name)| pod.serve(python("grpc_calls.py", &serve(name)), TRANSFER));
        Ok(Self { servers: [first?, second?], bound })
    }

    /// Makes a call and returns what the client printed.
    fn call(&self, options: &[&str]) -> Result<String> {
        let (ip, port) = (service().ip().to_string(), service().port().to_string());
        let arguments = [&["call", &ip, &port], options].concat();
        run_python(&self.bound.mesh.a, "grpc_calls.py", &arguments)
    }

    /// Makes a call until the client prints this.
    fn wait_for(&self, options: &[&str], wanted: &str) -> Result<()> {
        let mut last = String::new();
        let found = wait_for(wanted, FELT, || {
            last = self.call(options)?;
            Ok((last == wanted).then_some(()))
        });
        let log = || self.bound.waypoint.log().unwrap_or_default();
        found.map_err(|error| error.context(format!("the last was {last}\n{}", log())))
    }

    /// Has the calls be routed by these `http` routes.
    fn route(&self, http: &str) -> Result<()> {
        self.bound.write(&format!(
            "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: b, namespace: shop}}
spec:
  hosts: [b]
  http:
{http}"
        ))
    }

    /// Returns a line for each unary call, with the address of its connection.
    fn heard(&self) -> Result<Vec<String>> {
        let said = [self.servers[0].stdout()?, self.servers[1].stdout()?].concat();
        Ok(said.lines().filter(|line| line.starts_with("unary")).map(str::to_owned).collect())
    }

    fn counted(&self, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(self.bound.waypoint.metrics()?.sum("istio_requests_total", labels))
    }
}

/// Where the servers are called.
fn service() -> SocketAddr {
    vip4(10, TRANSFER)
}

#[test]
fn calls_of_every_kind_pass_with_their_messages_metadata_and_status() -> Result<()> {
    let calls = Calls::new("wpgrpc")?;
    let small = calls.call(&["unary", "10"])?;
    assert!(["10 one 10\nOK\n", "10 two 10\nOK\n"].contains(&&*small), "{small}");
    // Larger than any window.
    let large = calls.call(&["unary", "20000000"])?;
    assert!(large.starts_with("20000000 ") && large.ends_with(" 20000000\nOK\n"), "{large}");
    let messages = || {
        let metrics = calls.bound.waypoint.metrics()?;
        let of = |side| metrics.sum(&format!("istio_{side}_messages_total"), &[]);
        Ok::<_, anyhow::Error>((of("request"), of("response")))
    };
    let (asked, answered) = messages()?;
    assert_eq!(calls.call(&["spread", "5000"])?, "5000 4999\nOK\n");
    assert_eq!(calls.call(&["gather", "2000", "1000"])?, "2000 2000000\nOK\n");
    wait_for("their messages are counted", FELT, || {
        let (now_asked, now_answered) = messages()?;
        let more = [now_asked - asked - 2001.0, now_answered - answered - 5001.0];
        Ok(more.iter().all(|more| more.abs() < 0.5).then_some(()))
    })?;
    for (code, name) in
        [("5", "NOT_FOUND"), ("9", "FAILED_PRECONDITION"), ("16", "UNAUTHENTICATED")]
    {
        assert_eq!(calls.call(&["fail", code])?, format!("{name} asked for\n"));
        let labels = [("grpc_response_status", code), ("request_protocol", "grpc")];
        wait_for("the status is counted", FELT, || {
            Ok((calls.counted(&labels)? >= 1.0).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_client_is_told_in_the_words_of_grpc_what_becomes_of_its_calls_on_the_way() -> Result<()> {
    let mut calls = Calls::new("wpgrpclocal")?;
    calls.route(
        "  - match: [{headers: {fail: {exact: '2'}}}]
    fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}
    route: [{destination: {host: b}}]
  - match: [{headers: {fail: {exact: '3'}}}]
    fault: {abort: {httpStatus: 401, percentage: {value: 100}}}
    route: [{destination: {host: b}}]
  - match: [{headers: {fail: {exact: '4'}}}]
    route: [{destination: {host: nowhere}}]
  - match: [{uri: {exact: /lab.Calls/Slow}}]
    timeout: 1s
    route: [{destination: {host: b}}]
  - match: [{uri: {prefix: /lab.Calls/}}]
    route: [{destination: {host: b}}]
",
    )?;
    calls.wait_for(&["fail", "2"], "RESOURCE_EXHAUSTED fault filter abort\n")?;
    assert_eq!(calls.call(&["fail", "3"])?, "UNAUTHENTICATED fault filter abort\n");
    let nowhere = calls.call(&["fail", "4"])?;
    assert!(nowhere.starts_with("UNAVAILABLE ") || nowhere.starts_with("UNKNOWN "), "{nowhere}");
    // The route's limit, and the client's own where that is less.
    assert_eq!(
        calls.call(&["slow", "20000", "15000"])?,
        "early\nUNAVAILABLE upstream request timeout\n"
    );
    let limit = calls.call(&["slow", "20000", "500"])?;
    // Whoever notices it first.
    let ends = ["early\nDEADLINE_EXCEEDED", "early\nUNAVAILABLE upstream request timeout"];
    assert!(ends.iter().any(|end| limit.starts_with(end)), "{limit}");
    for server in &mut calls.servers {
        server.kill()?;
    }
    let gone = calls.call(&["unary", "1"])?;
    assert!(gone.starts_with("UNAVAILABLE upstream connect error"), "{gone}");
    Ok(())
}

#[test]
fn calls_are_tried_again_on_the_statuses_that_a_route_names() -> Result<()> {
    let calls = Calls::new("wpgrpcretry")?;
    calls.route(
        "  - retries: {attempts: 2, retryOn: 'resource-exhausted,unavailable'}
    route: [{destination: {host: b}}]
",
    )?;
    let tries = |calls: &Calls| Ok::<_, anyhow::Error>(calls.heard()?.len());
    // Three tries of a call whose status is named, and one of another.
    wait_for("the route", FELT, || {
        let before = tries(&calls)?;
        assert_eq!(calls.call(&["fail", "8"])?, "RESOURCE_EXHAUSTED asked for\n");
        Ok((tries(&calls)? - before == 3).then_some(()))
    })?;
    let before = tries(&calls)?;
    assert_eq!(calls.call(&["fail", "13"])?, "INTERNAL asked for\n");
    assert_eq!(tries(&calls)? - before, 1);
    let labels = [("grpc_response_status", "8"), ("response_flags", "URX")];
    wait_for("the limit is counted", FELT, || Ok((calls.counted(&labels)? >= 1.0).then_some(())))
}

#[test]
fn a_call_that_is_under_way_outlives_a_thousand_changes_of_routes() -> Result<()> {
    let calls = Calls::new("wpgrpclong")?;
    let (ip, port) = (service().ip().to_string(), service().port().to_string());
    let client = python("grpc_calls.py", &["talk", &ip, &port]);
    let mut client = calls.bound.mesh.a.spawn_interactive(client)?;
    let mut say = |text: &str| -> Result<()> {
        client.send_line(text)?;
        client.wait_for_output(&format!(" {text}\n"), SOON)
    };
    say("first")?;
    for round in 0..ROUNDS {
        let route = |number: usize| {
            format!(
                "  - match: [{{headers: {{x-number: {{exact: '{number}'}}}}}}]
    route: [{{destination: {{host: b}}}}]
    headers: {{response: {{set: {{x-mark: m{round}}}}}}}
"
            )
        };
        let rest = format!(
            "  - route: [{{destination: {{host: b}}}}]
    headers: {{response: {{set: {{x-mark: m{round}}}}}}}
"
        );
        calls.route(&((1..ROUTES).map(route).collect::<String>() + &rest))?;
        calls.bound.wait_for_mark(&format!("m{round}"))?;
        say(&format!("after {round}"))?;
    }
    client.close_input();
    client.wait_for_output("rest 0 OK", SOON)
}

#[test]
fn a_connection_to_an_endpoint_carries_as_many_calls_as_a_rule_allows() -> Result<()> {
    let calls = Calls::new("wpgrpcworn")?;
    let rule = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec: {host: b, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 2}}}}
";
    let busiest = |heard: &[String]| {
        heard.iter().map(|line| heard.iter().filter(|other| *other == line).count()).max()
    };
    wait_for("connections are shared", FELT, || {
        assert!(calls.call(&["unary", "1"])?.ends_with("OK\n"));
        Ok((busiest(&calls.heard()?) > Some(2)).then_some(()))
    })?;
    calls.bound.write(rule)?;
    wait_for("connections are given up", FELT, || {
        let before = calls.heard()?.len();
        for _ in 0..12 {
            assert!(calls.call(&["unary", "1"])?.ends_with("OK\n"));
        }
        Ok((busiest(&calls.heard()?[before..]) <= Some(2)).then_some(()))
    })
}
