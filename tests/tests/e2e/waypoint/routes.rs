//! What virtual services and destination rules say is done.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fairlead_lab::{
    Host as _, Pod, manifest,
    mesh::{HTTP, file_of},
};

use super::{Bound, b};
use crate::{
    clients::{Answer, curl_with},
    peer::dial,
};

/// The two versions as subsets.
const SUBSETS: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec:
  host: b
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
";

/// Has answers of a route say that it is in force.
const MARKED: &str = "    headers: {response: {set: {x-mark: 'here'}}}\n";

/// Returns a virtual service with these `http` routes, and the subsets.
fn routes(http: &str) -> String {
    format!(
        "{SUBSETS}apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: b, namespace: shop}}
spec:
  hosts: [b]
  http:
{http}"
    )
}

#[test]
fn requests_go_to_the_version_that_their_route_names() -> Result<()> {
    let bound = Bound::new("wpversions")?;
    bound.write(&routes(
        "  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: b, subset: v2}}]
  - route: [{destination: {host: b, subset: v1}}]
",
    ))?;
    let jason = ["-H", "end-user: jason"];
    bound.wait_for(&jason, |answer| bound.is_second(answer) && answer.is_ok())?;
    bound.wait_for(&[], |answer| bound.is_first(answer) && answer.is_ok())?;
    for _ in 0..10 {
        assert!(bound.is_second(&bound.get(&jason)?));
        assert!(bound.is_first(&bound.get(&[])?));
    }
    Ok(())
}

/// Gets a page over a connection that stays open; returns the line of it that says who answers.
fn ask(connection: &mut BufReader<TcpStream>) -> Result<String> {
    connection.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n")?;
    let mut line = String::new();
    while !line.starts_with("peer=") {
        line.clear();
        ensure!(connection.read_line(&mut line)? > 0, "the connection has ended");
    }
    Ok(line)
}

#[test]
fn clients_get_the_version_that_is_meant_for_the_labels_that_they_have_when_they_ask() -> Result<()>
{
    let bound = Bound::new("wplabels")?;
    let label = |client: &Pod, stage: &str| {
        let pod = manifest::pod(client, &format!("stage: {stage}"));
        bound.mesh.plane.write(&file_of(client), &pod)
    };
    // That of a namespace without a waypoint, and whose services none sends anything to.
    let (here, elsewhere) = (&bound.mesh.a, &bound.mesh.c);
    label(here, "late")?;
    label(elsewhere, "early")?;
    bound.write(&routes(
        "  - match: [{sourceLabels: {stage: early}}]
    route: [{destination: {host: b, subset: v2}}]
  - route: [{destination: {host: b, subset: v1}}]
",
    ))?;
    let first = |answer: &Answer| bound.is_first(answer) && answer.is_ok();
    let second = |answer: &Answer| bound.is_second(answer) && answer.is_ok();
    bound.wait_for_of(elsewhere, &[], second)?;
    bound.wait_for_of(here, &[], first)?;
    for _ in 0..10 {
        assert!(second(&curl_with(elsewhere, b(), &[])?));
        assert!(first(&curl_with(here, b(), &[])?));
    }
    let mut kept = BufReader::new(dial(elsewhere, b())?);
    let [of_first, of_second] =
        [&bound.mesh.b, &bound.second].map(|pod| format!("own={} ", pod.ipv4()));
    assert!(ask(&mut kept)?.contains(&of_second));

    label(elsewhere, "late")?;
    bound.wait_for_of(elsewhere, &[], first)?;
    assert!(ask(&mut kept)?.contains(&of_first), "the connection is older than the labels");
    label(here, "early")?;
    bound.wait_for_of(here, &[], second)?;
    assert!(first(&curl_with(elsewhere, b(), &[])?));
    Ok(())
}

