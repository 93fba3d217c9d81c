use std::convert::Infallible;

use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command};

const LOCAL: &str = "--local-config m --local-ca ca";

fn authority(options: &str) -> Result<Option<Authority>, EnrolError> {
    let arguments = format!("fairlead-node run --node-name n1 {options}");
    let cli = Cli::try_parse_from(arguments.split_whitespace()).unwrap();
    let Command::Run(args) = cli.command else { panic!("another command") };
    Authority::of(&args, &Sources::of(&args).unwrap())
}

fn api(options: &str) -> ApiAccess {
    match authority(&format!("{LOCAL} --enrol kubernetes {options}")) {
        Ok(Some(Authority::Kubernetes(api))) => api,
        other => panic!("{options}: {other:?}"),
    }
}

#[test]
fn the_agent_asks_whom_it_is_told_to_ask() {
    assert!(authority(LOCAL).unwrap().is_none());
    assert!(authority("--xds-address a:1").unwrap().is_none());
    let remote = authority("--xds-address a:1 --enrol control-plane").unwrap();
    assert!(matches!(remote, Some(Authority::ControlPlane(..))), "{remote:?}");
    for (options, url, files) in [
        ("--kube-api http://127.0.0.1:8001", "http://127.0.0.1:8001/", &[][..]),
        (
            "--kube-api https://k:6443 --kube-token t --kube-root-ca r",
            "https://k:6443/",
            &["t", "r"],
        ),
        (
            "--kube-service-host 10.96.0.1 --kube-service-port 443",
            "https://10.96.0.1:443/",
            &[
                "/var/run/secrets/kubernetes.io/serviceaccount/token",
                "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            ],
        ),
        (
            "--kube-service-host fd00::1 --kube-token t --kube-root-ca r",
            "https://[fd00::1]:443/",
            &["t", "r"],
        ),
    ] {
        let api = api(options);
        assert_eq!(api.url.to_string(), url, "{options}");
        let found = Authority::Kubernetes(api);
        assert_eq!(found.files(), files.iter().map(Path::new).collect::<Vec<_>>(), "{options}");
    }
}

#[test]
fn options_that_make_no_sense_together_are_refused_with_a_remedy() {
    for (options, expected) in [
        ("--enrol control-plane", EnrolError::NoControlPlane),
        ("--enrol kubernetes", EnrolError::NoApiServer),
        ("--enrol kubernetes --kube-api https://a", EnrolError::NoRoots),
        ("--kube-api http://a", EnrolError::WithoutEffect("--kube-api")),
        ("--kube-token t", EnrolError::WithoutEffect("--kube-token")),
        ("--kube-root-ca r", EnrolError::WithoutEffect("--kube-root-ca")),
    ] {
        assert_eq!(authority(&format!("{LOCAL} {options}")).unwrap_err(), expected, "{options}");
    }
}

#[test]
fn every_file_that_is_read_later_can_be_found_elsewhere() {
    let elsewhere = |path: &Path| Ok::<_, Infallible>(Path::new("/x").join(path));
    let api = api("--kube-api https://k --kube-token t --kube-root-ca r");
    let remote = "--xds-address a:1 --xds-root-ca r --auth-token t --enrol control-plane";
    for mut found in [Authority::Kubernetes(api), authority(remote).unwrap().unwrap()] {
        found.map_files(elsewhere).unwrap();
        assert_eq!(found.files().len(), 2);
        assert!(found.files().iter().all(|file| file.starts_with("/x")), "{found:?}");
    }
}
