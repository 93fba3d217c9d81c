//! The lab keeps what it promises, before anything is proved with it.

use std::{
    env, fs,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use fairlead_lab::{
    Capture, CaptureOptions, Child, Host as _, Lab, MeshConfig, PeerAuthentication, PeerMode, Pod,
    PodSpec, Policy, PolicyAction, ServiceEntry, TcpState, http_get, python, wait_for,
};
use mesh_api::config::LocalConfig;
use nix::sys::signal::Signal;

/// Set in the process that is killed in the middle of a lab.
const VICTIM: &str = "FAIRLEAD_LAB_VICTIM";

/// Generous for what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(20);

const ECHO_PORT: u16 = 7000;

#[test]
fn pods_reach_each_other_over_both_families_and_both_paths() -> Result<()> {
    let lab = Lab::new("reach")?;
    let server = lab.node(1).add_pod(PodSpec::new("server"))?;
    let near = lab.node(1).add_pod(PodSpec::new("near"))?;
    let far = lab.node(2).add_pod(PodSpec::new("far"))?;
    let _http = serve_http(&server)?;
    for client in [&near, &far] {
        for address in [server.v4(8080), server.v6(8080)] {
            let output = curl(client, address)?;
            let own = if address.is_ipv4() { client.v4(0).ip() } else { client.v6(0).ip() };
            assert!(output.contains(&format!("peer={own}")), "{output}");
        }
    }
    Ok(())
}

#[test]
fn nodes_reach_pods_and_loopback_works_everywhere() -> Result<()> {
    let lab = Lab::new("nodes")?;
    let pod = lab.node(1).add_pod(PodSpec::new("a"))?;
    let _http = serve_http(&pod)?;
    assert_eq!(http_get(lab.node(1).netns(), pod.v4(8080), "/")?.status, 200);
    assert_eq!(lab.node(2).http_get(pod.v6(8080), "/")?.status, 200);
    assert_eq!(pod.http_get("127.0.0.1:8080".parse()?, "/")?.status, 200);
    assert_eq!(pod.http_get("[::1]:8080".parse()?, "/")?.status, 200);
    Ok(())
}

#[test]
fn three_nodes_are_joined_each_with_each() -> Result<()> {
    let lab = Lab::with_nodes("three", 3)?;
    let mut pods = Vec::new();
    for node in lab.nodes() {
        pods.push(node.add_pod(PodSpec::new("a"))?);
    }
    let _servers = pods.iter().map(serve_http).collect::<Result<Vec<_>>>()?;
    for client in &pods {
        for server in &pods {
            assert_eq!(client.http_get(server.v4(8080), "/")?.status, 200);
            assert_eq!(client.http_get(server.v6(8080), "/")?.status, 200);
        }
    }
    Ok(())
}

#[test]
fn a_service_address_exists_nowhere() -> Result<()> {
    let lab = Lab::new("vip")?;
    let pod = lab.node(1).add_pod(PodSpec::new("a"))?;
    for address in ["10.96.0.10:80", "[fd00:96::10]:80"] {
        let error = pod.http_get(address.parse()?, "/").unwrap_err();
        assert!(format!("{error:#}").contains("unreachable"), "{address}: {error:#}");
    }
    Ok(())
}

#[test]
fn namespaces_are_set_up_for_measuring() -> Result<()> {
    let lab = Lab::new("sysctl")?;
    let plain = lab.node(1).add_pod(PodSpec::new("plain"))?;
    let load = lab.node(1).add_pod(PodSpec::new("load").for_load())?;
    let congestion_control = "net/ipv4/tcp_congestion_control";
    for netns in [lab.node(1).netns(), plain.netns(), load.netns()] {
        assert_eq!(netns.sysctl(congestion_control)?, "reno");
    }
    assert_eq!(lab.node(2).netns().sysctl("net/ipv4/ip_forward")?, "1");
    assert_eq!(load.netns().sysctl("net/ipv4/ip_local_port_range")?, "1024\t65535");
    assert_ne!(plain.netns().sysctl("net/ipv4/ip_local_port_range")?, "1024\t65535");
    Ok(())
}

#[test]
fn a_program_that_fails_or_hangs_is_an_error_with_its_output() -> Result<()> {
    let lab = Lab::new("errors")?;
    let pod = lab.node(1).add_pod(PodSpec::new("a"))?;
    let failed = pod.run(["sh", "-c", "echo out; echo err >&2; exit 3"])?;
    assert_eq!((failed.stdout.as_str(), failed.stderr.as_str()), ("out\n", "err\n"));
    let message = failed.checked().unwrap_err().to_string();
    assert!(message.contains("exit status: 3") && message.contains("err"), "{message}");

    let started = Instant::now();
    assert!(pod.run_within(["sleep", "60"], Duration::from_millis(50)).is_err());
    assert!(started.elapsed() < SOON);
    assert!(pod.run(["no-such-program"]).is_err());

    let silent = pod.spawn(["true"])?.wait_for_output("ready", SOON).unwrap_err();
    assert!(silent.to_string().contains("ended without writing"), "{silent}");
    Ok(())
}

#[test]
fn dropping_a_child_ends_its_children_too() -> Result<()> {
    let lab = Lab::new("group")?;
    let pod = lab.node(1).add_pod(PodSpec::new("a"))?;
    let mut shell = pod.spawn(["sh", "-c", "sleep 600 & echo $!; wait"])?;
    shell.wait_for_output("\n", SOON)?;
    let grandchild = shell.stdout()?.trim().to_owned();
    assert!(is_alive(&grandchild));
    drop(shell);
    wait_for("the end of the grandchild", SOON, || Ok((!is_alive(&grandchild)).then_some(())))
}

#[test]
fn sockets_of_a_pod_are_seen_from_outside() -> Result<()> {
    let lab = Lab::new("sockets")?;
    let server = lab.node(1).add_pod(PodSpec::new("server"))?;
    let client = lab.node(2).add_pod(PodSpec::new("client"))?;
    let _echo = server.serve(python("echo.py", &[ECHO_PORT.to_string()]), ECHO_PORT)?;
    let mut open = client.spawn_interactive(talk(server.v4(ECHO_PORT)))?;
    open.wait_for_output("connected", SOON)?;
    let established = |pod: &Pod| -> Result<usize> {
        let sockets = pod.tcp_sockets()?;
        Ok(sockets.iter().filter(|socket| socket.state == TcpState::Established).count())
    };
    assert_eq!((established(&server)?, established(&client)?), (1, 1));
    assert!(open.resources()?.descriptors > 3);

    open.send_line("send hello")?;
    open.wait_for_output("received hello", SOON)?;
    open.send_line("shutdown")?;
    open.wait_for_output("closed", SOON)?;
    open.close_input();
    open.wait(SOON)?.checked()?;
    Ok(())
}

#[test]
fn a_capture_holds_every_packet_between_start_and_finish() -> Result<()> {
    let lab = Lab::new("capture")?;
    let server = lab.node(2).add_pod(PodSpec::new("server"))?;
    let client = lab.node(1).add_pod(PodSpec::new("client"))?;
    let _http = serve_http(&server)?;
    curl(&client, server.v4(8080))?;
    let wire = lab.capture_wire()?;
    let pod = Capture::start(&client, "eth0", CaptureOptions::default())?;
    for _ in 0..5 {
        curl(&client, server.v6(8080))?;
    }
    let (wire, pod) = (wire.finish()?, pod.finish()?);

    for capture in [&wire, &pod] {
        assert_eq!(capture.dropped(), 0);
        assert_eq!(capture.ports_dialled()?, [(8080, 5)].into());
        assert_eq!(capture.count("tcp.flags.fin == 1 && tcp.srcport == 8080")?, 5);
        assert_eq!(capture.count("ip && tcp")?, 0);
        assert!(capture.contains(b"peer=")?);
        assert!(!capture.contains(b"pear=")?);
        assert!(capture.tcp_payload_bytes("tcp.dstport == 8080")? > 5 * 50);
    }
    let sources =
        wire.fields("tcp.flags.syn == 1 && tcp.flags.ack == 0", &["ipv6.src", "tcp.dstport"])?;
    assert_eq!(sources[0], [client.ipv6().to_string(), "8080".to_owned()]);
    Ok(())
}

#[test]
fn the_programs_do_what_the_tests_will_rely_on() -> Result<()> {
    let lab = Lab::new("programs")?;
    let server = lab.node(1).add_pod(PodSpec::new("server"))?;
    let client = lab.node(2).add_pod(PodSpec::new("client"))?;
    let host = [server.ipv4().to_string(), server.ipv6().to_string()];

    let _servers = [
        server.serve(python("echo.py", &["7001"]), 7001)?,
        server.serve(python("server_first.py", &["7002"]), 7002)?,
        server.serve(python("transfer.py", &["serve", "7003"]), 7003)?,
        server.serve(python("half_close.py", &["serve", "7004"]), 7004)?,
        server.serve(python("reset.py", &["serve", "7005"]), 7005)?,
        server.serve(python("urgent.py", &["serve", "7006"]), 7006)?,
    ];
    for host in &host {
        let run = |name: &str, args: &[&str]| -> Result<String> {
            Ok(client.run(python(name, args))?.checked()?.stdout)
        };
        run("transfer.py", &["run", host, "7003", "8"])?;
        run("half_close.py", &["client-first", host, "7004", "4"])?;
        run("half_close.py", &["server-first", host, "7004", "4"])?;
        run("half_close.py", &["both", host, "7004", "4"])?;
        run("urgent.py", &["run", host, "7006"])?;
        assert_eq!(run("reset.py", &["expect", host, "7005"])?, "reset\n");
        let mut talk = client.spawn_interactive(python("talk.py", &[host.as_str(), "7002"]))?;
        talk.wait_for_output("received 220 ready", SOON)?;
    }
    let _sender = client.run(python("reset.py", &["send", host[0].as_str(), "7001"]))?.checked()?;
    Ok(())
}

#[test]
fn a_deleted_pod_leaves_its_addresses_to_another() -> Result<()> {
    let lab = Lab::new("delete")?;
    let old = lab.node(1).add_pod(PodSpec::new("old"))?;
    let client = lab.node(2).add_pod(PodSpec::new("client"))?;
    let mut server = serve_http(&old)?;
    curl(&client, old.v4(8080))?;
    curl(&client, old.v6(8080))?;
    old.delete()?;
    assert!(!old.netns().path().exists());
    assert!(!server.wait(SOON)?.success());
    let new = lab.node(1).add_pod(PodSpec::new("new").host_number(last_number(&old)))?;
    assert_eq!((old.ipv4(), old.ipv6()), (new.ipv4(), new.ipv6()));
    let _http = serve_http(&new)?;
    curl(&client, old.v4(8080))?;
    curl(&client, old.v6(8080))?;
    Ok(())
}

#[test]
fn labs_in_parallel_do_not_meet() -> Result<()> {
    let run = |name: &'static str| {
        move || -> Result<(String, String)> {
            let lab = Lab::new(name)?;
            let server = lab.node(1).add_pod(PodSpec::new("server"))?;
            let client = lab.node(2).add_pod(PodSpec::new("client"))?;
            let page = lab.dir().join("index.html");
            fs::write(&page, name)?;
            let dir = lab.dir().display().to_string();
            let _http = server
                .serve(["/usr/bin/python3", "-m", "http.server", "-d", &dir, "8080"], 8080)?;
            let page = client.http_get(server.v4(8080), "/index.html")?.body;
            Ok((page, lab.id().to_owned()))
        }
    };
    let names = ["first", "second", "third"];
    let threads = names.map(|name| thread::spawn(run(name)));
    let mut ids = Vec::new();
    for (name, thread) in names.into_iter().zip(threads) {
        let (page, id) = thread.join().unwrap().unwrap();
        assert_eq!(page, name);
        ids.push(id);
    }
    for id in &ids {
        assert_gone(id)?;
    }
    Ok(())
}