#[test]
fn clients_get_the_version_that_is_meant_for_their_namespace() -> Result<()> {
    let bound = Bound::new("wpspaces")?;
    let (here, elsewhere) = (&bound.mesh.a, &bound.mesh.c);
    bound.write(&routes(&format!(
        "  - match: [{{sourceNamespace: {}}}]
    route: [{{destination: {{host: b, subset: v2}}}}]
  - route: [{{destination: {{host: b, subset: v1}}}}]
",
        elsewhere.namespace()
    )))?;
    bound.wait_for_of(elsewhere, &[], |answer| bound.is_second(answer) && answer.is_ok())?;
    bound.wait_for_of(here, &[], |answer| bound.is_first(answer) && answer.is_ok())?;
    for _ in 0..10 {
        assert!(bound.is_second(&curl_with(elsewhere, b(), &[])?));
        assert!(bound.is_first(&curl_with(here, b(), &[])?));
    }
    Ok(())
}

#[test]
fn requests_are_shared_out_by_weight() -> Result<()> {
    let bound = Bound::new("wpweights")?;
    bound.write(&routes(&format!(
        "  - route:
    - {{destination: {{host: b, subset: v1}}, weight: 50}}
    - {{destination: {{host: b, subset: v2}}, weight: 50}}
{MARKED}"
    )))?;
    bound.wait_for_mark("here")?;
    let (mut first, mut second) = (0, 0);
    for _ in 0..100 {
        let answer = bound.get(&[])?;
        assert!(answer.is_ok(), "{answer:?}");
        first += u32::from(bound.is_first(&answer));
        second += u32::from(bound.is_second(&answer));
    }
    assert_eq!(first + second, 100);
    // Five standard deviations either way.
    assert!((25..=75).contains(&first), "{first} of 100");
    Ok(())
}

#[test]
fn faults_are_injected_for_those_that_they_are_meant_for() -> Result<()> {
    let bound = Bound::new("wpfaults")?;
    bound.write(&routes(
        "  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 500}}
    route: [{destination: {host: b}}]
  - match: [{headers: {end-user: {exact: slow}}}]
    fault: {delay: {percent: 100, fixedDelay: 2s}}
    route: [{destination: {host: b}}]
  - route: [{destination: {host: b}}]
",
    ))?;
    bound.wait_for(&["-H", "end-user: jason"], |answer| answer.status == "500")?;
    let started = Instant::now();
    assert!(bound.get(&["-H", "end-user: slow"])?.is_ok());
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert!(bound.get(&[])?.is_ok());
    let metrics = bound.waypoint.metrics()?;
    for (code, flags) in [("500", "FI"), ("200", "DI")] {
        let labels = [("response_code", code), ("response_flags", flags)];
        assert!(metrics.sum("istio_requests_total", &labels) >= 1.0, "{flags}: {metrics:?}");
    }
    Ok(())
}

#[test]
fn an_answer_that_takes_too_long_is_given_up() -> Result<()> {
    let bound = Bound::new("wptimeout")?;
    // The delay of one service is the slowness of the next one: `d` is bound, too.
    bound.write(&routes(
        "  - match: [{uri: {prefix: /quick}}]
    timeout: 0.5s
    route: [{destination: {host: silent}}]
  - route: [{destination: {host: b}}]
",
    ))?;
    let silent = "import socket,time; s=socket.create_server(('0.0.0.0',8081)); time.sleep(600)";
    let _server = bound.second.spawn(["python3", "-c", silent])?;
    let service = fairlead_lab::manifest::service(
        ["shop", "silent"],
        "",
        &[crate::mesh::vip4(30, 0).ip()],
        &[(80, 8081)],
        Some("b"),
    );
    bound.mesh.plane.write("silent.yaml", &service)?;
    let quick = ["--path-as-is", "--request-target", "/quick"];
    let answer = bound.wait_for(&quick, |answer| answer.status == "504")?;
    assert!(!answer.is_refused());
    let labels = [("response_code", "504"), ("response_flags", "UT")];
    let metrics = bound.waypoint.metrics()?;
    assert!(metrics.sum("istio_requests_total", &labels) >= 1.0, "{metrics:?}");
    Ok(())
}

