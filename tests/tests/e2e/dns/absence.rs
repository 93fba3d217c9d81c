//! Names are resolved without a proxy, too: then by the name server alone.

use anyhow::Result;
use fairlead_lab::{FairleadNode, Half, Host as _, python, wait_for};
use nix::sys::signal::Signal;

use super::{B, B_ADDRESS, OTHER_ADDRESS, Scene, first_line};
use crate::clients::SOON;

/// Ways to ask; dig's is TCP.
const WAYS: [&str; 3] = ["musl", "connected", "tcp"];

/// Returns the address that `name` has in `a`.
fn address(scene: &Scene, way: &str, name: &str) -> Result<String> {
    if way == "tcp" {
        return Ok(scene.dig_short(&scene.mesh.a, &["+tcp", name])?.join(" "));
    }
    let said = Scene::ask(&scene.mesh.a, way, scene.servers()[0], name)?;
    Ok(first_line(&said)?.rsplit(' ').next().unwrap_or_default().to_owned())
}

/// Asserts that the name server answers everything.
fn assert_straight(scene: &Scene) -> Result<()> {
    for way in WAYS {
        for name in ["other.example", B] {
            assert_eq!(address(scene, way, name)?, OTHER_ADDRESS, "{way} {name}");
        }
    }
    Ok(())
}

fn wait_for_the_proxy(scene: &Scene) -> Result<()> {
    wait_for("the proxy's answers", SOON * 2, || {
        Ok((address(scene, "musl", B)? == B_ADDRESS).then_some(()))
    })
}

/// Kills halves of the node while its supervisor cannot start others.
fn kill_for_good(node: &mut FairleadNode, halves: &[Half]) -> Result<()> {
    node.signal(Signal::SIGSTOP)?;
    halves.iter().try_for_each(|half| node.kill_half(*half))
}

#[test]
fn without_a_proxy_the_name_server_answers_and_then_the_proxy_again() -> Result<()> {
    let mut scene = Scene::new("dns-proxy-dies")?;
    let kept = python("dns_client.py", &["kept", &scene.servers()[0].to_string(), B]);
    let mut kept = scene.mesh.a.spawn_interactive(kept)?;
    kept.send_line("")?;
    kept.wait_for_output(B_ADDRESS, SOON)?;
    kill_for_good(&mut scene.mesh.n1, &[Half::Proxy])?;
    // Capture notices at once, but not before: what is asked earlier waits for the next proxy, too.
    wait_for("the name server's answers", SOON, || {
        Ok(address(&scene, "musl", B).is_ok_and(|found| found == OTHER_ADDRESS).then_some(()))
    })?;
    assert_straight(&scene)?;
    // What a socket sends that was connected before waits for the next proxy.
    kept.send_line("")?;
    scene.mesh.n1.signal(Signal::SIGCONT)?;
    wait_for_the_proxy(&scene)?;
    assert_eq!(address(&scene, "tcp", B)?, B_ADDRESS);
    wait_for("an answer to the old socket", SOON, || {
        Ok((kept.stdout()?.matches(B_ADDRESS).count() == 2).then_some(()))
    })?;
    Ok(())
}

#[test]
fn without_both_halves_the_name_server_answers() -> Result<()> {
    let mut scene = Scene::new("dns-both-die")?;
    assert_eq!(address(&scene, "connected", B)?, B_ADDRESS);
    kill_for_good(&mut scene.mesh.n1, &[Half::Capture, Half::Proxy])?;
    wait_for("the name server's answers", SOON, || {
        Ok((address(&scene, "musl", B)? == OTHER_ADDRESS).then_some(()))
    })?;
    assert_straight(&scene)?;
    scene.mesh.n1.signal(Signal::SIGCONT)?;
    wait_for_the_proxy(&scene)
}

#[test]
fn without_capture_the_proxy_goes_on_and_its_successor_takes_over() -> Result<()> {
    let mut scene = Scene::new("dns-capture-dies")?;
    kill_for_good(&mut scene.mesh.n1, &[Half::Capture])?;
    for way in WAYS {
        assert_eq!(address(&scene, way, B)?, B_ADDRESS, "{way}");
        assert_eq!(address(&scene, way, "other.example")?, OTHER_ADDRESS, "{way}");
    }
    scene.mesh.n1.signal(Signal::SIGCONT)?;
    wait_for_the_proxy(&scene)?;
    scene.mesh.n1.kill_half(Half::Proxy)?;
    wait_for_the_proxy(&scene)
}

#[test]
fn a_pod_that_is_released_asks_its_name_server_with_the_sockets_it_has() -> Result<()> {
    let scene = Scene::new("dns-release")?;
    let server = scene.servers()[0].to_string();
    let kept = python("dns_client.py", &["kept", &server, "other.example"]);
    let mut kept = scene.mesh.a.spawn_interactive(kept)?;
    kept.send_line("")?;
    kept.wait_for_output(OTHER_ADDRESS, SOON)?;
    scene.mesh.n1.release(&scene.mesh.a)?;
    wait_for("the end of the release", SOON, || {
        Ok((!scene.mesh.n1.enrolled()?.contains("shop/a ")).then_some(()))
    })?;
    assert_straight(&scene)?;
    kept.send_line("")?;
    wait_for("an answer to the same socket", SOON, || {
        Ok((kept.stdout()?.matches(OTHER_ADDRESS).count() == 2).then_some(()))
    })?;
    assert!(!kept.stdout()?.contains("error"));
    scene.mesh.n1.enrol(&scene.mesh.a)?;
    wait_for_the_proxy(&scene)
}

#[test]
fn an_upgrade_loses_no_query() -> Result<()> {
    let mut scene = Scene::new("dns-upgrade")?;
    let server = scene.servers()[0].to_string();
    let clients = [B, "other.example"].map(|name| {
        let many = python("dns_client.py", &["many", &server, name]);
        scene.mesh.a.spawn_interactive(many)
    });
    let clients: Vec<_> = clients.into_iter().collect::<Result<_>>()?;
    for _ in 0..2 {
        let next = scene.mesh.n1.settings().start()?;
        let old = std::mem::replace(&mut scene.mesh.n1, next);
        old.ended(SOON * 3)?;
    }
    for mut client in clients {
        client.close_input();
        let said = client.wait(SOON)?.checked()?.stdout;
        assert!(said.trim_end().ends_with(" failed 0"), "{said}");
    }
    Ok(())
}