#[test]
fn a_panicking_test_leaves_nothing_behind() -> Result<()> {
    let mut seen = None;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::new("panic").unwrap();
        let pod = lab.node(1).add_pod(PodSpec::new("a")).unwrap();
        let daemon = pod.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"]).unwrap();
        let child = pod.spawn(["sleep", "600"]).unwrap();
        let daemon = daemon.stdout.trim().to_owned();
        let child_pid = child.pid().to_string();
        assert!(is_alive(&daemon) && is_alive(&child_pid));
        seen = Some((lab.id().to_owned(), [daemon, child_pid]));
        panic!("a test that fails");
    }));
    assert!(outcome.is_err());
    let (id, pids) = seen.unwrap();
    assert_gone(&id)?;
    for pid in &pids {
        assert!(!is_alive(pid), "process {pid} survived");
    }
    Ok(())
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next_lab() -> Result<()> {
    let out = tempfile::NamedTempFile::new()?;
    let mut victim = Command::new(env::current_exe()?)
        .args(["--exact", "the_victim_waits_in_its_lab", "--ignored", "--nocapture"])
        .env(VICTIM, out.path())
        .stdout(Stdio::null())
        .spawn()?;
    let told = wait_for("the victim's lab", SOON, || {
        let text = fs::read_to_string(out.path())?;
        Ok(text.ends_with('\n').then_some(text))
    });
    victim.kill()?;
    victim.wait()?;
    let told = told?;
    let (id, pid) = told.trim().split_once(' ').unwrap();
    assert!(Path::new("/run/netns").join(format!("{id}-n1-a")).exists());
    assert!(is_alive(pid), "processes outlive their lab's owner");

    let _lab = Lab::new("next")?;
    assert_gone(id)?;
    assert!(!is_alive(pid));
    Ok(())
}