#[test]
fn a_request_is_tried_at_another_endpoint_when_one_cannot_be_reached() -> Result<()> {
    let mut bound = Bound::new("wpretry")?;
    bound.write(&routes("  - route: [{destination: {host: b}}]\n"))?;
    bound.wait_for(&[], |answer| bound.is_second(answer))?;
    // Still known and thought ready, but its server is gone.
    bound.server.kill()?;
    for _ in 0..20 {
        let answer = curl_with(&bound.mesh.a, b(), &[])?;
        assert!(answer.is_ok(), "{answer:?}\n{}", bound.waypoint.log()?);
    }
    Ok(())
}

#[test]
fn copies_of_requests_reach_the_mirror_and_answers_come_from_the_destination() -> Result<()> {
    let mut bound = Bound::new("wpmirror")?;
    bound.write(&routes(&format!(
        "  - route: [{{destination: {{host: b, subset: v1}}}}]
    mirror: {{host: b, subset: v2}}
    mirrorPercentage: {{value: 100}}
{MARKED}"
    )))?;
    bound.wait_for_mark("here")?;
    // From here on version 2 says what it is asked.
    bound.server.kill()?;
    let recorder = ["python3", "-u", "-m", "http.server", &HTTP.to_string()].map(str::to_owned);
    let recorder =
        bound.second.serve(recorder.iter().map(String::as_str).collect::<Vec<_>>(), HTTP)?;
    fairlead_lab::wait_for("a copy at the mirror", super::FELT, || {
        let answer = bound.get(&["--request-target", "/copied"])?;
        assert!(bound.is_first(&answer) && answer.is_ok(), "{answer:?}");
        Ok(recorder.stderr()?.contains("GET /copied").then_some(()))
    })
}

#[test]
fn redirects_lead_where_they_say_and_scripts_are_told_what_goes_wrong() -> Result<()> {
    let bound = Bound::new("wpanswers")?;
    bound.write(&routes(&format!(
        "  - match: [{{uri: {{prefix: /moved}}}}]
    redirect: {{uri: /new, authority: new.example.com}}
  - match: [{{uri: {{prefix: /lost}}}}]
    corsPolicy: {{allowOrigins: [{{exact: 'https://shop.example'}}]}}
    route: [{{destination: {{host: nobody}}}}]
  - route: [{{destination: {{host: b}}}}]
{MARKED}"
    )))?;
    bound.wait_for_mark("here")?;
    // In place of curl's own address of the server.
    let shown = |header: &str| {
        format!("\n--curl status=%{{http_code}} remote=%header{{{header}}} local_port=0\n")
    };
    // Clients of a mesh name the port that they connect to.
    let to = |path| ["--request-target", path, "-H", "host: b:9080", "-H"];
    let moved = [&to("/moved/x")[..], &["origin: https://shop.example", "-w", &shown("location")]];
    let moved = bound.get(&moved.concat())?;
    assert_eq!((moved.status.as_str(), &*moved.remote), ("301", "http://new.example.com/new"));
    let allowed = shown("access-control-allow-origin");
    for (origin, expected) in
        [("https://shop.example", "https://shop.example"), ("https://a.b", "")]
    {
        let origin = format!("origin: {origin}");
        let lost = bound.get(&[&to("/lost")[..], &[&origin, "-w", &allowed]].concat())?;
        assert_eq!((lost.status.as_str(), &*lost.remote), ("503", expected), "{origin}");
    }
    Ok(())
}

#[test]
fn a_rule_of_passthrough_leaves_who_addresses_the_service_with_any_endpoint() -> Result<()> {
    let bound = Bound::new("wppassthrough")?;
    bound.write(&format!(
        "{}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: b, namespace: shop}}
spec:
  host: b
  trafficPolicy: {{loadBalancer: {{simple: PASSTHROUGH}}}}
",
        routes(&format!("  - route: [{{destination: {{host: b}}}}]\n{MARKED}"))
            .trim_start_matches(SUBSETS)
    ))?;
    bound.wait_for_mark("here")?;
    // The address of the service is nobody's: of those behind it, any one is meant.
    bound.wait_for(&[], |answer| answer.is_ok() && bound.is_first(answer))?;
    bound.wait_for(&[], |answer| answer.is_ok() && bound.is_second(answer))?;
    for _ in 0..10 {
        let answer = bound.get(&[])?;
        assert!(answer.is_ok(), "{answer:?}");
    }
    Ok(())
}

