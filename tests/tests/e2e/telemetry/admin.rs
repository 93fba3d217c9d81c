//! The admin page: what the proxy knows and does, and what it logs.

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{FairleadNode, Half, Host as _, wait_for};
use serde_json::Value;

use crate::{
    clients::{SOON, curl, say, talk},
    mesh::{ECHO, HTTP, Mesh},
};

/// Address of the admin page.
const ADMIN: &str = "127.0.0.1:15000";

/// Port on which nobody listens.
const NOBODY: u16 = 9;

/// One of so many connections that end well is logged.
const ONE_IN: u32 = 4;

fn config_dump(node: &FairleadNode) -> Result<Value> {
    let page = node.node().http_get(ADMIN.parse()?, "/config_dump")?;
    Ok(serde_json::from_str(&page.body)?)
}

/// Returns the only connection of the pod in a direction.
fn connection(node: &FairleadNode, pod: &str, direction: &str) -> Result<Value> {
    let dump = config_dump(node)?;
    let listed = &dump["workloadState"][pod]["connections"][direction];
    let listed = listed.as_array().with_context(|| format!("{pod} {direction} in {dump:#}"))?;
    ensure!(listed.len() == 1, "{listed:?}");
    Ok(listed[0].clone())
}

#[test]
fn the_admin_page_lists_what_is_known_and_each_live_connection_with_both_identities() -> Result<()>
{
    let mut mesh = Mesh::new("admin")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    let mut client = talk(&mesh.a, b.v4(ECHO))?;
    say(&mut client, "hello")?;

    for (node, pod, direction) in
        [(&mesh.n1, "shop/a", "outbound"), (&mesh.n2, "shop/b", "inbound")]
    {
        let shown = connection(node, pod, direction)?;
        assert_eq!(shown["srcIdentity"], mesh.a.identity());
        assert_eq!(shown["dstIdentity"], b.identity());
        assert_eq!(shown["originalDst"], b.v4(ECHO).to_string());
        assert_eq!(shown["protocol"], "HBONE");
        let actual = shown["actualDst"].as_str().context("no address")?;
        ensure!(actual.ends_with(":15008"), "{shown}");
        ensure!(shown["bytesSent"].as_u64() >= Some(5), "{shown}");
        let dump = config_dump(node)?;
        for known in ["workloads", "services", "certificates"] {
            ensure!(!dump[known].as_array().context(known)?.is_empty(), "no {known}");
        }
        ensure!(!dump.to_string().contains("PRIVATE KEY"), "a key is shown");
    }
    drop(client);
    wait_for("the connection is listed no more", SOON, || {
        Ok(config_dump(&mesh.n1)?["workloadState"]["shop/a"].is_null().then_some(()))
    })
}

#[test]
fn the_certificates_on_the_admin_page_are_those_of_the_workloads() -> Result<()> {
    // Verifies the chain `$1` of PEM against the roots `$2`, both in base64.
    const VERIFY: &str = r#"dir=$(mktemp -d) && echo "$1" | base64 -d > "$dir/own" &&
        echo "$2" | base64 -d > "$dir/root" && openssl verify -CAfile "$dir/root" "$dir/own" &&
        openssl x509 -in "$dir/own" -noout -ext subjectAltName; status=$?; rm -r "$dir"; exit $status"#;
    let mesh = Mesh::new("certs")?;
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    let dump = config_dump(&mesh.n1)?;
    let listed = dump["certificates"].as_array().context("no certificates")?;
    let own = listed.iter().find(|listed| listed["identity"] == mesh.a.identity());
    let own = own.with_context(|| format!("{listed:?}"))?;
    assert_eq!(own["state"], "Available");
    let pem = |list: &str| own[list][0]["pem"].as_str().context(list.to_owned());
    let (chain, root) = (pem("certChain")?, pem("rootCerts")?);
    let said = mesh.n1.node().run(["sh", "-c", VERIFY, "sh", chain, root])?.checked()?.stdout;
    ensure!(said.contains("OK") && said.contains(&format!("URI:{}", mesh.a.identity())), "{said}");
    Ok(())
}

