//! Adapters, by which benchmarks start other proxies: the one for another `fairlead-node`.

use std::{fs, path::Path};

use anyhow::Result;
use fairlead_lab::{
    Adapter, AdapterSite, Host as _, Lab, MeshConfig, Pod, PodSpec, fairlead_program, python,
};

use crate::{clients::curl, mesh::HTTP};

/// Port of HBONE tunnels.
const HBONE: u16 = 15008;

const ADAPTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/adapters/fairlead.sh");

/// Starts `command` on both nodes, for a mesh of `pods`.
fn start(lab: &Lab, command: &str, pods: &[Pod]) -> Result<Vec<Adapter>> {
    let config = lab.dir().join("mesh.yaml");
    MeshConfig::of(pods).write(&config)?;
    let ca = lab.dir().join("ca");
    let on = |node: &fairlead_lab::Node| {
        let state = lab.dir().join(format!("state-{}", node.name()));
        Adapter::start(
            command,
            &AdapterSite { node, pods, config: &config, ca: &ca, state: &state },
        )
    };
    lab.nodes().iter().map(on).collect()
}

/// Returns the ports dialled on the wire while `client` gets a page from `server`.
fn dialled(lab: &Lab, client: &Pod, server: &Pod) -> Result<Vec<u16>> {
    let capture = lab.capture_wire()?;
    let answer = curl(client, server.v4(HTTP))?;
    assert!(answer.is_ok(), "{answer:?}");
    Ok(capture.finish()?.ports_dialled()?.into_keys().collect())
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(!dir.exists() || fs::read_dir(dir)?.next().is_none())
}

#[test]
fn the_adapter_takes_pods_into_its_mesh_and_leaves_the_nodes_as_they_were() -> Result<()> {
    let lab = Lab::new("adapter")?;
    let client = lab.node(1).add_pod(PodSpec::new("client").service_account("client"))?;
    let server = lab.node(2).add_pod(PodSpec::new("server").service_account("server"))?;
    let _server = server.serve(python("http_server.py", &[HTTP.to_string()]), HTTP)?;

    // Words as in a shell: an assignment, the adapter, its arguments.
    let program = fairlead_program();
    let command = format!("RUST_LOG=info {ADAPTER} '{}' --workers 1", program.display());
    let adapters = start(&lab, &command, &[client.clone(), server.clone()])?;
    assert_eq!(dialled(&lab, &client, &server)?, [HBONE]);
    for adapter in &adapters {
        let processes = adapter.processes()?;
        assert_eq!(processes[0].name, "fairlead-node run", "not the adapter's shell");
        assert!(processes.iter().all(|process| process.resources.resident_kib > 0));
    }

    adapters.into_iter().try_for_each(Adapter::stop)?;
    assert_eq!(dialled(&lab, &client, &server)?, [HTTP]);
    for node in lab.nodes() {
        let pins = Path::new("/sys/fs/bpf").join(node.netns().name());
        assert!(is_empty(&pins)?, "{}", pins.display());
    }
    Ok(())
}

#[test]
fn an_adapter_that_ends_before_it_is_ready_says_why() -> Result<()> {
    let lab = Lab::new("adapter-ends")?;
    let pod = lab.node(1).add_pod(PodSpec::new("a"))?;
    let error = start(&lab, &format!("{ADAPTER} /bin/false"), &[pod]).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("ended before it was ready"), "{text}");
    assert!(text.contains("kill"), "{text}");
    Ok(())
}