#[test]
#[ignore = "run, and killed, by what_a_killed_process_left_is_removed_by_the_next_lab"]
fn the_victim_waits_in_its_lab() -> Result<()> {
    let Some(out) = env::var_os(VICTIM) else {
        return Ok(());
    };
    let lab = Lab::new("victim")?;
    let pod = lab.node(1).add_pod(PodSpec::new("a"))?;
    let child = pod.spawn(["sleep", "600"])?;
    fs::write(out, format!("{} {}\n", lab.id(), child.pid()))?;
    thread::sleep(SOON);
    Ok(())
}

#[test]
fn the_proxy_reads_the_configuration_that_the_lab_writes() -> Result<()> {
    let lab = Lab::new("config")?;
    let server = lab.node(1).add_pod(PodSpec::new("server").namespace("shop"))?;
    let client = lab.node(2).add_pod(PodSpec::new("client").service_account("buyer"))?;
    let mut config = MeshConfig::of([&server, &client]);
    let vip: std::net::Ipv4Addr = "10.96.0.10".parse()?;
    let service = ServiceEntry::new("shop", "cart").address(vip).port(80, 8080);
    config.add_service(service, [&server]);
    config.policies.push(Policy::new(PolicyAction::Allow, "shop", "buyers").from_pod(&client));
    let strict = PeerAuthentication::of_pod(&server, PeerMode::Strict);
    config.peer_authentications.push(strict.port(9090, PeerMode::Permissive));
    let path = lab.dir().join("mesh.yaml");
    config.write(&path)?;
    let read = LocalConfig::parse(&fs::read_to_string(&path)?)?;
    assert_eq!(read.warnings, []);
    let [server_read, client_read] = &read.workloads[..] else { panic!("{:?}", read.workloads) };
    assert_eq!(server_read.identity.to_string(), server.identity());
    assert_eq!(client_read.identity.to_string(), client.identity());
    assert_eq!(server_read.addresses, [server.v4(0).ip(), server.v6(0).ip()]);
    assert_eq!(server_read.node.0.as_ref(), "n1");
    assert_eq!(read.services[0].addresses[0].address.addr(), vip);
    let ports: Vec<_> = server_read.services.values().collect();
    assert_eq!(ports, [&[(80, 8080)].into()]);
    assert!(read.policies.iter().any(|policy| policy.key.to_string() == "shop/buyers"));
    assert!(!server_read.authorization_policies.is_empty());
    Ok(())
}

