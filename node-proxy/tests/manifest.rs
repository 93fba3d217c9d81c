//! The deployment manifest and the command line fit each other.

use clap::Parser;
use fairlead_node::cli::Cli;
use serde_json::Value;

const MANIFEST: &str = include_str!("../../deploy/fairlead-node.yaml");

#[test]
fn the_daemon_set_starts_the_proxy_with_options_that_it_has() {
    let documents: Vec<Value> = serde_saphyr::from_multiple(MANIFEST).unwrap();
    let daemon_set = documents.iter().find(|d| d["kind"] == "DaemonSet").unwrap();
    let container = &daemon_set["spec"]["template"]["spec"]["containers"][0];
    let args: Vec<_> =
        container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(args.contains(&"run"), "{args:?}");
    let command_line = std::iter::once("fairlead-node").chain(args.iter().copied());
    Cli::try_parse_from(command_line).unwrap();

    let mounts: Vec<_> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|mount| mount["mountPath"].as_str())
        .collect();
    for path in args.iter().filter(|arg| arg.starts_with('/')) {
        assert!(mounts.iter().any(|mount| path.starts_with(mount)), "{path} is not mounted");
    }
}
