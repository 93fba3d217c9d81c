//! Debian packages.

use super::{Group, find_program, require_root};
use crate::process::Step;
use anyhow::{Result, bail};
use std::process::Command;

/// How a package's presence is recognised.
enum Evidence {
    /// This program can be started, wherever it came from.
    Program(&'static str),
    /// dpkg has the package.
    Dpkg,
}

struct Package {
    name: &'static str,
    group: Group,
    evidence: Evidence,
}

const PACKAGES: [Package; 21] = [
    Package { name: "g++", group: Group::Build, evidence: Evidence::Program("g++") },
    Package { name: "llvm-22-dev", group: Group::Build, evidence: Evidence::Dpkg },
    Package { name: "libpolly-22-dev", group: Group::Build, evidence: Evidence::Dpkg },
    Package { name: "libzstd-dev", group: Group::Build, evidence: Evidence::Dpkg },
    Package { name: "zlib1g-dev", group: Group::Build, evidence: Evidence::Dpkg },
    Package { name: "bind9-dnsutils", group: Group::Lab, evidence: Evidence::Program("dig") },
    Package { name: "bpftool", group: Group::Lab, evidence: Evidence::Program("bpftool") },
    Package { name: "curl", group: Group::Lab, evidence: Evidence::Program("curl") },
    Package { name: "iperf3", group: Group::Lab, evidence: Evidence::Program("iperf3") },
    Package { name: "iproute2", group: Group::Lab, evidence: Evidence::Program("ss") },
    Package {
        name: "kubernetes-client",
        group: Group::Lab,
        evidence: Evidence::Program("kubectl"),
    },
    Package { name: "nginx-light", group: Group::Lab, evidence: Evidence::Program("nginx") },
    Package { name: "openssl", group: Group::Lab, evidence: Evidence::Program("openssl") },
    Package { name: "protobuf-compiler", group: Group::Lab, evidence: Evidence::Program("protoc") },
    Package { name: "python3", group: Group::Lab, evidence: Evidence::Program("python3") },
    Package { name: "python3-grpcio", group: Group::Lab, evidence: Evidence::Dpkg },
    Package { name: "python3-pip", group: Group::Lab, evidence: Evidence::Program("pip3") },
    Package { name: "python3-websockets", group: Group::Lab, evidence: Evidence::Dpkg },
    Package { name: "strace", group: Group::Lab, evidence: Evidence::Program("strace") },
    Package { name: "tshark", group: Group::Lab, evidence: Evidence::Program("tshark") },
    Package { name: "wrk", group: Group::Lab, evidence: Evidence::Program("wrk") },
];

pub(super) fn ensure(groups: &[Group]) -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|package| groups.contains(&package.group) && !is_installed(package))
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

fn install(missing: &[&str]) -> Result<()> {
    let list = missing.join(" ");
    if find_program("apt-get").is_none() {
        bail!("there is no apt-get here; install the equivalents of these Debian packages: {list}");
    }
    require_root(
        "installing packages",
        &format!("apt-get install --no-install-recommends {list}"),
    )?;
    let update = Step { command: "setup", what: "refreshing package lists" }
        .run_logged("setup-apt-update", &mut apt_get(&["update"]));
    if let Err(error) = update {
        // One unreachable repository is no reason to stop while the packages are in another.
        eprintln!("setup: {error}; going on with the lists as they are");
    }
    let mut apt = apt_get(&["install", "--yes", "--no-install-recommends"]);
    Step { command: "setup", what: &format!("installing {list}") }
        .run_logged("setup-apt", apt.args(missing))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        // Another apt-get, such as unattended-upgrades, may hold the lock for a while.
        .args(["--option", "DPkg::Lock::Timeout=120"])
        // The default answers are the right ones: wireshark's is not to let users capture.
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(arguments);
    command
}

fn is_installed(package: &Package) -> bool {
    match package.evidence {
        Evidence::Program(program) => find_program(program).is_some(),
        Evidence::Dpkg => Command::new("dpkg-query")
            .args(["--show", "--showformat", "${db:Status-Status}", package.name])
            .output()
            .is_ok_and(|output| output.stdout == b"installed"),
    }
}
