//! Bodies of any size and framing, and answers without one, with servers and clients that everybody
//! uses.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use fairlead_lab::{
    Child, Host as _, Pod,
    mesh::{TRANSFER, vip4},
    python, wait_for,
};

use super::{Bound, FELT};

/// Bytes of a large body.
const LARGE: usize = 20 << 20;

/// Where the servers are asked.
fn service() -> SocketAddr {
    vip4(10, TRANSFER)
}

/// Runs curl in `a` on some path of the service; returns what it printed.
fn curl(bound: &Bound, path: &str, options: &[&str]) -> Result<String> {
    let url = format!("http://{}{path}", service());
    let command = [&["curl", "-sS", "--max-time", "50"], options, &[&url]].concat();
    Ok(bound.mesh.a.run(command)?.checked()?.stdout)
}

/// Writes a large file for bodies, no two parts of which are the same; returns its path and digest.
fn large_file(bound: &Bound) -> Result<(PathBuf, String)> {
    let path = bound.mesh.lab.dir().join("large");
    let content: Vec<u8> = (0..LARGE as u64 / 8).flat_map(u64::to_be_bytes).collect();
    fs::write(&path, content)?;
    let output = bound.mesh.a.run(["sha256sum".into(), path.display().to_string()])?.checked()?;
    let digest = output.stdout.split(' ').next().unwrap_or_default().to_owned();
    Ok((path, digest))
}

fn digest_of(bound: &Bound, path: &str) -> Result<String> {
    let output = bound.mesh.a.run(["sha256sum", path])?.checked()?;
    Ok(output.stdout.split(' ').next().unwrap_or_default().to_owned())
}

fn serve_nginx(bound: &Bound, pod: &Pod) -> Result<Child> {
    let dir = bound.mesh.lab.dir().join(format!("nginx-{}", pod.name()));
    fs::create_dir_all(&dir)?;
    let config = dir.join("nginx.conf");
    let files = bound.mesh.lab.dir().display();
    fs::write(
        &config,
        format!(
            "daemon off; user root; worker_processes 1; pid nginx.pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen {TRANSFER}; listen [::]:{TRANSFER};
    root {files};
    location = /none {{ return 204; }}
  }}
}}
"
        ),
    )?;
    let (dir, config) = (dir.display().to_string(), config.display().to_string());
    pod.serve(["nginx", "-p", &dir, "-c", &config], TRANSFER)
}

#[test]
fn files_of_nginx_arrive_whole_in_part_or_not_at_all_as_they_are_asked_for() -> Result<()> {
    let bound = Bound::new("wpnginx")?;
    let (_, digest) = large_file(&bound)?;
    let _servers = [serve_nginx(&bound, &bound.mesh.b)?, serve_nginx(&bound, &bound.second)?];
    let target = bound.mesh.lab.dir().join("received").display().to_string();
    let facts = "%{http_code} %{size_download} %header{content-length} %{num_connects}\n";
    let get = |path: &str, options: &[&str]| {
        curl(&bound, path, &[&["-o", &target, "-w", facts], options].concat())
    };
    assert_eq!(get("/large", &[])?, format!("200 {LARGE} {LARGE} 1\n"));
    assert_eq!(digest_of(&bound, &target)?, digest);
    assert_eq!(get("/large", &["-r", "1000-1999"])?, "206 1000 1000 1\n");
    assert_eq!(get("/large", &["-I"])?, format!("200 0 {LARGE} 1\n"));
    assert_eq!(get("/none", &[])?, "204 0  1\n");
    let tag = curl(&bound, "/large", &["-I", "-o", "/dev/null", "-w", "%header{etag}"])?;
    assert_eq!(get("/large", &["-H", &format!("If-None-Match: {tag}")])?, "304 0  1\n");
    // A client's connection serves many requests.
    let again = format!("http://{}/none", service());
    let several = get("/none", &["-o", &target, &again])?;
    assert_eq!(several, "204 0  1\n204 0  0\n");
    Ok(())
}

#[test]
fn bodies_of_requests_and_answers_arrive_whole_however_they_are_framed() -> Result<()> {
    let bound = Bound::new("wpbodies")?;
    let (large, digest) = large_file(&bound)?;
    let large = large.display().to_string();
    let serve = |pod: &Pod| pod.serve(python("http_bodies.py", &[TRANSFER.to_string()]), TRANSFER);
    let servers = [serve(&bound.mesh.b)?, serve(&bound.second)?];
    for (options, framing) in [
        (&["-H", "Expect:"][..], "length"),
        (&["-H", "Expect: 100-continue"], "length"),
        (&["-H", "Transfer-Encoding: chunked"], "chunked"),
    ] {
        let answer = curl(&bound, "/upload", &[options, &["-T", &large]].concat())?;
        let expected = format!("size={LARGE} digest={digest} framing={framing} ");
        assert!(answer.starts_with(&expected), "{options:?}: {answer}");
    }
    let facts = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}\n"];
    assert_eq!(curl(&bound, &format!("/chunked/{LARGE}"), &facts)?, format!("200 {LARGE}\n"));
    for (path, status) in [("/none", "204 0\n"), ("/same", "304 0\n"), ("/hints", "200 6\n")] {
        assert_eq!(curl(&bound, path, &facts)?, status, "{path}");
    }
    let head = ["-I", "-o", "/dev/null", "-w", "%{http_code} %header{content-length}"];
    assert_eq!(curl(&bound, "/", &head)?, "200 12345");
    // Connections to the endpoints serve many requests, too.
    for _ in 0..10 {
        curl(&bound, "/", &[])?;
    }
    for server in &servers {
        let said = server.stdout()?;
        let mut connections: Vec<_> = said.lines().collect();
        let requests = connections.len();
        connections.sort_unstable();
        connections.dedup();
        assert!(requests == 0 || connections.len() < requests, "{said}");
    }
    Ok(())
}

