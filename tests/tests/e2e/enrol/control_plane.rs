//! Operators say where the pods' networks are, and the control plane which pods take part.

use anyhow::Result;
use fairlead_lab::{
    Child, ControlPlane, FairleadNode, Half, Host as _, Lab, Pod, PodSpec, manifest, python,
    wait_for,
};

use super::{SOON, wait_for_state, wait_until_unlisted};
use crate::{
    clients::{curl, say, talk},
    halves::privileges::assert_unprivileged,
    mesh::{ECHO, HTTP},
};

/// User and group of the agent.
const AGENT: [&str; 2] = ["65533", "65532"];

/// Two nodes, each with a pod, that follow a control plane on a third.
struct Scene {
    n1: FairleadNode,
    n2: FairleadNode,
    plane: ControlPlane,
    a: Pod,
    b: Pod,
    _servers: [Child; 2],
    lab: Lab,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let lab = Lab::with_nodes(name, 3)?;
        let pod = |node: u8, name: &str| {
            let spec = PodSpec::new(name).namespace("shop").service_account(name);
            lab.node(node).add_pod(spec)
        };
        let (a, b) = (pod(1, "a")?, pod(2, "b")?);
        let servers = [("http_server.py", HTTP), ("echo.py", ECHO)];
        let [http, echo] =
            servers.map(|(program, port)| b.serve(python(program, &[port.to_string()]), port));
        let plane = ControlPlane::on(lab.node(3), &lab.nodes()[..2])?;
        for pod in [&a, &b] {
            plane.write(&format!("pod-{}.yaml", pod.name()), &manifest::pod(pod, ""))?;
        }
        plane.write("namespace.yaml", &manifest::namespace("shop", ""))?;
        let plane = plane.start()?;
        let start = |node: u8| {
            plane.join(FairleadNode::on(lab.node(node))).args(["--enrol", "control-plane"]).start()
        };
        let (n1, n2) = (start(1)?, start(2)?);
        Ok(Self { n1, n2, plane, a, b, _servers: [http?, echo?], lab })
    }

    /// Registers both pods.
    fn register(&self) -> Result<()> {
        for (node, pod) in [(&self.n1, &self.a), (&self.n2, &self.b)] {
            let said = node.enrol(pod)?.stdout;
            assert!(said.contains("registered, out"), "{said}");
        }
        Ok(())
    }

    fn opt_in(&self, opted_in: bool) -> Result<()> {
        let labels = if opted_in { manifest::AMBIENT } else { "" };
        self.plane.write("namespace.yaml", &manifest::namespace("shop", labels))?;
        let state = if opted_in { "ready" } else { "out" };
        wait_for_state(&self.n1, "shop/a", state)?;
        wait_for_state(&self.n2, "shop/b", state)?;
        Ok(())
    }

    /// Returns whether a request from one pod to the other crosses the wire as it is; fails unless
    /// it is answered, and if it crosses in another way too.
    fn crosses_plainly(&self) -> Result<bool> {
        let wire = self.lab.capture_wire()?;
        assert!(curl(&self.a, self.b.v4(HTTP))?.is_ok(), "{}", self.n1.complaints());
        let dialled = wire.finish()?.ports_dialled()?;
        let is_plain = dialled.contains_key(&HTTP);
        // The tunnel may have been there before.
        assert!(!is_plain || !dialled.contains_key(&15008), "{dialled:?}");
        Ok(is_plain)
    }
}

#[test]
fn registered_pods_are_in_the_mesh_while_the_control_plane_says_so() -> Result<()> {
    let scene = Scene::new("directory")?;
    scene.register()?;
    let out = wait_for_state(&scene.n1, "shop/a", "out")?;
    wait_for("what to do is said", SOON, || {
        let listed = scene.n1.enrolled()?;
        Ok(listed.contains("istio.io/dataplane-mode=ambient").then_some(()))
    })?;
    assert_eq!(out["service_account"], "a");
    assert!(scene.crosses_plainly()?);

    scene.opt_in(true)?;
    assert!(!scene.crosses_plainly()?);
    scene.opt_in(false)?;
    assert!(scene.crosses_plainly()?);

    scene.opt_in(true)?;
    assert!(!scene.crosses_plainly()?);
    scene.n1.release(&scene.a)?;
    wait_until_unlisted(&scene.n1, "shop/a")?;
    Ok(())
}

#[test]
fn nothing_is_released_while_the_control_plane_is_away_or_the_agent_or_everything() -> Result<()> {
    let mut scene = Scene::new("away")?;
    scene.register()?;
    scene.opt_in(true)?;
    let control_plane = scene.plane.settings();
    scene.plane.kill()?;
    assert!(!scene.crosses_plainly()?);

    let agent = scene.n1.pid_of(Half::Agent)?;
    assert_unprivileged(agent, AGENT)?;
    scene.n1.kill_half(Half::Agent)?;
    wait_for("another agent", SOON, || {
        let agents = scene.n1.pids_of(Half::Agent)?;
        Ok((!agents.is_empty() && !agents.contains(&agent)).then_some(()))
    })?;
    scene.n1.kill_half(Half::Capture)?;
    wait_for_state(&scene.n1, "shop/a", "ready")?;
    assert!(!scene.crosses_plainly()?);

    scene.plane = control_plane.start()?;
    let settings = scene.n1.settings();
    scene.n1.kill()?;
    scene.n1 = settings.start()?;
    wait_for_state(&scene.n1, "shop/a", "ready")?;
    assert!(!scene.crosses_plainly()?);
    scene.opt_in(false)?;
    assert!(scene.crosses_plainly()?);
    Ok(())
}

#[test]
fn connections_outlive_a_change_of_the_label() -> Result<()> {
    let scene = Scene::new("outlivelabel")?;
    scene.register()?;
    let mut before = talk(&scene.a, scene.b.v4(ECHO))?;
    scene.opt_in(true)?;
    let mut during = talk(&scene.a, scene.b.v4(ECHO))?;
    let own = scene.a.identity();
    scene.plane.write("namespace.yaml", &manifest::namespace("shop", ""))?;
    // Both ends have captured connections, which are let finish.
    wait_for_state(&scene.n1, "shop/a", "draining")?;
    wait_for_state(&scene.n2, "shop/b", "draining")?;
    for (connection, name) in [(&mut before, "before"), (&mut during, "during")] {
        say(connection, name)?;
    }
    drop(during);
    // The tunnel proves who the client is.
    scene.n2.wait_for_access(|line| line.is("src.identity", &own))?;
    Ok(())
}

#[test]
fn a_pod_that_opts_out_is_left_out_of_a_namespace_that_takes_part() -> Result<()> {
    let scene = Scene::new("optout")?;
    scene.register()?;
    scene.opt_in(true)?;
    let out = manifest::pod(&scene.a, "istio.io/dataplane-mode: none");
    scene.plane.write("pod-a.yaml", &out)?;
    wait_for_state(&scene.n1, "shop/a", "out")?;
    assert!(scene.crosses_plainly()?);
    wait_for_state(&scene.n2, "shop/b", "ready")?;
    scene.plane.write("pod-a.yaml", &manifest::pod(&scene.a, ""))?;
    wait_for_state(&scene.n1, "shop/a", "ready")?;
    assert!(!scene.crosses_plainly()?);
    Ok(())
}