#[test]
fn nothing_is_sent_in_plaintext_where_a_rule_wants_tls() -> Result<()> {
    let bound = Bound::new("wptls")?;
    bound.write(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec: {host: b, trafficPolicy: {tls: {mode: SIMPLE}}}
",
    )?;
    bound.wait_for(&[], |answer| answer.status == "503")?;
    let log = bound.waypoint.log()?;
    assert!(log.contains("TLS_error"), "{log}");
    Ok(())
}

#[test]
fn a_client_without_a_cookie_is_given_one_and_stays_where_it_is() -> Result<()> {
    let bound = Bound::new("wpcookie")?;
    let policy = "  host: b
  trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: place, path: /, ttl: 60s}}}}
";
    let route = format!("  - route: [{{destination: {{host: b}}}}]\n{MARKED}");
    bound.write(&routes(&route).replacen("  host: b\n", policy, 1))?;
    bound.wait_for_mark("here")?;
    let cookies = bound.mesh.lab.dir().join("cookies").display().to_string();
    let mut owners = HashSet::new();
    for _ in 0..20 {
        // A jar that is written, and one that is read: curl is a browser here.
        let first = bound.get(&["-c", &cookies])?;
        let jar = fs::read_to_string(&cookies)?;
        assert!(jar.contains("place"), "{jar}");
        for _ in 0..5 {
            let again = bound.get(&["-b", &cookies])?;
            assert_eq!(again.seen("own"), first.seen("own"));
        }
        owners.insert(first.seen("own").to_owned());
    }
    // Nobody tells whom chance gives what: both, but for one in half a million.
    assert_eq!(owners.len(), 2);
    Ok(())
}

#[test]
fn requests_past_the_limits_of_a_rule_are_turned_away() -> Result<()> {
    let bound = Bound::new("wplimits")?;
    bound.write(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec:
  host: b
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec:
  hosts: [b]
  http:
  - route: [{destination: {host: b}}]
    headers: {response: {set: {x-mark: 'here'}}}
",
    )?;
    bound.wait_for_mark("here")?;
    // Each thread of the waypoint may have a connection in any case.
    let crowd = format!("-c{}", 8 + std::thread::available_parallelism()?.get());
    let url = format!("http://{}/", b());
    let output = bound.mesh.a.run(["wrk", "-t1", &crowd, "-d2s", &url])?;
    let metrics = bound.waypoint.metrics()?;
    let labels = [("response_code", "503"), ("response_flags", "UO")];
    assert!(metrics.sum("istio_requests_total", &labels) > 0.0, "{output:?}\n{metrics:?}");
    let answered = [("response_code", "200"), ("response_flags", "-")];
    assert!(metrics.sum("istio_requests_total", &answered) > 0.0, "{metrics:?}");
    Ok(())
}

#[test]
fn no_request_fails_while_routes_change() -> Result<()> {
    let bound = Bound::new("wpchanges")?;
    let load = ["wrk", "-t1", "-c4", "-d6s", &format!("http://{}/", b())].map(str::to_owned);
    let mut load = bound.mesh.a.spawn(load.iter().map(String::as_str).collect::<Vec<_>>())?;
    for number in 0..20 {
        let subset = ["v1", "v2"][number % 2];
        let mark = format!("m{number}");
        let route = format!(
            "  - route: [{{destination: {{host: b, subset: {subset}}}}}]
    headers: {{response: {{set: {{x-mark: {mark}}}}}}}
"
        );
        bound.write(&routes(&route))?;
        bound.wait_for_mark(&mark)?;
    }
    let output = load.wait(super::FELT)?;
    assert!(output.stdout.contains("requests in"), "{output:?}");
    for failure in ["Non-2xx", "Socket errors"] {
        assert!(!output.stdout.contains(failure), "{output:?}\n{}", bound.waypoint.log()?);
    }
    Ok(())
}