#[test]
fn what_is_logged_is_changed_while_the_proxy_runs() -> Result<()> {
    let mesh = Mesh::new("levels")?;
    let post = |query: &str| -> Result<String> {
        let url = format!("http://{ADMIN}/logging?{query}");
        let output = mesh.n1.node().run(["curl", "-s", "-X", "POST", &url])?;
        Ok(output.stdout)
    };
    let said = post("level=access:off")?;
    ensure!(said.contains("access=off"), "{said}");
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    // The other side's line comes after what this side would have written.
    mesh.n2.wait_for_access(|line| line.is("direction", "inbound"))?;
    post("reset")?;
    assert!(curl(&mesh.a, mesh.d.v4(HTTP))?.is_ok());
    mesh.n1.wait_for_access(|line| line.is("dst.workload", "d"))?;
    let lines = mesh.n1.access_log()?;
    ensure!(!lines.iter().any(|line| line.is("dst.workload", "b")), "{lines:?}");
    let said = post("level=access:loud")?;
    ensure!(said.contains("access:loud") && said.contains("target=level"), "{said}");
    Ok(())
}

#[test]
fn one_command_changes_what_every_process_logs_also_one_that_is_started_later() -> Result<()> {
    let mesh = Mesh::new("loglevel")?;
    let change = |argument: &str| -> Result<String> {
        let program = mesh.n1.binary().to_string_lossy();
        let run_dir = mesh.n1.run_dir().to_string_lossy();
        let command = [&*program, "log-level", argument, "--run-dir", &*run_dir];
        Ok(mesh.n1.node().run(command)?.checked()?.stdout)
    };
    // The supervisor has told the proxy, so it has changed what it logs itself.
    let wait_for_level = |level: &str| {
        wait_for(level, SOON, || {
            let page = mesh.n1.node().http_get(ADMIN.parse()?, "/logging");
            // Nobody answers while the proxy is started again.
            Ok(page.is_ok_and(|page| page.body.contains(level)).then_some(()))
        })
    };
    let wait_for_a_proxy =
        || wait_for("a proxy", SOON, || Ok(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok().then_some(())));
    // Said at level info: by the supervisor, and by capture.
    let counts = || -> Result<[usize; 2]> {
        let log = mesh.n1.log()?;
        let count = |said: &str| log.lines().filter(|line| line.contains(said)).count();
        Ok([count(r#""message":"linked""#), count(r#""message":"serving a proxy""#)])
    };
    ensure!(change("warn")? == "current log level is warn\n");
    wait_for_level("is warn")?;
    let before = counts()?;
    ensure!(before.iter().all(|count| *count > 0), "{before:?}");
    mesh.n1.kill_half(Half::Proxy)?;
    wait_for_a_proxy()?;
    wait_for_level("is warn")?;
    assert_eq!(counts()?, before);

    ensure!(change("--reset")?.contains("info"));
    wait_for_level("info")?;
    mesh.n1.kill_half(Half::Proxy)?;
    wait_for_a_proxy()?;
    wait_for("lines of level info", SOON, || {
        Ok(counts()?.iter().zip(before).all(|(now, before)| *now > before).then_some(()))
    })
}

#[test]
fn of_connections_that_end_well_as_many_are_logged_as_wanted_and_all_that_fail() -> Result<()> {
    let mesh = Mesh::with_args("sample", &["--access-log-sample", &ONE_IN.to_string()])?;
    for _ in 0..2 * ONE_IN {
        assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    }
    for _ in 0..ONE_IN {
        assert!(!curl(&mesh.a, mesh.b.v4(NOBODY))?.is_ok());
    }
    let failed = |line: &fairlead_lab::AccessLine| !line.is("reason", "completed");
    wait_for("all that failed", SOON, || {
        let lines = mesh.n1.access_log()?;
        let outbound = |line: &&fairlead_lab::AccessLine| line.is("direction", "outbound");
        let failures = lines.iter().filter(outbound).filter(|line| failed(line)).count();
        Ok((failures == ONE_IN as usize).then_some(()))
    })?;
    // The connections came one after the other on one thread, or on several.
    let well = mesh.n1.access_log()?.iter().filter(|line| !failed(line)).count();
    ensure!((1..2 * ONE_IN as usize).contains(&well), "{well} lines");
    let closed = mesh.n1.metrics()?.sum(
        "istio_tcp_connections_closed_total",
        &[("reporter", "source"), ("response_flags", "-")],
    );
    ensure!(closed >= f64::from(2 * ONE_IN), "{closed} counted");
    Ok(())
}