#[test]
fn a_limit_of_time_begins_with_the_end_of_the_request_and_holds_to_the_end_of_the_answer()
-> Result<()> {
    let bound = Bound::new("wplimit")?;
    let (large, digest) = large_file(&bound)?;
    let large = large.display().to_string();
    let serve = |pod: &Pod| pod.serve(python("http_bodies.py", &[TRANSFER.to_string()]), TRANSFER);
    let _servers = [serve(&bound.mesh.b)?, serve(&bound.second)?];
    bound.write(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec:
  hosts: [b]
  http:
  - match: [{uri: {exact: /delayed}}]
    fault: {delay: {percentage: {value: 100}, fixedDelay: 6s}}
    timeout: 5s
    route: [{destination: {host: b}}]
  - timeout: 5s
    route: [{destination: {host: b}}]
    headers: {response: {set: {x-mark: 'here'}}}
",
    )?;
    bound.wait_for_mark("here")?;
    // It takes twice the limit to send.
    let answer = curl(&bound, "/upload", &["-T", &large, "--limit-rate", "2M"])?;
    assert!(answer.contains(&digest), "{answer}");
    // The delay of a fault is none of the answer's time.
    assert_eq!(curl(&bound, "/delayed", &[])?, "plain\n");
    let url = format!("http://{}/stall", service());
    let facts = "%{http_code} %{size_download}";
    let command = ["curl", "-sS", "--max-time", "50", "-o", "/dev/null", "-w", facts, &url];
    let output = bound.mesh.a.run(command)?;
    // What has begun cannot become another answer: it breaks off.
    assert!(!output.success() && output.stdout == "200 10", "{output:?}");
    let line = r#""GET /stall HTTP/1.1" 200 UT response_timeout"#;
    wait_for(line, FELT, || Ok(bound.waypoint.log()?.contains(line).then_some(())))
}

#[test]
fn a_limit_of_time_for_each_try_ends_with_the_request_and_holds_to_the_first_of_the_answer()
-> Result<()> {
    let bound = Bound::new("wptries")?;
    let (large, digest) = large_file(&bound)?;
    let large = large.display().to_string();
    let serve = |pod: &Pod| pod.serve(python("http_bodies.py", &[TRANSFER.to_string()]), TRANSFER);
    let _servers = [serve(&bound.mesh.b)?, serve(&bound.second)?];
    bound.write(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: shop}
spec:
  hosts: [b]
  http:
  - retries: {attempts: 2, perTryTimeout: 2s, retryOn: 5xx}
    route: [{destination: {host: b}}]
    headers: {response: {set: {x-mark: 'here'}}}
",
    )?;
    bound.wait_for_mark("here")?;
    // It takes longer to send than a try may wait.
    let answer = curl(&bound, "/upload", &["-T", &large, "--limit-rate", "4M"])?;
    assert!(answer.contains(&digest), "{answer}");
    // What has begun is the answer, however long the rest takes: it is the client that gives up.
    let url = |path: &str| format!("http://{}{path}", service());
    let facts = "%{http_code} %{size_download} %{exitcode}";
    let stalled =
        ["curl", "-sS", "--max-time", "8", "-o", "/dev/null", "-w", facts, &url("/stall")];
    let output = bound.mesh.a.run(stalled)?;
    assert_eq!(output.stdout, "200 10 28", "{output:?}");
    // Of an endpoint that says nothing, the next one is asked.
    let begun = Instant::now();
    let held = curl(&bound, "/hold", &["-o", "/dev/null", "-w", "%{http_code}"])?;
    assert_eq!(held, "504");
    assert!(begun.elapsed() >= Duration::from_secs(6), "{:?}", begun.elapsed());
    for line in [
        r#""GET /stall HTTP/1.1" 200 DC downstream_remote_disconnect"#,
        r#""GET /hold HTTP/1.1" 504 URX,UT upstream_per_try_timeout"#,
    ] {
        wait_for(line, FELT, || Ok(bound.waypoint.log()?.contains(line).then_some(())))?;
    }
    Ok(())
}