#[test]
fn signals_and_ends_are_seen() -> Result<()> {
    let lab = Lab::new("signals")?;
    let pod = lab.node(1).add_pod(PodSpec::new("a"))?;
    let mut child = pod.spawn(["sleep", "600"])?;
    assert!(child.is_running()?);
    child.signal(Signal::SIGTERM)?;
    assert!(!child.wait(SOON)?.success());
    assert!(!child.is_running()?);
    child.signal(Signal::SIGTERM)?;
    child.kill()
}

fn serve_http(pod: &Pod) -> Result<Child> {
    pod.serve(python("http_server.py", &["8080"]), 8080)
}

fn curl(client: &Pod, server: SocketAddr) -> Result<String> {
    let url = format!("http://{server}/");
    Ok(client.run(["curl", "-sS", "--fail", "--max-time", "10", &url])?.checked()?.stdout)
}

fn talk(server: SocketAddr) -> Vec<String> {
    python("talk.py", &[server.ip().to_string(), server.port().to_string()])
}

fn last_number(pod: &Pod) -> u8 {
    pod.ipv4().octets()[3]
}

/// A process that only waits to be reaped is not alive.
fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

fn assert_gone(lab: &str) -> Result<()> {
    for dir in ["/run/netns", "/var/lib/fairlead-lab"] {
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            assert!(!name.starts_with(&format!("{lab}-")), "{dir}/{name} is left");
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(&format!("/{lab}-")), "a mount of {lab} is left");
    Ok(())
}
