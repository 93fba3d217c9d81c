use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command};

fn sources(options: &str) -> Result<Sources, SourcesError> {
    let arguments = format!("fairlead-node run --node-name n1 {options}");
    let cli = Cli::try_parse_from(arguments.split_whitespace()).unwrap();
    let Command::Run(args) = cli.command else { panic!("another command") };
    Sources::of(&args)
}

#[test]
fn each_of_the_two_comes_from_one_place() {
    let kind = |options| {
        let Sources { configuration, certificates, svid_ttl } = sources(options).unwrap();
        let mesh = match configuration {
            Configuration::File(file) => file.display().to_string(),
            Configuration::ControlPlane(control_plane, _) => control_plane.address.to_string(),
        };
        let ca = match certificates {
            Certificates::Local(dir) => dir.display().to_string(),
            Certificates::ControlPlane(control_plane) => control_plane.address.to_string(),
        };
        (mesh, ca, svid_ttl.as_secs())
    };
    for (options, mesh, ca, ttl) in [
        ("--local-config m --local-ca ca", "m", "ca", 3_600),
        ("--xds-address a:1", "https://a:1", "https://a:1", 86_400),
        ("--xds-address a:1 --ca-address b:2", "https://a:1", "https://b:2", 86_400),
        ("--xds-address a:1 --local-ca ca", "https://a:1", "ca", 3_600),
        ("--local-config m --ca-address b:2 --svid-ttl 2h", "m", "https://b:2", 7_200),
    ] {
        assert_eq!(kind(options), (mesh.to_owned(), ca.to_owned(), ttl), "{options}");
    }
}

#[test]
fn options_that_make_no_sense_together_are_refused_with_a_remedy() {
    let without_effect =
        |option, variable, needs| SourcesError::WithoutEffect { option, variable, needs };
    for (options, expected) in [
        ("", SourcesError::NoConfiguration),
        ("--local-ca ca", SourcesError::NoConfiguration),
        ("--local-config m", SourcesError::NoCertificates),
        ("--local-config m --xds-address a", SourcesError::TwoConfigurations),
        ("--xds-address a --local-ca ca --ca-address b", SourcesError::TwoCertificates),
        (
            "--local-config m --local-ca ca --xds-root-ca r",
            without_effect("--xds-root-ca", "XDS_ROOT_CA", "--xds-address"),
        ),
        (
            "--xds-address a --local-ca ca --ca-root-ca r",
            without_effect("--ca-root-ca", "CA_ROOT_CA", "--ca-address"),
        ),
        (
            "--local-config m --local-ca ca --auth-token t",
            without_effect("--auth-token", "AUTH_TOKEN", "--xds-address"),
        ),
    ] {
        let error = sources(options).unwrap_err();
        assert_eq!(error, expected, "{options}");
        assert!(error.to_string().contains(": "), "{error}");
    }
}

#[test]
fn the_certificate_service_is_trusted_like_the_control_plane_unless_said_otherwise() {
    let ca = |options| match sources(options).unwrap().certificates {
        Certificates::ControlPlane(control_plane) => *control_plane,
        Certificates::Local(dir) => panic!("{}", dir.display()),
    };
    let defaults = ca("--xds-address a");
    assert_eq!(defaults.roots, Path::new("/var/run/secrets/istio/root-cert.pem"));
    assert_eq!(defaults.token, Path::new("/var/run/secrets/tokens/istio-token"));
    assert!(defaults.server_name.is_none());
    let same = ca("--xds-address a --xds-root-ca r --alt-xds-hostname istiod.test");
    assert_eq!(same.roots, Path::new("r"));
    assert_eq!(same.server_name, mesh_api::control_plane::server_name("istiod.test").ok());
    let own = ca("--xds-address a --ca-root-ca r --alt-ca-hostname ca.test --auth-token t");
    assert_eq!((own.roots.as_path(), own.token.as_path()), (Path::new("r"), Path::new("t")));
    assert_eq!(own.server_name, mesh_api::control_plane::server_name("ca.test").ok());
}

#[test]
fn a_proxy_that_is_not_told_its_pod_goes_by_its_node() {
    let introduction = |options| match sources(options).unwrap().configuration {
        Configuration::ControlPlane(_, introduction) => *introduction,
        Configuration::File(file) => panic!("{}", file.display()),
    };
    let plain = introduction("--xds-address a");
    assert_eq!((plain.pod_name.as_str(), plain.pod_namespace.as_str()), ("n1", "istio-system"));
    let told = introduction("--xds-address a --pod-name p --instance-ip 10.0.0.1 --cluster-id c");
    assert_eq!((told.pod_name.as_str(), told.cluster_id.as_str()), ("p", "c"));
    assert_eq!(told.address, "10.0.0.1".parse().ok());
}

#[test]
fn every_file_that_is_read_later_can_be_found_elsewhere() {
    let mut sources =
        sources("--xds-address a --xds-root-ca x --ca-root-ca c --auth-token t").unwrap();
    sources.map_files(|file| Ok::<_, ()>(Path::new("/at").join(file))).unwrap();
    let files: Vec<_> =
        sources.files().into_iter().map(Path::display).map(|f| f.to_string()).collect();
    assert_eq!(files, ["/at/x", "/at/t", "/at/c", "/at/t"]);
}
